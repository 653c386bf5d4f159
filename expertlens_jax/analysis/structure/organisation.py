"""How overlap arranges the concepts: their tree, a map of them, the domains between, and who sits elsewhere."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import TSNE, smacof, trustworthiness
from threadpoolctl import threadpool_limits

from expertlens_jax.analysis.statistics import p_of_draws
from expertlens_jax.cards import counted
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.concept_tree import concept_distances, concept_domains, concept_names
from expertlens_jax.experts.ratio import ratio

MAPS = {"mds": "multidimensional scaling", "tsne": "t-SNE"}
"""Ways to make a map of the concepts, and what figures call them."""


def map_concepts(overlap: xr.DataArray, method: str = "mds", neighbours: int = 5) -> pd.DataFrame:
    """Return a map of the concepts in two dimensions, of 1 - overlap as their distance.

    Multidimensional scaling keeps all distances as well as a plane can: metric stress, brought down by SMACOF, from
    classical scaling (Torgerson, Psychometrika 17, 1952). Overlaps are mostly small, so that distances are nearly all
    the same, and no plane holds that. t-SNE (van der Maaten & Hinton, JMLR 9, 2008), from the same start, gives the
    large distances up and keeps neighbours together. Both are scikit-learn's; how far one can trust a map comes
    with it.

    Args:
      overlap: (concept, other), with `domain`.
      method: "mds" or "tsne".
      neighbours: how many of a concept's, for the map's trustworthiness; fewer than half the concepts.

    Returns:
      A row per concept: `concept`, `domain`, `x`, `y`; among its attributes `stress` (Kruskal's stress-1: 0 is
      perfect, 0.2 poor) and `trustworthiness` (Venna & Kaski, ICANN 2001: 1 if neighbours on the map are neighbours
      in truth; 0.5 is what a map at random has).

    Raises:
      SelectionError: another method, or fewer than four concepts.
    """
    if method not in MAPS:
        raise SelectionError(f"a map by {method!r} was given; wanted one of {', '.join(MAPS)}.")
    if len(overlap) < 4:
        raise SelectionError(f"a map of {counted(len(overlap), 'concept')} says nothing; wanted four or more.")
    distance = concept_distances(overlap)
    number = len(distance)
    centring = np.eye(number) - 1 / number
    values, vectors = np.linalg.eigh(-centring @ distance**2 @ centring / 2)
    # An axis may point either way: the largest coordinate is made positive, whatever the machine.
    start = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 1e-12))
    start *= np.sign(start[np.abs(start).argmax(axis=0), [0, 1]])
    if method == "mds":
        places, _ = smacof(
            distance, n_components=2, init=start, n_init=1, max_iter=1000, eps=1e-8, normalized_stress=False
        )
    else:
        perplexity = min(15.0, (number - 1) / 3)
        start *= 1e-4 / start[:, 0].std()  # as scikit-learn scales its own start
        tsne = TSNE(metric="precomputed", init=start, perplexity=perplexity, random_state=0)
        with threadpool_limits(1, "openmp"):  # threads that wait for each other at each step took 30 times as long
            places = tsne.fit_transform(distance)
    table = pd.DataFrame({"concept": concept_names(overlap), "domain": _domains(overlap), "x": places[:, 0]})
    table["y"] = places[:, 1]
    drawn = squareform(pdist(places))
    scale = (drawn * distance).sum() / np.square(drawn).sum()  # a map has no unit
    table.attrs["stress"] = float(np.sqrt(np.square(scale * drawn - distance).sum() / np.square(distance).sum()))
    neighbours = max(1, min(neighbours, (number - 1) // 2))
    table.attrs["trustworthiness"] = float(
        trustworthiness(distance, places, n_neighbors=neighbours, metric="precomputed")
    )
    return table


def tell_map(place: pd.DataFrame) -> str:
    """Return what a figure says of a map: how it was made, and how far one can trust it.

    Args:
      place: from `map_concepts`, with the column `method`, and its attributes as columns.
    """
    first = place.iloc[0]
    quality = ", ".join(f"{name} {first[name]:.2f}" for name in ("stress", "trustworthiness"))
    return f"{MAPS[first['method']]} ({quality})"


def relate_domains(overlap: xr.DataArray, *, permutations: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Return the mean overlap between any two domains, and within each, against domains handed out at random.

    The null gives concepts each other's domains; p is (1 + #{null >= observed}) / (1 + permutations), one-sided: more
    overlap than chance. q is p after Benjamini and Hochberg's correction over all rows.

    Args:
      overlap: (concept, other), with `domain`.
      permutations: how many to draw.
      seed: of `np.random.default_rng`.

    Returns:
      A row per two domains, and per domain with itself: `domain_1`, `domain_2`, `pairs` (of different concepts),
      `overlap` (their mean), `null_mean`, `ratio` (of the two), `p_value`, `q_value`; NaN for a domain of one concept
      with itself.
    """
    names = concept_domains(overlap)
    domains = list(dict.fromkeys(names.tolist()))
    values = np.asarray(overlap.values, np.float64).copy()
    np.fill_diagonal(values, 0)
    member = (names[:, None] == np.array(domains)).astype(np.float64)
    sizes = member.sum(axis=0)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)

    def mean_overlap(member: np.ndarray) -> np.ndarray:
        return ratio(member.T @ values @ member, pairs, empty=np.nan)

    observed = mean_overlap(member)
    rng = np.random.default_rng(seed)
    total, extreme = np.zeros_like(observed), np.zeros_like(observed)
    for _ in range(permutations):
        null = mean_overlap(member[rng.permutation(len(member))])
        total += null
        extreme += null >= observed - 1e-12
    first, second = np.triu_indices(len(domains))
    table = pd.DataFrame({"domain_1": np.array(domains)[first], "domain_2": np.array(domains)[second]})
    table["pairs"] = np.where(first == second, pairs[first, second] / 2, pairs[first, second]).astype(int)
    table["overlap"] = observed[first, second]
    table["null_mean"] = total[first, second] / permutations
    table["ratio"] = table["overlap"] / table["null_mean"].where(table["null_mean"] > 0)
    table["p_value"] = p_of_draws(extreme, permutations)[first, second]
    table.loc[table["pairs"] == 0, "p_value"] = np.nan
    known = table["p_value"].notna()
    table.loc[known, "q_value"] = scipy.stats.false_discovery_control(table.loc[known, "p_value"])
    return table


