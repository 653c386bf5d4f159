"""The concepts along a table: their names, their domains, and the tree that their overlap makes of them."""

import numpy as np
import scipy.cluster.hierarchy as hierarchy
import xarray as xr
from scipy.spatial.distance import squareform

from expertlens_jax.cards import counted
from expertlens_jax.errors import SelectionError


def concept_names(overlap: xr.DataArray) -> list[str]:
    """Return the concepts' names [concepts], as Python's strings."""
    return [str(name) for name in overlap["concept"].values]


def concept_domains(table: xr.DataArray | xr.Dataset) -> np.ndarray:
    """Return the domain of each concept, [concepts].

    Raises:
      SelectionError: a concept has none, or there are fewer than two domains: nothing to find or to compare.
    """
    domains = [str(name) for name in table["domain"].values] if "domain" in table.coords else []
    if len(set(domains)) < 2 or not all(domains):
        number, lacking = len({*domains} - {""}), domains.count("")
        raise SelectionError(
            f"the concepts have {counted(number, 'domain')}, and {counted(lacking, 'has', 'have')} none; wanted a "
            "domain for each concept, and two or more of them. Give sentences a column 'domain', or choose more "
            "concepts."
        )
    return np.array(domains)


def concept_distances(overlap: xr.DataArray) -> np.ndarray:
    """Return 1 - overlap, float64 [concepts, concepts], with 0 on the diagonal (also of a concept without experts).

    A similarity that can be negative, as a cosine, may give distances up to 2.
    """
    distance = 1 - np.asarray(overlap.values, np.float64)
    np.fill_diagonal(distance, 0)
    return np.maximum((distance + distance.T) / 2, 0)


def link_concepts(overlap: xr.DataArray) -> np.ndarray:
    """Return the tree of the concepts: average linkage of 1 - overlap, its leaves turned so that neighbours are alike.

    Optimal leaf order: Bar-Joseph, Gifford & Jaakkola, Bioinformatics 17, 2001, as scipy has it.

    Args:
      overlap: (concept, other), larger = more alike.

    Returns:
      scipy's linkage, float64 [concepts - 1, 4].
    """
    return hierarchy.linkage(
        squareform(concept_distances(overlap), checks=False), "average", optimal_ordering=len(overlap) > 2
    )
