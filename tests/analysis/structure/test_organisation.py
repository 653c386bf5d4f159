"""Maps, trees and domains of concepts, against scikit-learn, scipy and brute force."""

import numpy as np
import pandas as pd
import pytest
import scipy.cluster.hierarchy as hierarchy
import xarray as xr
from scipy.spatial.distance import pdist, squareform
from sklearn import metrics
from sklearn.neighbors import KNeighborsClassifier

from expertlens_jax.analysis.structure import recovery
from expertlens_jax.analysis.structure.organisation import (
    compare_spelling,
    count_within,
    find_misplaced,
    graph_concepts,
    map_concepts,
    relate_domains,
)
from expertlens_jax.analysis.structure.recovery import cluster_concepts, recover_domains
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.concept_tree import concept_distances, link_concepts


def overlap_of(values, domains):
    names = [f"c{i}" for i in range(len(values))]
    coords = {"concept": names, "other": names, "domain": ("concept", list(domains))}
    return xr.DataArray(np.asarray(values, float), coords=coords, dims=("concept", "other"))


def random_overlap(seed=0, domains=("animal", "food", "room"), each=6, own=0.0):
    """Overlaps in [0, 0.5), larger by `own` within a domain."""
    rng = np.random.default_rng(seed)
    names = np.repeat(domains, each)
    values = rng.random((len(names),) * 2) / 2 + own * (names[:, None] == names)
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1)
    return overlap_of(values, names)


def shuffled(overlap, seed=1):
    order = np.random.default_rng(seed).permutation(len(overlap))
    return overlap.isel(concept=order, other=order)


# --- Recovery -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [0.0, 0.15])
def test_recovery_is_scikit_learns(own):
    overlap = random_overlap(3, own=own)
    domains, distance = overlap["domain"].values, concept_distances(overlap)
    found = recover_domains(overlap, neighbours=1, permutations=50).set_index("statistic")["value"]
    tree = hierarchy.linkage(squareform(1 - overlap.values, checks=False), "average")
    clusters = hierarchy.fcluster(tree, 3, "maxclust")
    assert found["ari"] == pytest.approx(metrics.adjusted_rand_score(domains, clusters))
    assert found["ami"] == pytest.approx(metrics.adjusted_mutual_info_score(domains, clusters))
    assert found["nmi"] == pytest.approx(metrics.normalized_mutual_info_score(domains, clusters))
    table = metrics.cluster.contingency_matrix(domains, clusters)
    assert found["purity"] == pytest.approx(table.max(axis=0).sum() / table.sum())
    assert found["silhouette"] == pytest.approx(metrics.silhouette_score(distance, domains, metric="precomputed"))
    right = 0
    for i in range(len(domains)):
        rest = np.arange(len(domains)) != i
        classifier = KNeighborsClassifier(1, metric="precomputed").fit(distance[np.ix_(rest, rest)], domains[rest])
        right += classifier.predict(distance[i : i + 1, rest])[0] == domains[i]
    assert found["knn_accuracy"] == pytest.approx(right / len(domains))


def test_the_null_is_of_permuted_domains_one_by_one():
    overlap = random_overlap(5)
    labels = np.repeat([0, 1, 2], 6)
    rng = np.random.default_rng(0)
    permuted = rng.permuted(np.tile(labels, (20, 1)), axis=1)
    clusters, distance = cluster_concepts(overlap, 3), concept_distances(overlap)
    member = permuted[..., None] == np.arange(3)
    found = recovery.compare_clusters(clusters, member)
    for i, each in enumerate(permuted):
        assert found["ari"][i] == pytest.approx(metrics.adjusted_rand_score(each, clusters))
        assert found["ami"][i] == pytest.approx(metrics.adjusted_mutual_info_score(each, clusters), abs=1e-12)
        assert found["nmi"][i] == pytest.approx(metrics.normalized_mutual_info_score(each, clusters))
    silhouettes = [metrics.silhouette_score(distance, each, metric="precomputed") for each in permuted]
    np.testing.assert_allclose(recovery.silhouettes(distance, member), silhouettes)


def test_a_vote_that_ties_counts_in_proportion():
    nearest = np.array([[1, 2], [0, 2], [0, 1]])
    member = (np.array([0, 1, 0])[None, :, None] == np.arange(2)).astype(bool)
    # Concept 0 (domain 0) hears 1 and 0: a tie. Concept 1 hears 0 twice: wrong. Concept 2 hears 0 and 1: a tie.
    assert recovery.neighbour_accuracy(nearest, member) == pytest.approx(1 / 3)


def test_perfect_domains_are_recovered_perfectly():
    found = recover_domains(random_overlap(own=0.5), neighbours=3, permutations=199).set_index("statistic")
    for name in ("ari", "ami", "nmi", "purity", "knn_accuracy"):
        assert found.loc[name, "value"] == pytest.approx(1)
    assert (found["p_value"] == 1 / 200).all()
    assert (found["clusters"] == 3).all() and (found["concepts"] == 18).all()


