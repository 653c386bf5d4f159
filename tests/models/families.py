"""A small, randomly initialised Hugging Face model of every family, with sizes that catch mistakes."""

import copy
import dataclasses
import pathlib

import tokenizers
import torch
import transformers


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table: a Hugging Face config class, and options that differ from its defaults."""

    name: str
    config: str
    options: dict
    attention: str = "eager"
    """Which of transformers' implementations of attention is held against ours."""


VOCABULARY = 83
LLAMA = dict(
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=37,
    max_position_embeddings=64,
    rms_norm_eps=1e-3,
)
"""Grouped key heads, an odd MLP; most rows add a head_dim that is not hidden_size / heads."""
LLAMA_WITHOUT_EPS = {option: value for option, value in LLAMA.items() if option != "rms_norm_eps"}
STABLELM = LLAMA_WITHOUT_EPS | dict(layer_norm_eps=1e-3)
VISION = dict(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    image_size=16,
    patch_size=8,
)
VISION_OF_QWEN = dict(depth=1, hidden_size=16, intermediate_size=8, num_heads=2, out_hidden_size=32)
VISION_OF_GEMMA4 = VISION | dict(num_key_value_heads=2, head_dim=4, position_embedding_size=16)
MINISTRAL3_ROPE = {  # queries grow at the 8th and the 16th position; the longest sentences are beyond both
    **{"type": "yarn", "rope_theta": 100.0, "factor": 4.0, "beta_fast": 4.0, "beta_slow": 1.0},
    **{"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.7},
    **{"original_max_position_embeddings": 8, "max_position_embeddings": 64},
}
FALCON = dict(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    ffn_hidden_size=37,
    max_position_embeddings=64,
)
GEMMA = LLAMA | dict(num_key_value_heads=1, head_dim=10)
MIXTURE = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_experts_per_tok=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-3,
)
LLAMA4 = MIXTURE | dict(
    head_dim=6,
    intermediate_size=11,
    num_local_experts=4,
    no_rope_layers=[1, 0],
    attention_chunk_size=6,
    floor_scale=4,
    attn_scale=0.7,
    rope_parameters={"rope_type": "default", "rope_theta": 100.0},
)
GEMMA4 = LLAMA | dict(  # like E2B, small: the last two layers take keys and values of others
    head_dim=6,
    global_head_dim=12,
    num_hidden_layers=5,
    layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    num_kv_shared_layers=2,
    use_double_wide_mlp=True,
    hidden_size_per_layer_input=5,
    vocab_size_per_layer_input=90,
    sliding_window=5,
    final_logit_softcapping=3.0,
    rope_parameters={
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 1000.0},
    },
)
GEMMA4_31B = GEMMA4 | dict(  # like 31B: values that are keys, of fewer heads
    head_dim=4,
    global_head_dim=10,
    num_hidden_layers=4,
    layer_types=["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
    num_key_value_heads=4,
    num_global_key_value_heads=2,
    attention_k_eq_v=True,
    num_kv_shared_layers=0,
    hidden_size_per_layer_input=0,
    final_logit_softcapping=None,
)
GEMMA4_12B = {field: GEMMA4[field] for field in GEMMA4 if "per_layer_input" not in field}
GEMMA4_12B |= dict(attention_k_eq_v=True, num_global_key_value_heads=1)
BERT = dict(
    hidden_size=36,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=44,
    max_position_embeddings=40,
)

CASES = [
    Case("gpt2", "GPT2Config", dict(n_embd=24, n_layer=3, n_head=3, n_positions=40)),
    Case(
        "gpt2-options",
        "GPT2Config",
        dict(
            n_embd=24,
            n_layer=3,
            n_head=2,
            n_inner=37,
            n_positions=40,
            scale_attn_by_inverse_layer_idx=True,
            tie_word_embeddings=False,
            activation_function="relu",
        ),
    ),
    Case(
        "gpt_neo",  # a window shorter than the sentences, on every other layer
        "GPTNeoConfig",
        dict(
            hidden_size=24,
            num_layers=4,
            attention_types=[[["global", "local"], 2]],
            num_heads=3,
            intermediate_size=37,
            window_size=5,
            max_position_embeddings=40,
        ),
    ),
    Case("gptj", "GPTJConfig", dict(n_embd=36, n_layer=3, n_head=3, rotary_dim=8, n_positions=40)),
    Case(
        "gptj-tied",
        "GPTJConfig",
        dict(
            n_embd=24,
            n_layer=2,
            n_head=3,
            n_inner=37,
            rotary_dim=6,
            n_positions=40,
            activation_function="quick_gelu",
            tie_word_embeddings=True,
        ),
    ),
    Case(
        "gpt_neox",
        "GPTNeoXConfig",
        dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=52),
    ),
    Case(
        "gpt_neox-sequential",
        "GPTNeoXConfig",
        dict(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=31,
            use_parallel_residual=False,
            attention_bias=False,
            tie_word_embeddings=True,
            hidden_act="gelu_new",
            rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        ),
    ),
    Case(
        "opt",
        "OPTConfig",
        dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, ffn_dim=37, max_position_embeddings=40),
    ),
    Case(
        "opt-post",
        "OPTConfig",
        dict(
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            ffn_dim=37,
            max_position_embeddings=40,
            do_layer_norm_before=False,
            enable_bias=False,
            tie_word_embeddings=False,
            activation_function="gelu",
        ),
    ),
    Case(
        "opt-350m",  # token embeddings narrower than the stream
        "OPTConfig",
        dict(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=37,
            max_position_embeddings=40,
            do_layer_norm_before=False,
            word_embed_proj_dim=10,
        ),
    ),
    Case("llama", "LlamaConfig", LLAMA | dict(head_dim=10)),
    Case(
        "llama-biases",
        "LlamaConfig",
        LLAMA
        | dict(
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5},
        ),
    ),
    Case(
        "llama-llama3",
        "LlamaConfig",
        LLAMA
        | dict(
            head_dim=16,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 24,
            },
        ),
    ),
    Case(
        "llama-dynamic",  # the longest sentences are beyond the original context
        "LlamaConfig",
        LLAMA
        | dict(
            head_dim=12,
            max_position_embeddings=13,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 100.0, "factor": 3.0},
        ),
    ),
    Case(
        "llama-yarn",
        "LlamaConfig",
        LLAMA
        | dict(
            head_dim=16,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "beta_fast": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
    ),
    Case("mistral", "MistralConfig", LLAMA | dict(head_dim=10, sliding_window=5)),
    Case(
        "ministral",
        "MinistralConfig",
        LLAMA
        | dict(
            head_dim=10,
            sliding_window=5,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        ),
    ),
    Case(
        "ministral3",
        "Ministral3Config",
        LLAMA | dict(head_dim=16, sliding_window=5, rope_parameters=MINISTRAL3_ROPE),
    ),
    Case(
        "mixtral",
        "MixtralConfig",
        MIXTURE | dict(head_dim=6, intermediate_size=11, num_local_experts=4, sliding_window=5),
    ),
    Case(
        "olmoe",
        "OlmoeConfig",
        MIXTURE | dict(intermediate_size=11, num_experts=4, clip_qkv=0.8, eos_token_id=2),
    ),
    Case(
        "gpt_oss",  # the limit cuts some gates and ups off
        "GptOssConfig",
        MIXTURE
        | dict(
            head_dim=8,
            intermediate_size=11,
            num_local_experts=4,
            sliding_window=5,
            swiglu_limit=0.7,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "truncate": False,
                "original_max_position_embeddings": 16,
            },
        ),
    ),
    Case(
        "llama4_text",  # sentences of several chunks; the last layer without positions, where queries grow
        "Llama4TextConfig",
        LLAMA4,
    ),
    Case(
        "qwen3_moe",
        "Qwen3MoeConfig",
        MIXTURE | dict(head_dim=6, moe_intermediate_size=11, num_experts=4, norm_topk_prob=True, attention_bias=True),
    ),
    Case(
        "qwen2_moe",  # a shared expert; a window on one layer
        "Qwen2MoeConfig",
        MIXTURE
        | dict(
            moe_intermediate_size=11,
            num_experts=4,
            shared_expert_intermediate_size=13,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=1,
        ),
    ),
    Case(
        "qwen2",
        "Qwen2Config",
        LLAMA | dict(use_sliding_window=True, sliding_window=5, max_window_layers=1, tie_word_embeddings=True),
    ),
    Case(
        "qwen2-yarn",  # with what the config may say of it, and a context stated as before it
        "Qwen2Config",
        LLAMA
        | dict(
            hidden_size=32,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "mscale": 1.2,
                "mscale_all_dim": 0.7,
                "beta_fast": 4,
                "truncate": False,
                "original_max_position_embeddings": 64,
            },
        ),
    ),
    Case("qwen3", "Qwen3Config", LLAMA | dict(head_dim=10, attention_bias=True)),
    Case("gemma", "GemmaConfig", GEMMA),
    Case(
        "gemma2",
        "Gemma2Config",
        GEMMA
        | dict(
            sliding_window=5,
            query_pre_attn_scalar=7,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
    ),
    Case(
        "gemma3_text",
        "Gemma3TextConfig",
        GEMMA
        | dict(
            sliding_window=5,
            query_pre_attn_scalar=7,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            final_logit_softcapping=3.0,
            tie_word_embeddings=False,
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {
                    "rope_type": "yarn",
                    "rope_theta": 1000.0,
                    "factor": 4.0,
                    "beta_fast": 4.0,
                    "original_max_position_embeddings": 64,
                },
            },
        ),
    ),
    Case("gemma4_text", "Gemma4TextConfig", GEMMA4),
    Case("gemma4_unified_text", "Gemma4UnifiedTextConfig", GEMMA4_12B),
    Case("gemma4_text-31b", "Gemma4TextConfig", GEMMA4_31B | dict(attention_bias=True, tie_word_embeddings=False)),
    Case(
        "phi",
        "PhiConfig",
        dict(
            hidden_size=40,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=37,
            rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.4},
        ),
    ),
    Case(
        "phi-options",
        "PhiConfig",
        dict(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=37,
            qk_layernorm=True,
            tie_word_embeddings=True,
            max_position_embeddings=13,
            rope_parameters={
                "rope_type": "dynamic",
                "rope_theta": 100.0,
                "partial_rotary_factor": 0.5,
                "factor": 2.0,
            },
        ),
    ),
    Case(
        "phi3",
        "Phi3Config",
        LLAMA | dict(hidden_size=40, sliding_window=5, partial_rotary_factor=0.4),
    ),
    Case(
        "phi3-longrope-short",  # all sentences within the original context
        "Phi3Config",
        LLAMA
        | dict(
            hidden_size=32,
            original_max_position_embeddings=32,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "short_factor": [1.0, 1.1, 1.3, 1.2],
                "long_factor": [1.5, 2.0, 3.0, 4.0],
            },
        ),
    ),
    Case(
        "phi3-longrope-long",  # the longest sentences are beyond it
        "Phi3Config",
        LLAMA
        | dict(
            hidden_size=48,
            tie_word_embeddings=True,
            original_max_position_embeddings=13,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "partial_rotary_factor": 0.5,
                "short_factor": [1.0, 1.1, 1.3],
                "long_factor": [1.5, 2.0, 3.0],
            },
        ),
    ),
    Case("olmo", "OlmoConfig", LLAMA_WITHOUT_EPS | dict(clip_qkv=0.7)),
    Case("olmo2", "Olmo2Config", LLAMA),
    Case(
        "olmo3",
        "Olmo3Config",
        LLAMA
        | dict(
            hidden_size=32,
            sliding_window=5,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {
                    "rope_type": "yarn",
                    "rope_theta": 1000.0,
                    "factor": 4.0,
                    "beta_fast": 4.0,
                    "original_max_position_embeddings": 64,
                },
            },
        ),
    ),
    Case(
        "smollm3",  # layers 1 and 3 without positions and with a window; a factor that only turned layers get
        "SmolLM3Config",
        LLAMA
        | dict(
            hidden_size=32,
            num_hidden_layers=4,
            no_rope_layer_interval=2,
            use_sliding_window=True,
            sliding_window=5,
            mlp_bias=True,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "beta_fast": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
    ),
    Case(
        "granite",
        "GraniteConfig",
        LLAMA
        | dict(
            attention_bias=True,
            mlp_bias=True,
            embedding_multiplier=3.7,
            residual_multiplier=0.37,
            attention_multiplier=0.3,
            logits_scaling=1.7,
        ),
    ),
    Case(
        "granitemoe",
        "GraniteMoeConfig",
        MIXTURE
        | dict(
            head_dim=6,
            intermediate_size=11,
            num_local_experts=4,
            attention_bias=True,
            embedding_multiplier=3.7,
            residual_multiplier=0.37,
            attention_multiplier=0.3,
            logits_scaling=1.7,
        ),
    ),
    Case("stablelm", "StableLmConfig", STABLELM | dict(hidden_size=32, use_qkv_bias=True)),
    Case("glm", "GlmConfig", LLAMA | dict(head_dim=12)),
    Case(
        "nemotron",
        "NemotronConfig",
        LLAMA_WITHOUT_EPS | dict(norm_eps=1e-3, head_dim=12, attention_bias=True, mlp_bias=True),
    ),
    Case("ernie4_5", "Ernie4_5Config", LLAMA | dict(head_dim=10, use_bias=True)),
    Case("glm4", "Glm4Config", LLAMA | dict(head_dim=12)),
    Case("seed_oss", "SeedOssConfig", LLAMA | dict(head_dim=10)),
    Case("arcee", "ArceeConfig", LLAMA | dict(head_dim=10, mlp_bias=True, tie_word_embeddings=True)),
    Case("starcoder2", "Starcoder2Config", LLAMA_WITHOUT_EPS | dict(norm_epsilon=1e-3, sliding_window=5)),
    Case(
        "cohere",
        "CohereConfig",
        LLAMA_WITHOUT_EPS | dict(hidden_size=32, layer_norm_eps=1e-3, logit_scale=0.7, attention_bias=True),
    ),
    Case(
        "cohere2",  # the layer that sees all tokens has no positions
        "Cohere2Config",
        LLAMA_WITHOUT_EPS
        | dict(
            hidden_size=32,
            layer_norm_eps=1e-3,
            logit_scale=0.7,
            sliding_window=5,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            tie_word_embeddings=False,
        ),
    ),
    Case(
        "exaone4",  # the layer that sees all tokens has no positions
        "Exaone4Config",
        LLAMA
        | dict(
            hidden_size=32,
            sliding_window=5,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 24,
            },
        ),
    ),
    Case("falcon", "FalconConfig", FALCON),
    Case("falcon-new", "FalconConfig", FALCON | dict(new_decoder_architecture=True, num_kv_heads=2, bias=True)),
    Case(
        "falcon-alibi",  # in its eager attention transformers adds the bias twice
        "FalconConfig",
        FALCON | dict(num_attention_heads=6, multi_query=False, parallel_attn=False, alibi=True, bias=True),
        attention="sdpa",
    ),
    Case(
        "gemma3",
        "Gemma3Config",
        dict(
            text_config=GEMMA
            | dict(
                sliding_window=5,
                query_pre_attn_scalar=7,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                rope_parameters={
                    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                    "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0},
                },
            ),
            vision_config=VISION,
            mm_tokens_per_image=4,
        ),
    ),
    Case(
        "gemma4",
        "Gemma4Config",
        dict(text_config=GEMMA4, vision_config=VISION_OF_GEMMA4, audio_config=None),
    ),
    Case(
        "gemma4_unified",
        "Gemma4UnifiedConfig",
        dict(
            text_config=GEMMA4_12B,
            vision_config=dict(
                patch_size=2, pooling_kernel_size=2, mm_embed_dim=8, mm_posemb_size=8, output_proj_dims=8
            ),
            audio_config=None,
        ),
    ),
    Case(
        "mistral3",
        "Mistral3Config",
        dict(
            text_config=LLAMA | dict(model_type="mistral", head_dim=10, sliding_window=5),
            vision_config=VISION | dict(model_type="pixtral"),
            tie_word_embeddings=False,
        ),
    ),
    Case(
        "mistral3-ministral3",  # the same model_type, with another tower
        "Mistral3Config",
        dict(
            text_config=LLAMA
            | dict(model_type="ministral3", head_dim=16, rope_parameters=MINISTRAL3_ROPE, tie_word_embeddings=True),
            vision_config=VISION | dict(model_type="pixtral"),
            tie_word_embeddings=True,
        ),
    ),
    Case(
        "qwen2_5_vl",
        "Qwen2_5_VLConfig",
        dict(
            text_config=LLAMA
            | dict(
                hidden_size=32,
                bos_token_id=1,
                eos_token_id=2,
                rope_parameters={"rope_type": "default", "rope_theta": 100.0, "mrope_section": [1, 1, 2]},
            ),
            vision_config=VISION_OF_QWEN | dict(fullatt_block_indexes=[0]),
            tie_word_embeddings=True,
        ),
    ),
    Case(
        "qwen3_vl",
        "Qwen3VLConfig",
        dict(
            text_config=LLAMA
            | dict(
                head_dim=8,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 100.0,
                    "mrope_section": [2, 1, 1],
                    "mrope_interleaved": True,
                },
            ),
            vision_config=VISION_OF_QWEN | dict(out_hidden_size=24, deepstack_visual_indexes=[0]),
        ),
    ),
    Case(
        "qwen3_vl_moe",
        "Qwen3VLMoeConfig",
        dict(
            text_config=MIXTURE
            | dict(
                head_dim=8,
                moe_intermediate_size=11,
                num_experts=4,
                attention_bias=True,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 100.0,
                    "mrope_section": [2, 1, 1],
                    "mrope_interleaved": True,
                },
            ),
            vision_config=VISION_OF_QWEN | dict(out_hidden_size=16, deepstack_visual_indexes=[0]),
        ),
    ),
    Case(
        "llama4",
        "Llama4Config",
        dict(
            text_config=LLAMA4 | dict(attention_bias=True, num_experts_per_tok=1, use_qk_norm=False),
            vision_config=VISION | dict(vision_output_dim=8, projector_input_dim=8, projector_output_dim=8),
        ),
    ),
    Case("bloom", "BloomConfig", dict(hidden_size=36, n_layer=3, n_head=3)),
    Case("bert", "BertConfig", BERT),
    Case("roberta", "RobertaConfig", BERT | dict(hidden_act="gelu_new", type_vocab_size=1, pad_token_id=2)),
    Case("xlm-roberta", "XLMRobertaConfig", BERT | dict(pad_token_id=1)),
    Case("camembert", "CamembertConfig", BERT | dict(pad_token_id=1)),
    Case(
        "distilbert",
        "DistilBertConfig",
        dict(dim=36, n_layers=3, n_heads=3, hidden_dim=44, max_position_embeddings=40),
    ),
    Case("electra", "ElectraConfig", BERT | dict(embedding_size=20)),
    Case(
        "modernbert",
        "ModernBertConfig",
        dict(
            hidden_size=36,
            num_hidden_layers=4,
            num_attention_heads=3,
            intermediate_size=31,
            max_position_embeddings=64,
            local_attention=6,
            norm_eps=1e-3,
            cls_token_id=2,
            sep_token_id=3,
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        ),
    ),
]
EAGER = {"experts_implementation": "eager"}
"""Experts one by one: the other ways want sizes that are multiples of 16 bytes."""
TOWERS = (
    *("Gemma3Config", "Gemma4Config", "Gemma4UnifiedConfig", "Llama4Config", "Mistral3Config"),
    *("Qwen2_5_VLConfig", "Qwen3VLConfig", "Qwen3VLMoeConfig"),
)
ENCODERS = (
    "BertConfig",
    "RobertaConfig",
    "XLMRobertaConfig",
    "CamembertConfig",
    "DistilBertConfig",
    "ElectraConfig",
    "ModernBertConfig",
)
ENCODER_TYPES = tuple(getattr(transformers, config).model_type for config in ENCODERS)
TOWER_TYPES = tuple(getattr(transformers, config).model_type for config in TOWERS)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A word-level tokenizer of letters, digits and a few syllables, that adds CLS and SEP."""
    syllables = [consonant + vowel for consonant in "bdfklmnp" for vowel in "aeiou"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789", *syllables]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def make_config(case: Case) -> transformers.PreTrainedConfig:
    """The case's Hugging Face config; its options are copied, since configs write into them."""
    return getattr(transformers, case.config)(**stated_options(case))


