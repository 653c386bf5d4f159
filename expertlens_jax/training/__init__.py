"""Training small language models on the one stack: text to tokens, tokens to parameters."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from expertlens_jax.training.corpus import Corpus, Mixture, read_lines, tokenize_file
    from expertlens_jax.training.pretrain import Recipe, TrainState, held_out_loss, init_state, train_step
    from expertlens_jax.training.skip_gram import train_word_vectors
    from expertlens_jax.training.tokenizer import train_tokenizer

__all__ = [
    "Corpus",
    "Mixture",
    "Recipe",
    "TrainState",
    "held_out_loss",
    "init_state",
    "read_lines",
    "tokenize_file",
    "train_step",
    "train_tokenizer",
    "train_word_vectors",
]