def find_misplaced(overlap: xr.DataArray, neighbours: int = 5) -> pd.DataFrame:
    """Return the concepts that sit elsewhere than people put them.

    Most of their nearest concepts are of another domain.

    A concept sits with the domain that has most of its nearest neighbours; of equal ones, with that of the larger
    overlap. One that overlaps with nothing sits nowhere, and isn't listed.

    Args:
      overlap: (concept, other), with `domain`.
      neighbours: how many.

    Returns:
      A row per misplaced concept, the most misplaced first: `concept`, `domain`, `sits_with`, `neighbours_there`,
      `neighbours_own` (how many of either domain), `overlap_there`, `overlap_own` (mean overlap with all of either),
      `neighbours` ("bacon 0.31, beef 0.30, …").
    """
    domains, names = concept_domains(overlap), concept_names(overlap)
    values = np.asarray(overlap.values, np.float64).copy()
    np.fill_diagonal(values, -np.inf)
    neighbours = min(neighbours, len(values) - 1)
    rows = []
    for i, row in enumerate(values):
        if row.max() <= 0:
            continue
        nearest = np.argsort(-row, kind="stable")[:neighbours]
        near = pd.DataFrame({"domain": domains[nearest], "overlap": row[nearest]})
        votes = near.groupby("domain")["overlap"].agg(["size", "sum"])
        sits_with = max(votes.index, key=lambda domain: (votes.at[domain, "size"], votes.at[domain, "sum"]))
        if sits_with == domains[i]:
            continue
        others = np.arange(len(values)) != i
        own = (domains == domains[i]) & others
        rows.append(
            {
                "concept": names[i],
                "domain": domains[i],
                "sits_with": sits_with,
                "neighbours_there": int(votes.at[sits_with, "size"]),
                "neighbours_own": int((near["domain"] == domains[i]).sum()),
                "overlap_there": row[domains == sits_with].mean(),
                "overlap_own": row[own].mean() if own.any() else np.nan,
                "neighbours": ", ".join(f"{names[j]} {row[j]:.2f}" for j in nearest),
            }
        )
    columns = ["concept", "domain", "sits_with", "neighbours_there", "neighbours_own", "overlap_there", "overlap_own"]
    table = pd.DataFrame(rows, columns=[*columns, "neighbours"])
    far = (table["neighbours_there"] - table["neighbours_own"]).astype(float)
    order = np.lexsort((-(table["overlap_there"] - table["overlap_own"]).astype(float), -far))
    return table.iloc[order].reset_index(drop=True)


