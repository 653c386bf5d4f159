"""Every field of every family's config: read as PyTorch reads it, refused by name, or shown to be without effect."""

import dataclasses
import json

import families
import hooks
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, ExpertLensWarning, UnsupportedModelError
from expertlens_jax.models.families import FAMILIES, family_of, fields
from expertlens_jax.models.scoring import score_continuations, score_words

pytestmark = pytest.mark.compiled_quickly

TOLERANCE = 1e-4  # absolute, float32, on outputs of order 1 to 10

BASES = {}
for base in families.CASES:
    BASES.setdefault(getattr(transformers, base.config).model_type, base)
BASES["stablelm"] = dataclasses.replace(BASES["stablelm"], options=BASES["stablelm"].options | dict(hidden_size=64))
BASES["phi"] = dataclasses.replace(BASES["phi"], options=BASES["phi"].options | dict(hidden_size=48))
BASES["phi3"] = dataclasses.replace(BASES["phi3"], options=families.LLAMA | dict(hidden_size=32, sliding_window=5))


def config_class(model_type: str) -> type:
    return transformers.CONFIG_MAPPING[model_type]


def stated(model_type: str, **changes) -> dict:
    """A config.json: the family's first row of the parity table, with changes."""
    options = families.stated_options(BASES[model_type])
    for field, value in changes.items():
        options[field] = options[field] | value if field == "text_config" else value
    return {"model_type": model_type} | options


def class_fields(cls: type) -> set[str]:
    """The fields of a config class, whether it is a dataclass or has them as arguments of its `__init__`."""
    own = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return own | set(cls().to_dict())


def unlisted(model_type: str, cls: type) -> set[str]:
    return class_fields(cls) - {*FAMILIES[model_type].fields, *fields.without_effect(), *fields.ELSEWHERE}


# The list


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_field_of_the_installed_config_class_is_on_a_list(model_type):
    assert not unlisted(model_type, config_class(model_type)), (
        "transformers has new fields: find out whether they change the forward pass, and read or refuse them in the "
        "family's translation, or name them in families/fields.py"
    )


def test_a_field_that_transformers_adds_is_noticed():
    """By the test above and, where it isn't at its default, by whoever loads such a config."""

    class Later(transformers.Olmo2Config):
        attention_temperature: float = 1.0

    assert unlisted("olmo2", Later) == {"attention_temperature"}
    fields.check_fields(FAMILIES["olmo2"], Later(), {"attention_temperature": 1.0})
    with pytest.raises(UnsupportedModelError, match=r"attention_temperature=0.5.*came into transformers later"):
        fields.check_fields(FAMILIES["olmo2"], Later(attention_temperature=0.5), {"attention_temperature": 0.5})


@pytest.mark.parametrize("case", families.CASES, ids=lambda case: case.name)
def test_translation_reads_only_fields_that_the_family_states(case):
    config = families.make_config(case)
    family, read = family_of(config), set()

    class Recorder:
        def __getattribute__(self, name):
            read.add(type(config).attribute_map.get(name, name))
            return getattr(config, name)

    assert family.translate(Recorder()) == family.translate(config)
    assert read <= {*family.fields, *fields.without_effect(), "standardize_rope_params", "per_layer_attributes"}


def test_no_field_is_both_without_effect_and_refused():
    assert not fields.without_effect() & fields.ELSEWHERE.keys()


READ_ELSEWHERE = {
    "gpt_oss": {"num_experts"},
    "mixtral": {"num_experts"},
    "olmoe": {"num_experts", "clip_qkv"},
    "qwen3_moe": {"num_experts"},
    "qwen2_moe": {"num_experts"},
}
"""Of the fields that the next test names, those that a family reads."""


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_changes_other_families_is_refused_by_name(model_type):
    """A value that says that nothing is changed is not."""
    config, family = config_class(model_type)(), FAMILIES[model_type]
    foreign = [name for name in fields.ELSEWHERE if name not in family.fields]
    foreign = [name for name in foreign if type(config).attribute_map.get(name, name) not in family.fields]
    wanted = {"clip_qkv", "logit_scale", "num_experts", "alibi"} - READ_ELSEWHERE.get(model_type, set())
    assert wanted - {*family.fields} <= set(foreign)
    for name in foreign:
        value = False if True in np.atleast_1d(_plain(name)) and fields.ELSEWHERE[name] == (True,) else 0.37
        with pytest.raises(UnsupportedModelError, match=rf"this {model_type} config says {name}={value!r}"):
            fields.check_fields(family, config, {name: value})
        fields.check_fields(family, config, {name: None})


def _plain(name):
    unchanged = fields.ELSEWHERE[name]
    return () if callable(unchanged) else unchanged


def test_values_that_change_nothing_pass():
    """As the files of Phi-4-mini, GPT-J, Gemma 2, Mistral and multilingual BERT state them."""
    for model_type, harmless in {
        "phi3": {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False},
        "gptj": {"rotary": True, "scale_attn_weights": True, "task_specific_params": {"a": 1}, "n_ctx": 40},
        "gemma2": {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"},
        "gemma": {"hidden_activation": None, "rope_scaling": None},
        "mistral": {"use_mrope": False, "auto_map": {"AutoConfig": "x.Y"}, "torch_dtype": "bfloat16"},
        "bert": {"position_embedding_type": "absolute", "directionality": "bidi", "pooler_type": "first_token"},
        "llama": {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 3, "temperature": 0.6},
    }.items():
        config = config_class(model_type)(**harmless)
        fields.check_fields(FAMILIES[model_type], config, harmless)


def test_what_nobody_reads_is_told():
    config = transformers.LlamaConfig()
    with pytest.warns(ExpertLensWarning, match=r"llama config says shuffle_heads=7, x='y', which neither"):
        fields.check_fields(FAMILIES["llama"], config, {"shuffle_heads": 7, "x": "y", "z": None, "w": False})


def test_rope_parameters_of_another_type_are_told():
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 24, "attention_factor": 1.3}
    with pytest.warns(ExpertLensWarning, match=r"attention_factor=1.3, which rope_type='llama3' doesn't use"):
        FAMILIES["llama"].translate(transformers.LlamaConfig(rope_parameters=rope))


