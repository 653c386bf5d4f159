"""How sure a number over pairs of concepts is: rank correlations, their intervals, and their p-values.

Pairs of concepts are not independent observations: "cat, dog" and "cat, horse" share a cat, and whatever
is odd about the cat's sentences moves both. Everything here therefore leaves out, resamples or permutes
*concepts*, never pairs alone. `first` and `second` are always the two concepts of each rated pair, as indices.
"""

from expertlens_jax.analysis.statistics.correlation import (
    partial_spearman,
    spearman,
    weighted_partial_spearman,
    weighted_spearman,
)
from expertlens_jax.analysis.statistics.draws import p_of_draws, resample_counts
from expertlens_jax.analysis.statistics.intervals import (
    Estimate,
    Statistic,
    bootstrap_mantel,
    bootstrap_mean,
    bootstrap_mean_of_pairs,
    bootstrap_over_concepts,
    jackknife_over_concepts,
    mean_over_triplets,
)
from expertlens_jax.analysis.statistics.least_p import (
    count_groupings,
    count_orders,
    least_p_of_ks,
    least_p_of_permutations,
    least_p_of_signs,
)
from expertlens_jax.analysis.statistics.permutations import diagonal_p, holm, mantel, permutation_p, signed_ranks_p

__all__ = [
    "Estimate",
    "Statistic",
    "bootstrap_mantel",
    "bootstrap_mean",
    "bootstrap_mean_of_pairs",
    "bootstrap_over_concepts",
    "count_groupings",
    "count_orders",
    "diagonal_p",
    "holm",
    "jackknife_over_concepts",
    "least_p_of_ks",
    "least_p_of_permutations",
    "least_p_of_signs",
    "mantel",
    "mean_over_triplets",
    "p_of_draws",
    "partial_spearman",
    "permutation_p",
    "resample_counts",
    "signed_ranks_p",
    "spearman",
    "weighted_partial_spearman",
    "weighted_spearman",
]