def compare_spelling(overlap: xr.DataArray, tokens: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Return the mean overlap of pairs whose words share a token, and of those that don't, within domains and between.

    A tokenizer splits rare words ("stork" and "stove" may both start with "sto"): what such words share may be
    their spelling.

    Args:
      overlap: (concept, other), with `domain`.
      tokens: of each concept's word, [concepts] of any length.

    Returns:
      A row per `same_domain` (bool) and `shares_token` (bool): `pairs`, `overlap` (mean; NaN without pairs).
    """
    domains, values = concept_domains(overlap), np.asarray(overlap.values, np.float64)
    first, second = np.triu_indices(len(values), 1)
    same = domains[first] == domains[second]
    shares = np.array([not set(tokens[i]).isdisjoint(tokens[j]) for i, j in zip(first, second, strict=True)])
    rows = []
    for within in (True, False):
        for sharing in (True, False):
            of = values[first, second][(same == within) & (shares == sharing)]
            mean = of.mean() if len(of) else np.nan
            rows.append({"same_domain": within, "shares_token": sharing, "pairs": len(of), "overlap": mean})
    return pd.DataFrame(rows)


def graph_concepts(
    overlap: xr.DataArray, neighbours: int = 3, *, words: Sequence[str] = (), tokens: Sequence[Sequence[int]] = ()
) -> pd.DataFrame:
    """Return the graph of the concepts: an edge from each to those that it overlaps with most.

    Args:
      overlap: (concept, other), with `domain`.
      neighbours: edges that each concept brings; two concepts that choose each other have one edge.
      words: the concepts' words, to tell those that begin alike; their names if left out.
      tokens: of each concept's word, [concepts] of any length: words with the same first token begin alike too.

    Returns:
      A row per edge, the widest first: `concept_1`, `concept_2`, `domain_1`, `domain_2`, `overlap`, `same_domain`,
      `same_beginning` (bool: the first three letters are the same, or the first token: what such words share may be
      their spelling).

    Raises:
      SelectionError: fewer than two concepts, or fewer than one neighbour.
    """
    if len(overlap) < 2 or neighbours < 1:
        raise SelectionError(
            f"graph_concepts was given {counted(len(overlap), 'concept')} and {neighbours=}, edges from each; "
            "wanted two concepts or more, and one edge or more."
        )
    domains, names = concept_domains(overlap), concept_names(overlap)
    words = [str(word).lower() for word in (words or names)]
    values = np.asarray(overlap.values, np.float64).copy()
    np.fill_diagonal(values, -np.inf)
    chosen = np.zeros(values.shape, bool)
    nearest = np.argsort(-values, axis=1, kind="stable")[:, : min(neighbours, len(values) - 1)]
    np.put_along_axis(chosen, nearest, True, axis=1)
    first, second = np.nonzero(np.triu((chosen | chosen.T) & (values > 0)))
    alike = [
        words[i][:3] == words[j][:3] or bool(len(tokens) and list(tokens[i][:1]) == list(tokens[j][:1]))
        for i, j in zip(first, second, strict=True)
    ]
    table = pd.DataFrame({"concept_1": np.array(names)[first], "concept_2": np.array(names)[second]})
    table["domain_1"], table["domain_2"] = domains[first], domains[second]
    table["overlap"] = values[first, second]
    table["same_domain"] = domains[first] == domains[second]
    table["same_beginning"] = np.array(alike, bool)
    return table.sort_values("overlap", ascending=False, kind="stable").reset_index(drop=True)


def first_members(overlap: xr.DataArray, domains: int, members: int) -> list[int]:
    """Return the places of the first concepts of each of the first domains, without the domains' own words.

    Args:
      overlap: (concept, other), with `domain`.
      domains: how many, in the order in which they first come.
      members: of each, at most.
    """
    of, names = concept_domains(overlap), concept_names(overlap)
    chosen = {
        name: [i for i, domain in enumerate(of) if domain == name and names[i] != name] for name in dict.fromkeys(of)
    }
    return [i for name in list(chosen)[:domains] for i in chosen[name][:members]]


def count_within(
    edges: pd.DataFrame, domains: Sequence[str], concepts: Sequence[str], *, permutations: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Return how much of a graph lies within domains, against domains handed out at random to the same graph.

    Args:
      edges: of `graph_concepts`.
      domains: of each concept.
      concepts: all of them, in the order of `domains`.
      permutations: how many to draw; p is (1 + #{null >= observed}) / (1 + permutations), one-sided.
      seed: of `np.random.default_rng`.

    Returns:
      Four rows: `statistic` ("edges" or their "overlap"), `edges` ("all", or "other beginnings": without those of words
      that begin alike), `value` (share within domains), `null_mean`, `null_low`, `null_high` (95% of the draws),
      `p_value`, `count` (edges). NaN where there is no edge.
    """
    place = {name: i for i, name in enumerate(concepts)}
    ends = edges[["concept_1", "concept_2"]].map(place.__getitem__).to_numpy(int).reshape(-1, 2)
    codes = np.unique(np.array(domains), return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    orders = np.stack([codes, *(rng.permutation(codes) for _ in range(permutations))])
    within = orders[:, ends[:, 0]] == orders[:, ends[:, 1]]
    rows = []
    for kind, kept in (
        ("all", np.ones(len(edges), bool)),
        ("other beginnings", ~edges["same_beginning"].to_numpy(bool)),
    ):
        for statistic, weight in (("edges", np.ones(len(edges))), ("overlap", edges["overlap"].to_numpy(float))):
            if not kept.any():
                rows.append((statistic, kind, *[np.nan] * 5, 0))
                continue
            shares = within[:, kept] @ weight[kept] / weight[kept].sum()
            low, high = np.percentile(shares[1:], [2.5, 97.5])
            p_value = p_of_draws((shares[1:] >= shares[0] - 1e-12).sum(), permutations)
            rows.append((statistic, kind, shares[0], shares[1:].mean(), low, high, float(p_value), int(kept.sum())))
    columns = ["statistic", "edges", "value", "null_mean", "null_low", "null_high", "p_value", "count"]
    return pd.DataFrame(rows, columns=columns)


def _domains(overlap: xr.DataArray) -> list[str]:
    return [str(name) for name in overlap["domain"].values] if "domain" in overlap.coords else [""] * len(overlap)
