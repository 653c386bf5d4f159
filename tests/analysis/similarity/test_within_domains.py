"""Alignment within domains, against scipy domain by domain."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.similarity.within_domains import align_within_domains
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import ExpertLensError

NAMES = [f"w{i}" for i in range(16)]
DOMAINS = ["animal"] * 6 + ["food"] * 6 + ["tool"] * 3 + [""]
PAIRS = [(i, j) for i in range(16) for j in range(i)]


def made(seed=0):
    values = np.random.default_rng(seed).random((16, 16))
    values += values.T
    scores = np.array([values[i, j] for i, j in PAIRS]) + np.random.default_rng(1).random(len(PAIRS))
    similarity = xr.DataArray(values, dims=("concept", "other"), coords={"concept": NAMES, "other": NAMES})
    return similarity, Ratings("made", tuple((NAMES[i], NAMES[j]) for i, j in PAIRS), scores)


def test_each_domain_is_scipys_and_the_mean_is_theirs():
    similarity, ratings = made()
    table = align_within_domains(similarity, ratings, DOMAINS).set_index("scope")
    own = {}
    for domain in ("animal", "food"):
        here = [k for k, (i, j) in enumerate(PAIRS) if DOMAINS[i] == DOMAINS[j] == domain]
        own[domain] = scipy.stats.spearmanr([similarity.values[PAIRS[k]] for k in here], ratings.scores[here]).statistic
        assert table.loc[domain, "spearman"] == pytest.approx(own[domain], abs=1e-12)
        assert table.loc[domain, "pairs"] == 15
    assert list(table.index) == ["animal", "food", "tool", "mean", "pooled"]
    assert np.isnan(table.loc["tool", "spearman"])
    assert table.loc["tool", "note"] == "3 rated pairs within it; wanted are 10"
    assert table.loc["mean", "spearman"] == pytest.approx(np.mean(list(own.values())), abs=1e-12)
    assert table.loc["mean", "pairs"] == 30 and table.loc["pooled", "pairs"] == len(PAIRS)
    everything = scipy.stats.spearmanr([similarity.values[pair] for pair in PAIRS], ratings.scores).statistic
    assert table.loc["pooled", "spearman"] == pytest.approx(everything, abs=1e-12)
    for scope in ("mean", "pooled"):
        assert table.loc[scope, "ci_low"] < table.loc[scope, "spearman"] < table.loc[scope, "ci_high"]


def test_a_similarity_that_only_tells_domains_apart_aligns_pooled_and_not_within():
    _, ratings = made()
    apart = np.array([[float(a == b) for b in DOMAINS] for a in DOMAINS])
    rng = np.random.default_rng(3)
    noise = rng.random((16, 16)) / 100
    similarity = xr.DataArray(
        apart + noise + noise.T, dims=("concept", "other"), coords={"concept": NAMES, "other": NAMES}
    )
    scores = np.array([apart[i, j] for i, j in PAIRS]) + rng.random(len(PAIRS)) / 100
    table = align_within_domains(similarity, Ratings("apart", ratings.pairs, scores), DOMAINS).set_index("scope")
    assert table.loc["pooled", "spearman"] > 0.5
    assert table.loc["mean", "ci_low"] < 0 < table.loc["mean", "ci_high"]


def test_no_domain_with_enough_pairs_is_told():
    similarity, ratings = made()
    table = align_within_domains(similarity, ratings, [""] * 16).set_index("scope")
    assert list(table.index) == ["mean", "pooled"] and table.loc["mean", "note"] == "no domain has 10 rated pairs"


def test_what_does_not_fit_is_told():
    similarity, ratings = made()
    with pytest.raises(ExpertLensError, match="3 domains were given for 16 concepts; give one of each"):
        align_within_domains(similarity, ratings, ["a", "b", "c"])
    with pytest.raises(ExpertLensError, match="minimum_pairs is 2; wanted 3 or more"):
        align_within_domains(similarity, ratings, DOMAINS, minimum_pairs=2)
