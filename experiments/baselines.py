"""What alignment compares experts with, by a config: word vectors, sparse autoencoders, controls; checked first."""

from collections.abc import Sequence
from typing import Any

import ml_collections
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax.analysis.similarity import measures as by
from expertlens_jax.analysis.similarity.control_tables import check_own_tokens, check_words_present, control_tables
from expertlens_jax.analysis.similarity.embeddings import embed_concepts
from expertlens_jax.analysis.similarity.word_vectors import check_word_vectors
from expertlens_jax.errors import ConceptDataError, ExpertLensError, SelectionError
from expertlens_jax.experts.selection import check_threshold
from expertlens_jax.run_directory import saved_dataset
from expertlens_jax.training.skip_gram import check_corpora, saved_word_vectors

from .checks import check_contrasts, check_ratings, check_several_concepts, check_statistics
from .expertise import question_of, read_negatives, table_name
from .run import Run

LEAVE_OUT = "To leave this control out: --config.own_tokens=False."


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
    if "jaccard" not in config.measures:
        raise SelectionError(f"measures are {config.measures}; jaccard must be among them, since it is drawn.")
    by.check_measures((*config.measures, *config.control_measures), config.thresholds)
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
    if config.own_tokens:
        check_words(datasets)
    if config.masked:
        check_masks(datasets)


def check_masks(datasets: Sequence[el.ConceptDataset]) -> None:
    """Check that each concept has a word to mask, which is a control.

    Raises:
      UnfitConceptsError: one has none; the message says how to leave the control out.
    """
    for concepts in datasets:
        try:
            concepts.check_words("masked sentences")
        except ExpertLensError as error:
            raise type(error)(f"{error} --config.masked='' leaves them out.") from error


def check_words(datasets: Sequence[el.ConceptDataset]) -> None:
    """Check that each sentence has the word whose tokens are a control.

    Raises:
      UnfitConceptsError: one lacks it; the message says how to leave the control out.
    """
    for concepts in datasets:
        try:
            check_words_present(concepts)
        except ExpertLensError as error:
            raise type(error)(f"{error} {LEAVE_OUT}") from error


