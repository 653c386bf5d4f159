"""The tokens that each family's tokenizer adds never enter the pool; those of the sentence always do.

The tokenizers are transformers' own classes for the family, saved and read back, with a vocabulary of single
characters (BERT: words), so that they split and add as the published ones do.
"""

import dataclasses

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import pre_tokenizers, processors

from expertlens_jax.errors import TokenizationError
from expertlens_jax.models.families import FAMILIES
from expertlens_jax.models.tokens import batches, padding_id, tokenize

SENTENCES = ("the cat sleeps.", "a dog.", "the cats and the dogs sleep.")
METASPACE = ["\u2581", *"abcdefghijklmnopqrstuvwxyz."]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = ["the", "a", "and", "cat", "cats", "dog", "dogs", "sleep", "sleeps", "."]


@dataclasses.dataclass(frozen=True)
class Row:
    """A kind of tokenizer: whose it is, how it is made, and what it puts before and after a sentence."""

    families: tuple[str, ...]
    tokenizer: type
    special: tuple[str, ...]
    alphabet: list[str]
    options: dict = dataclasses.field(default_factory=dict)
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def build(self):
        vocabulary = {token: i for i, token in enumerate([*self.special, *self.alphabet])}
        merges = {} if self.tokenizer is transformers.BertTokenizer else {"merges": []}
        return self.tokenizer(vocab=vocabulary, **merges, **self.options)


