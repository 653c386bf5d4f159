"""The families of models on the one stack, by the `model_type` of their Hugging Face config."""

from typing import Any

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.families import bert, gpt2, gpt_neox
from expertlens_jax.models.families.family import Family

FAMILIES: dict[str, Family] = {module.FAMILY.model_type: module.FAMILY for module in (bert, gpt2, gpt_neox)}


def family_of(hf_config: Any) -> Family:
    """The family of a Hugging Face config.

    Raises:
      UnsupportedModelError: no family has its `model_type`; the message lists those there are.
    """
    model_type = hf_config.model_type
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"the config's model_type is {model_type!r}, which no family of expertlens_jax translates. "
            f"Supported: {', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[model_type]