def check_model(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check what only the model can tell: words that its tokenizer or context leaves, SAEs that fit.

    Raises:
      ConceptDataError, SelectionError, CheckpointError: see `check_own_tokens` and `carry_saes`.
    """
    check_tokens(config, datasets, model)
    carry_saes(model, config)


def check_tokens(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check that the tokenizer tells each concept's own word from the rest, if that is a control.

    Raises:
      ConceptDataError: it doesn't; the message says how to leave the control out.
    """
    for concepts in datasets if config.own_tokens else ():
        try:
            check_own_tokens(model, concepts, truncate=config.truncate)
        except ConceptDataError as error:
            raise ConceptDataError(f"{error} {LEAVE_OUT}") from error


def without_unfit_controls(
    config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model
) -> tuple[ml_collections.ConfigDict, str]:
    """Return the config without the controls that these sentences can't have, and why, or "" where they have all."""
    reasons = []
    try:
        if config.own_tokens:
            check_words(datasets)
        check_tokens(config, datasets, model)
    except ConceptDataError as error:
        config = ml_collections.ConfigDict(config.to_dict())
        config.own_tokens = False
        reasons.append(str(error))
    try:
        if config.masked:
            check_masks(datasets)
    except ConceptDataError as error:
        config = ml_collections.ConfigDict(config.to_dict())
        config.masked = ""
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


def carry_saes(model: el.Model, config: ml_collections.ConfigDict) -> dict[str, el.Model]:
    """Return the model with each of the config's sparse autoencoders, by what to call them: after the directory.

    Raises:
      SelectionError: two of one name, or an entry that can't be read.
      CheckpointError: see `el.load_sae` and `Model.with_sae`.
    """
    carrying = {}
    for entry in config.saes:
        path, options = sae_options(entry)
        sae = el.load_sae(path, **options)
        name = f"sae_{sae.name}_layer{sae.layer}" if "layer" in options else f"sae_{sae.name}"
        if name in carrying:
            raise SelectionError(
                f"saes is {tuple(config.saes)}, of which two would be called {name}; rename one's directory, or say "
                "the layers, as in PATH@12."
            )
        carrying[name] = model.with_sae(sae)
    return carrying


def sae_options(entry: str) -> tuple[str, dict[str, Any]]:
    """Return a path and what `el.load_sae` is told of it: PATH, PATH@12, or PATH@layer=12,centred=True.

    Raises:
      SelectionError: what stands behind the last @ is neither a layer nor options of `el.load_sae`.
    """
    path, at, stated = entry.rpartition("@")
    if not at or epath.Path(entry).exists():
        return entry, {}
    if stated.isdecimal():
        return path, {"layer": int(stated)}
    kinds = {"layer": int, "site": str, "scale": float, "centred": {"True": True, "False": False}.__getitem__}
    options = {}
    for option in stated.split(","):
        name, _, value = option.partition("=")
        try:
            options[name.strip()] = kinds[name.strip()](value.strip())
        except (KeyError, ValueError) as error:
            raise SelectionError(
                f"saes has {entry!r}, of which {option!r} isn't understood. Write PATH, PATH@12 for a layer, or "
                "PATH@layer=12,site=resid,scale=0.5,centred=True with what el.load_sae is to be told."
            ) from error
    return path, options


def compare_concepts(
    this: Run,
    concepts: el.ConceptDataset,
    expertise: xr.Dataset,
    vectors: dict[str, epath.Path],
    carrying: dict[str, el.Model],
) -> list[by.Measure]:
    """Return every similarity of a sentence set's concepts: of its experts, of embeddings, and of controls."""
    c, model = this.config, this.model
    reading = {"truncate": c.truncate, "tokens_per_batch": c.tokens_per_batch, "progress": True}
    embedded = saved_dataset(
        this.workdir / "embedded" / f"{table_name(model, concepts)}.zarr",
        lambda: embed_concepts(model, concepts, **reading, negatives=el.Negatives.of_attributes(read_negatives(c))),
        question_of(expertise),
    )
    # Average precision depends on the base rate, and so does what a threshold on it means: with several numbers of
    # negatives per positive, all thresholds are measured at all of them.
    ratios = [float(ratio) for ratio in dict.fromkeys(c.base_rates.negatives_per_positive)]
    ratios = [ratio for ratio in ratios if ratio != c.negatives_per_positive]
    thresholds = sorted({*c.thresholds, *(c.base_rates.thresholds if ratios else ())})
    tables = [expertise, *(this.expertise(model, concepts, negatives_per_positive=ratio) for ratio in ratios)]
    found = [each for table in tables for each in by.expert_measures(table, c.measures, thresholds)]
    found += by.word_measures(model, concepts)
    found += by.sentence_measures(
        embedded["mean"].values,
        embedded["last_token"].values,
        concepts,
        directions=embedded["direction"].values,
        every_layer=c.every_layer,
    )
    found += by.vector_measures(vectors, concepts)
    for path in c.sentence_models:
        name = f"sentences_{path.removeprefix('package:').partition('/')[0]}"
        other = this.named_model(path)
        found.append(by.model_measure(name, other, concepts, tokens_per_batch=c.tokens_per_batch, progress=True))
    features = ((name, this.expertise(other, concepts, sae=name)) for name, other in carrying.items())
    found += by.named_measures(features, ["jaccard"], c.drawn_threshold, "Baselines")
    controls = control_tables(
        model,
        concepts,
        this.expertise,
        random_weights=c.random_weights,
        embedding=c.embedding_experts,
        mask=c.masked,
        own_tokens=c.own_tokens,
        truncate=c.truncate,
        negatives=read_negatives(c),
    )
    return found + by.named_measures(controls, c.control_measures, c.drawn_threshold, "Controls")
