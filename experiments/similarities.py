"""The similarities of concepts that alignment holds against people's: of experts, of embeddings, and of controls."""

from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax.analysis.similarity.baselines import cosine_of_embeddings, mean_sentence_embedding
from expertlens_jax.analysis.similarity.embeddings import concept_embeddings, embedding_responses, sentence_embeddings
from expertlens_jax.analysis.similarity.measures import (
    Measure,
    check_measures,
    expert_measures,
    sentence_measures,
    word_measures,
)
from expertlens_jax.analysis.similarity.word_vectors import check_word_vectors, word_vector_similarity
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError
from expertlens_jax.experts.selection import check_threshold
from expertlens_jax.experts.token_masks import pool_over_words
from expertlens_jax.run_directory import saved_dataset
from expertlens_jax.sentences.masking import mask_words
from expertlens_jax.training.skip_gram import check_corpora, saved_word_vectors

from .launch import load_named
from .measured import (
    check_contrasts,
    check_statistics,
    negatives,
    question_of,
    refuse_single_concepts,
    saved_expertise,
    table_name,
)

OWN_WORDS = {"own_tokens": "concept", "other_tokens": "others"}
"""Controls by the tokens that a response is pooled over: of the concept's own word, or all others."""


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses settings, and files, that would fail after a model was loaded and ran.

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
    check_measures((*config.measures, *config.control_measures), config.thresholds)
    for threshold in config.base_rates.thresholds:
        check_threshold(threshold)
    check_word_vectors(config.word_vectors)
    check_corpora(config.vector_corpora)
    for name in config.ratings:
        el.load_ratings(name)
    for seed in config.random_weights:
        if seed < 0:
            raise SelectionError(f"random_weights hold {seed}; wanted seeds from 0 on.")
    refuse_single_concepts(datasets)
    check_contrasts(config, datasets, config.base_rates.negatives_per_positive)
    if config.own_tokens:
        for concepts in datasets:
            refuse_lacking_words(concepts)


def refuse_lacking_words(concepts: el.ConceptDataset) -> None:
    """Refuses sentences that lack the word of a concept of theirs, before a tokenizer is at hand.

    Raises:
      UnfitConceptsError: the message counts them, names the first, and says how to leave the control out.
    """
    lacking = concepts.labels & ~concepts.mentions()
    rows, columns = np.nonzero(lacking)
    if len(columns):
        first = columns.argmin()
        raise UnfitConceptsError(
            f"the controls by own_tokens can't be made of {lacking.any(0).sum()} of {len(concepts.sentences)} "
            f"sentences of {concepts.name!r}; the first, number {columns[first]}, lacks the word of its concept "
            f"{concepts.concepts[rows[first]]!r}: {concepts.sentences[columns[first]]!r}. Mend these sentences, or "
            "leave the controls out: --config.own_tokens=False."
        )


def check_own_words(model: el.Model, config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses sentences whose own words can't be told from the rest, before the model runs.

    Raises:
      ConceptDataError: see `pool_over_words`.
    """
    if config.own_tokens:
        for concepts in datasets:
            for pool_over in OWN_WORDS.values():
                try:
                    pool_over_words(
                        model.tokenizer,
                        concepts,
                        pool_over,
                        max_tokens=model.config.max_tokens,
                        truncate=config.truncate,
                    )
                except ConceptDataError as error:
                    raise ConceptDataError(f"{error} To leave this control out: --config.own_tokens=False.") from error


def word_vector_files(config: ml_collections.ConfigDict, workdir: epath.Path) -> dict[str, epath.Path]:
    """Files of word vectors by the names of their measures; those of the config's text are trained if need be."""
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
    """The model with each of the config's sparse autoencoders, by what to call them: after the directory.

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
    """A path and what `el.load_sae` is told of it: PATH, PATH@12, or PATH@layer=12,centred=True.

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


def measure(
    model: el.Model,
    concepts: el.ConceptDataset,
    expertise: xr.Dataset,
    vectors: dict[str, epath.Path],
    carrying: dict[str, el.Model],
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
) -> list[Measure]:
    """Every similarity of a sentence set's concepts: of its experts, of embeddings, and of controls."""

    def embed() -> xr.Dataset:
        print(f"Embedding the sentences of {concepts.name}")
        reading = {"truncate": config.truncate, "tokens_per_batch": config.tokens_per_batch, "progress": True}
        by_layer = concept_embeddings(model, concepts, **reading)
        last = sentence_embeddings(model, concepts.sentences, pooling="last", **reading)
        last_token = mean_sentence_embedding(last, concepts)
        return xr.Dataset(
            {
                "mean": (("layer", "concept", "channel"), by_layer),
                "last_token": (("concept", "channel"), last_token),
            }
        )

    path = workdir / "embeddings" / f"{table_name(model, concepts)}.zarr"
    embedded = saved_dataset(path, embed, question_of(expertise))
    measures = measures_by_base_rate(model, concepts, expertise, config, workdir)
    measures += word_measures(model, concepts)
    measures += sentence_measures(
        embedded["mean"].values, embedded["last_token"].values, concepts, every_layer=config.every_layer
    )
    measures += [Measure("Baselines", name, word_vector_similarity(path, concepts)) for name, path in vectors.items()]
    for path in config.sentence_models:
        other = load_named(path, config)
        mean = mean_sentence_embedding(
            sentence_embeddings(other, concepts.sentences, tokens_per_batch=config.tokens_per_batch, progress=True),
            concepts,
        )
        name = f"sentences_{path.removeprefix('package:').partition('/')[0]}"
        measures.append(Measure("Baselines", name, cosine_of_embeddings(mean, concepts)))
    for name, other in carrying.items():
        features = saved_expertise(other, concepts, config, workdir, sae=name)
        measures += expert_measures(
            features, ["jaccard"], [config.drawn_threshold], group="Baselines", suffix=f"_{name}"
        )
    for name, control in control_tables(model, concepts, config, workdir):
        measures += expert_measures(
            control, config.control_measures, [config.drawn_threshold], group="Controls", suffix=f"_{name}"
        )
    return measures


def measures_by_base_rate(
    model: el.Model,
    concepts: el.ConceptDataset,
    expertise: xr.Dataset,
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
) -> list[Measure]:
    """The measures of experts, with the config's negatives per positive first, and then with each other number.

    Average precision depends on the base rate, and so does what a threshold on it means; with other numbers, all
    thresholds are measured at all of them.
    """
    others = [float(ratio) for ratio in config.base_rates.negatives_per_positive]
    others = [ratio for ratio in dict.fromkeys(others) if ratio != config.negatives_per_positive]
    thresholds = sorted({*config.thresholds, *(config.base_rates.thresholds if others else ())})
    measures = expert_measures(expertise, config.measures, thresholds)
    for ratio in others:
        other = saved_expertise(model, concepts, config, workdir, negatives_per_positive=ratio)
        measures += expert_measures(other, config.measures, thresholds)
    return measures


def control_tables(
    model: el.Model, concepts: el.ConceptDataset, config: ml_collections.ConfigDict, workdir: epath.Path
) -> Iterator[tuple[str, xr.Dataset]]:
    """Tables of expertise that ask what the trained model adds: without its training, its layers, or the word itself.

    Yields:
      The control's name, and its table.
    """
    for seed in config.random_weights:
        yield f"random_weights_{seed}", saved_expertise(el.randomize_weights(model, seed), concepts, config, workdir)
    if config.embedding_experts:
        responses = embedding_responses(model, concepts.sentences, truncate=config.truncate)
        yield "input_embedding", el.measure_expertise(responses, concepts, **negatives(config))
    if config.masked:
        mask = model.tokenizer.mask_token or config.masked
        yield "masked", saved_expertise(model, mask_words(concepts, mask), config, workdir)
    if config.own_tokens:
        for name, pool_over in OWN_WORDS.items():
            yield name, saved_expertise(model, concepts, config, workdir, pool_over=pool_over)
