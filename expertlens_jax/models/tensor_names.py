"""Which stored tensor is which of the base model's, by the names that files of all ages have for it."""

import dataclasses
import pathlib
import re
import warnings
from collections.abc import Collection, Sequence

from expertlens_jax.errors import CheckpointError, ExpertLensWarning
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.expert_tensors import each_expert
from expertlens_jax.models.families.family import Family
from expertlens_jax.models.weights import StoredTensor, Weights, same_values

OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Names from the time of TensorFlow's BERT (google-bert/bert-base-uncased has them) and what they are called now."""

BUFFERS = re.compile(
    r"(.*\.)?("
    r"(rotary_emb|rotary_emb_local|rotary_pos_emb)\.\w+"  # inv_freq, cos_cached, sin_cached
    r"|(attn|self_attn|attention)\.(masked_)?bias"  # causal masks and what they are filled with
    r"|embed_positions\._float_tensor|attn\.embed_positions"
    r"|position_ids|embeddings\.token_type_ids)"
)
"""What modules of older versions kept beside their parameters, and follows from the config."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A stored tensor, with its name in the file."""

    name: str
    tensor: StoredTensor


def base_name(name: str, family: Family) -> str:
    """Return a stored tensor's name as the family's base model has it.

    A name that is none of the model's stays as it is.

    The prefix of the base model may stand before it or not; in a decoder, whose own class puts one there, also twice.
    A head goes by the first of the family's names for it. Prefixes of other ages are taken off in the family's order.
    """
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    for _ in range(1 if family.encoder else 2):
        name = name.removeprefix(family.prefix)
    for other in family.other_prefixes:
        name = name.removeprefix(other)
    for head in family.head_names[1:]:
        if name.startswith(head):
            name = family.head_names[0] + name.removeprefix(head)
    for pattern, renamed in family.renamed:
        name = re.sub(pattern, renamed, name)
    return name


def by_base_name(weights: Weights, family: Family, config: TransformerConfig) -> dict[str, Named]:
    """Return every tensor by its base model's name; buffers and what the family ignores are left out.

    Of a tied head and embedding, one may be missing: it is the other then.

    Raises:
      CheckpointError: two stored tensors are the same one of the base model, and differ.
    """
    named: dict[str, Named] = {}
    for stored in weights.tensors:
        name = base_name(stored, family)
        if BUFFERS.fullmatch(name) or re.fullmatch(family.ignored, name):
            continue
        for each, part in each_expert(stored, name, weights.tensors, family):
            if each in named and not same_values(named[each].tensor, part):
                raise CheckpointError(
                    f"{weights.where} holds {named[each].name} and {stored}, which are the same tensor of a "
                    f"{family.model_type} model, with different values. Remove the one that isn't meant."
                )
            named.setdefault(each, Named(stored, part))
    embedding, head = _tied_names(family, config)
    if config.head == "tied" and head in named:
        named.setdefault(embedding, named[head])
    return named


def settle_head(weights: Weights, family: Family, config: TransformerConfig) -> TransformerConfig:
    """Return the config with a head of its own where it says tied, but the checkpoint holds another than the embedding.

    So does transformers since version 5; before, it took the embedding.

    Raises:
      CheckpointError: as `by_base_name`.

    Warns:
      ExpertLensWarning: that this is so.
    """
    if config.head != "tied":
        return config
    named, (embedding, head) = by_base_name(weights, family, config), _tied_names(family, config)
    if head not in named or same_values(named[head].tensor, named[embedding].tensor):
        return config
    warn_of_own_head(weights.where, family, config)
    return with_own_head(config)


def with_own_head(config: TransformerConfig) -> TransformerConfig:
    """Return the config with a head of its own."""
    return dataclasses.replace(config, head="linear")


def warn_of_own_head(directory: pathlib.Path, family: Family, config: TransformerConfig) -> None:
    """Warn that a checkpoint's head is another than its config says."""
    embedding, head = _tied_names(family, config)
    warnings.warn(
        f"the config in {directory} ties the head to the embedding (tie_word_embeddings=true), but the checkpoint "
        f"holds {head} with other values than {embedding}. The head of the checkpoint is used, as transformers does "
        "from version 5 on; say tie_word_embeddings=false in config.json if that is right.",
        ExpertLensWarning,
        stacklevel=2,
    )


def _tied_names(family: Family, config: TransformerConfig) -> tuple[str, str]:
    """Return the base model's names of the embedding and of the head, which encoders don't have."""
    tensors = family.tensors(config)
    return tensors["embed/token"], tensors.get("head", "")


def wrapper_prefix(family: Family, missing: Sequence[str], stored: Collection[str]) -> str | None:
    """Return what stands before the name of every missing tensor in the file, if it is the same.

    It is what a wrapper put there.
    """
    if not missing:
        return None
    found = [name.removesuffix(missing[0]) for name in stored if name.endswith(missing[0])]
    for wrapper in sorted({prefix.removesuffix(family.prefix) for prefix in found} - {""}):
        if all(wrapper + name in stored or wrapper + family.prefix + name in stored for name in missing):
            return wrapper
    return None