def test_nulls_are_centred_and_p_is_uniform_where_domains_mean_nothing():
    tables = [recover_domains(random_overlap(seed), permutations=99, seed=seed) for seed in range(40)]
    means = pd.concat(tables).groupby("statistic")[["null_mean", "p_value"]].mean()
    assert abs(means.loc["ari", "null_mean"]) < 0.01 and abs(means.loc["ami", "null_mean"]) < 0.01
    assert means.loc[["silhouette", "ari"], "p_value"].between(0.35, 0.65).all()


def test_concepts_without_experts_fall_into_one_cluster_and_are_no_ones_neighbours_by_their_place():
    values = np.zeros((12, 12))
    found = recover_domains(overlap_of(values, np.repeat(["a", "b"], 6)), neighbours=1, permutations=99)
    found = found.set_index("statistic")
    assert found.loc["ari", "clusters"] == 1 and found.loc["ari", "value"] == 0
    assert found.loc["silhouette", "value"] == 0
    assert found.loc["knn_accuracy", "p_value"] > 0.05  # sorted by domain, the first would be right by their place


def test_the_order_of_concepts_does_not_matter():
    overlap = random_overlap(7, own=0.1)
    other = shuffled(overlap)
    one, two = (recover_domains(each, permutations=10).set_index("statistic")["value"] for each in (overlap, other))
    np.testing.assert_allclose(one, two, atol=1e-12)
    one, two = (map_concepts(each).set_index("concept") for each in (overlap, other))
    np.testing.assert_allclose(one[["x", "y"]], two.loc[one.index, ["x", "y"]], atol=2e-3)
    columns = ["concept", "domain", "sits_with", "overlap_there", "overlap_own"]
    one, two = (find_misplaced(each)[columns].sort_values("concept", ignore_index=True) for each in (overlap, other))
    pd.testing.assert_frame_equal(one, two)


def test_domains_are_needed():
    with pytest.raises(SelectionError, match="1 domain, and 0 have none; wanted a domain for each concept"):
        recover_domains(overlap_of(np.eye(3), ["a", "a", "a"]))
    with pytest.raises(SelectionError, match="and 2 have none"):
        relate_domains(overlap_of(np.eye(3), ["a", "", ""]))


# --- Maps and trees -----------------------------------------------------------------------------------------


def test_a_plane_is_mapped_without_stress():
    points = np.random.default_rng(0).random((15, 2)) / 3
    overlap = overlap_of(1 - squareform(pdist(points)), ["a"] * 15)
    places = map_concepts(overlap)
    np.testing.assert_allclose(pdist(places[["x", "y"]]), pdist(points), atol=1e-3)
    assert places.attrs["stress"] < 0.01 and places.attrs["trustworthiness"] == pytest.approx(1)


@pytest.mark.parametrize("method", ["mds", "tsne"])
def test_domains_stand_apart_on_the_map(method):
    overlap = random_overlap(own=0.45)
    places = map_concepts(overlap, method)
    assert list(places["concept"]) == list(overlap["concept"].values)
    assert metrics.silhouette_score(places[["x", "y"]], places["domain"]) > 0.3
    assert 0 < places.attrs["stress"] < 1 and places.attrs["trustworthiness"] > 0.7
    pd.testing.assert_frame_equal(places, map_concepts(overlap, method))


def test_a_map_must_be_one_there_is():
    with pytest.raises(SelectionError, match="'umap' was given; wanted one of mds, tsne"):
        map_concepts(random_overlap(), "umap")
    with pytest.raises(SelectionError, match="3 concepts says nothing"):
        map_concepts(overlap_of(np.eye(3), ["a", "b", "b"]))


def test_the_tree_is_scipys_with_leaves_turned():
    overlap = random_overlap(4)
    distance = squareform(1 - overlap.values, checks=False)
    expected = hierarchy.optimal_leaf_ordering(hierarchy.linkage(distance, "average"), distance)
    np.testing.assert_array_equal(hierarchy.leaves_list(link_concepts(overlap)), hierarchy.leaves_list(expected))


# --- Domains and misplaced concepts -------------------------------------------------------------------------


def test_overlap_of_domains_is_the_mean_over_their_pairs():
    overlap = random_overlap(6, own=0.2)
    found = relate_domains(overlap, permutations=199).set_index(["domain_1", "domain_2"])
    assert len(found) == 6
    values = overlap.values
    assert found.loc[("animal", "food"), "overlap"] == pytest.approx(values[:6, 6:12].mean())
    own = values[:6, :6][np.triu_indices(6, 1)]
    assert found.loc[("animal", "animal"), "overlap"] == pytest.approx(own.mean())
    assert found.loc[("animal", "animal"), "pairs"] == 15 and found.loc[("animal", "food"), "pairs"] == 36
    everything = values[np.triu_indices(18, 1)].mean()
    np.testing.assert_allclose(found["null_mean"], everything, rtol=0.05)
    for domain in ("animal", "food", "room"):
        assert found.loc[(domain, domain), "q_value"] < 0.05 < found.loc[(domain, domain), "ratio"]
    assert (found.loc[[("animal", "food"), ("food", "room")], "p_value"] > 0.5).all()


