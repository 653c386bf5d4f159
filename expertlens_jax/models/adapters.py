"""Adapters of low rank (LoRA, Hu et al. 2021, arXiv 2106.09685), as peft saves them, merged into a model's weights.

Each adapted layer's kernel W becomes W + scale * B A, with scale = alpha / rank, or alpha / sqrt(rank). What can't be
merged so plainly is refused by name.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from expertlens_jax.errors import CheckpointError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import OTHER_HEADS, Family
from expertlens_jax.models.tensor_names import base_name
from expertlens_jax.models.weights import ADAPTER_CONFIG, ADAPTER_FILES, StoredTensor, Weights, open_file

HARMLESS = frozenset(
    (
        *("auto_mapping", "base_model_name_or_path", "peft_type", "peft_version", "revision", "task_type"),
        *("inference_mode", "lora_dropout", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
        # What is adapted is seen from the tensors, and which way a layer's kernel lies from the family.
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
        *("modules_to_save", "bias"),
        # These say how an adapter is drawn before it is trained; `init_lora_weights` tells which way changes the base.
        *("eva_config", "corda_config", "loftq_config", "lora_ga_config"),
    )
)
READ = frozenset(("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights"))
DRAWN_BESIDE = (None, True, False, "gaussian", "eva", "orthogonal")
"""The values of `init_lora_weights` by which the base model's own weights stay as they are."""

CLASSIFIES = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
PREFIX = "base_model.model."


@dataclasses.dataclass(frozen=True)
class LowRank:
    """A module's change."""

    called: str
    """The module's name in the model that the adapter was trained in."""
    a: StoredTensor
    """`[rank, inputs]`."""
    b: StoredTensor
    """`[outputs, rank]`."""


@dataclasses.dataclass(frozen=True)
class Adapter:
    """What a directory holds of an adapter: its settings, and its tensors once they are needed."""

    directory: pathlib.Path
    settings: Mapping[str, Any]
    file: str

    @property
    def files(self) -> list[pathlib.Path]:
        """The files that it is read from."""
        return [self.directory / ADAPTER_CONFIG, self.directory / self.file]

    @property
    def base(self) -> str | None:
        """The model that it says it was trained on: a path or an id of the hub."""
        return self.settings.get("base_model_name_or_path")

    @property
    def classifies(self) -> bool:
        """Whether it was trained with another head than a language model's."""
        return self.settings.get("task_type") in CLASSIFIES


def has_adapter(names: Collection[str]) -> bool:
    """Return whether there are an adapter's files among those of a directory or repository."""
    return any(name in names for name in ADAPTER_FILES)


