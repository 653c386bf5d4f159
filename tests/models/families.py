"""A small, randomly initialised Hugging Face model of every family, with sizes that catch mistakes."""

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


VOCABULARY = 83
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
        "bert",
        "BertConfig",
        dict(
            hidden_size=36,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=44,
            max_position_embeddings=40,
        ),
    ),
]


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A word-level tokenizer of letters and digits, that adds CLS and SEP."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
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


def make_hf_model(case: Case, seed: int = 0) -> transformers.PreTrainedModel:
    """The case's model in PyTorch with every parameter random, biases and norms too; float32, eval."""
    torch.manual_seed(seed)
    config = getattr(transformers, case.config)(vocab_size=VOCABULARY, **case.options)
    encoder = case.config in ("BertConfig", "RobertaConfig")
    auto = transformers.AutoModel if encoder else transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


def save(model: transformers.PreTrainedModel, directory: pathlib.Path) -> pathlib.Path:
    """Writes model and tokenizer as a Hugging Face directory."""
    model.save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory
