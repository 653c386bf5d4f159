"""Quantised checkpoints: each way of storing fewer bits is read as the numbers that it stands for.

A format is a file here. It has a `decoder`, which makes of the settings in `config.json` a function from the tensors of
a checkpoint to what they stand for: under the names, and in the shapes, that the checkpoint would have if it were not
quantised. Nothing is decoded before it is read, and of a matrix only some rows at a time.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from expertlens_jax.errors import CheckpointError, UnsupportedModelError
from expertlens_jax.models.quantised import awq, bitsandbytes, compressed_tensors, fp8, gptq, mxfp4
from expertlens_jax.models.weights import StoredTensor, Weights

Decode = Callable[[Weights], dict[str, StoredTensor]]
"""Gives the tensors that a checkpoint's stand for."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A way of quantising."""

    read: str
    """What of it is read, for messages."""
    decoder: Callable[[Mapping[str, Any]], Decode]
    """Makes a function from a checkpoint's tensors of its settings."""
    fields: tuple[str, ...]
    """The fields of settings that it reads, or that change nothing which it reads."""


FORMATS = {
    "fp8": Format("float8 e4m3, with a scale for each block or tensor", fp8.decoder, fp8.FIELDS),
    "compressed-tensors": Format(
        "float-quantized, int-quantized and naive-quantized of 8 bits, pack-quantized of 4 and 8",
        compressed_tensors.decoder,
        compressed_tensors.FIELDS,
    ),
    "bitsandbytes": Format("8 bits; nf4 and fp4 of 4 bits", bitsandbytes.decoder, bitsandbytes.FIELDS),
    "gptq": Format("2, 3, 4 and 8 bits, in the formats gptq and gptq_v2", gptq.decoder, gptq.FIELDS),
    "awq": Format("4 bits, in the version gemm", awq.decoder, awq.FIELDS),
    "mxfp4": Format("experts of gpt-oss", mxfp4.decoder, mxfp4.FIELDS),
}
"""By the `quant_method` of a config."""

DECODED = 2
"""Raise it with every change by which the same tensors and settings stand for other numbers."""


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is quantised."""

    method: str
    settings: Mapping[str, Any]
    decode: Decode

    @property
    def key(self) -> str:
        """What tells these settings, and how they are read, from others."""
        return f"{DECODED}{json.dumps(self.settings, sort_keys=True, default=str)}"

    @property
    def unknown(self) -> tuple[str, ...]:
        """What the settings say beyond what is known, as `field=value`."""
        known = ("quant_method", "method", *FORMATS[self.method].fields)
        said = ((field, value) for field, value in self.settings.items() if field not in known and value)
        return tuple(f"{field}={value!r}" for field, value in said)

    def __call__(self, weights: Weights) -> Weights:
        """Return the weights that a checkpoint's stand for."""
        return Weights(self.decode(weights), weights.where)


def check_embeddings(weights: Weights, embeddings: str) -> None:
    """Check that a checkpoint's token embeddings, a tensor of that name, aren't quantised as layers are in GPTQ.

    Raises:
      CheckpointError: they are.
    """
    packed = f"{embeddings.removesuffix('weight')}qweight"
    found = next((name for name in weights.tensors if name == packed or name.endswith(f".{packed}")), None)
    if found is not None:
        raise CheckpointError(
            f"{weights.where} holds {found}: its token embeddings are quantised, and only linear layers are read so. "
            "Give the original, in float32, float16 or bfloat16."
        )


def read_quantisation(model_type: str, stated: Any, allowed: tuple[str, ...]) -> Quantisation | None:
    """Return how a checkpoint is quantised, or None if it isn't.

    Args:
      model_type: of its config, for messages.
      stated: the config's `quantization_config`, as a mapping or an object of transformers, or None.
      allowed: the formats that are read of this family.

    Raises:
      UnsupportedModelError: it is in a way that isn't read; the message says which are.
    """
    if not stated:
        return None
    settings = dict(stated) if isinstance(stated, Mapping) else dict(stated.to_dict())
    method = settings.get("quant_method", settings.get("method"))  # as GPTQModel calls it too
    method = None if method is None else str(getattr(method, "value", method))
    if method is None and (settings.get("load_in_8bit") or settings.get("load_in_4bit")):
        method = "bitsandbytes"  # whose old configs don't say so
    read = "; ".join(f"{name} ({FORMATS[name].read})" for name in FORMATS if name in allowed) or "none"
    advice = f"Read of this family are: {read}. Or give the original, in float32, float16 or bfloat16."
    if method not in allowed:
        raise UnsupportedModelError(
            f"this {model_type} checkpoint is quantised by {method or 'a method that it does not name'}, which isn't "
            f"read. {advice}"
        )
    assert method is not None  # as it is allowed
    try:
        return Quantisation(method, settings, FORMATS[method].decoder(settings))
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"this {model_type} checkpoint is quantised by {method}, and its settings say {error}. {advice}"
        ) from None
