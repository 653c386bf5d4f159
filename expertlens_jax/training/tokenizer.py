"""A byte-level BPE tokenizer, trained on a user's own text."""

from collections.abc import Iterable

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(
    lines: Iterable[str], *, vocab_size: int, max_tokens: int, progress: bool = False
) -> transformers.PreTrainedTokenizerFast:
    """Train byte-level BPE (Sennrich et al. 2016, on bytes as in GPT-2), which can write any text.

    Args:
      lines: the text to learn merges from.
      vocab_size: tokens, the 256 bytes and the end-of-text token among them; fewer if the text holds fewer pairs.
      max_tokens: the context of the model that the tokenizer is for.
      progress: show a progress bar.

    Returns:
      A fast tokenizer whose end-of-text token, id 0, also stands in for padding. It adds no tokens by itself, as
      Pythia's adds none.

    >>> import expertlens_jax as el
    >>> tokenizer = el.training.train_tokenizer(["the cat sat on the mat"] * 9, vocab_size=270, max_tokens=32)
    >>> tokenizer.decode(tokenizer("the mat")["input_ids"])
    'the mat'
    """
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    bpe.train_from_iterator(lines, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )
