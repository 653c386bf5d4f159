"""Loads a checkpoint: a Hugging Face directory becomes a tapped model."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import transformers
from etils import epath
from flax import traverse_util

from expertlens_jax.errors import CheckpointError, ExpertLensError, TokenizationError
from expertlens_jax.models.checkpoint import open_weights, parameter_shapes, read_parameters
from expertlens_jax.models.families import family_of
from expertlens_jax.models.model import Model
from expertlens_jax.models.transformer import Transformer

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def load_model(path: str | os.PathLike[str], *, dtype: str = "float32") -> Model:
    """Loads a model and its tokenizer from a local Hugging Face directory.

    Args:
      path: the directory, with `config.json`, the weights as safetensors (one file or shards), and a tokenizer.
      dtype: "float32" or "bfloat16", of parameters and activations; norms, softmax and pooled responses are
        float32 always.

    Raises:
      CheckpointError: the directory lacks its config or weights, or these are damaged or don't fit each other.
      UnsupportedModelError: no family translates its `model_type`.
      TokenizationError: there is no fast tokenizer, or nothing it could pad with.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype!r} was asked for; there are {', '.join(DTYPES)}.")
    directory = epath.Path(path)
    hf_config = _read_config(directory)
    family = family_of(hf_config)
    config = family.translate(hf_config)
    tokenizer = _read_tokenizer(directory)
    params = read_parameters(open_weights(directory), family, config, DTYPES[dtype])
    return Model(
        name=directory.name, family=family, config=config, params=params, tokenizer=tokenizer, dtype=dtype
    )


def randomize_weights(model: Model, seed: int) -> Model:
    """The same network with random weights, drawn as its family draws them before training.

    Kernels and embeddings are normal with the config's `initializer_range`, biases zero, norms one. This is the
    control that asks what training, as opposed to architecture and sentences, gives to the responses.

    Args:
      model: whose architecture, dtype and tokenizer to keep.
      seed: of the weights.
    """
    network = Transformer(model.config, dtype=DTYPES[model.dtype])
    token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    params = jax.jit(network.init)(jax.random.key(seed), token, mask, mask)["params"]
    return model.replace(params=params, name=f"{model.name}-random{seed}")


def _read_config(directory: epath.Path) -> Any:
    """The Hugging Face config, with transformers' defaults filled in."""
    if not (directory / "config.json").exists():
        kind = "is not a directory" if not directory.is_dir() else "has no config.json"
        raise CheckpointError(
            f"{directory} {kind}. Give a local Hugging Face model directory, as save_pretrained writes it."
        )
    try:
        return transformers.AutoConfig.from_pretrained(directory)
    except ExpertLensError:
        raise
    except Exception as error:  # transformers raises many kinds, for JSON, unknown types and bad values
        raise _config_error(directory, error) from error


def _config_error(directory: epath.Path, error: Exception) -> ExpertLensError:
    """Tells an unsupported model type from a broken file."""
    import json

    try:
        stated = json.loads((directory / "config.json").read_text())
    except json.JSONDecodeError as broken:
        return CheckpointError(f"{directory / 'config.json'} is not JSON: {broken}.")
    model_type = stated.get("model_type")
    if model_type is None:
        return CheckpointError(f"{directory / 'config.json'} states no model_type.")
    return CheckpointError(f"transformers can't read {directory / 'config.json'} ({model_type}): {error}")


def _read_tokenizer(directory: epath.Path) -> Any:
    """The fast tokenizer, able to pad."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # transformers raises many kinds for a missing or broken tokenizer
        raise TokenizationError(
            f"no tokenizer could be read from {directory}: {error} "
            "Save it beside the model with tokenizer.save_pretrained."
        ) from error
    if not tokenizer.is_fast:
        raise TokenizationError(
            f"the tokenizer in {directory} has no tokenizer.json, which is needed to tell the tokens that "
            "it adds from those of the sentence. Convert it to a fast tokenizer and save it again."
        )
    return tokenizer
