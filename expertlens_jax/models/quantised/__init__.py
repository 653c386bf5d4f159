"""Quantised checkpoints: each way of storing fewer bits is read as the numbers that it stands for.

A format is a file here. It has a `decoder`, which makes of the settings in `config.json` a function from the tensors of
a checkpoint to what they stand for: under the names, and in the shapes, that the checkpoint would have if it were not
quantised. Nothing is decoded before it is read, and of a matrix only some rows at a time.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.quantised import awq, bitsandbytes, compressed_tensors, fp8, gptq, mxfp4
from expertlens_jax.models.weights import StoredTensor, Weights

Decode = Callable[[Weights], dict[str, StoredTensor]]
"""Gives the tensors that a checkpoint's stand for."""

FORMATS: dict[str, tuple[str, Callable[[Mapping[str, Any]], Decode]]] = {
    "fp8": ("float8 e4m3, with a scale for each block or tensor", fp8.decoder),
    "compressed-tensors": (
        "float-quantized, int-quantized and naive-quantized of 8 bits, pack-quantized of 4 and 8",
        compressed_tensors.decoder,
    ),
    "bitsandbytes": ("8 bits; nf4 and fp4 of 4 bits", bitsandbytes.decoder),
    "gptq": ("2, 4 and 8 bits, in the formats gptq and gptq_v2", gptq.decoder),
    "awq": ("4 bits, in the version gemm", awq.decoder),
    "mxfp4": ("experts of gpt-oss", mxfp4.decoder),
}
"""By the `quant_method` of a config: what of it is read, for messages, and the decoder of its settings."""


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is quantised."""

    method: str
    settings: Mapping[str, Any]
    decode: Decode

    @property
    def key(self) -> str:
        """What tells these settings from others."""
        return json.dumps(self.settings, sort_keys=True, default=str)

    def __call__(self, weights: Weights) -> Weights:
        """Return the weights that a checkpoint's stand for."""
        return Weights(self.decode(weights), weights.where)


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
    method = settings.get("quant_method")
    method = None if method is None else str(getattr(method, "value", method))
    if method is None and (settings.get("load_in_8bit") or settings.get("load_in_4bit")):
        method = "bitsandbytes"  # whose old configs don't say so
    read = "; ".join(f"{name} ({FORMATS[name][0]})" for name in FORMATS if name in allowed) or "none"
    advice = f"Read of this family are: {read}. Or give the original, in float32, float16 or bfloat16."
    if method not in allowed:
        raise UnsupportedModelError(
            f"this {model_type} checkpoint is quantised by {method or 'a method that it does not name'}, which isn't "
            f"read. {advice}"
        )
    assert method is not None  # as it is allowed
    try:
        return Quantisation(method, settings, FORMATS[method][1](settings))
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"this {model_type} checkpoint is quantised by {method}, and its settings say {error}. {advice}"
        ) from None
