"""Experts against equally active non-experts: whether expertise is more than responding strongly.

A unit that responds strongly to everything responds strongly to a concept's sentences too. Each expert is therefore
compared with a non-expert of the same layer and site that responds as strongly: to the concept's sentences (median),
and to the others (mean). The two can't both be quite the same, or the unit would be an expert too: what is left of
the difference is reported.
"""

import dataclasses

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.cards import counted
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.concept_tree import concept_domains
from expertlens_jax.experts.controls import match_by_activity
from expertlens_jax.experts.selection import average_precision, check_same_table, expert_sets
from expertlens_jax.models.provenance import differences, read_provenance

MATCHES = ("concept", "others", "both")
MEASURES = ("ap", "held_out_ap", "same_domain", "other_domains", "concept_response", "other_response")


def match_non_experts(
    expertise: xr.Dataset, experts: xr.DataArray, concept: str, match: str = "both"
) -> tuple[np.ndarray, np.ndarray]:
    """Find for each expert a non-expert of its own, of the same layer and site and as active.

    Activities are standardised within the layer and site; the assignment is the one of least total distance
    (`scipy.optimize.linear_sum_assignment`). Where a site has fewer non-experts than experts, some experts go without.

    Args:
      expertise: from `measure_expertise`.
      experts: of it, bool (concept, unit).
      concept: whose experts.
      match: what is alike: "concept" (the median response to its sentences), "others" (the mean response to the
        others' sentences) or "both".

    Returns:
      Positions of experts and of their matches among the units, int [pairs] each.
    """
    row = expertise.sel(concept=concept)
    expert = expert_sets(experts).sel(concept=concept).values
    activity = {"concept": row["positive_median"].values, "others": row["negative_mean"].values}
    chosen = np.stack([activity[name] for name in (("concept", "others") if match == "both" else (match,))], axis=1)
    return match_by_activity(row, chosen, expert, ~expert, standardised=True)


def _check_same_network(expertise: xr.Dataset, held_out: xr.Dataset) -> None:
    """Raise SelectionError where the held-out average precision is of another network's units, or read otherwise."""
    tables = (read_provenance(each.attrs) for each in (expertise, held_out))
    alike = dict.fromkeys(("sentences_sha256", "tokens_sha256"), "")  # of other sentences it is meant to be
    known = [dataclasses.replace(each, **alike) for each in tables if each is not None]
    why = differences(*known) if len(known) == 2 else ""
    if why or expertise.sizes["unit"] != held_out.sizes["unit"]:
        raise SelectionError(
            f"the held-out table is of {counted(held_out.sizes['unit'], 'unit')} of {held_out.attrs.get('model')}, the "
            f"table of expertise of {expertise.sizes['unit']} of "
            f"{expertise.attrs.get('model')}{f' ({why})' if why else ''}. Measure both of the same model, alike."
        )


def compare_matched(
    expertise: xr.Dataset, experts: xr.DataArray, held_out: xr.Dataset | None = None, match: str = "both"
) -> pd.DataFrame:
    """Return each concept's experts against equally active non-experts.

    Args:
      expertise: from `measure_expertise`, with `domain`.
      experts: of it, bool (concept, unit).
      held_out: expertise of the same units on other sentences of (some of) the same concepts. Experts were chosen by
        their AP here, so that only there is it no selection's.
      match: what is alike, as for `match_non_experts`.

    Returns:
      A row per concept with experts: `concept`, `domain`, `experts` (that have a match), and for each measure a column
      of either's mean, `…_experts` and `…_matched`: `ap`, `held_out_ap` (NaN without), `same_domain` and
      `other_domains` (how many other concepts of its domain, and of others, the unit is an expert on),
      `concept_response` (median over the concept's sentences), `other_response` (mean over the others').

    Raises:
      SelectionError: the experts aren't of this table, or the held-out table is of another network.
    """
    check_same_table(expertise, experts)
    if held_out is not None:
        _check_same_network(expertise, held_out)
    domains, sets = concept_domains(experts), expert_sets(experts).values
    precision = average_precision(expertise).values
    names = [str(name) for name in expertise["concept"].values]
    elsewhere = {}
    if held_out is not None:
        rows = dict(
            zip((str(name) for name in held_out["concept"].values), range(len(held_out["concept"])), strict=True)
        )
        elsewhere = {name: average_precision(held_out).values[rows[name]] for name in names if name in rows}
    unknown = np.full(sets.shape[1], np.nan)
    tables = []
    for i, name in enumerate(names):
        ours, theirs = match_non_experts(expertise, experts, name, match)
        if not len(ours):
            continue
        same = domains == domains[i]
        others = np.arange(len(names)) != i
        values = {
            "ap": precision[i],
            "held_out_ap": elsewhere.get(name, unknown),
            "same_domain": sets[same & others].sum(axis=0),
            "other_domains": sets[~same].sum(axis=0),
            "concept_response": expertise["positive_median"].values[i],
            "other_response": expertise["negative_mean"].values[i],
        }
        means = {
            f"{measure}_{side}": values[measure][units].mean(dtype=np.float64)
            for measure in MEASURES
            for side, units in (("experts", ours), ("matched", theirs))
        }
        tables.append({"concept": name, "domain": domains[i], "experts": len(ours)} | means)
    columns = [f"{measure}_{side}" for measure in MEASURES for side in ("experts", "matched")]
    return pd.DataFrame(tables, columns=["concept", "domain", "experts", *columns])


def summarise_matched(compared: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return the means over concepts of what `compare_matched` found.

    Args:
      compared: its table.
      resamples: draws of a bootstrap over concepts.
      seed: of `np.random.default_rng`.

    Returns:
      A row per measure: `measure`, `concepts`, `experts`, `matched` (means), `difference`, `ci_low`, `ci_high`.
    """
    rows = []
    for measure in MEASURES:
        ours, theirs = compared[f"{measure}_experts"], compared[f"{measure}_matched"]
        difference, low, high = bootstrap_mean((ours - theirs).to_numpy(float)[:, None], resamples, seed)
        rows.append([measure, int((ours - theirs).notna().sum()), ours.mean(), theirs.mean(), difference, low, high])
    return pd.DataFrame(rows, columns=["measure", "concepts", "experts", "matched", "difference", "ci_low", "ci_high"])
