"""StarCoder 2 (Lozhkov et al. 2024).

- as Mistral, with layer norms, a plain MLP, and biases everywhere if the config asks for them
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama, stablelm
from expertlens_jax.models.families.family import Linear, refuse, window

if TYPE_CHECKING:
    from transformers import Starcoder2Config


STATED = {"mlp_type": "default", "norm_type": "layer_norm"}
"""What the published files say of the architecture, and transformers has in its code."""

LEFT_OVER = ("activation_function", "layer_norm_epsilon")
"""What they say besides `hidden_act` and `norm_epsilon`, which alone are read, here as in transformers."""


def translate(hf: Starcoder2Config) -> TransformerConfig:
    """Read a StarCoder 2 config."""
    for field, value in STATED.items():
        refuse(hf, field, value, "transformers' starcoder2 models are so whatever the config says")
    return llama.llama_like(
        hf,
        norm="layer",
        norm_eps=hf.norm_epsilon,
        windows=(window(hf),) * hf.num_hidden_layers,
        gated=False,
        qkv_bias=hf.use_bias,
        attention_out_bias=hf.use_bias,
        mlp_bias=hf.use_bias,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    attention = {site: linear for site, linear in llama.linears(c).items() if site.startswith("attn.")}
    mlp = "layers.{layer}.mlp."
    return attention | {"mlp.up": Linear(mlp + "c_fc"), "mlp.down": Linear(mlp + "c_proj")}


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="StarCoder 2",
    examples=("bigcode/starcoder2-3b", "bigcode/starcoder2-15b"),
    model_type="starcoder2",
    translate=translate,
    linears=linears,
    tensors=stablelm.tensors,
    fields=(
        *(field for field in llama.LLAMA_LIKE if field != "rms_norm_eps"),
        *("norm_epsilon", "use_bias", "sliding_window", *STATED, *LEFT_OVER),
    ),
)
