"""The settings of SAELens's `cfg.json`: all of them known, none contradicting another.

The names are those of SAELens's SAE and runner configs from version 1 to 6 (github.com/decoderesearch/SAELens,
`sae_lens/config.py` and `sae_lens/saes`). A setting that isn't known may change the features, so it is refused.
"""

import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from expertlens_jax.errors import CheckpointError, ExpertLensWarning, UnsupportedSAEError

BY_HAND = "or build it by hand, if you know what it does: el.SAE(encoder, bias, offset, threshold, layer=, site=, k=)"
"""What is left to do with files that can't be read as they are."""

OWN_LAYER, OWN_SITE = "expertlens_layer", "expertlens_site"
"""What the SAEs that are trained here state besides, under `metadata`: where they read, in this package's words."""

OLDER = {
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
"""Names of the first versions, and what they became."""

USED = (
    "architecture activation_fn activation_fn_kwargs k apply_b_dec_to_input normalize_activations "
    "rescale_acts_by_decoder_norm reshape_activations finetuning_scaling_factor d_in d_sae d_out hook_name hook_layer "
    "hook_head_index hook_name_out hook_layer_out hook_head_index_out hf_hook_name model_name model_class_name "
    "model_from_pretrained_kwargs prepend_bos seqpos_slice "
    f"{OWN_LAYER} {OWN_SITE}"
).split()
"""Settings that say what the features are, where they are read, and on which texts."""

KINDS = {
    **dict.fromkeys("architecture activation_fn reshape_activations model_name model_class_name".split(), (str,)),
    **dict.fromkeys("hook_name hook_name_out hf_hook_name".split(), (str,)),
    **dict.fromkeys("d_in d_sae d_out hook_layer hook_layer_out hook_head_index hook_head_index_out".split(), (int,)),
    OWN_LAYER: (int,),
    OWN_SITE: (str,),
    "normalize_activations": (str, bool),
    "k": (int, float),
}
"""Of which types settings are, where anything else would be misread."""

OF_TRAINING = (
    # The data and what becomes of it: features of a given activation are the same after any.
    "dataset_path dataset_trust_remote_code streaming is_dataset_tokenized context_size use_cached_activations "
    "cached_activations_path new_cached_activations_path exclude_special_tokens disable_concat_sequences "
    "sequence_separator_token use_chat_formatting activations_mixing_fraction prefetch_llm_batches "
    "n_batches_in_buffer training_tokens total_training_tokens finetuning_tokens store_batch_size "
    "store_batch_size_prompts train_batch_size train_batch_size_tokens tokens_per_buffer n_batches_for_norm_estimate "
    "shuffle_every_n_buffers n_shuffles_with_last_section n_shuffles_in_entire_dir n_shuffles_final "
    # How weights start.
    "b_dec_init_method decoder_init_norm decoder_orthogonal_init decoder_heuristic_init "
    "decoder_heuristic_init_norm init_encoder_as_decoder_transpose expansion_factor from_pretrained_path "
    "jumprelu_init_threshold "
    # The loss: what of it matters stands in the weights.
    "l1_coefficient l1_warm_up_steps l0_coefficient l0_lambda l0_warm_up_steps lp_norm mse_loss_normalization "
    "scale_sparsity_penalty_by_decoder_norm normalize_sae_decoder noise_scale use_ghost_grads "
    "jumprelu_bandwidth jumprelu_sparsity_loss_mode jumprelu_tanh_scale pre_act_loss_coefficient aux_loss_coefficient "
    "aux_coefficient topk_threshold_lr use_sparse_activations matryoshka_widths detach_matryoshka_losses "
    "use_matryoshka_aux_loss finetuning_method "
    # The optimizer and its schedule.
    "adam_beta1 adam_beta2 lr lr_scheduler_name lr_warm_up_steps lr_end lr_decay_steps n_restart_cycles seed "
    # Dead features.
    "feature_sampling_window feature_sampling_method feature_reinit_scale resample_batches dead_feature_window "
    "dead_feature_estimation_method dead_feature_threshold dead_feature_sampling_window "
    # Where and how fast it ran; weights are read in the precision they are stored in.
    "device llm_device act_store_device dtype autocast autocast_lm compile_llm llm_compilation_mode compile_sae "
    "sae_compilation_mode model_kwargs "
    # Records.
    "hook_eval hook_point_eval n_eval_batches eval_batch_size_prompts eval_every_n_wandb_logs eval_dataset_path "
    "eval_dataset_split eval_dataset_trust_remote_code log_to_wandb log_activations_store_to_wandb "
    "log_optimizer_state_to_wandb log_weights_to_wandb wandb_project wandb_id wandb_entity wandb_log_frequency "
    "wandb_group run_name logger n_checkpoints checkpoint_path save_final_checkpoint output_path resume "
    "resume_from_checkpoint verbose sae_lens_version sae_lens_training_version neuronpedia_id "
    "release sae_id name description license url notes l0"
).split()
"""Settings that change nothing once it is trained."""

OF_LOADING = (
    # Done to the weights around what an SAE reads, in ways that leave it as it was.
    "fold_ln fold_value_biases center_unembed refactor_factored_attn_matrices "
    # How and where the model was held.
    "device n_devices move_to_device device_map dtype torch_dtype low_cpu_mem_usage attn_implementation n_ctx "
    "first_n_layers default_prepend_bos default_padding_side trust_remote_code token cache_dir local_files_only"
).split()
"""Of `model_from_pretrained_kwargs`, what leaves the outputs of blocks and branches as they are."""

WHICH_MODEL = ("revision", "checkpoint_index", "checkpoint_value")
"""Of `model_from_pretrained_kwargs`, what names one of a model's checkpoints."""

ALL_POSITIONS = ([None], [None, None], [0, None], [None, None, None], [None, None, 1])


def read_settings(file: pathlib.Path) -> dict[str, Any]:
    """Return the settings of a `cfg.json` that are stated, by today's names and without nesting.

    Args:
      file: of any version: settings side by side, or what is the model's under `metadata`.

    Raises:
      CheckpointError: it is no such file, or states a setting twice, differently.
      UnsupportedSAEError: it states a setting that isn't known, or one for what can't be done.

    Warns:
      ExpertLensWarning: the SAE was trained on some positions only, or on one of a model's checkpoints.
    """
    stated = read_json(file)
    metadata = stated.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise CheckpointError(f"metadata in {file} is {metadata!r}; wanted settings by name. Get it again.")
    settings: dict[str, Any] = {}
    for place in ({name: value for name, value in stated.items() if name != "metadata"}, metadata):
        for older, value in place.items():
            name = OLDER.get(older, older)
            if value is None:
                continue
            if settings.setdefault(name, value) != value and name in USED:
                raise CheckpointError(
                    f"{file} states {name} twice, as {settings[name]!r} and as {value!r}. Take out the wrong one."
                )
    for name, kinds in KINDS.items():
        if name in settings and type(settings[name]) not in kinds:
            raise CheckpointError(
                f"{file} says {name}={settings[name]!r}, a {type(settings[name]).__name__}; wanted "
                f"{' or '.join(kind.__name__ for kind in kinds)}."
            )
    unknown = {
        name: value for name, value in settings.items() if name not in (*USED, *OF_TRAINING) and not _is_off(value)
    }
    if unknown:
        listed = ", ".join(f"{name}={value!r}" for name, value in unknown.items())
        raise UnsupportedSAEError(
            f"{file} states {listed}, which is unknown here and may change the features. Take it out if it only "
            f"describes how the SAE was trained; {BY_HAND}."
        )
    _check_loading(file, table(settings, "model_from_pretrained_kwargs", file))
    if settings.get("seqpos_slice", [None]) not in ALL_POSITIONS:
        warnings.warn(
            ExpertLensWarning(
                f"{file} says seqpos_slice={settings['seqpos_slice']}: this SAE was trained on some positions of a "
                "text only, and is read at all of them here."
            ),
            stacklevel=4,
        )
    return settings


def _check_loading(file: pathlib.Path, arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        if name in ("center_writing_weights", *OF_LOADING) or _is_off(value):
            continue
        if name not in WHICH_MODEL:
            raise UnsupportedSAEError(
                f"{file} says that its model was loaded with {name}={value!r} (model_from_pretrained_kwargs), which is "
                f"unknown here and may change what the SAE reads. Take it out if it doesn't; {BY_HAND}."
            )
        warnings.warn(
            ExpertLensWarning(
                f"{file} says that this SAE was trained on a model loaded with {name}={value!r}: see that yours is "
                "that checkpoint."
            ),
            stacklevel=5,
        )


def _is_off(value: Any) -> bool:
    """Return whether a setting is stated as not being there."""
    return value is None or value is False or value in ("", [], {})


def flag(settings: Mapping[str, Any], name: str, default: bool, file: pathlib.Path) -> bool:
    """Return a setting that is true or false.

    Raises:
      CheckpointError: it is something else, such as "false".
    """
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"{file} says {name}={value!r}; wanted true or false.")
    return value


def table(settings: Mapping[str, Any], name: str, file: pathlib.Path) -> dict[str, Any]:
    """Return a setting that holds others by name, empty if it isn't stated.

    Raises:
      CheckpointError: it is something else.
    """
    value = settings.get(name, {})
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} says {name}={value!r}; wanted settings by name.")
    return value


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Return the settings in a file of JSON.

    Raises:
      CheckpointError: it holds something else.
    """
    try:
        stated = json.loads(path.read_text())
    except ValueError as error:  # not JSON, or not even text
        raise CheckpointError(f"{path} is not JSON: {error}. Get it again.") from error
    if not isinstance(stated, dict):
        raise CheckpointError(f"{path} holds a {type(stated).__name__}; wanted settings by name. Get it again.")
    return stated
