"""RDMs: to rsatoolbox and back, and what it says of the same numbers: comparisons and the bounds of the ceiling."""

import numpy as np
import pytest
import rsatoolbox
import scipy.stats
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.similarity import rdms as rdms_module
from expertlens_jax.analysis.similarity.ceilings import noise_ceiling
from expertlens_jax.data.raters import Raters
from expertlens_jax.errors import ExpertLensError, SelectionError

NAMES = [f"w{i}" for i in range(8)]
PAIRS = tuple((NAMES[i], NAMES[j]) for i in range(8) for j in range(i))


def similarity(seed=0, names=NAMES):
    values = np.random.default_rng(seed).random((len(names),) * 2)
    coords = {"concept": list(names), "other": list(names), "domain": ("concept", ["a", "b"] * (len(names) // 2))}
    return xr.DataArray((values + values.T) / 2, coords, ("concept", "other"), name="jaccard")


def raters(count=6, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.random((len(PAIRS), 1)) + rng.random((len(PAIRS), count))
    return Raters("made", PAIRS, tuple(f"r{i}" for i in range(count)), scores)


def test_a_similarity_goes_there_and_back():
    ours = similarity()
    rdms = el.analysis.to_rsatoolbox(ours)
    matrix = rdms.get_matrices()[0]
    off = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(matrix[off], 1 - ours.values[off])
    assert rdms.pattern_descriptors["concept"] == NAMES and rdms.pattern_descriptors["domain"][:2] == ["a", "b"]
    back = el.analysis.from_rsatoolbox(rdms)
    np.testing.assert_allclose(back.values[off], ours.values[off])
    assert back["domain"].values.tolist() == ["a", "b"] * 4
    ratings = el.Ratings("mine", PAIRS, np.random.default_rng(3).random(len(PAIRS)))
    one, other = (el.align(each, ratings, permutations=9) for each in (ours, back))
    assert one.spearman == other.spearman and one.p_value == other.p_value


def test_rsatoolbox_compares_as_align_does_also_where_pairs_are_not_rated():
    for pairs in (PAIRS, PAIRS[::2]):
        ratings = el.Ratings("mine", pairs, np.random.default_rng(1).random(len(pairs)))
        ours = el.align(similarity(), ratings, permutations=9)
        rdms = ours.to_rsatoolbox()
        assert rdms.rdm_descriptors["name"] == ["similarity", "mine"]
        theirs = rsatoolbox.rdm.compare(
            rdms.subset("name", "similarity"), rdms.subset("name", "mine"), method="spearman"
        )
        assert theirs.item() == pytest.approx(ours.spearman, abs=1e-12)
    several = el.analysis.to_rsatoolbox({"one": similarity(), "two": similarity(5)})
    theirs = rsatoolbox.rdm.compare(several[0], several[1], method="spearman").item()
    above = np.triu_indices(8, 1)
    assert theirs == pytest.approx(
        scipy.stats.spearmanr(similarity().values[above], similarity(5).values[above]).statistic, abs=1e-12
    )


def test_the_bounds_of_the_noise_ceiling_are_rsatoolboxs():
    made = raters()
    lower, upper = noise_ceiling(made)
    theirs = rsatoolbox.inference.boot_noise_ceiling(el.analysis.to_rsatoolbox(made), method="spearman")
    assert (lower, upper) == pytest.approx(theirs, abs=1e-12)
    assert 0 < lower < upper < 1


def test_a_bound_wants_every_rating():
    made = raters()
    made.scores[3, 2] = np.nan
    with pytest.raises(SelectionError, match="made: 'r2' didn't rate w3/w0, and 1 rating is missing in all"):
        noise_ceiling(made)
    assert np.isnan(el.analysis.to_rsatoolbox(made).dissimilarities[2]).sum() == 1


def test_what_is_no_similarity_is_told(monkeypatch):
    with pytest.raises(SelectionError, match="int was given; wanted a similarity"):
        el.analysis.to_rsatoolbox(3)
    with pytest.raises(ExpertLensError, match="two is of other concepts than one"):
        el.analysis.to_rsatoolbox({"one": similarity(), "two": similarity(names=NAMES[::-1])})
    rdms = el.analysis.to_rsatoolbox(similarity())
    with pytest.raises(SelectionError, match="no pattern descriptor 'word'; there are concept, domain, index"):
        el.analysis.from_rsatoolbox(rdms, concept="word")
    with pytest.raises(SelectionError, match="index=1 was given; there are 1 RDMs"):
        el.analysis.from_rsatoolbox(rdms, 1)
    with pytest.raises(SelectionError, match="the concept 'a' is there 4 times"):
        el.analysis.from_rsatoolbox(rdms, concept="domain")
    none = el.align(similarity(), el.Ratings("none", (("x", "y"),), np.ones(1)))
    with pytest.raises(SelectionError, match="this alignment with none has no rated pair"):
        none.to_rsatoolbox()
    monkeypatch.setattr(rdms_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExpertLensError, match=r"rsatoolbox isn't installed: pip install 'expertlens-jax\[rsa\]'"):
        el.analysis.to_rsatoolbox(similarity())
