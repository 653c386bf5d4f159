"""The question whether experts detect: a model, sentences to learn from, and others to try what was learned on."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from expertlens_jax import plot
from expertlens_jax.analysis.detecting.contest import (
    compare_detectors,
    share_of_directions,
    summarise_detectors,
    try_detectors,
)
from expertlens_jax.analysis.detecting.detectors import DETECTORS, Training, check_detectors
from expertlens_jax.analysis.detecting.examples import check_examples, concept_labels, draw_examples, plan_examples
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.data.resampling import split_halves
from expertlens_jax.errors import ExpertLensWarning, ResponsesError, SelectionError, UnfitConceptsError
from expertlens_jax.experts.direction_fits import concept_key
from expertlens_jax.experts.responses import record_responses
from expertlens_jax.models.model import Model
from expertlens_jax.models.sites import check_sites

Read = Callable[[Sequence[str], Sequence[str]], Mapping[str, np.ndarray]]
"""`read(sentences, readings)` returns, of each of `readings`, an array `[sentences, channels]`."""
REFERENCE = "top_experts"
FEWEST_OF_A_HALF = 2


def detection(
    model: Model | Read,
    train: ConceptDataset,
    test: ConceptDataset | None = None,
    *,
    detectors: Sequence[str] | None = None,
    reference: str = REFERENCE,
    positives: Sequence[int] | None = None,
    negatives_per_positive: Sequence[float] = (1, 10, 100),
    label_noise: Sequence[float] = (),
    training_negatives: int = 400,
    sites: Sequence[str] | None = None,
    embedder: Model | None = None,
    truncate: bool = False,
    tokens_per_batch: int | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> Result:
    """Ask whether experts tell a concept's sentences from others in new text, and whether anything does it better.

    All detectors learn from the same sentences: of each concept so many positives, and negatives that concepts share.
    They are tried on all of the other set's sentences. A sentence that mentions a concept is no negative of it.

    Args:
      model: whose units, residual stream and last layer are read, and the sparse autoencoders that it carries; or a
        function `read(sentences, readings)` that returns an array `[sentences, channels]` for each name it is given of
        "units", "resid", "embedding" and "sae".
      train: sentences to learn from.
      test: sentences to try on, of some of the same concepts; None to learn from one half of `train` and try on the
        other.
      detectors: names in `el.DETECTORS`; None for all that can be read.
      reference: the detector that each other one is compared with.
      positives: numbers of positives to learn from; None for 5, 10, 20 and 40, as far as there are so many.
      negatives_per_positive: base rates to measure at; negatives are weighted to meet them.
      label_noise: shares of wrong labels, tried beside none at the most positives.
      training_negatives: of each concept, at most.
      sites: of units; default the outputs of linear layers.
      embedder: another model, whose last layer's mean over tokens is the embedding; None for the model itself.
      truncate: cut sentences longer than the context, rather than refuse them.
      tokens_per_batch: as in `el.record_responses`.
      resamples: draws of the intervals' bootstrap over concepts.
      seed: of all that is drawn.
      progress: show bars.

    Returns:
      A `Result`. Its table has a row per detector, number of positives, label noise, measure ("average_precision",
      "auroc", "f1" at the threshold that is best in training) and negatives per positive: `value` (mean over concepts),
      `ci_low`, `ci_high`, `chance`. `tables`: "comparisons" (the reference against each other detector, paired by
      concept, with p corrected by Holm's method), "concepts" (a row per number and concept) and "shares" (how much of
      the difference of means over all units lies in the experts). Figures: "detection", "examples".

    Raises:
      SelectionError: unknown detectors, or numbers that can't be; an SAE's features of a model that carries none.
      UnfitConceptsError: no concepts in common, the same sentences in both sets, or concepts with too few positives.
      ConceptDataError: a concept without a positive or a negative.

    Warns:
      ExpertLensWarning: concepts that only one of the sets has are left out.

    >>> import expertlens_jax as el
    >>> import numpy as np
    >>> facts, stories = (el.load_concepts(name).subset(("cat", "bread")) for name in ("facts", "stories"))
    >>> def read(sentences, readings):
    ...     says = np.array([[word in each.lower() for word in ("cat", "bread")] for each in sentences], np.float32)
    ...     return {name: says for name in readings}
    >>> found = el.analysis.detection(read, facts, stories, detectors=("best_expert", "random_units"),
    ...                               reference="best_expert", negatives_per_positive=(1,), resamples=50)
    >>> found.table.query("detector == 'best_expert' and positives == 40").set_index("measure")["value"].to_dict()
    {'auroc': 1.0, 'average_precision': 1.0, 'f1': 1.0}
    """
    names = default_detectors(model) if detectors is None else detectors
    check_detectors(names)
    if reference not in names:
        raise SelectionError(f"reference={reference!r} isn't among the detectors, which are {', '.join(names)}.")
    check_readable(model, names, sites)
    check_examples(positives, negatives_per_positive, label_noise, training_negatives)
    train, test = pair_sets(train, test, seed=seed)
    labels, test_labels = concept_labels(train), concept_labels(test)
    planned = plan_examples(labels, train.concepts, positives, label_noise, train.name)
    drawn = [draw_examples(labels, train.concepts, each, negatives=training_negatives, seed=seed) for each in planned]
    read = model if not isinstance(model, Model) else functools.partial(
        read_model, model, sites=sites, embedder=embedder, truncate=truncate,
        tokens_per_batch=tokens_per_batch, progress=progress,
    )  # fmt: skip
    readings = tuple(dict.fromkeys(DETECTORS[name].reads for name in names))
    learned, tried = (read_all(read, each.sentences, readings) for each in (train, test))
    keys = tuple(concept_key(seed, concept) for concept in train.concepts) * len(planned)
    used = np.concatenate(drawn)
    training = {name: Training(values, used, keys) for name, values in learned.items()}
    found = try_detectors(training, tried, np.tile(test_labels, (len(planned), 1)), names, negatives_per_positive)
    count = len(train.concepts)
    which, concept = found["row"] // count, found["row"] % count
    per_concept = pd.DataFrame(
        {
            "detector": found["detector"],
            "positives": [planned[i].positives for i in which],
            "label_noise": [planned[i].label_noise for i in which],
            "measure": found["measure"],
            "negatives_per_positive": found["negatives_per_positive"],
            "concept": [train.concepts[i] for i in concept],
            "value": found["value"],
        }
    )
    sets = {"train": train.name, "test": test.name}
    draws = {"resamples": resamples, "seed": seed}
    table = summarise_detectors(per_concept, **draws)
    tables = {"comparisons": compare_detectors(per_concept, reference, **draws), "concepts": per_concept}
    if "units" in training:
        most = Training(learned["units"], drawn[0], keys[:count])
        tables["shares"] = share_of_directions(most, train.concepts)
    table, tables = _named(table, sets), {name: _named(each, sets) for name, each in tables.items()}
    figures = {
        "detection": functools.partial(plot.detection, table, reference=reference),
        "examples": functools.partial(plot.detection_examples, table, reference=reference),
    }
    sentences = tell_detection(table, tables["comparisons"], tables.get("shares"))
    return Result("detection", table, tuple(sentences), figures, tables)


def _named(table: pd.DataFrame, sets: Mapping[str, str]) -> pd.DataFrame:
    """The table after columns that say which sentences were learned from and tried on."""
    return table.assign(**sets)[[*sets, *table.columns]]


def default_detectors(model: Model | Read) -> tuple[str, ...]:
    """Return the detectors that a model can be read for: those of SAEs only where it carries some."""
    carries = not isinstance(model, Model) or bool(model.saes)
    return tuple(name for name, each in DETECTORS.items() if carries or each.reads != "sae")


def check_readable(model: Model | Read, names: Sequence[str], sites: Sequence[str] | None) -> None:
    """Refuse detectors or sites that the model hasn't got what to read for.

    Raises:
      SelectionError: an SAE's features of a model that carries none; a site that it doesn't have.
    """
    if not isinstance(model, Model):
        if not callable(model):
            raise SelectionError(f"a {type(model).__name__} was given; wanted a model, or read(sentences, readings).")
        return
    of_saes = [name for name in names if DETECTORS[name].reads == "sae"]
    if of_saes and not model.saes:
        raise SelectionError(
            f"the detector {of_saes[0]!r} reads features of sparse autoencoders, and {model.name} carries none. Give "
            "it one, model.with_sae(el.load_sae(PATH)), or leave the detector out."
        )
    check_sites(model.config, sites)


def pair_sets(
    train: ConceptDataset, test: ConceptDataset | None, *, seed: int = 0
) -> tuple[ConceptDataset, ConceptDataset]:
    """Return sentences to learn from and to try on, of the same concepts in the same order.

    Args:
      train: to learn from.
      test: to try on; None to halve the first.
      seed: of the halves.

    Raises:
      UnfitConceptsError: they have no concept in common, or the same sentences; or a concept has too few to halve.

    Warns:
      ExpertLensWarning: concepts that only one has are left out.
    """
    if test is None:
        counts = train.labels.sum(axis=1)
        least = int(counts.min())
        if least < 2 * FEWEST_OF_A_HALF:
            raise UnfitConceptsError(
                f"the concept {train.concepts[int(counts.argmin())]!r} of {train.name!r} has {least} positive "
                f"sentence{'s' * (least != 1)}, too few to learn from a half and try on the other; wanted "
                f"{2 * FEWEST_OF_A_HALF} or more. Add sentences, leave the concept out, or give a test set."
            )
        first, second = split_halves(contrast_concepts(train), seed=seed)
        return _part(train, first, "first half"), _part(train, second, "second half")
    common = [concept for concept in train.concepts if concept in test.concepts]
    if not common:
        raise UnfitConceptsError(
            f"{train.name!r} and {test.name!r} have no concept in common: {_few(train.concepts)} there, "
            f"{_few(test.concepts)} here. Give sentence sets of the same concepts."
        )
    for each, other in ((train, test), (test, train)):
        alone = [concept for concept in each.concepts if concept not in other.concepts]
        if alone:
            warnings.warn(
                ExpertLensWarning(
                    f"{len(alone)} of the {len(each.concepts)} concepts of {each.name!r} aren't in {other.name!r} and "
                    f"are left out, and so are their sentences: {_few(alone)}."
                ),
                stacklevel=3,
            )
    if list(train.concepts) != common:
        train = train.subset(common)
    if list(test.concepts) != common:
        test = test.subset(common)
    same = set(train.sentences) & set(test.sentences)
    if same:
        raise UnfitConceptsError(
            f"{len(same)} sentences of {test.name!r} are in {train.name!r} too, such as {min(same)!r}: what is learned "
            "from can't be tried on. Take them out of one, or give one set alone, to try on a half of it."
        )
    return train, test


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (" ..." if len(names) > 3 else "")


def _part(concepts: ConceptDataset, keep: np.ndarray, name: str) -> ConceptDataset:
    """The set with the kept sentences alone."""
    return dataclasses.replace(
        concepts,
        name=f"{concepts.name}, {name}",
        sentences=tuple(np.array(concepts.sentences, object)[keep]),
        labels=concepts.labels[:, keep],
        negative_pool=concepts.negative_pool[keep],
        own_negatives=None if concepts.own_negatives is None else concepts.own_negatives[:, keep],
    )


def read_model(
    model: Model,
    sentences: Sequence[str],
    readings: Sequence[str],
    *,
    sites: Sequence[str] | None = None,
    embedder: Model | None = None,
    truncate: bool = False,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Return what a model says of sentences, as detectors read it.

    "units" are pooled by maximum over tokens, and so is "resid", the residual stream after every layer: with the mean,
    what is said of one word is lost among the others. "embedding" is the mean over tokens of the last layer's stream.
    One pass gives the first two.
    """
    reading = {"truncate": truncate, "tokens_per_batch": tokens_per_batch, "progress": progress}
    wanted, found = check_sites(model.config, sites), {}
    if {"units", "resid"} & set(readings):
        together = (*(wanted if "units" in readings else ()), *(("resid",) if "resid" in readings else ()))
        responses = record_responses(model, sentences, sites=tuple(dict.fromkeys(together)), **reading)
        of_unit = responses.units["site"].astype(str)
        for name, own in (("units", wanted), ("resid", ("resid",))):
            if name in readings:
                found[name] = responses.values[:, of_unit.isin(own).to_numpy()]
    if "sae" in readings:
        found["sae"] = record_responses(model, sentences, sites=("sae",), **reading).values
    if "embedding" in readings:
        other = embedder or model
        means = record_responses(other, sentences, sites=("resid",), pooling="mean", **reading)
        found["embedding"] = means.values[:, (means.units["layer"] == other.config.num_layers - 1).to_numpy()]
    return found


