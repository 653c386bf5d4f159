"""The question of necessity, answered by a `Result`."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from expertlens_jax import plot
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.analysis.steering.necessity import (
    ABLATIONS,
    Ablation,
    compare_orders,
    compare_sets,
    control_of,
    forms_of,
    measure_concept,
    read_words,
    summarise_falls,
    typical_activations,
)
from expertlens_jax.analysis.steering.trials import Kept
from expertlens_jax.analysis.structure.senses import check_order
from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.scores import check_score, score_units
from expertlens_jax.models.model import Model


def necessity(
    model: Model,
    expertise: xr.Dataset,
    concepts: ConceptDataset,
    *,
    counts: Sequence[int] = (1, 10, 50, 200, 1000),
    by: Sequence[str] = ("average_precision", "attribution"),
    ablations: Sequence[str] = ("zero",),
    sentences: int = 40,
    prompts: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
    kept: Kept = lambda name, make: make(),
    progress: bool = False,
) -> Result:
    """Ask whether a model needs the units that know a concept, or only has them.

    The highest units of each concept are silenced, and the concept's word is read where its sentences have it: how far
    does its log-probability fall (`own`), and how far do other concepts' words fall in theirs (`others`)? What units
    of the concept are needed for is the difference (`selective`). Random units of the same layers and sites stand
    beside, as many. Sets are chosen by several scores, and whether these agree is asked too.

    Args:
      model: a causal language model.
      expertise: a table of it, with the scores that are asked for: `el.attribute(model, train, expertise=expertise)`
        adds attribution.
      concepts: sentences of the same concepts to try on. Attribution is measured by the same word's probability, so
        give others than the table is of, or it is tried on what it was chosen by.
      counts: how many of the highest units to silence.
      by: the scores that choose them, names in `el.SCORES`.
      ablations: what silenced units say: "zero", or "median", the median over these sentences of their mean activation.
      sentences: at most so many of each concept, and as many of others, drawn.
      prompts: texts that say nothing of the concepts, for sufficiency: how far the word's probability after them rises
        when the same units say the median of their responses to the concept's sentences. () leaves that out.
      resamples: draws of the intervals' bootstrap over concepts.
      seed: of these, and of what is drawn.
      kept: returns what it has kept of a concept, by a name, or calls the function that measures it.
      progress: show a bar of concepts.

    Returns:
      A `Result`. Its table has a row per set and measure ("own", "others", "selective", "sufficiency"): `units` (a
      score, or the random ones placed as by it), `count`, `ablation`, `measure`, `value` (nats), `ci_low`, `ci_high`,
      `concepts`. `tables["comparisons"]` compares sets concept by concept, with `p_value`; `tables["agreement"]` has
      the scores' rank correlation and the share of their highest units, with `chance`; `tables["concepts"]` the
      numbers of each. Figure: "necessity".

    Raises:
      UnsupportedModelError: an encoder.
      ConceptDataError, UnfitConceptsError: a concept without a sentence that has its word after another one, or
        without a word.
      SelectionError: a table of other concepts, or without a score; counts that are no numbers of units, or of more
        than half of them; an unknown ablation; a single concept.

    >>> import expertlens_jax as el
    >>> def sentences(*places):
    ...     return {word: [f"We saw the {word} {place}." for place in places] for word in ("cat", "rain")}
    >>> train, test = (el.load_concepts(each, minimum_sentences=2) for each in (
    ...     sentences("here", "there"), sentences("today", "again")))
    >>> model = el.load_model("lenslet-2m")
    >>> expertise = el.measure_expertise(el.record_responses(model, train.sentences, sites="mlp.up"), train)
    >>> found = el.analysis.necessity(model, expertise, test, counts=[50], by=["average_precision"])
    >>> found.table[["units", "measure"]].values.tolist()[:3]
    [['average_precision', 'own'], ['average_precision', 'others'], ['average_precision', 'selective']]
    """
    counts, by, ablations = check_necessity(counts, by, ablations, sentences)
    for score in by:
        score_units(expertise, score)
    check_order(expertise, concepts, "the table of expertise")
    if len(concepts.concepts) < 2:
        raise SelectionError("one concept was given; what units are needed for wants others beside it.")
    if 2 * counts[-1] > expertise.sizes["unit"]:
        raise SelectionError(
            f"counts go up to {counts[-1]}, and the table has {counted(expertise.sizes['unit'], 'unit')}; wanted at "
            "most half of them, so that as many others are left to hold against them."
        )
    words = read_words(model, concepts)
    typical = typical_activations(model, concepts, expertise) if "median" in ablations else None
    ablation = Ablation(counts, by, ablations)
    parts = []
    for row, name in enumerate(tqdm(concepts.concepts, desc="silencing", unit="concept", disable=not progress)):

        def measure(row: int = row) -> Mapping[str, list]:
            given = {"prompts": tuple(prompts), "forms": forms_of(concepts, row) if prompts else ()}
            return measure_concept(
                model, expertise, row, ablation, words, typical, sentences=sentences, seed=seed, **given
            )

        parts.append(pd.DataFrame(kept(f"concept-{row}", measure)).assign(concept=name, domain=concepts.domains[row]))
    each = pd.concat(parts, ignore_index=True).assign(selective=lambda table: table["own"] - table["others"])
    each["sufficiency"] = each["sufficiency"].astype(float)
    table = summarise_falls(each, resamples=resamples, seed=seed)
    tables = {
        "comparisons": compare_sets(each, by, resamples=resamples, seed=seed),
        "agreement": compare_orders(expertise, by, counts, resamples=resamples, seed=seed),
        "concepts": each[["concept", "domain", *each.columns.drop(["concept", "domain"])]],
    }
    figure = functools.partial(plot.necessity, table, tables["agreement"])
    return Result("necessity", table, tuple(_told(table, tables, by)), {"necessity": figure}, tables)


def check_necessity(
    counts: Sequence[int], by: Sequence[str], ablations: Sequence[str], sentences: int
) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    """Return numbers of units, ascending, and the names of scores and ablations.

    Raises:
      SelectionError: one of them can't be.
    """
    several = tuple(np.atleast_1d(np.asarray(counts, object)).tolist())
    by, ablations = ((each,) if isinstance(each, str) else tuple(each) for each in (by, ablations))
    wrong = [each for each in several if not isinstance(each, numbers.Integral) or isinstance(each, bool) or each < 1]
    if wrong or not several:
        raise SelectionError(f"counts={counts!r} were given; wanted numbers of units, integers of at least 1.")
    if not by:
        raise SelectionError("by is empty; name a score by which units are chosen, such as 'average_precision'.")
    for score in by:
        check_score(score)
    unknown = [each for each in ablations if each not in ABLATIONS]
    if unknown or not ablations:
        raise SelectionError(f"ablations={ablations!r} were given; wanted one or more of {', '.join(ABLATIONS)}.")
    if not isinstance(sentences, numbers.Integral) or sentences < 1:
        raise SelectionError(f"sentences={sentences!r} was given; wanted a number of sentences, 1 or more.")
    return tuple(sorted({int(each) for each in several})), tuple(dict.fromkeys(by)), tuple(dict.fromkeys(ablations))


def _told(table: pd.DataFrame, tables: Mapping[str, pd.DataFrame], by: Sequence[str]) -> list[str]:
    """Tell what was found, at the number of units in the middle, by the first ablation."""
    counts = sorted(set(table["count"]))
    count, ablation = counts[len(counts) // 2], table["ablation"].iloc[0]
    at = table[(table["count"] == count) & (table["ablation"] == ablation)].set_index(["units", "measure"])
    told = []
    for score in by:
        falls = "; ".join(
            f"{name}: {interval(at.loc[(name, 'own')], 'value')} of the concept's word and "
            f"{interval(at.loc[(name, 'others')], 'value')} of others'"
            for name in (score, control_of(score))
        )
        told.append(f"Without {count} units (to {ablation}) log-probability falls, in nats, by {falls}.")
    for row in tables["agreement"].to_dict("records"):
        if row["measure"] == "spearman" or row["count"] == count:
            what = "rank correlation" if row["measure"] == "spearman" else f"share of the highest {count} in common"
            told.append(
                f"{row['first']} and {row['second']}: {what} {interval(row, 'value')} (chance {row['chance']:.2g})."
            )
    return told