def test_rope_parameters_by_layer_type_are_refused_where_layers_share_them():
    kinds = ["full_attention", "full_attention"]
    config = transformers.Qwen3Config(num_hidden_layers=2, layer_types=kinds)
    config.rope_parameters = {"full_attention": {"rope_type": "default", "rope_theta": 10.0}}
    with pytest.raises(UnsupportedModelError, match=r"rope_parameters hold full_attention.*of one kind for all layers"):
        FAMILIES["qwen3"].translate(config)


# Each field changed, against PyTorch


ROPE = {  # by one change each, since each needs others
    "rope_theta rope_scaling": {"rope_theta": 50.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
    "rope_parameters": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 100.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    "max_position_embeddings": {
        "max_position_embeddings": 13,
        "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
    },
    "original_max_position_embeddings": {
        "original_max_position_embeddings": 24,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    },
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
}
HEADS = {"is_causal": {"is_causal": False}, "tie_word_embeddings": {"tie_word_embeddings": True}}
LLAMA_LIKE = {
    "sizes": {
        "vocab_size": 89,
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "intermediate_size": 40,
    },
    "rms_norm_eps hidden_act": {"rms_norm_eps": 0.3, "hidden_act": "relu"},
    **HEADS,
    **ROPE,
}
BIASES = {"attention_bias": {"attention_bias": True}}
SLIDING = {
    "sliding_window": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2, "is_causal": False},
    "layer_types": {
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "use_sliding_window": True,
        "sliding_window": 3,
    },
}
GEMMA = {
    **LLAMA_LIKE,
    **BIASES,
    "tie_word_embeddings": {"tie_word_embeddings": False},
    "use_bidirectional_attention": {"use_bidirectional_attention": True},
}
GEMMA2 = {
    **{name: change for name, change in GEMMA.items() if name != "rms_norm_eps hidden_act"},
    "rms_norm_eps hidden_activation": {"rms_norm_eps": 0.3, "hidden_activation": "relu"},
    "caps": {"final_logit_softcapping": None, "query_pre_attn_scalar": 11},
    "attn_logit_softcapping": {"attn_logit_softcapping": 1.5},
    "sliding_window": {"sliding_window": 3, "is_causal": False},
    "layer_types": {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
}
PHI_SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
GPT = {
    "sizes": {"vocab_size": 89, "n_layer": 2, "n_embd": 36, "n_head": 3, "n_inner": 40, "n_positions": 24},
    "layer_norm_epsilon activation_function": {"layer_norm_epsilon": 0.3, "activation_function": "relu"},
    "is_causal": {"is_causal": False},
}
BERT = {
    "sizes": {
        "vocab_size": 89,
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 30,
        "type_vocab_size": 3,
    },
    "layer_norm_eps hidden_act": {"layer_norm_eps": 0.3, "hidden_act": "relu"},
    "is_causal": {"is_causal": True},
    "is_decoder": {"is_decoder": True},
    "position_embedding_type": {"position_embedding_type": "relative_key"},
}
BY_LAYER_TYPE = {
    "sizes": {**LLAMA_LIKE["sizes"], "layer_types": ["sliding_attention", "full_attention"]},
    "sliding_window": {"sliding_window": 3, "is_causal": False},
    "layer_types": {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    "rope_theta": {"rope_parameters": None, "rope_theta": 50.0},
    "rope_scaling": {"rope_parameters": None, "rope_scaling": {"rope_type": "linear", "factor": 3.0}},
    "rope_parameters": {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 50.0, "factor": 3.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
        }
    },
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    "max_position_embeddings": {"max_position_embeddings": 30},
    "original_max_position_embeddings": {"original_max_position_embeddings": 24},
}
PROPORTIONAL = {"rope_type": "proportional", "partial_rotary_factor": 0.25}
GROWS = "llama_4_scaling_beta"
GROWTH = {GROWS: 0.3, "original_max_position_embeddings": 5}
MINISTRAL3_ROPE = {
    "rope_theta": {"rope_parameters": None, "rope_theta": 50.0},
    "rope_scaling": {
        "rope_parameters": None,
        "rope_scaling": {"rope_type": "linear", "rope_theta": 50.0, "factor": 3.0, **GROWTH},
    },
    "rope_parameters": {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0, **GROWTH}},
    "llama_4_scaling_beta": {"rope_parameters": {"rope_type": "default", "original_max_position_embeddings": 5}},
    "llama_4_scaling_beta 0": {"rope_parameters": {"rope_type": "yarn", "factor": 3.0, **GROWTH, GROWS: 0.0}},
    "original_max_position_embeddings": {"original_max_position_embeddings": 24},
    "max_position_embeddings": {
        "max_position_embeddings": 13,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0, **GROWTH},
    },
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
}
COHERE = {
    **{name: change for name, change in LLAMA_LIKE.items() if name != "rms_norm_eps hidden_act"},
    **BIASES,
    "layer_norm_eps hidden_act": BERT["layer_norm_eps hidden_act"],
    "tie_word_embeddings": {"tie_word_embeddings": False},
    "logit_scale": {"logit_scale": 0.3},
}
SLIDING_ALTERNATELY = {
    "sizes": {**LLAMA_LIKE["sizes"], "layer_types": ["sliding_attention", "full_attention"]},
    "sliding_window": {"sliding_window": 3, "is_causal": False},
    "layer_types": {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    "sliding_window_pattern": {"sliding_window_pattern": 2, "layer_types": None},
}
GEMMA4 = {
    "sizes": {
        **{name: size for name, size in LLAMA_LIKE["sizes"].items() if name != "num_hidden_layers"},
        **{"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
        "num_kv_shared_layers": 0,
    },
    "rms_norm_eps hidden_activation": GEMMA2["rms_norm_eps hidden_activation"],
    "is_causal": HEADS["is_causal"],
    "tie_word_embeddings": {"tie_word_embeddings": False},
    **BIASES,
    "rope_parameters": {
        "rope_parameters": {
            "full_attention": {**PROPORTIONAL, "rope_theta": 50.0, "factor": 3.0},
            "sliding_attention": {**PROPORTIONAL, "rope_theta": 7.0, "partial_rotary_factor": 0.4},
        }
    },
    "max_position_embeddings": {"max_position_embeddings": 30},
    "rope_theta": {"rope_theta": 50.0},
    "use_bidirectional_attention": {"use_bidirectional_attention": "all"},
    "use_bidirectional_attention of images": {"use_bidirectional_attention": "vision"},
    "final_logit_softcapping": {"final_logit_softcapping": None},
    "sliding_window": {"sliding_window": 3, "is_causal": False},
    "layer_types": {"layer_types": ["full_attention"] + ["sliding_attention"] * 3 + ["full_attention"]},
    "layer_types all alike": {"layer_types": ["full_attention"] * 5},
    "global_head_dim": {"global_head_dim": 6},
    "num_global_key_value_heads": {"num_global_key_value_heads": 1},
    "attention_k_eq_v": {"attention_k_eq_v": True, "num_global_key_value_heads": 1},
    "per_layer_config": {"per_layer_config": {"1": {"head_dim": 16}, "4": {"head_dim": 16}}},
    "num_kv_shared_layers": {"num_kv_shared_layers": 1},
    "num_kv_shared_layers none": {"num_kv_shared_layers": 0, "use_double_wide_mlp": True},
    "use_double_wide_mlp": {"use_double_wide_mlp": False},
}
CHANGES = {
    "gpt2": {
        **GPT,
        "tie_word_embeddings": {"tie_word_embeddings": False},
        "add_cross_attention": {"add_cross_attention": True},
        "scale_attn_weights": {"scale_attn_weights": False},
        "scale_attn_by_inverse_layer_idx": {"scale_attn_by_inverse_layer_idx": True},
    },
    "gpt_neo": {
        "sizes": {
            "vocab_size": 89,
            "num_layers": 2,
            "hidden_size": 32,
            "num_heads": 4,
            "intermediate_size": 40,
            "max_position_embeddings": 30,
            "attention_types": [[["local", "global"], 1]],
            "window_size": 3,
        },
        "layer_norm_epsilon activation_function": GPT["layer_norm_epsilon activation_function"],
        "tie_word_embeddings": {"tie_word_embeddings": False},
        "is_causal": {"is_causal": False},
        "attention_layers": {"attention_layers": ["global"] * 4},
    },
    "gptj": {**GPT, "tie_word_embeddings": {"tie_word_embeddings": True}, "rotary_dim": {"rotary_dim": 4}},
    "gpt_neox": {
        "sizes": {
            "vocab_size": 89,
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "intermediate_size": 40,
        },
        "layer_norm_eps hidden_act": BERT["layer_norm_eps hidden_act"],
        **HEADS,
        **BIASES,
        "attention_bias": {"attention_bias": False},
        "use_parallel_residual": {"use_parallel_residual": False},
        "rotary_pct rotary_emb_base": {"rotary_pct": 0.5, "rotary_emb_base": 50.0},
        "rope_scaling": {"rope_scaling": {"type": "linear", "factor": 3.0}},
        **{name: ROPE[name] for name in ROPE if name not in ("rope_theta rope_scaling", "partial_rotary_factor")},
        "rope_theta": {"rope_theta": 50.0},
        "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    },
    "opt": {
        "sizes": {
            "vocab_size": 89,
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "ffn_dim": 40,
            "max_position_embeddings": 30,
        },
        "word_embed_proj_dim": {"word_embed_proj_dim": 16},
        "activation_function": {"activation_function": "gelu"},
        "tie_word_embeddings": {"tie_word_embeddings": False},
        "do_layer_norm_before": {"do_layer_norm_before": False},
        "_remove_final_layer_norm": {"_remove_final_layer_norm": True},
        "layer_norm_elementwise_affine": {"layer_norm_elementwise_affine": False},
        "enable_bias": {"enable_bias": False},
        "is_causal": {"is_causal": False},
    },
    "llama": {**LLAMA_LIKE, **BIASES, "mlp_bias": {"mlp_bias": True}},
    "mistral": {
        **LLAMA_LIKE,
        "sliding_window": {"sliding_window": 3, "is_causal": False},
        "sliding_window none": {"sliding_window": None},
        "layer_types": {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    },
    "llama4_text": {
        **LLAMA_LIKE,
        "sizes": LLAMA_LIKE["sizes"] | {"no_rope_layers": None, "no_rope_layer_interval": 2},
        **BIASES,
        "num_local_experts": {"num_local_experts": 5, "num_experts_per_tok": 3},
        "num_experts_per_tok": {"num_experts_per_tok": 5},
        "use_qk_norm": {"use_qk_norm": False},
        "no_rope_layers": {"no_rope_layers": [0, 1]},
        "layer_types": {"layer_types": ["full_attention", "chunked_attention"]},
        "attention_chunk_size": {"attention_chunk_size": 3},
        "attn_temperature_tuning": {"attn_temperature_tuning": False},
        "floor_scale attn_scale": {"floor_scale": 3, "attn_scale": 1.3},
        "intermediate_size_mlp": {"intermediate_size_mlp": 7},
        "moe_layers": {"moe_layers": [0]},
        "interleave_moe_layer_step": {"interleave_moe_layer_step": 2},
    },
    "llama4": {
        "text_config": {"text_config": {"hidden_size": 32, "attention_chunk_size": 4, "rms_norm_eps": 0.3}},
        "interleave_moe_layer_step": {"text_config": {"interleave_moe_layer_step": 2}},
        "head": {"text_config": {"tie_word_embeddings": True}},
        "tie_word_embeddings": {"tie_word_embeddings": True},
    },
    "ministral": {
        **LLAMA_LIKE,
        "sizes": {**LLAMA_LIKE["sizes"], "layer_types": ["sliding_attention", "full_attention"]},
        "sliding_window": {"sliding_window": 3, "is_causal": False},
        "layer_types": {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    },
    "ministral3": {
        **{name: change for name, change in LLAMA_LIKE.items() if name not in ROPE},
        **MINISTRAL3_ROPE,
        "sliding_window": {"sliding_window": 3, "is_causal": False},
        "sliding_window none": {"sliding_window": None},
        "layer_types": {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    },
    "mixtral": {
        **LLAMA_LIKE,
        "sliding_window": {"sliding_window": 3, "is_causal": False},
        "sliding_window none": {"sliding_window": None},
        "num_local_experts": {"num_local_experts": 5, "num_experts_per_tok": 3},
        "num_experts_per_tok": {"num_experts_per_tok": 5},
    },
    "olmoe": {
        **LLAMA_LIKE,
        **BIASES,
        "sizes": {name: size for name, size in LLAMA_LIKE["sizes"].items() if name != "head_dim"},
        "head_dim": {"head_dim": 12},
        "clip_qkv": {"clip_qkv": None},
        "num_experts": {"num_experts": 5, "num_experts_per_tok": 3},
        "norm_topk_prob": {"norm_topk_prob": True},
    },
    "gpt_oss": {
        **{name: change for name, change in LLAMA_LIKE.items() if name != "rms_norm_eps hidden_act"},
        "rms_norm_eps": {"rms_norm_eps": 0.3},
        "hidden_act": {"hidden_act": "relu"},
        "attention_bias": {"attention_bias": False},
        "sliding_window": {"sliding_window": 3, "is_causal": False},
        "layer_types": {"layer_types": ["full_attention", "sliding_attention"]},
        "num_local_experts": {"num_local_experts": 5, "num_experts_per_tok": 3},
        "swiglu_alpha swiglu_limit": {"swiglu_alpha": 1.1, "swiglu_limit": 0.3},
    },
    "qwen3_moe": {
        **LLAMA_LIKE,
        "sizes": LLAMA_LIKE["sizes"] | {"moe_intermediate_size": 24},
        "attention_bias": {"attention_bias": False},
        "sliding_window": {"use_sliding_window": True, "sliding_window": 3, "is_causal": False},
        "num_experts": {"num_experts": 5, "num_experts_per_tok": 3},
        "norm_topk_prob": {"norm_topk_prob": False},
        "decoder_sparse_step": {"decoder_sparse_step": 2},
        "mlp_only_layers": {"mlp_only_layers": [1]},
    },
    "qwen2_moe": {
        **LLAMA_LIKE,
        "sizes": LLAMA_LIKE["sizes"] | {"moe_intermediate_size": 24},
        "qkv_bias": {"qkv_bias": False},
        "sliding_window": {
            "use_sliding_window": True,
            "sliding_window": 3,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "num_experts": {"num_experts": 5, "num_experts_per_tok": 3},
        "max_window_layers": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
        "shared_expert_intermediate_size": {"shared_expert_intermediate_size": 9},
        "norm_topk_prob": {"norm_topk_prob": True},
        "decoder_sparse_step": {"decoder_sparse_step": 2},
        "mlp_only_layers": {"mlp_only_layers": [1]},
    },
    "qwen2": {**LLAMA_LIKE, **SLIDING, "tie_word_embeddings": {"tie_word_embeddings": False}},
    "qwen3": {**LLAMA_LIKE, **SLIDING, "attention_bias": {"attention_bias": False}},
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": {
        **{name: change for name, change in GEMMA2.items() if name not in ROPE},
        "sizes": {**LLAMA_LIKE["sizes"], "layer_types": ["sliding_attention", "full_attention"]},
        "tie_word_embeddings": {"tie_word_embeddings": True},
        "sliding_window_pattern": {"sliding_window_pattern": 2, "layer_types": None},
        "rope_theta rope_local_base_freq": {"rope_parameters": None, "rope_theta": 50.0, "rope_local_base_freq": 7.0},
        "rope_scaling": {"rope_parameters": None, "rope_scaling": {"rope_type": "linear", "factor": 3.0}},
        "rope_parameters": {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 50.0, "factor": 3.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
            }
        },
        "partial_rotary_factor": {"partial_rotary_factor": 0.5},
        "max_position_embeddings": {"max_position_embeddings": 30},
        "original_max_position_embeddings": {"original_max_position_embeddings": 24},
        "_sliding_window_pattern": {"_sliding_window_pattern": 2},
    },
    "phi": {
        "sizes": {"vocab_size": 89, "num_hidden_layers": 2, "intermediate_size": 40, **PHI_SIZES},
        "layer_norm_eps hidden_act": BERT["layer_norm_eps hidden_act"],
        **HEADS,
        **{name: {"rope_parameters": None, **change} for name, change in ROPE.items()},
        "qk_layernorm": {"qk_layernorm": True},
    },
    "phi3": {
        **{name: change for name, change in LLAMA_LIKE.items() if name not in ("sizes", "rope_theta rope_scaling")},
        "sizes": {"vocab_size": 89, "num_hidden_layers": 2, "intermediate_size": 40, **PHI_SIZES},
        "rope_theta": {"rope_theta": 50.0},
        "rope_parameter": {"rope_scaling": {"type": "linear", "factor": 3.0}},
        "rope_parameters": {
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "short_factor": [1.0, 1.1, 1.3, 1.2],
                "long_factor": [1.5, 2.0, 3.0, 4.0],
            },
        },
        "max_position_embeddings": {"max_position_embeddings": 30},
        "original_max_position_embeddings": {"original_max_position_embeddings": 24},
        "sliding_window": {"sliding_window": 3, "is_causal": False},
    },
    "olmo": {
        **{name: change for name, change in LLAMA_LIKE.items() if name != "rms_norm_eps hidden_act"},
        **BIASES,
        "hidden_act": {"hidden_act": "relu"},
        "clip_qkv": {"clip_qkv": 0.3},
    },
    "olmo2": {**LLAMA_LIKE, **BIASES},
    "olmo3": {
        **{name: change for name, change in LLAMA_LIKE.items() if name not in ROPE},
        **BIASES,
        **BY_LAYER_TYPE,
    },
    "granite": {
        **LLAMA_LIKE,
        **BIASES,
        "mlp_bias": {"mlp_bias": True},
        "multipliers": {"embedding_multiplier": 0.5, "attention_multiplier": 0.05, "logits_scaling": 0.4},
        "residual_multiplier": {"residual_multiplier": 1.3},
    },
    "granitemoe": {
        **LLAMA_LIKE,
        "attention_bias": {"attention_bias": False},
        "multipliers": {"embedding_multiplier": 0.5, "attention_multiplier": 0.05, "logits_scaling": 0.4},
        "residual_multiplier": {"residual_multiplier": 1.3},
        "num_local_experts": {"num_local_experts": 5, "num_experts_per_tok": 3},
        "num_experts_per_tok": {"num_experts_per_tok": 5},
    },
    "stablelm": {
        **{name: change for name, change in LLAMA_LIKE.items() if name not in ("sizes", "rms_norm_eps hidden_act")},
        "sizes": {**{name: size for name, size in LLAMA_LIKE["sizes"].items() if name != "head_dim"}},
        "layer_norm_eps hidden_act": BERT["layer_norm_eps hidden_act"],
        "qk_layernorm": {"qk_layernorm": True},
        "use_parallel_residual": {"use_parallel_residual": True},
        "use_qkv_bias": {"use_qkv_bias": False},
    },
    "glm": {**LLAMA_LIKE, "attention_bias": {"attention_bias": False}},
    "nemotron": {
        **{name: change for name, change in LLAMA_LIKE.items() if name != "rms_norm_eps hidden_act"},
        "norm_eps hidden_act": {"norm_eps": 0.3, "hidden_act": "silu"},
        "attention_bias": {"attention_bias": False},
        "mlp_bias": {"mlp_bias": False},
    },
    "ernie4_5": {
        **LLAMA_LIKE,
        "tie_word_embeddings": {"tie_word_embeddings": False},
        "use_bias": {"use_bias": False},
    },
    "glm4": {**LLAMA_LIKE, "attention_bias": {"attention_bias": False}},
    "seed_oss": {
        **LLAMA_LIKE,
        "attention_bias": {"attention_bias": False},
        "attention_out_bias": {"attention_out_bias": True},
        "mlp_bias": {"mlp_bias": True},
    },
    "arcee": {
        **LLAMA_LIKE,
        **BIASES,
        "rms_norm_eps hidden_act": {"rms_norm_eps": 0.3, "hidden_act": "silu"},
        "tie_word_embeddings": {"tie_word_embeddings": False},
        "mlp_bias": {"mlp_bias": False},
    },
    "starcoder2": {
        **{name: change for name, change in LLAMA_LIKE.items() if name != "rms_norm_eps hidden_act"},
        "norm_epsilon hidden_act": {"norm_epsilon": 0.3, "hidden_act": "relu"},
        "tie_word_embeddings": {"tie_word_embeddings": False},
        "use_bias": {"use_bias": False},
        "sliding_window": {"sliding_window": 3, "is_causal": False},
        "sliding_window none": {"sliding_window": None},
        "as in files": {
            **{"activation_function": "gelu", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True},
            **{"mlp_type": "default", "norm_type": "layer_norm"},
        },
        "mlp_type": {"mlp_type": "gated"},
        "norm_type": {"norm_type": "rms_norm"},
    },
    "cohere": {**COHERE, "use_qk_norm": {"use_qk_norm": True}},
    "cohere2": {
        **COHERE,
        **SLIDING_ALTERNATELY,
        "tie_word_embeddings": {"tie_word_embeddings": True},
        "as in files": {
            **{"position_embedding_type": "rope_gptj", "rotary_pct": 1.0, "use_parallel_block": True},
            **{"use_gated_activation": True, "order_of_interleaved_layers": "local_attn_first", "layer_switch": 2},
            **{"use_embedding_sharing": False, "use_parallel_embedding": False, "use_qk_norm": False},
        },
        "layer_switch": {"layer_switch": 4},
        "use_embedding_sharing": {"use_embedding_sharing": True},
        "position_embedding_type": {"position_embedding_type": "absolute"},
        "rotary_pct": {"rotary_pct": 0.5},
        "use_parallel_block": {"use_parallel_block": False},
        "use_gated_activation": {"use_gated_activation": False},
        "order_of_interleaved_layers": {"order_of_interleaved_layers": "global_attn_first"},
    },
    "exaone4": {
        **LLAMA_LIKE,
        **SLIDING_ALTERNATELY,
        "sliding_window none": {"sliding_window": None, "layer_types": ["full_attention"] * 3},
    },
    "falcon": {
        "sizes": {
            "vocab_size": 89,
            "num_hidden_layers": 2,
            "n_embed": 32,
            "num_attention_heads": 2,
            "ffn_hidden_size": 40,
        },
        "hidden_size": {"hidden_size": 32},
        "layer_norm_epsilon activation": {"layer_norm_epsilon": 0.3, "activation": "relu"},
        "is_causal": HEADS["is_causal"],
        "tie_word_embeddings": {"tie_word_embeddings": False},
        **ROPE,
        "bias": {"bias": True},
        "multi_query": {"multi_query": False},
        "num_kv_heads": {"multi_query": False, "num_kv_heads": 2},
        "parallel_attn": {"parallel_attn": False},
        "new_decoder_architecture": {"new_decoder_architecture": True, "num_kv_heads": 2},
        "one norm for both branches": {
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "num_ln_in_parallel_attn": 1,
        },
        "num_ln_in_parallel_attn": {"num_ln_in_parallel_attn": 2},
        "alibi": {"alibi": True},
    },
    "gemma3": {
        "text_config": {"text_config": {"hidden_size": 32, "query_pre_attn_scalar": 11, "rms_norm_eps": 0.3}},
        "tie_word_embeddings": {"tie_word_embeddings": False},
    },
    "gemma4_text": {
        **GEMMA4,
        "hidden_size_per_layer_input": {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
        "vocab_size_per_layer_input": {"hidden_size_per_layer_input": 3, "vocab_size_per_layer_input": 100},
        "enable_moe_block": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2},
        "num_experts": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8},
    },
    "gemma4_unified_text": {
        **GEMMA4,
        "num_global_key_value_heads": {"num_global_key_value_heads": 2},
        "attention_k_eq_v": {"attention_k_eq_v": False},
    },
    "gemma4_unified": {
        "text_config": {"text_config": {"hidden_size": 32, "rms_norm_eps": 0.3}},
        "tie_word_embeddings": {"tie_word_embeddings": False},
    },
    "gemma4": {
        "text_config": {"text_config": {"hidden_size": 32, "hidden_size_per_layer_input": 3, "rms_norm_eps": 0.3}},
        "enable_moe_block": {"text_config": {"enable_moe_block": True}},
        "tie_word_embeddings": {"tie_word_embeddings": False},
    },
    "mistral3": {
        "text_config": {"text_config": {"hidden_size": 32, "sliding_window": None}},
        "text_config of another model_type": {
            "text_config": {
                "model_type": "ministral3",
                "rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 3.0, **GROWTH},
            }
        },
        "tie_word_embeddings": {"tie_word_embeddings": True},
    },
    "qwen2_5_vl": {
        "text_config": {
            "text_config": {
                **{"use_sliding_window": True, "sliding_window": 3, "layer_types": None, "max_window_layers": 1},
                "rope_parameters": {
                    **{"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "mrope_section": [1, 1, 2]},
                    "original_max_position_embeddings": 16,
                },
            }
        },
        "tie_word_embeddings": {"tie_word_embeddings": False},
    },
    "qwen3_vl": {
        "text_config": {"text_config": {"attention_bias": True, "rms_norm_eps": 0.3, "hidden_act": "relu"}},
        "tie_word_embeddings": {"tie_word_embeddings": True},
    },
    "qwen3_vl_moe": {
        "text_config": {"text_config": {"attention_bias": False, "moe_intermediate_size": 7, "num_experts_per_tok": 3}},
        "num_experts": {"text_config": {"num_experts": 6, "rms_norm_eps": 0.3, "hidden_act": "relu"}},
        "decoder_sparse_step": {"text_config": {"decoder_sparse_step": 2}},
        "mlp_only_layers": {"text_config": {"mlp_only_layers": [1]}},
        "tie_word_embeddings": {"tie_word_embeddings": True},
    },
    "bloom": {
        "sizes": {"vocab_size": 89, "n_layer": 2, "n_embed": 32, "n_head": 4},
        "hidden_size": {"hidden_size": 24, "seq_length": 64},
        "layer_norm_epsilon": {"layer_norm_epsilon": 0.3},
        "is_causal": HEADS["is_causal"],
        "tie_word_embeddings": {"tie_word_embeddings": False},
        "apply_residual_connection_post_layernorm": {"apply_residual_connection_post_layernorm": True},
        "slow_but_exact": {"slow_but_exact": True},
    },
    "smollm3": {
        **{name: change for name, change in LLAMA_LIKE.items() if name != "sizes"},
        "sizes": {**LLAMA_LIKE["sizes"], "num_hidden_layers": 4},
        **BIASES,
        "tie_word_embeddings": {"tie_word_embeddings": False},
        "mlp_bias": {"mlp_bias": False},
        "no_rope_layers": {"no_rope_layers": [0, 1, 1, 0]},
        "no_rope_layer_interval": {"no_rope_layer_interval": 3},
        "sliding_window": {"sliding_window": 3, "is_causal": False},
        "use_sliding_window": {"use_sliding_window": False},
        "max_window_layers": {"max_window_layers": 2},
        "layer_types": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    },
    "bert": BERT,
    "roberta": {**BERT, "pad_token_id": {"pad_token_id": 5}},
    "camembert": {**BERT, "pad_token_id": {"pad_token_id": 5}},
    "xlm-roberta": {**BERT, "pad_token_id": {"pad_token_id": 5}},
    "distilbert": {
        "sizes": {
            "vocab_size": 89,
            "n_layers": 2,
            "dim": 32,
            "n_heads": 4,
            "hidden_dim": 40,
            "max_position_embeddings": 30,
        },
        "activation": {"activation": "relu"},
        "is_causal": {"is_causal": True},
        "is_decoder": {"is_decoder": True},
    },
    "modernbert": {
        "sizes": {
            **{"vocab_size": 89, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4},
            **{"intermediate_size": 40},
        },
        "norm_eps hidden_activation": {"norm_eps": 0.3, "hidden_activation": "relu"},
        "layer_norm_eps": {"layer_norm_eps": 0.3},
        "norm_bias": {"norm_bias": True},
        "attention_bias mlp_bias": {"attention_bias": True, "mlp_bias": True},
        "local_attention": {"local_attention": 9},
        "sliding_window": {"sliding_window": 2},
        "global_attn_every_n_layers": {"global_attn_every_n_layers": 2},
        "layer_types": {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]},
        "rope_theta": {"rope_parameters": None, "global_rope_theta": 50.0, "local_rope_theta": 7.0},
        "is_causal": {"is_causal": True},
        "is_decoder": {"is_decoder": True},
        **{name: BY_LAYER_TYPE[name] for name in ("rope_scaling", "rope_parameters", "partial_rotary_factor")},
        **{name: BY_LAYER_TYPE[name] for name in ("max_position_embeddings", "original_max_position_embeddings")},
    },
    "electra": {**BERT, "embedding_size": {"embedding_size": 36}},
}
"""For each family changes of its config.json, by what they change; a change may hold what it needs beside that."""

PART = "partial_rotary_factor"
CONFIG_ONLY = ("is_causal", "is_decoder", "position_embedding_type")
REFUSED = {
    "gpt2": ("add_cross_attention",),
    "gpt_neo": ("is_causal",),
    "gpt_neox": ("rope_theta", PART),
    "opt": ("layer_norm_elementwise_affine",),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "olmo", "olmo2", "olmo3", "smollm3", "granite"), (PART,)),
    **dict.fromkeys(("ministral", "seed_oss", "arcee", "exaone4", "ernie4_5"), (PART,)),
    "ministral3": (PART, "layer_types", "llama_4_scaling_beta"),
    "cohere": (PART, "use_qk_norm"),
    "cohere2": (
        *(PART, "position_embedding_type", "rotary_pct", "use_parallel_block", "use_gated_activation"),
        *("order_of_interleaved_layers", "layer_switch", "use_embedding_sharing"),
    ),
    "starcoder2": (PART, "mlp_type", "norm_type"),
    "stablelm": ("qk_layernorm",),
    "falcon": (PART, "num_kv_heads", "num_ln_in_parallel_attn"),
    "bloom": ("apply_residual_connection_post_layernorm", "slow_but_exact"),
    **dict.fromkeys(("xlm-roberta", "camembert", "electra"), CONFIG_ONLY),
    "distilbert": ("is_causal", "is_decoder"),
    "modernbert": ("is_causal", "is_decoder", "layer_norm_eps", PART),
    "mistral": (PART,),
    "mixtral": (PART, "num_experts_per_tok"),
    "granitemoe": (PART, "num_experts_per_tok"),
    "llama4_text": (*(PART, "num_experts_per_tok", "moe_layers", "interleave_moe_layer_step", "is_causal"),),
    "llama4": ("interleave_moe_layer_step", "tie_word_embeddings"),
    "olmoe": (PART, "head_dim"),
    "gpt_oss": (PART, "hidden_act"),
    "qwen3_vl_moe": ("decoder_sparse_step", "mlp_only_layers"),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe"), (PART, "decoder_sparse_step", "mlp_only_layers")),
    **dict.fromkeys(("gemma", "gemma2"), (PART, "use_bidirectional_attention")),
    "gemma3_text": (PART, "use_bidirectional_attention", "attn_logit_softcapping"),
    "gemma4_text": ("rope_theta", "use_bidirectional_attention", "enable_moe_block"),
    "gemma4_unified_text": ("rope_theta", "use_bidirectional_attention"),
    "gemma4": ("enable_moe_block",),
    "phi3": ("rope_parameter",),
    **dict.fromkeys(("bert", "roberta"), CONFIG_ONLY),
}
"""The rows that are refused by the field's name; the others are as in PyTorch."""

ROWS = [(model_type, name) for model_type, changes in CHANGES.items() for name in changes]


def test_every_field_that_is_read_is_changed_in_the_table():
    for model_type, family in FAMILIES.items():
        changed = {field for change in CHANGES[model_type].values() for field in change}
        attributes = config_class(model_type).attribute_map
        assert set(family.fields) <= {attributes.get(field, field) for field in changed}, model_type


def write_model(directory, content: dict) -> transformers.PreTrainedModel:
    """Saves a config.json as it stands, with random weights of its PyTorch model, which is returned."""
    (directory / "config.json").write_text(json.dumps(content))
    config = transformers.AutoConfig.from_pretrained(directory)
    auto = families.auto_class_of(content["model_type"])
    torch.manual_seed(0)
    attention = "sdpa" if content.get("alibi") else "eager"  # eager attention of Falcon's adds ALiBi's bias twice
    model = auto.from_config(config, attn_implementation=attention, **families.EAGER).float().eval()
    with torch.no_grad():
        for parameter in (*model.parameters(), *families.stored_buffers(model)):
            parameter.add_(torch.randn_like(parameter) * 0.15)
    tensors = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    if content["model_type"] == "llama4" and config.text_config.tie_word_embeddings:
        tensors.pop("language_model.lm_head.weight")
    safetensors.torch.save_file(tensors, directory / "model.safetensors")
    families.tokenizer().save_pretrained(directory)
    return model


def batch(width: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Three sentences, of which one fills the batch, and one each is padded left and right."""
    token_ids = np.random.default_rng(0).integers(6, families.VOCABULARY, (3, width))
    mask = np.ones(token_ids.shape, bool)
    mask[1, :7], mask[2, 9:] = False, False
    return token_ids, mask


@pytest.mark.parametrize(("model_type", "name"), ROWS, ids=lambda value: value.replace(" ", "+"))
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_changed_field_is_honoured_as_in_pytorch_or_refused_by_name(model_type, name, tmp_path):
    content = stated(model_type, **CHANGES[model_type][name])
    if name in REFUSED.get(model_type, {}):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=rf"(?s){model_type}.*{name}|{name}.*{model_type}"):
            el.load_model(tmp_path)
        return
    reference = write_model(tmp_path, content)
    token_ids, mask = batch()
    ours = np.asarray(el.load_model(tmp_path)(token_ids, mask))
    np.testing.assert_allclose(ours[mask], hooks.run(reference, token_ids, mask)[mask], atol=TOLERANCE, rtol=0)


def test_a_text_towers_fields_may_stand_among_the_others(tmp_path):
    """As in the files of Qwen2.5-VL; what stands twice must be alike, and what is wrong is told wherever it stands."""
    content = stated("qwen2_5_vl")
    flat = content | content["text_config"]
    del flat["text_config"]
    reference = write_model(tmp_path, flat | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}})
    token_ids, mask = batch()
    ours = np.asarray(el.load_model(tmp_path)(token_ids, mask))
    np.testing.assert_allclose(ours[mask], hooks.run(reference, token_ids, mask)[mask], atol=TOLERANCE, rtol=0)

    config, family = reference.config, FAMILIES["qwen2_5_vl"]
    twice = content | {"hidden_size": 32, "num_key_value_heads": 2}
    fields.check_fields(family, config, twice)
    with pytest.warns(ExpertLensWarning, match="qwen2_5_vl config says hidden_size=40, which neither"):
        fields.check_fields(family, config, twice | {"hidden_size": 40})
    for wrong in ({"text_config": {"alibi": True}}, {"alibi": True}):
        with pytest.raises(UnsupportedModelError, match=r"this qwen2_5_vl(_text)? config says alibi=True"):
            fields.check_fields(family, config, wrong)


OTHER_VALUES = {
    **dict.fromkeys(("classifier_dropout", "hidden_dropout", "dropout", "layerdrop"), 0.9),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id"), 7),
    **dict.fromkeys(("initializer_range", "init_std", "router_aux_loss_coef", "router_jitter_noise"), 0.7),
    **dict.fromkeys(("use_cache", "output_attentions", "output_hidden_states", "is_decoder"), None),
    **{"chunk_size_feed_forward": 5, "pretraining_tp": 2, "summary_type": "last", "summary_activation": "tanh"},
    **{
        "classifier_pooling": "mean",
        "classifier_activation": "relu",
        "sparse_pred_ignore_index": -1,
        "initializer_cutoff_factor": 3.0,
    },
    **{"id2label": {0: "a"}, "label2id": {"a": 0}, "problem_type": "regression", "architectures": ["Other"]},
    **{"transformers_version": "4.0.0", "_name_or_path": "another/model", "tie_word_embeddings": None},
}


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.text is None])
def test_fields_without_effect_have_none_in_pytorch(model_type):
    """All that the family's class has at once, each at another value than its default; the same weights."""
    cls, plain = config_class(model_type), stated(model_type)
    own = class_fields(cls).intersection(set().union(*fields.WITHOUT_EFFECT.values()))
    own -= {*FAMILIES[model_type].fields, "model_type", "dtype", "return_dict"}
    changes = {}
    for name in own:
        default = getattr(cls(), name)
        is_dropout = "drop" in name and name not in OTHER_VALUES
        changes[name] = 0.9 if is_dropout else OTHER_VALUES.get(name)
        if changes[name] is None:
            changes[name] = not default
    assert {"use_cache", "chunk_size_feed_forward"} & class_fields(cls) <= changes.keys()
    assert "chunk_size_feed_forward" in changes
    outputs = []
    for content in (plain, plain | changes):
        content.pop("model_type")
        auto = families.auto_class_of(model_type)
        model = auto.from_config(cls(**content), attn_implementation="eager", **families.EAGER).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.15)
        outputs.append(hooks.run(model, *batch()))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-6, rtol=0)


