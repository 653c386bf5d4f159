"""Whether a concept's experts are together in few of a mixture's experts, and whether the router knows the concept."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.analysis.structure.localisation import ALL
from expertlens_jax.analysis.structure.mixture import units_of_mixture
from expertlens_jax.experts.ratio import ratio

CONCEPT, DOMAIN, OTHERS = "same concept", "same domain", "other domains"
"""Kinds of pairs of two experts: both on one concept, on two of one domain, on two of different domains or of none."""
PAIRS = (CONCEPT, DOMAIN, OTHERS)


def count_together(experts: xr.DataArray) -> pd.DataFrame:
    """Count the pairs of two experts in a layer that are within one and the same of the mixture's experts.

    Both are other units; one is the concept's, the second is the same concept's or another's. Were experts drawn at
    random from the layer's units, as many pairs would be together as of any two units: Morisita's index of dispersion
    (Mem. Fac. Sci. Kyushu Univ. E 2, 1959) is what is together over that, and Horn's (Am. Nat. 100, 1966) for two
    concepts. Neither depends on how many experts there are.

    Args:
      experts: bool (concept, unit), from `select_experts`, with `layer`, `site` and `expert` of the units, and `domain`
        of the concepts where they have one.

    Returns:
      A row per concept, layer and kind of pair: `concept`, `layer`, `pair` (one of `PAIRS`), `pairs`, `together` (how
      many of these) and `expected` (how many by chance). There are no rows of kinds that no concept has.

    Raises:
      SelectionError: there are no units of a mixture's experts.
    """
    within, _ = units_of_mixture(experts)
    sets = experts.transpose("concept", "unit").values[:, within]
    layers, numbers = (experts[name].values[within].astype(int) for name in ("layer", "expert"))
    kinds = {kind: same for kind, same in _kinds(experts).items() if same.any()}
    names = [str(name) for name in experts["concept"].values]
    tables = []
    for layer in np.unique(layers):
        own, place = sets[:, layers == layer], np.unique(numbers[layers == layer], return_inverse=True)[1]
        units = np.bincount(place)
        chance = (units * (units - 1)).sum() / max(1, units.sum() * (units.sum() - 1))
        counts = np.stack([own[:, place == i].sum(axis=1) for i in range(len(units))], axis=1).astype(float)
        shared = own.astype(np.float32) @ own.T.astype(np.float32)  # a unit of both is no pair
        pairs = np.outer(counts.sum(axis=1), counts.sum(axis=1)) - shared
        together = counts @ counts.T - shared
        for kind, same in kinds.items():
            halves = 2 if kind == CONCEPT else 1  # of one concept, each pair is met from either side
            of_kind = np.where(same, pairs, 0).sum(axis=1) / halves
            rows = {"layer": layer, "pair": kind, "pairs": of_kind.astype(int)}
            rows["together"] = (np.where(same, together, 0).sum(axis=1) / halves).astype(int)
            tables.append(pd.DataFrame({"concept": names, **rows, "expected": of_kind * chance}))
    return pd.concat(tables, ignore_index=True)


def summarise_together(counts: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return how many times as often as by chance experts are together, the mean over concepts.

    Args:
      counts: of `count_together`.
      resamples: draws of the bootstrap over concepts.
      seed: of `np.random.default_rng`.

    Returns:
      A row per layer ("all": pairs of all layers, each within one) and kind of pair: `layer`, `pair`, `concepts` (that
      have such pairs), `pairs`, `times_chance` (1 is chance), `ci_low`, `ci_high`, and, of kinds of two concepts,
      `lead`, `lead_ci_low` and `lead_ci_high`: by how much the same concept's is higher. Intervals are 95%, and NaN of
      fewer than two concepts.
    """
    whole = counts.groupby(["concept", "pair"], sort=False)[["pairs", "together", "expected"]].sum().reset_index()
    counts = pd.concat([whole.assign(layer=ALL), counts], ignore_index=True)
    counts["times"] = ratio(counts["together"], counts["expected"], empty=np.nan)
    draws = {"resamples": resamples, "seed": seed}
    rows = []
    for layer, here in counts.groupby("layer", sort=False):
        times = here.pivot_table(index="concept", columns="pair", values="times", sort=False, dropna=False)
        for pair in (kind for kind in PAIRS if kind in set(here["pair"])):
            row = {"layer": layer, "pair": pair, "concepts": int(times[pair].notna().sum())}
            row |= {"pairs": int(here.loc[here["pair"] == pair, "pairs"].sum())}
            row |= _over_concepts(times[pair], ("times_chance", "ci_low", "ci_high"), **draws)
            lead = times[CONCEPT] - times[pair] if pair != CONCEPT else times[pair] * np.nan
            rows.append(row | _over_concepts(lead, ("lead", "lead_ci_low", "lead_ci_high"), **draws))
    return pd.DataFrame(rows)


def score_routers(
    places: pd.DataFrame, held_out: pd.DataFrame | None = None, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return whether the router's logits know the concepts whose experts are in the mixture's expert that they choose.

    Args:
      places: of `locate_in_mixture`.
      held_out: the same of other sentences, whose scores of the router are taken: chance in one set's sentences, which
        moves an expert's units and its logit together, is then no evidence. Concepts that it lacks are left out.
      resamples: draws of the bootstrap over concepts.
      seed: of `np.random.default_rng`.

    Returns:
      One row: `concepts` (with experts there, and a router that was measured), `own` (the logits' mean score, each
      weighed by how many of the concept's experts it chooses), `layer` (the mean over all logits of the same layers),
      `lead` (the first less the second: 0 is chance), each with its 95% interval over concepts as `own_ci_low` ...
    """
    keys = ["concept", "layer", "expert"]
    if held_out is not None:
        places = places.drop(columns="router").merge(held_out[[*keys, "router"]], on=keys, how="left")
    places = places.assign(mean=places.groupby(["concept", "layer"])["router"].transform("mean"))
    places = places[(places["experts"] > 0) & places["router"].notna()]
    weights = places["experts"]
    weighed = pd.DataFrame(
        {"concept": places["concept"], "own": places["router"] * weights, "layer": places["mean"] * weights}
    )
    sums = weighed.groupby("concept", sort=False).sum()
    means = sums.div(weights.groupby(places["concept"], sort=False).sum(), axis=0)
    row: dict[str, float] = {"concepts": len(means)}
    for name, values in (("own", means["own"]), ("layer", means["layer"]), ("lead", means["own"] - means["layer"])):
        named = (name, f"{name}_ci_low", f"{name}_ci_high")
        row |= _over_concepts(values, named, resamples=resamples, seed=seed)
    return pd.DataFrame([row])


def _kinds(experts: xr.DataArray) -> dict[str, np.ndarray]:
    """Return which pairs of concepts are of each kind, bool [concepts, concepts]."""
    number = experts.sizes["concept"]
    domains = [str(each) for each in experts["domain"].values] if "domain" in experts.coords else [""] * number
    named = np.array([each or f" {i}" for i, each in enumerate(domains)])  # without a domain, one of its own
    same = named[:, None] == named
    itself = np.eye(number, dtype=bool)
    return {CONCEPT: itself, DOMAIN: same & ~itself, OTHERS: ~same}


def _over_concepts(values: pd.Series, names: Sequence[str], *, resamples: int, seed: int) -> dict[str, float]:
    """Return the mean over concepts and its interval, by these names."""
    known = values.dropna().to_numpy(float)
    mean, low, high = bootstrap_mean(known[:, None], resamples, seed)
    return dict(zip(names, (mean, low, high) if len(known) > 1 else (mean, np.nan, np.nan), strict=True))
