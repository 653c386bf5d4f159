"""Small trained tokenizers in the layouts that published models have: what their `tokenizer.json` holds."""

import dataclasses
import json
import pathlib
from collections.abc import Callable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "Hello world, how are you doing today? I'm fine, it's 2023 and 650841823 people don't care.",
    "The cat sat on the mat. The cats' dogs weren't there in 1999 or 2024; they'd gone home.",
    "def fib(n):\n    if n < 2:\n        return n\n\n    return fib(n-1) + fib(n-2)",
    "HELLO WORLD WE'RE HERE, CAN'T YOU SEE? Naïve café résumé Ångström",
    "   leading   spaces and  tabs\t\tand\n\n\nnewlines 12345 6789 00 11",
] * 4
PROBES = (
    "Hello world",
    "The cat's mat in 2023.",
    "650841823 people",
    "def fib(n):\n    if n < 2:\n        return n",
    "   leading  spaces",
    "WE'RE HERE, CAN'T SEE",
    "Naïve café résumé",
    "cafe\u0301 ﬁne Ⅷ",
    "a\n\n\nb\t c",
    "x 12 345",
    "猫が好き 🐈",
    "a <s> b <|endoftext|> [SEP] </s>",
)
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END = "<|endoftext|>"


@dataclasses.dataclass(frozen=True)
class Layout:
    """One row: how it is made, its `tokenizer_config.json`, and the `model_type` beside which it stands."""

    name: str
    model_type: str
    make: Callable[[], Tokenizer]
    settings: dict


def byte_level(
    pre: pre_tokenizers.PreTokenizer | None = None,
    *,
    normalizer: normalizers.Normalizer | None = None,
    bos: str | None = None,
    ignore_merges: bool = False,
    spaces: int = 0,
) -> Tokenizer:
    """Byte-level BPE, with added tokens of several spaces as GPT-NeoX's and Phi's have, if asked for."""
    inner = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = [END, *([bos] if bos else [])]
    inner.train_from_iterator(TEXT, _trainer(special, 420, pre_tokenizers.ByteLevel.alphabet()))
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    if bos:
        template = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))])
        inner.post_processor = processors.Sequence([inner.post_processor, template])
    inner.add_tokens([" " * count for count in range(spaces, 1, -1)])
    return inner


def _trainer(special: list[str], size: int, alphabet: list[str]) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)


def cl100k() -> pre_tokenizers.PreTokenizer:
    """The split of GPT-4's tokenizer, which OLMo 2, Phi-4 and Llama 3 have."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K), "isolated"), byte_level])


def digits() -> pre_tokenizers.PreTokenizer:
    """Digits one by one, as SmolLM2's."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def spaces_replaced(kind: str) -> Tokenizer:
    """BPE with byte fallback on text whose spaces are written ▁: Llama 2's style, prefixed, or Gemma's, not."""
    llama = kind == "llama"
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)  # while it trains
    own = ["<unk>", "<s>", "</s>"] if llama else ["<pad>", "<eos>", "<bos>", "<unk>"]
    special = own + [f"<0x{byte:02X}>" for byte in range(256)]
    inner.train_from_iterator([text.replace("\n", " ") for text in TEXT], _trainer(special, 560, []))
    stated = json.loads(inner.to_str())
    stated["added_tokens"] = [token for token in stated["added_tokens"] if token["content"] in own]
    stated["pre_tokenizer"] = None
    inner = Tokenizer.from_str(json.dumps(stated))
    replace = normalizers.Replace(" ", "▁")
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if llama else replace
    fuse = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*fuse, decoders.Strip(" ", 1, 0)] if llama else fuse)
    bos = "<s>" if llama else "<bos>"
    inner.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, inner.token_to_id(bos))]
    )
    return inner