def read_all(read: Read, sentences: Sequence[str], readings: Sequence[str]) -> dict[str, np.ndarray]:
    """Return each of the readings, text among them, checked.

    Raises:
      ResponsesError: `read` lacks one, or it has other rows than sentences, or isn't finite.
    """
    numeric = tuple(name for name in readings if name != "sentences")
    found = dict(read(tuple(sentences), numeric)) if numeric else {}
    for name in numeric:
        if name not in found:
            raise ResponsesError(f"read(sentences, {numeric}) returned {', '.join(found) or 'nothing'}, and no {name}.")
        values = found[name] = np.asarray(found[name], np.float32)
        if values.ndim != 2 or len(values) != len(sentences) or not np.isfinite(values).all():
            raise ResponsesError(
                f"what was read as {name!r} has shape {list(values.shape)}; wanted [{len(sentences)}, channels], "
                "finite, a row for each sentence."
            )
    text = {"sentences": np.array(sentences, dtype=object)} if "sentences" in readings else {}
    return {name: found[name] for name in numeric} | text


def spoken(detector: str) -> str:
    """Return what a detector is called in a sentence."""
    return detector.replace("_", " ")


def tell_detection(table: pd.DataFrame, comparisons: pd.DataFrame, shares: pd.DataFrame | None) -> list[str]:
    """Return what was found, what experts lose against first."""
    most = table[(table["positives"] == table["positives"].max()) & (table["label_noise"] == 0)]
    ratio = typical_ratio(table)
    where = (most["measure"] == "average_precision") & (most["negatives_per_positive"] == ratio)
    rows = most[where].set_index("detector")
    compared = comparisons[
        (comparisons["measure"] == "average_precision") & (comparisons["negatives_per_positive"] == ratio)
    ]
    first = most.iloc[0]
    reference = compared["detector"].iloc[0] if len(compared) else rows.index[0]
    own = rows.loc[reference]
    better = compared[(compared["difference"] < 0) & (compared["p_holm"] < 0.05)]["other"].tolist()
    worse = compared[(compared["difference"] > 0) & (compared["p_holm"] < 0.05)]["other"].tolist()
    lost = f"{spoken(reference).capitalize()} lose against {_listed(better)}" if better else (
        f"{spoken(reference).capitalize()} lose against no other detector"
    )  # fmt: skip
    told = [
        f"{first['train']} to {first['test']}: {lost}, and win against {_listed(worse) or 'none'} (average precision "
        f"over {int(own['concepts'])} concepts, p < 0.05 by Wilcoxon's test after Holm)."
    ]
    told.append(
        f"At {ratio:g} negatives per positive, learning from {int(first['positives'])} positives, average precision is "
        + "; ".join(f"{interval(row, 'value')} of {spoken(name)}" for name, row in rows.iterrows())
        + f" (chance {own['chance']:.2g})."
    )
    if shares is not None:
        told.append(
            f"Experts are {100 * shares['share_of_units'].mean():.2g}% of the units, and hold "
            f"{100 * shares['share_of_square'].mean():.2g}% of the squared difference of means over all units."
        )
    return told


def typical_ratio(table: pd.DataFrame) -> float:
    """Return the number of negatives per positive that is told and drawn: 10, or the one nearest to it."""
    ratios = table["negatives_per_positive"].dropna().unique()
    return float(ratios[np.argmin(np.abs(np.log(ratios / 10)))])


def _listed(names: Sequence[str]) -> str:
    said = [f"{'a ' if not name.endswith('s') else ''}{spoken(name)}" for name in names]
    return said[0] if len(said) == 1 else " and ".join([", ".join(said[:-1]), said[-1]]) if said else ""