def llama3(vocab, merges, bos="<|begin_of_text|>", eos="<|end_of_text|>"):
    """Llama 3's tokenizer has no class of its own, nor has Mistral's Tekken: byte-level BPE, a template with BOS."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    template = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, vocab[bos])])
    inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    inner.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token=eos)


def xlm_roberta(vocab, merges):
    """XLM-RoBERTa's: SentencePiece's unigrams, here of one length, between <s> and </s>."""
    inner = transformers.XLMRobertaTokenizer(vocab=[(token, -1.0) for token in vocab])
    assert not merges
    return inner


GPT2, LLAMA = transformers.GPT2Tokenizer, transformers.LlamaTokenizer
END = ("<|endoftext|>",)
ROWS = [
    Row(
        (
            *(
                "gpt2",
                "gpt_neo",
                "gptj",
                "phi",
                "olmo2",
                "olmo3",
                "olmoe",
                "gpt_oss",
                "granite",
                "granitemoe",
                "stablelm",
                "glm4",
            ),
            *("falcon", "seed_oss", "starcoder2", "exaone4", "glm", "nemotron"),
        ),
        GPT2,
        END,
        BYTES,
    ),
    Row(("bloom",), GPT2, ("<unk>", "<s>", "</s>", "<pad>"), BYTES, dict(unk_token="<unk>", eos_token="</s>")),
    Row(("gpt_neox", "olmo"), transformers.GPTNeoXTokenizer, (*END, "<|padding|>"), BYTES),
    Row(
        ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"),
        transformers.Qwen2Tokenizer,
        END,
        BYTES,
    ),
    Row(
        ("opt",),
        GPT2,
        ("<s>", "<pad>", "</s>", "<unk>"),
        BYTES,
        dict(bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True),
        before=("</s>",),
    ),
    Row(("phi3", "ernie4_5"), LLAMA, ("<unk>", "<s>", "</s>"), METASPACE),
    Row(
        ("llama", "mistral", "mistral3", "mixtral"),
        LLAMA,
        ("<unk>", "<s>", "</s>"),
        METASPACE,
        dict(add_bos_token=True),
        before=("<s>",),
    ),
    Row(
        ("llama", "mistral", "mistral3", "mixtral"),
        LLAMA,
        ("<unk>", "<s>", "</s>"),
        METASPACE,
        dict(add_bos_token=True, add_eos_token=True),
        before=("<s>",),
        after=("</s>",),
    ),
    Row(
        ("llama", "llama4", "llama4_text", "smollm3", "arcee"),
        llama3,
        ("<|begin_of_text|>", "<|end_of_text|>"),
        BYTES,
        before=("<|begin_of_text|>",),
    ),
    Row(
        ("ministral", "ministral3", "mistral3"),
        llama3,
        ("<unk>", "<s>", "</s>"),
        BYTES,
        dict(bos="<s>", eos="</s>"),
        before=("<s>",),
    ),
    Row(
        ("cohere", "cohere2"),
        transformers.CohereTokenizer,
        ("<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
        BYTES,
        dict(add_bos_token=True),
        before=("<BOS_TOKEN>",),
    ),
    Row(
        ("gemma", "gemma2", "gemma3_text", "gemma3", "gemma4_text", "gemma4", "gemma4_unified_text", "gemma4_unified"),
        transformers.GemmaTokenizer,
        ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
        METASPACE,
        dict(add_bos_token=True),
        before=("<bos>",),
    ),
    Row(
        ("bert", "distilbert", "electra", "modernbert"),
        transformers.BertTokenizer,
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        WORDS,
        before=("[CLS]",),
        after=("[SEP]",),
    ),
    Row(
        ("xlm-roberta", "camembert"),
        xlm_roberta,
        ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        METASPACE,
        before=("<s>",),
        after=("</s>",),
    ),
    Row(
        ("roberta",),
        transformers.RobertaTokenizer,
        ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        BYTES,
        before=("<s>",),
        after=("</s>",),
    ),
]


@pytest.fixture(params=ROWS, ids=lambda row: f"{row.families[0]}-{len(row.before)}-{len(row.after)}")
def row(request):
    return request.param


@pytest.fixture
def tokenizer(row, tmp_path):
    row.build().save_pretrained(tmp_path)
    return transformers.AutoTokenizer.from_pretrained(tmp_path)


def test_every_family_has_a_row():
    assert {name for row in ROWS for name in row.families} == FAMILIES.keys()


def test_added_tokens_stay_out_of_the_pool(row, tokenizer):
    tokens = tokenize(tokenizer, SENTENCES, max_tokens=64)
    for sentence, ids, in_pool in zip(SENTENCES, tokens.ids, tokens.in_pool, strict=True):
        names = tokenizer.convert_ids_to_tokens(ids.tolist())
        added = len(row.before), len(names) - len(row.after)
        assert tuple(names[: added[0]]) == row.before
        assert tuple(names[added[1] :]) == row.after
        np.testing.assert_array_equal(in_pool, (np.arange(len(ids)) >= added[0]) & (np.arange(len(ids)) < added[1]))
        pooled = tokenizer.decode(ids[in_pool].tolist())
        assert pooled.replace(" ", "") == sentence.replace(" ", "")


def test_neither_do_they_in_a_batch_nor_does_padding(row, tokenizer):
    tokens = tokenize(tokenizer, SENTENCES, max_tokens=64)
    for batch in batches(tokens, pad_id=padding_id(tokenizer), tokens_per_batch=128):
        for i, sentence in enumerate(batch.rows):
            np.testing.assert_array_equal(
                batch.token_ids[i, batch.pool_mask[i]], tokens.ids[sentence][tokens.in_pool[sentence]]
            )
            assert batch.attention_mask[i].sum() == len(tokens.ids[sentence])


def test_cut_sentences_keep_the_added_tokens_out(row, tokenizer):
    longest = 5
    cut = tokenize(tokenizer, SENTENCES, max_tokens=longest, truncate=True)
    for ids, in_pool in zip(cut.ids, cut.in_pool, strict=True):
        assert len(ids) <= longest
        assert (~in_pool).sum() == len(row.before) + len(row.after)


def test_a_sentence_of_added_tokens_only_is_refused(tokenizer):
    with pytest.raises(TokenizationError, match=r"1 of 2 sentences have no token of their own.*number 1: ''"):
        tokenize(tokenizer, ("a dog.", ""), max_tokens=64)