# Without causality

CAUSAL_ALWAYS = ("gpt_neo", "llama4_text")


@pytest.mark.parametrize(
    "model_type",
    [name for name in CHANGES if name not in (*families.ENCODER_TYPES, *families.TOWER_TYPES, *CAUSAL_ALWAYS)],
)
def test_a_model_without_causality_answers_as_pytorch_and_writes_nothing(model_type, tmp_path):
    """Every decoder that transformers makes bidirectional; with windows, where the family has them."""
    window = {"sliding_window": 3} if "sliding_window" in FAMILIES[model_type].fields else {}
    reference = write_model(tmp_path, stated(model_type, is_causal=False, **window))
    token_ids, mask = batch()
    model = el.load_model(tmp_path)
    ours = np.asarray(model(token_ids, mask))
    np.testing.assert_allclose(ours[mask], hooks.run(reference, token_ids, mask)[mask], atol=TOLERANCE, rtol=0)
    changed = token_ids.copy()
    changed[0, -1] = 4 + (token_ids[0, -1] == 4)
    assert np.abs(np.asarray(model(changed, mask))[0, -2] - ours[0, -2]).max() > 1e-3  # the future is seen

    told = rf"encoder \({model_type}, whose config.json says is_causal=false\)"
    with pytest.raises(UnsupportedModelError, match=f"{told} and predicts no next token"):
        el.generate(model, "a b", max_new_tokens=2)
    with pytest.raises(UnsupportedModelError, match=f"{told} and gives text no probability"):
        score_continuations(model, ["a"], [" b"])
    with pytest.raises(UnsupportedModelError, match=f"{told} and gives text no probability"):
        score_words(model, ["a"], ["b"])


def test_causality_that_a_config_states_or_leaves_open_is_the_same():
    for model_type in ("llama", "gpt2", "mistral"):
        cls = config_class(model_type)
        assert FAMILIES[model_type].translate(cls(is_causal=True)) == FAMILIES[model_type].translate(cls())
        assert not FAMILIES[model_type].translate(cls(is_causal=None)).causal  # as transformers reads null


def test_windows_that_are_none_are_refused():
    with pytest.raises(UnsupportedModelError, match="mistral config says sliding_window=0; wanted is a number"):
        FAMILIES["mistral"].translate(transformers.MistralConfig(sliding_window=0))