def stated_options(case: Case) -> dict:
    """What the case's config states, the vocabulary too; of a text tower, within its `text_config`."""
    options, common = copy.deepcopy(case.options), dict(vocab_size=VOCABULARY, pad_token_id=0)
    if "text_config" in options:
        return options | {"text_config": common | options["text_config"]}
    return common | options


def auto_class(case: Case) -> type:
    """The class that transformers makes the case's model with."""
    return auto_class_of(getattr(transformers, case.config).model_type)


def auto_class_of(model_type: str) -> type:
    """The class that transformers makes models of a type with."""
    if model_type in ENCODER_TYPES:
        return transformers.AutoModel
    return transformers.AutoModelForImageTextToText if model_type in TOWER_TYPES else transformers.AutoModelForCausalLM


def make_hf_model(case: Case, seed: int = 0) -> transformers.PreTrainedModel:
    """The case's model in PyTorch with every parameter random, biases and norms too; float32, eval."""
    torch.manual_seed(seed)
    model = auto_class(case).from_config(make_config(case), attn_implementation=case.attention, **EAGER).eval()
    with torch.no_grad():
        for parameter in (*model.parameters(), *stored_buffers(model)):
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


def stored_buffers(model: transformers.PreTrainedModel) -> list[torch.Tensor]:
    """What transformers keeps in files beside parameters: a number of each layer of Gemma 4."""
    return [buffer for name, buffer in model.named_buffers() if name.endswith("layer_scalar")]


def load_hf_model(case: Case, directory: pathlib.Path, dtype: torch.dtype) -> transformers.PreTrainedModel:
    """The saved model as transformers loads it, in float32 or bfloat16; eval."""
    return auto_class(case).from_pretrained(directory, dtype=dtype, attn_implementation=case.attention, **EAGER).eval()


def save(model: transformers.PreTrainedModel, directory: pathlib.Path) -> pathlib.Path:
    """Writes model and tokenizer as a Hugging Face directory."""
    model.save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory
