"""Where in the model the experts are, and whether that is more than an even spread over its units would give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.statistics import resample_counts
from expertlens_jax.experts.ratio import ratio
from expertlens_jax.experts.scores import Sign
from expertlens_jax.experts.selection import select_experts

ALL = "all"  # every domain, layer or site together


def count_experts(experts: xr.DataArray) -> pd.DataFrame:
    """Count an average concept's experts in each layer and site.

    Args:
      experts: bool (concept, unit), from `select_experts`, with the units' `layer` and `site`.

    Returns:
      A row per layer and site: `layer`, `site`, `units` (how many there are), `experts_per_concept` (mean over
      concepts) and `share` (of the site's units, 0 to 1).
    """
    units = pd.DataFrame({name: experts[name].values for name in ("layer", "site")})
    units["experts_per_concept"] = experts.mean("concept").values
    grouped = units.groupby(["layer", "site"], sort=False)["experts_per_concept"]
    counts = grouped.agg(units="size", experts_per_concept="sum").reset_index()
    counts["share"] = counts["experts_per_concept"] / counts["units"]
    return counts


def locate_experts(experts: xr.DataArray, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return the enrichment of every layer, site and layer's site with experts.

    There are rows for each domain of concepts, and for all.

    Enrichment is the place's share of the concepts' experts over its share of the model's units, which is what it
    would hold if experts were spread evenly: 1 is chance, 2 is twice as many. Concepts are pooled, so one with many
    experts weighs more. The 95% percentile interval is of a bootstrap over the domain's concepts: it says how far
    other concepts of the kind might differ, and it is NaN for fewer than two.

    Args:
      experts: bool (concept, unit), from `select_experts`, with `layer` and `site` of the units, and `domain` of the
        concepts where they have one.
      resamples: draws of the bootstrap.
      seed: of `np.random.default_rng`.

    Returns:
      A row per domain and place: `domain`, `layer` and `site` ("all" where they are pooled), `concepts`, `units`,
      `experts_per_concept`, `share` (of the place's units that are an average concept's experts), `share_of_experts`,
      `share_of_units`, `enrichment`, `ci_low`, `ci_high`. Enrichment is NaN in a domain without experts.
    """
    places, counts = _count_places(experts)
    units = places["units"].to_numpy()
    domains = _domains(experts)
    rng = np.random.default_rng(seed)
    tables = []
    for domain in (ALL, *dict.fromkeys(name for name in domains if name)):
        members = np.flatnonzero((domains == domain) | (domain == ALL))
        of_domain = counts[members]
        totals = of_domain[:, -1]
        expected = units / units[-1]
        observed = ratio(of_domain.sum(axis=0), totals.sum(), empty=np.nan)
        drawn = resample_counts(len(members), resamples, rng)
        resampled = ratio(drawn @ of_domain, (drawn @ totals)[:, None], empty=np.nan)
        low, high = _interval(resampled / expected, len(members))
        tables.append(
            places.assign(
                domain=domain,
                concepts=len(members),
                experts_per_concept=of_domain.mean(axis=0),
                share=of_domain.mean(axis=0) / units,
                share_of_experts=observed,
                share_of_units=expected,
                enrichment=observed / expected,
                ci_low=low,
                ci_high=high,
            )
        )
    return pd.concat(tables, ignore_index=True)


def trace_depth(
    expertise: xr.Dataset,
    thresholds: Sequence[float],
    *,
    by: str = "average_precision",
    sign: Sign = "up",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how deep the experts of each kind of block lie as the threshold rises, and how they split over the layers.

    Depth is the mean over experts of their layer, from 0 (first) to 1 (last). Bimodality is the enrichment of the
    first or the last third of the depth, whichever is poorer in experts, over that of the middle third: above 1 both
    ends hold more than the middle, 1 is an even spread. (Sarle's coefficient, the usual one, also rises where experts
    only crowd at one end.) Intervals are 95% percentiles of a bootstrap over concepts; every threshold sees the same
    draws, so that changes against the lowest threshold are paired.

    Args:
      expertise: from `measure_expertise`, with `layer` and `site` of the units.
      thresholds: on the score.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      resamples: draws of the bootstrap.
      seed: of `np.random.default_rng`.

    Returns:
      A row per block ("attn", "mlp": what stands before the dot of its sites; "all") and threshold: `block`,
      `threshold`, `concepts` (that have experts there), `experts_per_concept`, `share` (of all experts), `depth`,
      `ci_low`, `ci_high`, `even_depth` (of all the block's units), `bimodality`, `bimodality_ci_low`,
      `bimodality_ci_high`, `change` (of the depth since the lowest threshold), `change_ci_low`, `change_ci_high`. NaN
      where there are no experts, and bimodality also with fewer than three layers.
    """
    thresholds = sorted(thresholds)
    layers, layer_of = np.unique(expertise["layer"].values, return_inverse=True)
    position = np.linspace(0, 1, len(layers)) if len(layers) > 1 else np.zeros(1)
    blocks = np.array([str(site).partition(".")[0] for site in expertise["site"].values])
    num_concepts = expertise.sizes["concept"]
    drawn = resample_counts(num_concepts, resamples, seed)
    rows = []
    chosen = {threshold: select_experts(expertise, threshold, by=by, sign=sign).values for threshold in thresholds}
    for block in (ALL, *dict.fromkeys(blocks.tolist())):
        here = (blocks == block) | (block == ALL)
        units = np.bincount(layer_of[here], minlength=len(layers))
        first = first_resampled = None
        for threshold, experts in chosen.items():
            counts = np.stack([experts[:, here & (layer_of == i)].sum(axis=1) for i in range(len(layers))], axis=1)
            total, resampled = counts.sum(axis=0), drawn @ counts
            depth, depths = _depth(total, position), _depth(resampled, position)
            first, first_resampled = (depth, depths) if first is None else (first, first_resampled)
            rows.append(
                {
                    "block": block,
                    "threshold": threshold,
                    "concepts": int(counts.any(axis=1).sum()),
                    "experts_per_concept": counts.sum() / num_concepts,
                    "share": float(ratio(counts.sum(), experts.sum(), empty=np.nan)),
                    "depth": float(depth),
                    **_named_interval("", depths, num_concepts),
                    "even_depth": float(_depth(units, position)),
                    "bimodality": float(_bimodality(total, units, position)),
                    **_named_interval("bimodality_", _bimodality(resampled, units, position), num_concepts),
                    "change": float(depth - first),
                    **_named_interval("change_", depths - first_resampled, num_concepts),
                }
            )
    return pd.DataFrame(rows)


def _count_places(experts: xr.DataArray) -> tuple[pd.DataFrame, np.ndarray]:
    """Places (layer, site, units), and each concept's experts there [concepts, places]; the last is the whole model."""
    where = pd.DataFrame({"layer": experts["layer"].values, "site": [str(site) for site in experts["site"].values]})
    values = experts.transpose("concept", "unit").values
    cells: dict[Any, np.ndarray] = dict(where.groupby(["layer", "site"], sort=False).indices)
    of_cells = np.stack([values[:, index].sum(axis=1) for index in cells.values()], axis=1)
    units = np.array([len(index) for index in cells.values()])
    layers, sites = (np.array([cell[i] for cell in cells], dtype=object) for i in (0, 1))
    members = [(layer, site, (layers == layer) & (sites == site)) for layer, site in cells]
    members += [(layer, ALL, layers == layer) for layer in dict.fromkeys(layers)]
    members += [(ALL, site, sites == site) for site in dict.fromkeys(sites)]
    members.append((ALL, ALL, np.ones(len(units), bool)))
    inside = np.stack([mask for _, _, mask in members], axis=1).astype(np.int64)
    places = pd.DataFrame({"layer": [m[0] for m in members], "site": [m[1] for m in members], "units": units @ inside})
    return places, of_cells @ inside


def _domains(experts: xr.DataArray) -> np.ndarray:
    """Return each concept's domain, "" where it has none."""
    if "domain" not in experts.coords:
        return np.full(experts.sizes["concept"], "")
    return np.array([str(name) for name in experts["domain"].values])


def _depth(counts: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return the mean of positions [layers] that stand `counts` [..., layers] times each."""
    return ratio(counts @ position, counts.sum(axis=-1), empty=np.nan)


def _bimodality(counts: np.ndarray, units: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return the poorer end's experts per unit over the middle's, of experts [..., layers] among units [layers]."""
    # Layers on the border, as two of four are, count as the middle.
    third = np.digitize(position, [1 / 3 - 1e-9, 2 / 3 + 1e-9])
    per_unit = [ratio(counts[..., third == i].sum(axis=-1), units[third == i].sum(), empty=np.nan) for i in range(3)]
    return ratio(np.minimum(per_unit[0], per_unit[2]), per_unit[1], empty=np.nan)


def _interval(resampled: np.ndarray, num_concepts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% percentile interval over [resamples, ...].

    It is NaN of a single concept, or if half the resamples are.
    """
    undefined = np.isnan(resampled).mean(axis=0) > 0.5
    if num_concepts < 2 or undefined.all():
        unknown = np.full(resampled.shape[1:], np.nan)
        return unknown, unknown
    low, high = np.nanpercentile(np.where(undefined, 0.0, resampled), [2.5, 97.5], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def _named_interval(prefix: str, resampled: np.ndarray, num_concepts: int) -> dict[str, float]:
    low, high = _interval(resampled, num_concepts)
    return {f"{prefix}ci_low": float(low), f"{prefix}ci_high": float(high)}