def test_a_concept_that_sits_elsewhere_is_found():
    overlap = random_overlap(own=0.5)
    values = overlap.values.copy()
    values[0, 1:] = values[1:, 0] = 0.01
    values[0, 6:12] = values[6:12, 0] = np.linspace(0.9, 0.4, 6)  # an animal among the food
    found = find_misplaced(overlap_of(values, overlap["domain"].values), neighbours=4)
    (row,) = found.itertuples()
    assert (row.concept, row.domain, row.sits_with) == ("c0", "animal", "food")
    assert (row.neighbours_there, row.neighbours_own) == (4, 0)
    assert row.overlap_there == pytest.approx(0.65) and row.overlap_own == pytest.approx(0.01)
    assert row.neighbours == "c6 0.90, c7 0.80, c8 0.70, c9 0.60"
    assert find_misplaced(random_overlap(own=0.5)).empty
    assert find_misplaced(overlap_of(np.eye(4), list("aabb"))).empty  # they overlap with nothing: they sit nowhere


def test_words_that_share_a_token_are_told_apart():
    overlap = random_overlap(2, domains=("a", "b"), each=2)
    found = compare_spelling(overlap, [[1, 2], [3], [2, 4], [5]]).set_index(["same_domain", "shares_token"])
    assert found.loc[(False, True), "overlap"] == pytest.approx(overlap.values[0, 2])
    assert found["pairs"].to_list() == [0, 2, 1, 3]
    assert np.isnan(found.loc[(True, True), "overlap"])
    rest = [overlap.values[0, 3], overlap.values[1, 2], overlap.values[1, 3]]
    assert found.loc[(False, False), "overlap"] == pytest.approx(np.mean(rest))


# --- The graph of concepts ------------------------------------------------------------------------------------


def test_each_concept_has_an_edge_to_those_it_overlaps_with_most():
    overlap = random_overlap(1)
    edges = graph_concepts(overlap, 2)
    names = list(overlap["concept"].values)
    values = overlap.values - 9 * np.eye(len(overlap))
    expected = {frozenset((names[i], names[j])) for i in range(len(values)) for j in np.argsort(-values[i])[:2]}
    assert {frozenset(pair) for pair in zip(edges["concept_1"], edges["concept_2"], strict=True)} == expected
    assert len(edges) == len(expected) and edges["overlap"].is_monotonic_decreasing
    for row in edges.itertuples():
        assert row.overlap == overlap.sel(concept=row.concept_1, other=row.concept_2).item()
        assert row.same_domain == (row.domain_1 == row.domain_2)


def test_words_that_begin_alike_are_told_by_letters_or_by_tokens():
    overlap = overlap_of(np.ones((4, 4)), ["a", "a", "b", "b"])
    by_letters = graph_concepts(overlap, 3, words=["stork", "Stove", "cat", "dog"]).query("same_beginning")
    assert by_letters[["concept_1", "concept_2"]].values.tolist() == [["c0", "c1"]]
    tokens = [[1], [2], [3, 4], [3]]
    by_tokens = graph_concepts(overlap, 3, words=["one", "two", "three", "four"], tokens=tokens).query("same_beginning")
    assert by_tokens[["concept_1", "concept_2"]].values.tolist() == [["c2", "c3"]]


def test_edges_within_domains_are_held_against_permuted_domains():
    overlap = random_overlap(2, own=0.4)
    edges = graph_concepts(overlap, 3, words=[f"{i:03d}" for i in range(18)])
    found = count_within(edges, overlap["domain"].values, overlap["concept"].values, permutations=200)
    found = found.set_index(["statistic", "edges"])
    weights = edges["overlap"].to_numpy()
    assert found.loc[("edges", "all"), "value"] == pytest.approx(edges["same_domain"].mean())
    share = weights[edges["same_domain"]].sum() / weights.sum()
    assert found.loc[("overlap", "all"), "value"] == pytest.approx(share)
    assert found.loc[("edges", "all"), "p_value"] == pytest.approx(1 / 201)
    # Of random domains of 6 concepts among 18, a pair lies within one with probability 5 / 17.
    assert found.loc[("edges", "all"), "null_mean"] == pytest.approx(5 / 17, abs=0.03)
    assert found.loc[("edges", "other beginnings"), "count"] == (~edges["same_beginning"]).sum()


def test_a_graph_of_one_concept_is_refused():
    with pytest.raises(
        SelectionError, match="was given 1 concept and neighbours=3, edges from each; wanted two concepts or more"
    ):
        graph_concepts(overlap_of(np.ones((1, 1)), ["a"]))
