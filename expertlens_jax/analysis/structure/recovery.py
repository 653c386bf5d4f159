"""Whether people's domains come out of an overlap that was never told of them, against domains handed out at random.

Six statistics. Four compare the clusters of the tree (average linkage, cut into as many clusters as there are
domains) with the domains: the adjusted Rand index (Hubert & Arabie, J. Classification 2, 1985), normalised and adjusted
mutual information (arithmetic mean; Vinh, Epps & Bailey, JMLR 11, 2010), and purity (the share of concepts that are of
their cluster's commonest domain). Two need no clusters: the silhouette of the domains (Rousseeuw, J. Comput. Appl.
Math. 20, 1987), and the leave-one-out accuracy of telling a concept's domain from its nearest concepts'.

All are scikit-learn's numbers; they are computed here for thousands of permuted domains at once.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.cluster.hierarchy as hierarchy
import scipy.special
import xarray as xr
from sklearn.metrics.cluster import expected_mutual_information

from expertlens_jax.analysis.statistics import count_groupings, least_p_of_permutations, p_of_draws
from expertlens_jax.experts.concept_tree import concept_distances, concept_domains, link_concepts

STATISTICS = ("ari", "ami", "nmi", "purity", "silhouette", "knn_accuracy")
_CELLS = 4_000_000  # float64 numbers in one block of permutations: 32 MB


def cluster_concepts(overlap: xr.DataArray, number: int) -> np.ndarray:
    """Cut the concepts' tree into `number` clusters: int [concepts], from 0.

    There are fewer where that many can't be told apart: concepts that overlap with nothing join at the same height.
    """
    return hierarchy.fcluster(link_concepts(overlap), number, "maxclust") - 1


def recover_domains(
    overlap: xr.DataArray, *, neighbours: int = 5, permutations: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Return how well an overlap recovers the domains, each statistic with its permutation null.

    The null gives concepts each other's domains and leaves the overlap, its tree and its neighbours as they are.

    Args:
      overlap: (concept, other), larger = more alike, with `domain`.
      neighbours: how many vote on a concept's domain. Where domains tie for most votes, the right one counts as found
        in proportion; concepts that are equally near are taken in an order drawn at random.
      permutations: how many to draw.
      seed: of `np.random.default_rng`.

    Returns:
      A row per statistic: `statistic`, `value`, `null_mean`, `null_low`, `null_high` (95% of the null), `p_value`
      = (1 + #{null >= value}) / (1 + permutations), `least_p` (the smallest that it could have been, with so many
      permutations and so many ways to group the concepts), `concepts`, `domains`, `clusters`.

    Raises:
      SelectionError: concepts without a domain, or fewer than two domains.
    """
    _, labels = np.unique(concept_domains(overlap), return_inverse=True)
    number = labels.max() + 1
    clusters = cluster_concepts(overlap, number)
    distance = concept_distances(overlap)
    rng = np.random.default_rng(seed)
    nearest = _nearest(distance, min(neighbours, len(labels) - 1), rng)

    def measure(labels: np.ndarray) -> dict[str, np.ndarray]:
        member = labels[..., None] == np.arange(number)
        return (
            compare_clusters(clusters, member)
            | {"silhouette": silhouettes(distance, member)}
            | {"knn_accuracy": neighbour_accuracy(nearest, member)}
        )

    value = measure(labels[None])
    null = [measure(permuted) for permuted in _permuted(labels, permutations, number, rng)]
    least_p = least_p_of_permutations(permutations, count_groupings(labels.tolist()))
    rows = []
    for name in STATISTICS:
        observed, drawn = float(value[name][0]), np.concatenate([block[name] for block in null])
        low, high = np.percentile(drawn, [2.5, 97.5])
        p = p_of_draws(int(np.sum(drawn >= observed - 1e-12)), permutations)
        rows.append([name, observed, drawn.mean(), low, high, p, least_p, len(labels), number, clusters.max() + 1])
    columns = ["statistic", "value", "null_mean", "null_low", "null_high", "p_value", "least_p"]
    return pd.DataFrame(rows, columns=[*columns, "concepts", "domains", "clusters"])


