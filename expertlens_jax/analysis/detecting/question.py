"""The question whether experts detect: a model, sentences to learn from, and others to try what was learned on."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Unpack

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
from expertlens_jax.analysis.detecting.pairs import pair_sets
from expertlens_jax.analysis.detecting.readings import Read, read_all, read_model
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.direction_fits import concept_key
from expertlens_jax.models.model import Model
from expertlens_jax.models.sites import check_sites
from expertlens_jax.settings import PlainRecording, Recording, settings_of

REFERENCE = "top_experts"
_OTHERS = (
    *("detectors", "reference", "positives", "negatives_per_positive", "label_noise", "training_negatives"),
    *("most_only", "embedder", "resamples", "seed", "progress"),
)


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
    most_only: bool = False,
    embedder: Model | None = None,
    recording: Recording | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: bool = False,
    **settings: Unpack[PlainRecording],
) -> Result:
    """Ask whether experts tell a concept's sentences from others in new text, and whether anything does it better.

    All detectors learn from the same sentences: of each concept so many positives, and negatives that concepts share.
    They are tried on all of the other set's sentences. A sentence that mentions a concept is no negative of it.

    Args:
      model: whose units, residual stream and last layer are read, and the sparse autoencoders that it carries; or a
        function `read(sentences, readings)` that returns an array `[sentences, channels]` for each name it is given of
        "units", "embedding" and "sae", and `[sentences, tokens, channels]` for "stream", NaN beyond a sentence's end.
      train: sentences to learn from.
      test: sentences to try on, of some of the same concepts; None to learn from one half of `train` and try on the
        other.
      detectors: names in `el.DETECTORS`; None for all that can be read.
      reference: the detector that each other one is compared with.
      positives: numbers of positives to learn from; None for 5, 10, 20 and 40, as far as there are so many.
      negatives_per_positive: base rates to measure at; negatives are weighted to meet them.
      label_noise: shares of wrong labels, tried beside none at the most positives.
      training_negatives: of each concept, at most.
      most_only: learn from the most positives without wrong labels, and no fewer.
      embedder: another model, whose last layer's mean over tokens is the embedding; None for the model itself.
      recording: how a model reads sentences, and which sites' units.
      resamples: draws of the intervals' bootstrap over concepts.
      seed: of all that is drawn.
      progress: show bars.
      **settings: the fields of `recording` as plain keywords: `sites`, `pooling`, `truncate`, `tokens_per_batch`,
        `chat`, `significant_bits` (of units and features alone).

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
    said = recording is not None
    (recording,) = settings_of(
        "detection",
        settings,
        {"recording": (Recording, recording)},
        others=_OTHERS,
        without=("pool_over",),
    )
    names = default_detectors(model) if detectors is None else detectors
    check_detectors(names)
    if reference not in names:
        raise SelectionError(f"reference={reference!r} isn't among the detectors, which are {', '.join(names)}.")
    if not isinstance(model, Model) and (
        given := [*settings, *(["embedder"] if embedder else []), *(["recording"] if said else [])]
    ):
        raise SelectionError(
            f"{', '.join(given)} say how a model is read, and a function that reads was given. Leave them out."
        )
    check_readable(model, names, recording.sites)
    check_examples(positives, negatives_per_positive, label_noise, training_negatives)
    train, test = pair_sets(train, test, seed=seed)
    labels, test_labels = concept_labels(train), concept_labels(test)
    planned = plan_examples(labels, train.concepts, positives, label_noise, train.name)
    planned = planned[:1] if most_only else planned
    drawn = [draw_examples(labels, train.concepts, each, negatives=training_negatives, seed=seed) for each in planned]
    if isinstance(model, Model):
        read = functools.partial(read_model, model, recording=recording, embedder=embedder, progress=progress)
    else:
        read = model
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
        tables["shares"] = share_of_directions(training["units"], train.concepts)
    table, tables = _named(table, sets), {name: _named(each, sets) for name, each in tables.items()}
    figures = {
        "detection": functools.partial(plot.detection, table, reference=reference),
        "examples": functools.partial(plot.detection_examples, table, reference=reference),
    }
    sentences = tell_detection(table, tables["comparisons"], tables.get("shares"))
    return Result("detection", table, tuple(sentences), figures, tables)


def _named(table: pd.DataFrame, sets: Mapping[str, str]) -> pd.DataFrame:
    """Return the table after columns that say which sentences were learned from and tried on."""
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
    ends = "over {} concepts, p < 0.05 by Wilcoxon's signed ranks after Holm".format(int(own["concepts"]))
    told = [
        f"{first['train']} to {first['test']}: {spoken(reference)} lose against {_listed(better)}, and win against "
        f"{_listed(worse)} (average precision {ends})."
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
    return ", ".join(map(spoken, names)) or "none"
