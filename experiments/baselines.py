"""What alignment compares experts with, by a config: word vectors, sparse autoencoders, controls; checked first."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax.analysis.similarity import compared
from expertlens_jax.analysis.similarity.control_tables import OWN_TOKENS, check_own_tokens, check_words_present
from expertlens_jax.analysis.similarity.embeddings import EMBEDDED
from expertlens_jax.analysis.similarity.measures import Measure, check_measures
from expertlens_jax.analysis.similarity.word_vectors import check_word_vectors
from expertlens_jax.errors import ConceptDataError, SelectionError
from expertlens_jax.experts.selection import check_threshold
from expertlens_jax.models.sae_named import carry_each
from expertlens_jax.run_directory import saved_dataset
from expertlens_jax.training.skip_gram import check_corpora, saved_word_vectors

from .checks import check_contrasts, check_holds, check_ratings, check_several_concepts, check_statistics
from .expertise import question_of, read_negatives, read_store, table_name, tables_root
from .run import Run

LEAVE_OUT = {
    "own_tokens": "To leave this control out: --config.own_tokens=False.",
    "masked": "--config.masked='' leaves them out.",
}


def check(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings, and files, before a model is loaded and runs.

    Raises:
      SelectionError: unknown measures, thresholds that can't be drawn, or no draws.
      ConceptDataError: another base rate that isn't above 0.
      UnfitConceptsError: one concept alone, another base rate that the negatives can't meet, or sentences without the
        word whose tokens are a control.
      RatingsError: ratings that aren't there, or can't be read.
      ExpertLensError: files of word vectors, or text to train them on, that aren't there, or gensim isn't.
    """
    check_statistics(config)
    check_holds("measures", config.measures, "jaccard", "it is drawn")
    check_measures((*config.measures, *config.control_measures), config.thresholds)
    for threshold in config.base_rates.thresholds:
        check_threshold(threshold)
    check_word_vectors(config.word_vectors)
    check_corpora(config.vector_corpora)
    check_ratings(config)
    for seed in config.random_weights:
        if seed < 0:
            raise SelectionError(f"random_weights hold {seed}; wanted seeds from 0 on.")
    check_several_concepts(datasets)
    check_contrasts(config, datasets, config.base_rates.negatives_per_positive)
    check_words(config, datasets)


def check_words(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check that each sentence has the word whose tokens are a control, if they are; and each concept one to mask.

    Raises:
      UnfitConceptsError: one lacks it; the message says how to leave the control out.
    """
    for concepts in datasets:
        if config.own_tokens:
            with saying(LEAVE_OUT["own_tokens"]):
                check_words_present(concepts)
        if config.masked:
            with saying(LEAVE_OUT["masked"]):
                concepts.check_words("masked sentences")


def check_model(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check what only the model can tell: words that its tokenizer or context leaves, SAEs that fit.

    Raises:
      ConceptDataError, SelectionError, CheckpointError: see `check_own_tokens` and `carry_each`.
    """
    check_tokens(config, datasets, model)
    carry_each(model, config.saes)


def check_tokens(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check that the tokenizer tells each concept's own word from the rest, if that is a control.

    Raises:
      ConceptDataError: it doesn't; the message says how to leave the control out.
    """
    for concepts in datasets if config.own_tokens else ():
        with saying(LEAVE_OUT["own_tokens"]):
            check_own_tokens(model, concepts, truncate=config.truncate)


@contextlib.contextmanager
def saying(remedy: str) -> Iterator[None]:
    """Add to an error about sentences what to do."""
    try:
        yield
    except ConceptDataError as error:
        raise type(error)(f"{error} {remedy}") from error


def without_unfit_controls(
    config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model
) -> tuple[ml_collections.ConfigDict, str]:
    """Return the config without the controls that these sentences can't have, and why, or "" where they have all."""
    reasons = []
    for control, nothing in (("own_tokens", False), ("masked", "")):
        alone = ml_collections.ConfigDict({"own_tokens": False, "masked": "", "truncate": config.truncate})
        alone[control] = config[control]
        try:
            check_words(alone, datasets)
            check_tokens(alone, datasets, model)
        except ConceptDataError as error:
            config = ml_collections.ConfigDict(config.to_dict())
            config[control] = nothing
            reasons.append(str(error))
    return config, " ".join(reasons)


def word_vector_files(config: ml_collections.ConfigDict, workdir: epath.Path) -> dict[str, epath.Path]:
    """Return files of word vectors by the names of their measures; train those of the config's text if need be."""
    files = {f"vectors_{epath.Path(path).stem}": epath.Path(path) for path in config.word_vectors}
    if config.vector_corpora:
        print(f"Training word vectors on {', '.join(config.vector_corpora)}, unless they are there")
        files["word2vec"] = saved_word_vectors(
            config.vector_corpora,
            workdir / "word_vectors",
            progress=True,
            seed=config.seed,
            **config.word2vec.to_dict(),
        )
    return files


def read_comparison(
    this: Run, vectors: Mapping[str, epath.Path], carrying: Mapping[str, el.Model]
) -> compared.Comparison:
    """Return which similarities the config has compared, with files of word vectors and the model with each SAE."""
    c = this.config
    names = [f"sentences_{path.removeprefix('package:').partition('/')[0]}" for path in c.sentence_models]
    others = [functools.partial(this.named_model, path) for path in c.sentence_models]
    return compared.Comparison(
        measures=c.measures,
        thresholds=c.thresholds,
        threshold=c.drawn_threshold,
        ratios=c.base_rates.negatives_per_positive,
        ratio_thresholds=c.base_rates.thresholds,
        every_layer=c.every_layer,
        word_vectors=vectors,
        sentence_models=list(zip(names, others, strict=True)),
        saes=carrying,
        control_measures=c.control_measures,
        random_weights=c.random_weights,
        embedding=c.embedding_experts,
        mask=c.masked,
        own_tokens=c.own_tokens,
    )


def kept_beside(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return what else to keep of the pass that finds the experts, as arguments of `Run.expertise`.

    What embeddings are made of, but where sentences stand in a chat, which isn't how they are read to embed them; and
    responses over the tokens that the controls by own tokens are pooled over.
    """
    return {
        "beside": () if config.chat else EMBEDDED,
        "also_over": tuple(OWN_TOKENS.values()) if config.own_tokens else (),
    }


def compare_concepts(
    this: Run,
    concepts: el.ConceptDataset,
    expertise: xr.Dataset,
    vectors: Mapping[str, epath.Path],
    carrying: Mapping[str, el.Model],
) -> list[Measure]:
    """Return every similarity of a sentence set's concepts: of its experts, of embeddings, and of controls."""
    c, file = this.config, this.workdir / "embedded" / f"{table_name(this.model, concepts)}.zarr"
    return compared.compare_everything(
        this.model,
        concepts,
        expertise,
        this.expertise,
        read_comparison(this, vectors, carrying),
        negatives=read_negatives(c),
        truncate=c.truncate,
        tokens_per_batch=c.tokens_per_batch or None,
        save=lambda compute: saved_dataset(file, compute, question_of(expertise)),
        store=read_store(c, tables_root(c, this.workdir), read_only=True),
        progress=True,
    )
