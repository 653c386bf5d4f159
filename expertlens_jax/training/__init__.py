"""Training small language models on the one stack, and sparse autoencoders on their activations."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from expertlens_jax.models.sae_files import load_decoder
    from expertlens_jax.training.corpus import Corpus, Mixture, read_lines, tokenize_file
    from expertlens_jax.training.language_model import train_language_model
    from expertlens_jax.training.loop import Schedule
    from expertlens_jax.training.pretrain import Recipe, TrainState, held_out_loss, init_state, train_step
    from expertlens_jax.training.sae_quality import SAEQuality, measure_sae
    from expertlens_jax.training.sae_step import SAESettings
    from expertlens_jax.training.sae_training import TrainedSAE, train_sae, train_saes
    from expertlens_jax.training.skip_gram import train_word_vectors
    from expertlens_jax.training.tokenizer import train_tokenizer

__all__ = [
    "Corpus",
    "Mixture",
    "Recipe",
    "SAEQuality",
    "SAESettings",
    "Schedule",
    "TrainState",
    "TrainedSAE",
    "held_out_loss",
    "init_state",
    "load_decoder",
    "measure_sae",
    "read_lines",
    "tokenize_file",
    "train_language_model",
    "train_sae",
    "train_saes",
    "train_step",
    "train_tokenizer",
    "train_word_vectors",
]
