"""What every field of a Hugging Face config does to the forward pass: honoured, refused by name, or without effect.

A family states the fields that its translation reads (`Family.fields`). What else a `config.json` may hold is here:
fields without effect on what a model computes, and fields that change what *other* models compute. The rest is told.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import transformers

from expertlens_jax.errors import ExpertLensWarning, UnsupportedModelError
from expertlens_jax.models.families.family import Family

WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "matters in training only": (
        *("resid_pdrop", "embd_pdrop", "attn_pdrop", "resid_dropout", "embed_dropout", "attention_dropout"),
        *("hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "activation_dropout"),
        *("layerdrop", "classifier_dropout", "summary_first_dropout", "summary_last_dropout"),
        *("qa_dropout", "seq_classif_dropout", "embedding_dropout", "mlp_dropout", "initializer_cutoff_factor"),
        *("sparse_prediction", "sparse_pred_ignore_index", "initializer_range", "init_std", "gradient_checkpointing"),
        *("router_aux_loss_coef", "router_jitter_noise", "residual_dropout"),
    ),
    "names special tokens, which the tokenizer tells": (
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
        *("unk_token_id", "decoder_start_token_id", "prefix", "tokenizer_class"),
    ),
    "says what is returned or kept": (
        *("use_cache", "output_attentions", "output_hidden_states", "output_past", "return_dict", "use_return_dict"),
        *("cache_implementation", "tie_last_hidden_states", "torchscript", "output_router_logits"),
    ),
    "says how to compute, not what": (
        *("chunk_size_feed_forward", "pretraining_tp", "reorder_and_upcast_attn", "use_bfloat16", "dtype"),
        *("torch_dtype", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset"),
        *("_attn_implementation_internal", "_experts_implementation_internal", "experts_implementation"),
        *("use_flash_attn", "flash_attn", "flash_rotary", "fused_dense", "attention_softmax_in_fp32"),
        *("scale_attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion"),
        *("skip_bias_add", "skip_bias_add_qkv", "offset_alibi", "deterministic_flash_attn", "reference_compile"),
        *("repad_logits_with_grad", "use_parallel_embedding"),
    ),
    "belongs to a head that isn't read": (
        *("id2label", "label2id", "num_labels", "_num_labels", "problem_type", "finetuning_task"),
        *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"),
        *("pooler_type", "directionality", "tie_word_embeddings", "tie_weights_"),
        *("decoder_bias", "classifier_pooling", "classifier_bias", "classifier_activation"),
    ),
    "is of images or sound, which aren't read": (
        *("vision_config", "image_token_id", "video_token_id", "vision_token_id", "vision_start_token_id"),
        *("vision_end_token_id", "mm_tokens_per_image", "image_token_index", "boi_token_index", "eoi_token_index"),
        *("multimodal_projector_bias", "projector_hidden_act", "spatial_merge_size", "vision_feature_layer"),
        *("audio_config", "audio_token_id", "boi_token_id", "eoi_token_id", "boa_token_id", "eoa_token_id"),
        "eoa_token_index",
    ),
    "is a note about the file": (
        *("architectures", "model_type", "_name_or_path", "name_or_path", "transformers_version", "_commit_hash"),
        *("auto_map", "custom_pipelines", "task_specific_params", "transformers.js_config", "is_llama_config"),
        *("unsloth_version", "unsloth_fixed", "n_ctx"),
    ),
    "is what decoders are anyway": ("is_decoder",),
    "says how a table is drawn that the checkpoint holds": ("sinusoidal_pos_embds",),
    "takes effect only through a field that is read or refused": ("max_window_layers",),
    "is read or refused where weights are opened": ("transformers_weights", "quantization_config", "per_layer_config"),
}
"""Fields without effect on a model in evaluation, by the reason why; unless the family reads them. Those of generation
are added by `without_effect`."""


def _head_width(hf: Any) -> int:
    return hf.hidden_size // hf.num_attention_heads


def _activation(hf: Any) -> str | None:
    """Return the activation function by whichever name the config's class has for it; None if it has none (BLOOM)."""
    names = ("hidden_activation", "hidden_act", "activation_function", "activation")
    return next((getattr(hf, name) for name in names if hasattr(type(hf)(), name)), None)


def _rope_parameters(hf: Any) -> Mapping[str, Any]:
    """Return what the config's class made of its rotary embedding's fields, by whichever names it has for them."""
    return getattr(hf, "rope_parameters", None) or {}


def _window_switched_off(hf: Any) -> Any:
    """Any window, if the config switches it off; else none."""
    return hf.sliding_window if getattr(hf, "use_sliding_window", True) is False else None


