"""Alignment within domains: do people and a similarity agree on what is alike among animals, and among foods?

Over all pairs, a similarity may align with people by telling domains apart alone. Within a domain it can't.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.similarity.alignment import MINIMUM_PAIRS, similarity_of_pairs
from expertlens_jax.analysis.statistics import jackknife_over_concepts, spearman, weighted_spearman
from expertlens_jax.cards import counted
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import ExpertLensError


def align_within_domains(
    similarity: xr.DataArray, ratings: Ratings, domains: Sequence[str], *, minimum_pairs: int = MINIMUM_PAIRS
) -> pd.DataFrame:
    """Correlate a similarity with human ratings within each domain, and average; beside it, over all pairs.

    Args:
      similarity: [concept, other], as for `align`.
      ratings: human ratings.
      domains: `[concepts]`, the domain of each; "" for none.
      minimum_pairs: the fewest rated pairs within a domain that has a number of its own.

    Returns:
      A row per domain with a rated pair within it, then "mean" (of the domains' correlations, each counting once) and
      "pooled" (over all rated pairs, also between domains): scope, pairs, spearman, ci_low, ci_high, p_value, note. The
      intervals leave out one concept at a time, as `align`'s; a domain's own number has none, since it rests on few
      concepts. A note says why there is no number.

    Raises:
      ExpertLensError: as `align`; domains that are not as many as the concepts; or fewer than 3 minimum pairs.
    """
    if len(domains) != similarity.sizes.get("concept", -1):
        raise ExpertLensError(
            f"{counted(len(domains), 'domain was', 'domains were')} given for "
            f"{counted(similarity.sizes.get('concept', 0), 'concept')}; give one of each"
        )
    if minimum_pairs < 3:
        raise ExpertLensError(f"minimum_pairs is {minimum_pairs}; wanted 3 or more")
    rated, of_pairs = similarity_of_pairs(similarity, ratings)
    named = np.array([str(domain) for domain in domains], object)
    within = (named[rated.first] == named[rated.second]) & (named[rated.first] != "")
    rows, rated_within = [], []
    for domain in dict.fromkeys(named[rated.first][within]):
        here = within & (named[rated.first] == domain)
        row = {"scope": domain, "pairs": int(here.sum()), "note": ""}
        if here.sum() < minimum_pairs:
            row["note"] = f"{here.sum()} rated pairs within it; wanted are {minimum_pairs}"
        elif np.isnan(rho := spearman(of_pairs[here], rated.scores[here])):
            row["note"] = "the similarity or the ratings are all the same"
        else:
            row["spearman"] = rho
            rated_within.append(here)
        rows.append(row)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.mean([weighted_spearman(of_pairs, rated.scores, weights * here) for here in rated_within], axis=0)

    def pooled(weights: np.ndarray) -> np.ndarray:
        return weighted_spearman(of_pairs, rated.scores, weights)

    enough = len(rated.scores) >= minimum_pairs
    for scope, statistic, there, some in (
        ("mean", mean, np.any(rated_within, axis=0) if rated_within else within, bool(rated_within)),
        ("pooled", pooled, np.ones(len(rated.scores), bool), enough),
    ):
        row: dict[str, Any] = {"scope": scope, "pairs": int(np.sum(there)), "note": ""}
        if some:
            estimate = jackknife_over_concepts(statistic, rated.first, rated.second)
            row |= {"spearman": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
            row |= {"p_value": estimate.p_value}
        else:
            row["note"] = f"{'no domain has' if scope == 'mean' else 'there are not'} {minimum_pairs} rated pairs"
        rows.append(row)
    return pd.DataFrame(rows, columns=["scope", "pairs", "spearman", "ci_low", "ci_high", "p_value", "note"])
