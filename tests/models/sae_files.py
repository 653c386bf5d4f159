"""Sparse autoencoders of random weights, in files as SAELens and Gemma Scope write them."""

import json

import numpy as np
import safetensors.torch
import torch

FEATURES = 50


def random_weights(seed: int = 0, d_model: int = 24, features: int = FEATURES) -> dict[str, torch.Tensor]:
    """Weights as files name them, none of them zero; thresholds that about half of what is positive passes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "W_enc": draw(d_model, features),
        "W_dec": draw(features, d_model) * (0.2 + torch.rand(features, 1, generator=generator)),
        "b_enc": draw(features),
        "b_dec": draw(d_model),
        "threshold": 3 * torch.rand(features, generator=generator),
    }


def save_sae_lens(directory, weights, hook, *, older=False, metadata=None, **settings):
    """A directory as SAELens writes it: settings side by side, or with what is the model's under `metadata`."""
    directory.mkdir(parents=True)
    d_in, d_sae = weights["W_enc"].shape
    of_model = {"hook_name": hook, "model_name": "gpt2", "prepend_bos": True, **(metadata or {})}
    config = {"d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": "cpu", **settings}
    config |= of_model if older else {"metadata": {"sae_lens_version": "6.12.1", **of_model}}
    (directory / "cfg.json").write_text(json.dumps(config))
    kept = weights if settings.get("architecture") == "jumprelu" else {k: v for k, v in weights.items() if k[0] != "t"}
    safetensors.torch.save_file(kept, directory / "sae_weights.safetensors")
    return directory


def save_gemma_scope(directory, weights):
    directory.mkdir(parents=True)
    np.savez(directory / "params.npz", **{name: tensor.numpy() for name, tensor in weights.items()})
    return directory
