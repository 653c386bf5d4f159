"""The families of models on the one stack, by the `model_type` of their Hugging Face config."""

from typing import Any

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.families import (
    arcee,
    bert,
    bloom,
    camembert,
    cohere,
    cohere2,
    distilbert,
    electra,
    ernie4_5,
    exaone4,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gemma3_text,
    gemma4,
    gemma4_text,
    gemma4_unified,
    gemma4_unified_text,
    glm,
    glm4,
    gpt2,
    gpt_neo,
    gpt_neox,
    gpt_oss,
    gptj,
    granite,
    granitemoe,
    llama,
    llama4,
    llama4_text,
    ministral,
    ministral3,
    mistral,
    mistral3,
    mixtral,
    modernbert,
    nemotron,
    olmo,
    olmo2,
    olmo3,
    olmoe,
    opt,
    phi,
    phi3,
    qwen2,
    qwen2_5_vl,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    qwen3_vl,
    qwen3_vl_moe,
    roberta,
    seed_oss,
    smollm3,
    stablelm,
    starcoder2,
    xlm_roberta,
)
from expertlens_jax.models.families.family import Family
from expertlens_jax.models.quantised import Quantisation, read_quantisation

FAMILIES: dict[str, Family] = {
    family.FAMILY.model_type: family.FAMILY
    for family in (
        gpt2,
        gpt_neo,
        gptj,
        gpt_neox,
        opt,
        llama,
        llama4_text,
        llama4,
        mistral,
        ministral,
        ministral3,
        mixtral,
        mistral3,
        qwen2,
        qwen2_5_vl,
        qwen2_moe,
        qwen3,
        qwen3_moe,
        qwen3_vl,
        qwen3_vl_moe,
        gemma,
        gemma2,
        gemma3_text,
        gemma3,
        gemma4_text,
        gemma4,
        gemma4_unified_text,
        gemma4_unified,
        phi,
        phi3,
        olmo,
        olmo2,
        olmoe,
        olmo3,
        gpt_oss,
        smollm3,
        granite,
        granitemoe,
        stablelm,
        glm,
        glm4,
        nemotron,
        ernie4_5,
        seed_oss,
        arcee,
        starcoder2,
        cohere,
        cohere2,
        exaone4,
        falcon,
        bloom,
        bert,
        roberta,
        xlm_roberta,
        camembert,
        distilbert,
        electra,
        modernbert,
    )
}


WHY_NOT = {
    "each of its layers reads embeddings of its own, and some take their keys and values from others": (
        *("gemma3n", "gemma3n_text"),
    ),
    "its keys and values are made of a narrower latent": ("deepseek_v2", "deepseek_v3", "mistral4"),
    "its first layers have plain MLPs, where the others have mixtures of experts": ("glm4_moe", "ernie4_5_moe"),
}
"""Of families that one might look for, what the one stack doesn't have."""
NOT_BUILT = {model_type: reason for reason, model_types in WHY_NOT.items() for model_type in model_types}


def family_of(hf_config: Any) -> Family:
    """Return the family of a Hugging Face config.

    Raises:
      UnsupportedModelError: no family has its `model_type`, or none with its text tower; the message lists those
        there are. Or its layers differ in size, or its weights are quantised in a way that isn't read.
    """
    model_type = hf_config.model_type
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"the config's model_type is {model_type!r}, which no family of expertlens_jax translates"
            f"{_why_not(hf_config)} Supported: {', '.join(sorted(FAMILIES))}."
        )
    if getattr(hf_config, "is_heterogeneous", False) and "per_layer_config" not in FAMILIES[model_type].fields:
        raise UnsupportedModelError(
            f"this {model_type} config gives its layers different sizes; the stack's are all of one size."
        )
    family = _by_tower(FAMILIES[model_type], hf_config)
    quantisation_of(hf_config, family)
    return family


def _why_not(hf_config: Any) -> str:
    """Return the end of a sentence about a model that isn't supported: what can be said of it."""
    if hf_config.model_type in NOT_BUILT:
        return f": {NOT_BUILT[hf_config.model_type]}."
    text = getattr(hf_config, "text_config", None)
    if text is None:
        return "."
    advice = "; save that by itself" if text.model_type in FAMILIES else ", which isn't supported either"
    return f". It holds a {text.model_type!r} model{advice}."


def _by_tower(family: Family, hf_config: Any) -> Family:
    """Return the family, or the one of its others, whose text tower the config has."""
    if family.text is None:
        return family
    wanted = hf_config.text_config.model_type
    towers = {each.network: each for each in (family, *family.others)}
    if wanted not in towers:
        raise UnsupportedModelError(
            f"the text_config of this {family.model_type} config says model_type={wanted!r}; only "
            f"{' and '.join(map(repr, towers))} {'are' if family.others else 'is'} supported."
        )
    return towers[wanted]


def quantisation_of(hf_config: Any, family: Family) -> Quantisation | None:
    """Return how the checkpoint of a Hugging Face config is quantised, or None if it isn't.

    Raises:
      UnsupportedModelError: it is in a way that isn't read of this family.
    """
    return read_quantisation(hf_config.model_type, getattr(hf_config, "quantization_config", None), family.quantised)
