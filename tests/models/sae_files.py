"""Sparse autoencoders of random weights, in files as SAELens, Gemma Scope and others write them."""

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


def save_sae_lens(directory, weights, hook, *, older=False, metadata=None, tensors=None, **settings):
    """A directory as SAELens writes it: settings side by side, or with what is the model's under `metadata`.

    `tensors` stand in the file as they are, beside those of every SAE.
    """
    directory.mkdir(parents=True)
    d_in, d_sae = weights["W_enc"].shape
    of_model = {"hook_name": hook, "model_name": "gpt2", "prepend_bos": True, **(metadata or {})}
    if older and "hook_point" not in settings:
        of_model = {"model_from_pretrained_kwargs": {"center_writing_weights": False}} | of_model
    config = {"d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": "cpu", **settings}
    config |= of_model if older else {"metadata": {"sae_lens_version": "6.12.1", **of_model}}
    (directory / "cfg.json").write_text(json.dumps(config))
    kept = weights if settings.get("architecture") == "jumprelu" else {k: v for k, v in weights.items() if k[0] != "t"}
    safetensors.torch.save_file(kept | (tensors or {}), directory / "sae_weights.safetensors")
    return directory


OLDEST = {
    "architecture": None,
    "hook_point": "blocks.1.hook_resid_pre",
    "hook_point_layer": 1,
    "hook_point_head_index": None,
    "dataset_path": "Skylion007/openwebtext",
    "is_dataset_tokenized": False,
    "context_size": 128,
    "use_cached_activations": False,
    "cached_activations_path": "activations/Skylion007_openwebtext/gpt2-small/blocks.1.hook_resid_pre",
    "n_batches_in_buffer": 128,
    "total_training_tokens": 300000000,
    "store_batch_size": 32,
    "seed": 42,
    "b_dec_init_method": "geometric_median",
    "expansion_factor": 32,
    "from_pretrained_path": None,
    "l1_coefficient": 8e-05,
    "lr": 0.0004,
    "lr_scheduler_name": None,
    "lr_warm_up_steps": 5000,
    "train_batch_size": 4096,
    "use_ghost_grads": False,
    "feature_sampling_window": 500,
    "feature_sampling_method": None,
    "resample_batches": 1028,
    "feature_reinit_scale": 0.2,
    "dead_feature_window": 25000,
    "dead_feature_estimation_method": "no_fire",
    "dead_feature_threshold": 1e-08,
    "log_to_wandb": True,
    "wandb_project": "gpt2",
    "wandb_entity": None,
    "wandb_log_frequency": 100,
    "n_checkpoints": 10,
    "checkpoint_path": "checkpoints/y1t51byy",
    "tokens_per_buffer": 67108864,
}
"""What the first versions stated beside what the SAE is, as in gpt2-small-res-jb."""


def save_oldest(directory, weights):
    """A directory as of the time when hook points were called `hook_point`, with a scaling factor that does nothing."""
    ones = {"scaling_factor": torch.ones(FEATURES)}
    save_sae_lens(directory, weights, None, older=True, tensors=ones, **OLDEST)
    return directory


def save_gemma_scope(directory, weights):
    directory.mkdir(parents=True)
    np.savez(directory / "params.npz", **{name: tensor.numpy() for name, tensor in weights.items()})
    return directory


def save_gemma_scope_2(directory, weights, hook="model.layers.1.output", **stated):
    directory.mkdir(parents=True)
    tensors = {name.lower(): tensor for name, tensor in weights.items()}
    safetensors.torch.save_file(tensors, directory / "params.safetensors")
    config = {
        "hf_hook_point_in": hook,
        "hf_hook_point_out": hook,
        "width": FEATURES,
        "model_name": "google/gemma-3-1b-pt",
    }
    config |= {"architecture": "jump_relu", "l0": 10, "affine_connection": False, "type": "sae", **stated}
    (directory / "config.json").write_text(json.dumps(config))
    return directory