ELSEWHERE: dict[str, tuple[Any, ...] | Callable[[Any], Any]] = {
    # Who sees whom
    "is_causal": (True,),
    "use_bidirectional_attention": (),
    "is_encoder_decoder": (),
    "add_cross_attention": (),
    "sliding_window": _window_switched_off,
    "sliding_window_size": lambda hf: getattr(hf, "sliding_window", None),
    "use_sliding_window": (),
    "sliding_window_pattern": (),
    "window_size": (),
    "layer_types": lambda hf: ["full_attention"] * hf.num_hidden_layers,
    "attention_types": (),
    "attention_chunk_size": (),
    # Positions
    "position_embedding_type": ("absolute",),
    "alibi": (),
    "rotary": (True,),
    "rotary_dim": (),
    "rotary_pct": (),
    "rotary_emb_base": (),
    "rope_theta": lambda hf: _rope_parameters(hf).get("rope_theta"),
    "rope_scaling": (),
    "rope_parameters": (),
    "rope_interleaved": (),
    "rope_local_base_freq": (),
    "partial_rotary_factor": lambda hf: _rope_parameters(hf).get("partial_rotary_factor"),
    "no_rope_layers": (),
    "no_rope_layer_interval": (),
    "original_max_position_embeddings": lambda hf: getattr(hf, "max_position_embeddings", None),
    "initial_context_length": lambda hf: _rope_parameters(hf).get("original_max_position_embeddings"),
    "interpolate_factor": (1,),
    "full_attn_mod": (1,),
    "use_mrope": (),
    # Attention
    "head_dim": _head_width,
    "kv_channels": _head_width,
    "num_key_value_heads": lambda hf: hf.num_attention_heads,
    "num_kv_heads": lambda hf: hf.num_attention_heads,
    "multi_query": (),
    "clip_qkv": (),
    "qk_layernorm": (),
    "qk_norm": (),
    "use_qk_norm": (),
    "query_pre_attn_scalar": (),
    "attention_multiplier": (),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (),
    "attn_logit_softcapping": (),
    "pruned_heads": (),
    # Biases, where the family's layers have none of their own accord
    "attention_bias": (),
    "qkv_bias": (),
    "use_qkv_bias": (),
    "bias": (),
    "mlp_bias": (),
    "use_bias": (),
    "slow_but_exact": (),
    "lm_head_bias": (),
    "enable_bias": (True,),
    # Scales, norms and order
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "final_logit_softcapping": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "scale_emb": (1,),
    "scale_depth": (),
    "layer_norm_elementwise_affine": (True,),
    "do_layer_norm_before": (True,),
    "_remove_final_layer_norm": (),
    "use_parallel_residual": (),
    "parallel_attn": (),
    "num_ln_in_parallel_attn": (),
    "new_decoder_architecture": (),
    "apply_residual_connection_post_layernorm": (),
    "embedding_size": lambda hf: hf.hidden_size,
    "word_embed_proj_dim": lambda hf: hf.hidden_size,
    "type_vocab_size": (),
    # MLP
    "hidden_activation": _activation,
    "hidden_act": _activation,
    "activation_function": _activation,
    "num_experts": (1,),
    "num_local_experts": (1,),
    "n_routed_experts": (1,),
    "experts_per_token": lambda hf: getattr(hf, "num_experts_per_tok", None),
    "n_shared_experts": (),
    "shared_expert_intermediate_size": (),
    "first_k_dense_replace": (),
    "routed_scaling_factor": (1,),
    # Weights in parts
    "quantization": (),
    "compression_config": (),
}
"""Fields that change what other families' models compute. In a config of a family that doesn't read one, its value
must say that nothing is changed: None; one of those given here, to which False belongs unless True does; or what the
function makes of the config."""


NOTHING: tuple[Any, ...] = (None, False, "", [], {})
"""Values by which a field says that there is none of what it is about."""


def without_effect() -> frozenset[str]:
    """Return all fields without effect on a model in evaluation, those of generation included."""
    generation = transformers.GenerationConfig().to_dict()
    return frozenset(generation).union(*WITHOUT_EFFECT.values())


def check_fields(family: Family, hf_config: Any, stated: Mapping[str, Any]) -> None:
    """Check that no field of a `config.json` is passed over that could change what the model computes.

    Args:
      family: of the config.
      hf_config: the config as transformers reads it.
      stated: what `config.json` holds.

    Raises:
      UnsupportedModelError: a field that changes the numbers of other families' models, or that this family's config
        in the installed transformers has and the family doesn't know; named, with its value.

    Warns:
      ExpertLensWarning: fields that neither transformers nor the family know.
    """
    if family.text is not None:
        stated = _check_tower(family.text, hf_config.text_config, stated)
    harmless = without_effect()
    attributes = type(hf_config).attribute_map
    defaults = type(hf_config)().to_dict()
    unknown = []
    for key, value in stated.items():
        field = attributes.get(key, key)
        if field in family.fields or field in harmless:
            continue
        if field in ELSEWHERE:
            if not _neutral(field, value, hf_config):
                raise UnsupportedModelError(
                    f"this {family.model_type} config says {key}={value!r}, which {family.model_type} models in "
                    "transformers don't have: without it they may compute something else than its author meant. If it "
                    "has no meaning for this model, remove it from config.json."
                )
        elif field not in defaults:
            unknown += [f"{key}={value!r}"] * (value not in NOTHING)
        elif value != defaults[field]:
            raise UnsupportedModelError(
                f"this {family.model_type} config says {key}={value!r}, which expertlens_jax doesn't know yet: it "
                "came into transformers later. Only its default can be read."
            )
    if unknown:
        warnings.warn(
            f"this {family.model_type} config says {', '.join(unknown)}, which neither transformers' "
            f"{family.model_type} models nor expertlens_jax read. If the model's own code does, this is another model.",
            ExpertLensWarning,
            stacklevel=2,
        )


def _check_tower(text: Family, hf_config: Any, stated: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check what a config says of its text tower; returns the rest of what it says.

    Its fields stand in `text_config`; or, in old files of Qwen2.5-VL, among the others; or here and there, alike.
    """
    within = stated.get("text_config") or {}
    if not within and "hidden_size" in stated:  # which no model with an image part has beside its text's
        within = {field: stated[field] for field in stated if field in text.fields}
    check_fields(text, hf_config, within)
    return {field: value for field, value in stated.items() if field not in within or within[field] != value}


def _neutral(field: str, value: Any, hf_config: Any) -> bool:
    """Return whether a value says that nothing is changed."""
    unchanged = ELSEWHERE[field]
    if callable(unchanged):
        return value is None or value == unchanged(getattr(hf_config, "text_config", hf_config))
    return value is None or value in unchanged or (True not in unchanged and value in NOTHING)
