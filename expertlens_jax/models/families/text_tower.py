"""The text towers of models that read images too: the vision part isn't read.

The config of the tower stands within the model's own, as `text_config`, and its tensors under `language_model`, which
files of different ages put at different places.
"""

import dataclasses
from typing import Any

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, refuse


def text_tower(
    text: Family,
    *others: Family,
    title: str,
    examples: tuple[str, ...],
    model_type: str,
    unread: tuple[str, ...] = (),
    prefix: str = "model.language_model.",
    head_prefix: str = "",
    head_by_tower: bool = False,
) -> Family:
    """Return the family of models whose text tower is of the family `text`, or of one of `others`.

    The other arguments are its own. `unread` are fields of the tower's config that transformers reads in text models
    only; `prefix` and `head_prefix` are where the tower and its head stand in transformers' model, and `head_by_tower`
    whether the tower's config says, and not the model's, that the head is the embedding.
    """

    def with_tower(text: Family) -> Family:
        def translate(hf: Any) -> TransformerConfig:
            """Read the config of the tower."""
            tower = hf.text_config
            for field in unread:
                refuse(tower, field, None, f"transformers' {model_type} models ignore it")
            config = text.translate(tower)
            refuse(tower, "is_causal", True, f"the text tower of {model_type} is read as a causal language model")
            if head_by_tower:
                if hf.tie_word_embeddings and not tower.tie_word_embeddings:
                    refuse(hf, "tie_word_embeddings", False, f"in {model_type} models the text_config says it")
                return config
            return dataclasses.replace(config, head="tied" if hf.tie_word_embeddings else "linear")

        return dataclasses.replace(
            text,
            title=title,
            examples=examples,
            model_type=model_type,
            translate=translate,
            prefix=prefix,
            head_prefix=head_prefix,
            other_prefixes=("language_model.model.", "language_model.", "model."),
            ignored=r"(visual|vision_tower|vision_model|audio_tower|vision_embedder|embed_vision|embed_audio|multi_modal_projector)\..*",
            fields=("text_config", "tie_word_embeddings"),
            text=text,
        )

    return dataclasses.replace(with_tower(text), others=tuple(with_tower(other) for other in others))
