"""Writes a model as a Hugging Face directory: what `loading.py` reads, and transformers too."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy
import transformers

from expertlens_jax.errors import CheckpointError
from expertlens_jax.models.checkpoint import Parameter, plan_parameters
from expertlens_jax.models.expert_tensors import all_experts
from expertlens_jax.models.families import family_of

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def save_model(
    directory: pathlib.Path,
    params: Mapping[str, Any],
    hf_config: transformers.PretrainedConfig,
    tokenizer: Any,
    *,
    dtype: str = "float32",
) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files.

    Args:
      directory: is made; what it holds under these names is replaced.
      params: the `params` collection of the stack that `hf_config` translates to.
      hf_config: of a supported family.
      tokenizer: a fast Hugging Face tokenizer.
      dtype: "float32" or "bfloat16", of the tensors in the file.

    Raises:
      CheckpointError: an unknown dtype, or parameters that aren't of this config's model.
      UnsupportedModelError: no family translates the config.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype!r} was given; wanted one of {', '.join(DTYPES)}.")
    tensors = stored_tensors(params, hf_config, DTYPES[dtype])
    directory.mkdir(parents=True, exist_ok=True)
    stated = hf_config.to_diff_dict() | {"dtype": dtype}
    stated.pop("quantization_config", None)  # what is written isn't quantised, whatever it was read from
    type(hf_config).from_dict(stated).save_pretrained(directory)
    safetensors.numpy.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(directory)
    vocabulary = directory / "tokenizer.json"  # written a token a line, which doubles its size
    vocabulary.write_text(json.dumps(json.loads(vocabulary.read_text()), ensure_ascii=False, separators=(",", ":")))


def stored_tensors(
    params: Mapping[str, Any], hf_config: transformers.PretrainedConfig, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """Return the tensors of a checkpoint by their Hugging Face names: the inverse of `checkpoint.read_parameters`."""
    family = family_of(hf_config)
    plan = plan_parameters(family, family.translate(hf_config))
    leaves = {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}
    unfit = sorted(path for path in {*plan, *leaves} if path not in plan or path not in leaves)
    unfit += [path for path in plan.keys() & leaves.keys() if plan[path].shape != leaves[path].shape]
    if unfit:
        raise CheckpointError(f"the parameters aren't of this {family.model_type} config's model: {', '.join(unfit)}.")
    tensors: dict[str, np.ndarray] = {}
    for path, parameter in plan.items():
        parts = leaves[path].reshape(len(parameter.tensors), *parameter.tensor_shape)
        for place, (values, name) in enumerate(zip(parts, parameter.tensors, strict=True)):
            if not name:
                continue
            values = values[tuple(slice(0, size) for size in parameter.own_shape(place))]
            stored = family.stored_name(name)
            tensors[stored] = _write(tensors.get(stored), values.astype(dtype), parameter, plan)
    return all_experts(tensors, family)


def _write(
    stored: np.ndarray | None, values: np.ndarray, parameter: Parameter, plan: Mapping[str, Parameter]
) -> np.ndarray:
    """Return the stored tensor with this parameter's values in their place; several parameters may share one."""
    source = parameter.source
    rows = values.T if source.kernel else values
    if source.channels is None:
        return np.ascontiguousarray(rows.T if source.stored_transposed else rows)
    if stored is None:
        sharing = [other.source for other in plan.values() if other.source.tensor == source.tensor]
        height = sum(len(other.channels) for other in sharing if other.channels is not None)
        shape = (height, *rows.shape[1:])
        stored = np.empty(shape[::-1] if source.stored_transposed else shape, values.dtype)
    target = stored.T if source.stored_transposed else stored
    target[source.channels] = rows
    return stored
