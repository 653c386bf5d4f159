"""What families refuse, and the table of them in the README."""

import pathlib

import families
import numpy as np
import pytest
import torch
import transformers
from transformers.models.bloom import modeling_bloom

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.families import FAMILIES, family_of
from expertlens_jax.models.families.table import families_table
from expertlens_jax.models.layers import alibi_slopes

pytestmark = pytest.mark.compiled_quickly


def translate(config: transformers.PreTrainedConfig):
    return family_of(config).translate(config)


def test_every_family_has_a_row_in_the_parity_table():
    assert {families.make_config(case).model_type for case in families.CASES} == FAMILIES.keys()


def test_readme_holds_the_table_that_the_code_makes():
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    table = readme.split("<!-- families -->")[1].split("<!-- /families -->")[0]
    assert table.strip() == families_table(), "print(families_table()) and paste it into README.md"


def test_the_table_names_every_family_and_site():
    rows = families_table().splitlines()
    assert len(rows) == 2 + len(FAMILIES)
    for row, family in zip(rows[2:], FAMILIES.values(), strict=True):
        assert row.startswith(f"| {family.title} | `{family.model_type}` | `{family.examples[0]}`")
    gpt2, gemma2 = (rows[2 + list(FAMILIES).index(name)] for name in ("gpt2", "gemma2"))
    assert "| `attn.{q,k,v,out}` `mlp.{up,down}` | learned positions; layer norm before" in gpt2
    assert gpt2.endswith("; fused q, k, v |")
    assert "`mlp.{gate,up,down}`" in gemma2 and "sliding windows on 13 of 26 layers; soft-caps" in gemma2


def test_unknown_model_types_are_refused_with_those_there_are():
    with pytest.raises(
        UnsupportedModelError, match=r"model_type is 'mamba'.*Supported: arcee, bert, bloom, .*, gemma, .*smollm3"
    ):
        family_of(transformers.MambaConfig())
    with pytest.raises(UnsupportedModelError, match=r"'llava', .* holds a 'llama' model; save that by itself"):
        family_of(transformers.LlavaConfig())
    with pytest.raises(UnsupportedModelError, match=r"'emu3_text_model' model, which isn't supported either\. "):
        family_of(transformers.Emu3Config())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("Gemma3nConfig", "reads embeddings of its own"),
        *((name, "of a narrower latent") for name in ("DeepseekV2Config", "DeepseekV3Config", "Mistral4Config")),
        *((name, "first layers have plain MLPs") for name in ("Glm4MoeConfig", "Ernie4_5_MoeConfig")),
    ],
)
def test_families_that_do_not_fit_are_refused_with_the_reason(config, reason):
    """Rather than advised to be taken apart."""
    refused = getattr(transformers, config)()
    with pytest.raises(UnsupportedModelError) as error:
        family_of(refused)
    told = str(error.value).partition(" Supported: ")[0]
    assert told.startswith(f"the config's model_type is '{refused.model_type}', which no family of expertlens_jax")
    assert reason in told and told.endswith(".") and "save that" not in told


def test_quantised_and_heterogeneous_checkpoints_are_refused():
    config = transformers.LlamaConfig(quantization_config={"quant_method": "gptq", "bits": 5})
    with pytest.raises(UnsupportedModelError, match="llama checkpoint is quantised by gptq, .* give the original"):
        family_of(config)
    config = transformers.LlamaConfig(
        num_hidden_layers=2, per_layer_config={0: {"intermediate_size": 64}, 1: {"intermediate_size": 32}}
    )
    with pytest.raises(UnsupportedModelError, match="gives its layers different sizes"):
        family_of(config)