def unigram() -> Tokenizer:
    """SentencePiece's other model, with Metaspace."""
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    inner.decoder = decoders.Metaspace("▁")
    inner.train_from_iterator(
        TEXT,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return inner


def word_pieces(lowercase: bool) -> Tokenizer:
    """BERT's, uncased or cased."""
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return inner


def roberta() -> Tokenizer:
    """Byte-level BPE between <s> and </s>."""
    inner = byte_level()
    inner.add_special_tokens(["<s>", "</s>", "<pad>", "<mask>"])
    ends = [(token, inner.token_to_id(token)) for token in ("</s>", "<s>")]
    inner.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return inner


def _ended(kind: str, **others: object) -> dict:
    return {"tokenizer_class": kind, "bos_token": END, "eos_token": END, "unk_token": END, **others}


LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LAYOUTS = [
    Layout("gpt2", "gpt2", byte_level, {"model_max_length": 1024}),  # all that GPT-2's own states
    Layout("olmo2", "olmo2", lambda: byte_level(cl100k()), _ended("GPT2Tokenizer")),
    Layout("phi4", "phi3", lambda: byte_level(cl100k()), _ended("GPT2Tokenizer", pad_token=END)),
    Layout("smollm2", "llama", lambda: byte_level(digits()), _ended("GPT2Tokenizer")),
    Layout("llama-cl100k", "llama", lambda: byte_level(cl100k()), _ended("GPT2Tokenizer")),
    Layout("qwen3", "qwen3", lambda: byte_level(cl100k(), normalizer=normalizers.NFC()), _ended("Qwen2Tokenizer")),
    Layout("qwen3-gpt2", "qwen3", lambda: byte_level(cl100k()), _ended("GPT2Tokenizer")),
    Layout(
        "gpt2-lowercase",
        "gpt2",
        lambda: byte_level(normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])),
        _ended("GPT2Tokenizer"),
    ),
    Layout("neox", "gpt_neox", lambda: byte_level(normalizer=normalizers.NFC(), spaces=8), _ended("GPTNeoXTokenizer")),
    Layout("neox-cl100k", "gpt_neox", lambda: byte_level(cl100k()), _ended("GPTNeoXTokenizer")),
    Layout("phi", "phi", lambda: byte_level(spaces=12), _ended("CodeGenTokenizer")),
    Layout(
        "llama3",
        "llama",
        lambda: byte_level(cl100k(), bos="<|begin_of_text|>", ignore_merges=True),
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": END},
    ),
    Layout("llama-class-over-bytes", "llama", lambda: byte_level(digits()), _ended("LlamaTokenizer", legacy=False)),
    Layout(
        "llama2",
        "llama",
        lambda: spaces_replaced("llama"),
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, **LLAMA},
    ),
    Layout("mistral", "mistral", lambda: spaces_replaced("llama"), {"tokenizer_class": "LlamaTokenizerFast", **LLAMA}),
    Layout(
        "gemma",
        "gemma",
        lambda: spaces_replaced("gemma"),
        {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
    ),
    Layout("unigram", "llama", unigram, {"tokenizer_class": "LlamaTokenizer", **LLAMA}),
    Layout("bert-uncased", "bert", lambda: word_pieces(True), {"do_lower_case": True}),
    Layout("bert-cased", "bert", lambda: word_pieces(False), {"tokenizer_class": "BertTokenizer"}),
    Layout("bert-cased-settings", "bert", lambda: word_pieces(False), {"do_lower_case": False}),
    Layout("roberta", "roberta", roberta, {"tokenizer_class": "RobertaTokenizer"}),
    Layout("unknown-class", "llama", lambda: byte_level(digits()), _ended("TokenizerOfTheYear2031")),
]


def write(layout: Layout, directory: pathlib.Path, **settings: object) -> Tokenizer:
    """Writes a layout's files, `settings` changed; returns what its `tokenizer.json` is by itself."""
    layout.make().save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(layout.settings | settings))
    (directory / "config.json").write_text(json.dumps({"model_type": layout.model_type}))
    return Tokenizer.from_file(str(directory / "tokenizer.json"))