def compare_clusters(clusters: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Return the agreement of clusters with domains, for many hand-outs of the same domains at once.

    Args:
      clusters: int [concepts], from 0.
      member: bool [hand-outs, concepts, domains], one domain for each concept, the same sizes in each hand-out.

    Returns:
      `ari`, `ami`, `nmi` and `purity`, float64 [hand-outs].
    """
    of_cluster = (clusters[:, None] == np.arange(clusters.max() + 1)).astype(np.float64)
    tables = np.einsum("ck,pcd->pkd", of_cluster, member.astype(np.float64), optimize=True)
    total, rows, columns = len(clusters), tables[0].sum(axis=1), tables[0].sum(axis=0)

    pairs = scipy.special.binom
    together = pairs(tables, 2).sum(axis=(1, 2))
    in_rows, in_columns = pairs(rows, 2).sum(), pairs(columns, 2).sum()
    expected = in_rows * in_columns / pairs(total, 2)
    most = (in_rows + in_columns) / 2
    # One cluster and one domain, or only singletons of both: as agreed as can be.
    ari = np.ones(len(tables)) if most == expected else (together - expected) / (most - expected)

    entropy = [scipy.special.entr(sizes / total).sum() for sizes in (rows, columns)]
    information = sum(entropy) - scipy.special.entr(tables / total).sum(axis=(1, 2))
    mean = sum(entropy) / 2
    chance = expected_mutual_information(tables[0].astype(np.int64), total)
    return {
        "ari": ari,
        "ami": (information - chance) / (mean - chance) if mean - chance > 1e-12 else np.zeros(len(tables)),
        "nmi": information / mean,
        "purity": tables.max(axis=2).sum(axis=1) / total,
    }


def silhouettes(distance: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Return the mean silhouette of domains, float64 [hand-outs], from distances [concepts, concepts].

    A concept alone in its domain has silhouette 0.
    """
    inside = member.astype(np.float64)
    sums = np.matmul(distance, inside)  # [hand-outs, concepts, domains]: from each concept to each domain
    sizes = inside[0].sum(axis=0)
    of_own = np.matmul(inside, sizes)
    own = np.where(member, sums, 0).sum(axis=2) / np.maximum(of_own - 1, 1)
    other = np.where(member, np.inf, sums / sizes).min(axis=2)
    larger = np.maximum(own, other)
    each = np.divide(other - own, larger, out=np.zeros_like(own), where=(larger > 0) & (of_own > 1))
    return each.mean(axis=1)


def neighbour_accuracy(nearest: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Return the share of concepts whose nearest [concepts, neighbours] vote for their domain, float64 [hand-outs]."""
    votes = np.sum([member[:, column].astype(np.int64) for column in nearest.T], axis=0)
    winning = votes == votes.max(axis=2, keepdims=True)
    return ((winning & member).sum(axis=2) / winning.sum(axis=2)).mean(axis=1)


def _nearest(distance: np.ndarray, neighbours: int, rng: np.random.Generator) -> np.ndarray:
    """Return each concept's nearest others, int [concepts, neighbours]."""
    # Rounded, so that what ties except for the last bit is drawn too.
    keys = np.round(distance, 12)
    np.fill_diagonal(keys, np.inf)
    # Ties would otherwise go to whoever stands first in the table, which is sorted by domain.
    return np.lexsort((rng.random(keys.shape), keys), axis=1)[:, :neighbours]


def _permuted(labels: np.ndarray, permutations: int, number: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks of permuted labels, int [some, concepts]."""
    size = max(1, _CELLS // (len(labels) * number))
    for start in range(0, permutations, size):
        block = np.tile(labels, (min(size, permutations - start), 1))
        yield rng.permuted(block, axis=1)