ALTERNATING = ["full_attention", "sliding_attention"]
REFUSED = [
    ("GPT2Config", dict(add_cross_attention=True), "add_cross_attention=True.*no encoder"),
    ("GPT2Config", dict(activation_function="mish"), "activation function is 'mish'; supported are gelu,"),
    ("OPTConfig", dict(layer_norm_elementwise_affine=False), "layer_norm_elementwise_affine=False"),
    ("BertConfig", dict(is_decoder=True), "is_decoder=True; only False"),
    ("BertConfig", dict(position_embedding_type="relative_key"), "position_embedding_type='relative_key'"),
    ("RobertaConfig", dict(is_decoder=True), "this roberta config says is_decoder=True"),
    ("RobertaConfig", dict(pad_token_id=None), "this roberta config says pad_token_id=None"),
    (
        "Mistral3Config",
        dict(text_config={"model_type": "llama"}),
        "the text_config of this mistral3 config says model_type='llama'; only 'mistral' and 'ministral3' are",
    ),
    (
        "Gemma3Config",
        dict(text_config={"model_type": "gemma2"}),
        "the text_config of this gemma3 config says model_type='gemma2'; only 'gemma3_text' is",
    ),
    (
        "Ministral3Config",
        dict(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": 0.1}),
        "say llama_4_scaling_beta=0.1 and original_max_position_embeddings=None; wanted are two numbers",
    ),
    (
        "CohereConfig",
        dict(use_qk_norm=True),
        "cohere config says use_qk_norm=True; only False .*same for all heads",
    ),
    ("Cohere2Config", dict(rotary_pct=0.5), "cohere2 config says rotary_pct=0.5; only 1.0 .*whatever the config says"),
    (
        "Gemma3Config",
        dict(text_config={"use_bidirectional_attention": True}),
        "this gemma3_text config says use_bidirectional_attention=True",
    ),
    (
        "Gemma3Config",
        dict(text_config={"final_logit_softcapping": 30.0}),
        "gemma3_text config says final_logit_softcapping=30.0; only None .*gemma3 models ignore it",
    ),
    ("Qwen3VLConfig", dict(text_config={"is_causal": False}), "qwen3_vl_text config says is_causal=False"),
    ("XLMRobertaConfig", dict(is_decoder=True), "this xlm-roberta config says is_decoder=True"),
    ("DistilBertConfig", dict(is_decoder=True), "this distilbert config says is_decoder=True"),
    ("ModernBertConfig", dict(is_causal=True), "this modernbert config says is_causal=True"),
    ("ElectraConfig", dict(is_decoder=True), "this electra config says is_decoder=True"),
    ("StableLmConfig", dict(qk_layernorm=True), "qk_layernorm=True; only False .*the same for all heads"),
    (
        "FalconConfig",
        dict(multi_query=False, num_kv_heads=8),
        "num_kv_heads=8; only 71 .*the old architecture has equally many",
    ),
    ("FalconConfig", dict(num_ln_in_parallel_attn=2), "num_ln_in_parallel_attn=2; only 1 .*old decoder architecture"),
    (
        "FalconConfig",
        dict(new_decoder_architecture=True, num_kv_heads=71, parallel_attn=False),
        "parallel_attn=False; only True .*parallel always",
    ),
    (
        "FalconConfig",
        dict(new_decoder_architecture=True, num_kv_heads=71, num_ln_in_parallel_attn=3),
        "num_ln_in_parallel_attn=3; only 2 .*or 1 for both",
    ),
    (
        "BloomConfig",
        dict(apply_residual_connection_post_layernorm=True),
        "apply_residual_connection_post_layernorm=True; only False",
    ),
    (
        "Gemma4TextConfig",
        dict(enable_moe_block=True),
        "gemma4_text config says enable_moe_block=True; only False is supported: .* or a mixture of experts, not both",
    ),
    (
        "Gemma4Config",
        dict(text_config={"use_bidirectional_attention": "all"}),
        "gemma4_text config says use_bidirectional_attention='all'; only 'vision' .*as a causal language model",
    ),
    (
        "Gemma4TextConfig",
        dict(per_layer_config={5: {"intermediate_size": 64}, 11: {"head_dim": 512}}),
        "per_layer_config of this gemma4_text config gives layers their own intermediate_size; only head_dim and",
    ),
    (
        "Gemma4TextConfig",
        dict(per_layer_config={5: {"head_dim": 512}}),
        "gives layer 11 {'head_dim': 256, .*}, and other layers of full_attention {'head_dim': 512, .* to be alike",
    ),
    (
        "Gemma4TextConfig",
        dict(global_head_dim=128),
        "layers have heads of 256 channels, .* have a window, and 128 channels .*Wanted are heads that are no wider",
    ),
    (
        "Gemma4TextConfig",
        dict(attention_k_eq_v=True, num_global_key_value_heads=3),
        "4 of them of keys, where they have a window, and 512 channels and 3 heads elsewhere. Wanted are .* a multiple",
    ),
    (
        "Gemma4TextConfig",
        dict(num_kv_shared_layers=26),
        "num_kv_shared_layers=26, and none of the layers before those is of full_attention, whose keys and values",
    ),
    (
        "Gemma4TextConfig",
        dict(num_kv_shared_layers=31),
        "num_kv_shared_layers=31; wanted is a number from 0 to 30, that of its layers",
    ),
    (
        "Llama4Config",
        dict(text_config={"interleave_moe_layer_step": 2}),
        r"llama4_text config says moe_layers=\[1, 3, .*only \[0, 1, .* experts \(interleave_moe_layer_step=2\)",
    ),
    (
        "Llama4TextConfig",
        dict(attention_chunk_size=None),
        "llama4_text config says attention_chunk_size=None; wanted is a number of tokens",
    ),
    (
        "Llama4TextConfig",
        dict(num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]),
        "layer_types of this llama4_text config hold sliding_attention; only full_attention and chunked_attention",
    ),
    ("LlamaConfig", dict(num_key_value_heads=5), "32 attention heads and 5 key-value heads.*multiple"),
    ("LlamaConfig", dict(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5.*llama models turn whole"),
    (
        "LlamaConfig",
        dict(rope_parameters={"rope_type": "proportional", "rope_theta": 1e4}),
        "rope_type is 'proportional'; supported are default, linear, dynamic, yarn, longrope, llama3",
    ),
    ("MistralConfig", dict(layer_types=["sliding_attention"] * 32), "layer_types=.*'ministral'"),
    (
        "Qwen2Config",
        dict(num_hidden_layers=2, layer_types=["full_attention", "chunked_attention"]),
        "layer_types hold chunked_attention; only full_attention and sliding_attention",
    ),
    (
        "Qwen3Config",
        dict(num_hidden_layers=2, layer_types=ALTERNATING),
        "states no sliding_window, or switches",
    ),
    ("GemmaConfig", dict(use_bidirectional_attention=True), "use_bidirectional_attention=True.*causal"),
    ("Gemma3TextConfig", dict(use_bidirectional_attention=True), "use_bidirectional_attention=True.*causal"),
    ("Gemma3TextConfig", dict(attn_logit_softcapping=50.0), "attn_logit_softcapping=50.0"),
]


@pytest.mark.parametrize(("config", "options", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_the_stack_lacks_is_refused_by_name(config, options, message):
    with pytest.raises(UnsupportedModelError, match=message):
        translate(getattr(transformers, config)(**options))


def test_alibi_slopes_are_those_of_transformers():
    """A power of two of heads, and others; BLOOM's paper has 112, Falcon-RW 32."""
    for num_heads in (1, 2, 3, 6, 8, 12, 32, 112):
        theirs = modeling_bloom._get_alibi_slopes(num_heads, torch.device("cpu")).numpy()
        np.testing.assert_allclose(alibi_slopes(num_heads), theirs, rtol=1e-6)


def test_a_stretched_context_is_as_long_as_its_scaling_makes_it():
    """Dynamic NTK and YaRN, switched on in a config that states the context from before."""

    def context(**rope):
        parameters = {"rope_theta": 1e4, **rope}
        config = transformers.LlamaConfig(max_position_embeddings=100, rope_parameters=parameters)
        return translate(config).max_tokens

    assert context(rope_type="default") == 100
    assert context(rope_type="dynamic", factor=2.0) == 200
    assert context(rope_type="yarn", factor=4.0, original_max_position_embeddings=100) == 400
    assert context(rope_type="yarn", factor=4.0, original_max_position_embeddings=20) == 100
    assert context(rope_type="linear", factor=4.0) == 100