def read_adapter(where: str, directory: pathlib.Path, names: Collection[str]) -> Adapter:
    """Return a directory's adapter, once its settings are found to be mergeable. Its tensors aren't read yet.

    Args:
      where: it is, for errors.
      directory: holds `adapter_config.json`.
      names: the files there, or in the repository that it is of.

    Raises:
      CheckpointError: the settings can't be read, or say what can't be merged; names it, and says what to do.
    """
    try:
        settings = json.loads((directory / ADAPTER_CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise _unmergeable(where, names, None, f"{ADAPTER_CONFIG} can't be read ({error})") from error
    if not isinstance(settings, dict):
        raise _unmergeable(where, names, None, f"{ADAPTER_CONFIG} isn't a table of settings")
    base = settings.get("base_model_name_or_path")
    if reason := _why_not(settings):
        raise _unmergeable(where, names, base, f"{ADAPTER_CONFIG} says {reason}")
    found = [name for name in ADAPTER_FILES[1:] if name in names]
    if not found:
        raise _unmergeable(where, names, base, f"there is no {' or '.join(ADAPTER_FILES[1:])}")
    return Adapter(directory, settings, found[0])


def _why_not(settings: Mapping[str, Any]) -> str:
    """Return the first setting that can't be merged plainly, with what it says; "" if there is none."""
    if settings.get("peft_type") != "LORA":
        return f"peft_type={settings.get('peft_type')!r}; only 'LORA' is merged"
    drawn = settings.get("init_lora_weights")
    if drawn not in DRAWN_BESIDE:
        return f"init_lora_weights={drawn!r}, by which peft changes the base model too"
    for name in ("r", "lora_alpha"):
        if isinstance(settings.get(name), bool) or not isinstance(settings.get(name), int | float):
            return f"{name}={settings.get(name)!r}, which is no number"
    for name, value in settings.items():
        if name not in HARMLESS | READ and value not in (None, False, "", [], {}):
            return f"{name}={value!r}, which isn't W + scale * B A"
    return ""


def _unmergeable(where: str, names: Collection[str], base: str | None, reason: str) -> CheckpointError:
    """Return the error that an adapter can't be merged, with what to do instead."""
    found = [name for name in ADAPTER_FILES if name in names]
    changed = "the base model" if base is None else f"the base model {base}"
    merge = (
        "merge it with peft (pip install peft): PeftModel.from_pretrained(base, adapter).merge_and_unload()"
        ".save_pretrained(...), with the tokenizer beside it, and load that"
    )
    if "config.json" in names:
        return CheckpointError(
            f"{where} holds an adapter beside the model ({', '.join(found)}), which can't be merged here: {reason}. "
            f"For the model with it, {merge}. For the model without it, remove these files."
        )
    return CheckpointError(
        f"{where} holds only an adapter ({', '.join(found)}) and no config.json, and it can't be merged here: "
        f"{reason}. It changes {changed}: {merge}."
    )


def merge_adapter(weights: Weights, adapter: Adapter, family: Family, config: TransformerConfig) -> Weights:
    """Return a checkpoint's tensors with an adapter's changes, which are computed in float32 as parts are read.

    Args:
      weights: of the base model.
      adapter: from `read_adapter`.
      family: of the base model.
      config: the base model's, translated.

    Raises:
      CheckpointError: the adapter's file is damaged; it changes what the base model doesn't have; its tensors don't fit
        the layers or its settings; or it changes a head that is the embedding.
    """
    path = adapter.directory / adapter.file
    changes, replaced = _sorted_tensors(path, adapter, family)
    changed = [*replaced, *(f"{module}.weight" for module in changes)]
    places: dict[str, list[str]] = {}
    for stored in weights.tensors:
        places.setdefault(base_name(stored, family), []).append(stored)
    tensors = dict(weights.tensors)
    if strange := [name for name in changed if name not in places]:
        raise CheckpointError(
            f"{path} changes {', '.join(strange)}, which the {family.model_type} model in {weights.where} doesn't "
            "have. Is it this adapter's base model?"
        )
    named = family.tensors(config)
    tied = {named["embed/token"], named["head"]} if config.head == "tied" else set()
    if both := [name for name in changed if name in tied]:
        raise CheckpointError(
            f"{path} changes {', '.join(both)}, and in {weights.where} the head is the embedding: whether both are "
            "meant isn't said. Merge it with peft, and load what that saves."
        )
    for name, tensor in replaced.items():
        tensors |= dict.fromkeys(places[name], tensor)
    transposed = {linear.module for linear in family.linears(config).values() if linear.transposed}
    for module, change in changes.items():
        lies_transposed = re.sub(r"\.\d+\.", ".{layer}.", module, count=1) in transposed
        for stored in places[f"{module}.weight"]:
            tensors[stored] = _merged(tensors[stored], change, adapter, lies_transposed)
    return Weights(tensors, weights.where)


def _sorted_tensors(
    path: pathlib.Path, adapter: Adapter, family: Family
) -> tuple[dict[str, LowRank], dict[str, StoredTensor]]:
    """By the base model's names: the change of each adapted module, and the tensors that take the place of the model's.

    Those of parts that aren't read, such as a classifier's head, are left out.
    """
    halves: dict[str, dict[str, StoredTensor]] = {}
    replaced: dict[str, StoredTensor] = {}
    saved: list[str] = []
    ignored = "|".join(filter(None, (family.ignored, OTHER_HEADS if adapter.classifies else "")))
    for stored, tensor in open_file(path):
        called = stored.removeprefix(PREFIX).replace(".modules_to_save.", ".")
        name = base_name(called, family)
        if re.fullmatch(ignored, name):
            continue
        if match := re.fullmatch(r"(.+)\.lora_(A|B)\.weight", called):
            halves.setdefault(match[1], {})[match[2]] = tensor
        elif "lora_" in name:
            raise CheckpointError(
                f"{path} holds {stored}, which isn't an A or B of a linear layer (W + scale * B A). Merge it with "
                "peft, and load what that saves."
            )
        else:
            replaced[name] = tensor
            saved.append(called)
    if alone := [called for called, both in halves.items() if both.keys() != {"A", "B"}]:
        raise CheckpointError(f"{path} holds only A or only B of {', '.join(alone)}. Get the adapter again.")
    unsaved = [
        module
        for module in adapter.settings.get("modules_to_save") or ()
        if not re.fullmatch(OTHER_HEADS, f"{module}.") and not any(f".{module}." in f".{called}" for called in saved)
    ]
    if unsaved:
        raise CheckpointError(
            f"{path.parent / ADAPTER_CONFIG} says modules_to_save={unsaved}, and {path.name} holds nothing of "
            "them. Get the adapter again."
        )
    changes = {base_name(called, family): LowRank(called, both["A"], both["B"]) for called, both in halves.items()}
    return changes, replaced


def _merged(kernel: StoredTensor, change: LowRank, adapter: Adapter, transposed: bool) -> StoredTensor:
    """Return a kernel with its change; `[outputs, inputs]`, or if it is stored `transposed`, `[inputs, outputs]`.

    Raises:
      CheckpointError: kernel, A and B don't fit each other, or the rank in the settings.
    """
    settings, a, b = adapter.settings, change.a, change.b
    rank = _of_module(settings.get("rank_pattern"), change.called, settings["r"])
    alpha = _of_module(settings.get("alpha_pattern"), change.called, settings["lora_alpha"])
    wanted = (b.shape[0], a.shape[-1]) if not transposed else (a.shape[-1], b.shape[0])
    if len(a.shape) != 2 or len(b.shape) != 2 or {a.shape[0], b.shape[-1]} != {rank} or kernel.shape != wanted:
        raise CheckpointError(
            f"{adapter.directory / adapter.file} changes {change.called} by A {list(a.shape)} and B {list(b.shape)}; "
            f"its settings say rank {rank}, and the base model's kernel is {list(kernel.shape)}. Is it this adapter's "
            "base model?"
        )
    scale = np.float32(alpha / (rank**0.5 if settings.get("use_rslora") else rank))

    def read(index: tuple[slice, ...]) -> np.ndarray:
        outputs, inputs = index[::-1] if transposed else index
        everything = slice(0, rank)
        of_b, of_a = b.read((outputs, everything)), a.read((everything, inputs))
        added = scale * (of_b.astype(np.float32) @ of_a.astype(np.float32))
        return kernel.read(index).astype(np.float32) + (added.T if transposed else added)

    return StoredTensor(kernel.shape, "F32", read)


def _of_module(pattern: Mapping[str, Any] | None, module: str, otherwise: Any) -> Any:
    """Return what a pattern says of a module, as peft reads it.

    That is what the first key says that its name ends with, as an expression.
    """
    for key, value in (pattern or {}).items():
        if re.fullmatch(rf"(.*\.)?({key})", module):
            return value
    return otherwise
