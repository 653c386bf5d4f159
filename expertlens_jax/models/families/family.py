"""What a family file states: how its Hugging Face config, tensors and modules read as the one stack's."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.config import TransformerConfig


@dataclasses.dataclass(frozen=True)
class Linear:
    """Where a linear layer's output channels stand in a Hugging Face model.

    `channels` picks this site's out of a fused layer's, in the order of the site's own channels: an int
    array, or None for all of them. `transposed` tells a kernel stored `[inputs, outputs]` (GPT-2's Conv1D)
    from torch's `[outputs, inputs]`.
    """

    module: str
    channels: np.ndarray | None = None
    transposed: bool = False
    stored: str | None = None
    """What files call it, where that isn't the module's name; with `{expert}`, each expert's own layer. Of those,
    `module` is "", unless the sum over experts is what some module gives."""

    @property
    def in_files(self) -> str:
        """What files call it."""
        return self.module if self.stored is None else self.stored


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of models on the one stack; names hold `{layer}` where they differ by layer.

    `title` and `examples` (models of the hub) are for readers; `model_type` is the Hugging Face config's.
    `linears` gives for every linear site its layer; `tensors` the other parameters, from our path (see
    `transformer.py`) to the Hugging Face tensor; `block` the module whose output is the residual stream. All
    names are those of the base model: a checkpoint may have them with or without `prefix`, which the model
    with its head puts before them; files of other ages, one of `other_prefixes`. Names that start with `head_names`
    never carry the prefix, but may have one of their own, `head_prefix`. Tensors that match `ignored` (a regular
    expression) are known and not needed. Names in files that transformers has in memory otherwise are `renamed`
    (regular expressions, and what takes their place), and `expert_layers` are the names of an expert's gate, up and
    down; memory has one tensor of each for all experts, and so have files where these are `experts_together`
    (`experts_turned`: inputs before outputs; `experts_interleaved`: see `expert_tensors.py`). `quantised` are the ways
    of quantising that are read, as a config's `quant_method`: by default those of linear layers. `fields` are
    those of the Hugging Face config that `translate` reads or refuses; `fields.py` tells of all others.
    `text` is the family of the text tower: a model that reads images too has that tower's config within its own. Where
    that may be of several families, `others` are this family again, each with another.
    """

    title: str
    examples: tuple[str, ...]
    model_type: str
    translate: Callable[[Any], TransformerConfig]
    linears: Callable[[TransformerConfig], Mapping[str, Linear]]
    tensors: Callable[[TransformerConfig], Mapping[str, str]]
    block: str
    prefix: str
    fields: tuple[str, ...]
    ignored: str = ""
    encoder: bool = False
    head_names: tuple[str, ...] = ("lm_head.",)
    head_prefix: str = ""
    renamed: tuple[tuple[str, str], ...] = ()
    expert_layers: tuple[str, str, str] | None = None
    experts_together: bool = False
    experts_turned: bool = False
    experts_interleaved: bool = False
    quantised: tuple[str, ...] = ("fp8", "compressed-tensors", "bitsandbytes", "gptq", "awq")
    other_prefixes: tuple[str, ...] = ()
    text: "Family | None" = None
    others: tuple["Family", ...] = ()

    @property
    def network(self) -> str:
        """The `model_type` of the network that is read: the text tower's, where there is one."""
        return self.model_type if self.text is None else self.text.model_type

    def hf_module(self, name: str) -> str:
        """Return a base model's name as transformers' `AutoModelForCausalLM` (`AutoModel` for encoders) has it."""
        return name if self.encoder else self.prefix + name

    def stored_name(self, name: str) -> str:
        """Return a base model's tensor as it stands in files that the model with its head is saved to."""
        return (self.head_prefix if name.startswith(self.head_names) else self.prefix) + name

    def encodes(self, config: TransformerConfig) -> str:
        """Return what makes a model of this family an encoder, for errors: the family itself, or its config."""
        bidirectional = not self.encoder and not config.causal
        return f"{self.model_type}, whose config.json says is_causal=false" if bidirectional else self.model_type


WITHOUT_LANGUAGE_HEAD = re.compile(
    r"\w+For(SequenceClassification|TokenClassification|QuestionAnswering)|\w+(?<!Head)(?<!Heads)Model"
)
"""The architectures that a `config.json` names of models with another head than a language model's, or none."""

OTHER_HEADS = r"(score|classifier|qa_outputs)\..*"


def without_language_head(
    family: Family, config: TransformerConfig, architectures: Sequence[str]
) -> tuple[Family, TransformerConfig]:
    """Return the family and config of what a checkpoint holds, whose config names these `architectures`.

    A classifier, or a base model saved by itself, has no language head: its output is the last hidden state. A
    classifier's own head isn't read. A base model whose head would be its embedding has one all the same.
    """
    named = [name for name in architectures if WITHOUT_LANGUAGE_HEAD.fullmatch(name)]
    if not named or config.head is None or (named[0].endswith("Model") and config.head == "tied"):
        return family, config
    return headless(family, config, OTHER_HEADS)


def headless(family: Family, config: TransformerConfig, *heads: str) -> tuple[Family, TransformerConfig]:
    """Return the family and config of a model without a language head.

    Tensors that match one of `heads` aren't read.
    """
    ignored = "|".join(filter(None, (family.ignored, *heads)))
    config = dataclasses.replace(config, head=None, head_bias=False, logits_scale=1.0, logits_softcap=None)
    return dataclasses.replace(family, ignored=ignored), config


def concatenated(*sizes: int) -> list[np.ndarray]:
    """Return the channels of parts that stand one after the other in a fused layer, as an int array a part."""
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


def by_key_head(c: TransformerConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the channels of q, k and v in a fused layer that has each key head's queries, then its key and its value.

    Where there are as many key heads as heads, that is q, k and v interleaved head by head.
    """
    channels = np.arange((c.num_heads + 2 * c.num_kv_heads) * c.head_dim).reshape(c.num_kv_heads, -1, c.head_dim)
    return channels[:, :-2].ravel(), channels[:, -2].ravel(), channels[:, -1].ravel()


def norm_tensors(path: str, name: str, *, bias: bool = True) -> dict[str, str]:
    """Return a norm's parameters at `path` and the tensors they come from."""
    tensors = {f"{path}/scale": f"{name}.weight"}
    if bias:
        tensors[f"{path}/bias"] = f"{name}.bias"
    return tensors


def is_causal(hf: Any) -> bool:
    """Return whether a decoder's tokens see only those before them; `is_causal: false` makes it an encoder."""
    return bool(getattr(hf, "is_causal", True))


def window(hf: Any, causal: bool | None = None) -> int:
    """Return how many tokens back a layer with a window sees, itself included; 0 if the config states no window.

    `causal` is whether the model is; default, what the config says.

    Without causality it is to either side, and one more: transformers then masks distances beyond the window, in
    causal models distances from it on.

    Raises:
      UnsupportedModelError: the window isn't a number of tokens.
    """
    if hf.sliding_window is None:
        return 0
    if hf.sliding_window < 1:
        raise UnsupportedModelError(
            f"this {hf.model_type} config says sliding_window={hf.sliding_window!r}; wanted is a number of tokens, or "
            "null for none."
        )
    return hf.sliding_window + (not (is_causal(hf) if causal is None else causal))


def layer_windows(hf: Any, causal: bool | None = None) -> tuple[int, ...]:
    """Return the window of each layer, 0 where it sees all, from a config's `layer_types` and `sliding_window`.

    `causal` is as in `window`.

    Raises:
      UnsupportedModelError: a layer is of another type than full or sliding attention, or slides without a
        window.
    """
    unknown = sorted(set(hf.layer_types) - {"full_attention", "sliding_attention"})
    if unknown:
        raise UnsupportedModelError(
            f"the config's layer_types hold {', '.join(unknown)}; only full_attention and sliding_attention "
            "are supported."
        )
    if "sliding_attention" in hf.layer_types and not hf.sliding_window:
        raise UnsupportedModelError(
            "the config's layer_types hold sliding_attention, but it states no sliding_window, or switches "
            "it off with use_sliding_window=false."
        )
    windows = tuple(window(hf, causal) if kind == "sliding_attention" else 0 for kind in hf.layer_types)
    return windows if any(windows) else ()


def refuse(hf: Any, field: str, allowed: Any, reason: str) -> None:
    """Refuse a config whose `field` is there (not None) and differs from what the stack can express.

    Raises:
      UnsupportedModelError: naming the field, its value and the reason.
    """
    value = getattr(hf, field, None)
    if value is not None and value != allowed:
        raise UnsupportedModelError(
            f"this {hf.model_type} config says {field}={value!r}; only {allowed!r} is supported: {reason}."
        )
