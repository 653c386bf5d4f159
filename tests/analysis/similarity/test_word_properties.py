"""Word frequency and the like as controls, partialled out of an alignment."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.similarity.comparison import partial_alignments
from expertlens_jax.analysis.similarity.word_properties import word_property_similarities
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import ExpertLensError

NAMES = [f"w{i}" for i in range(12)]


def write(tmp_path, text, name="words.tsv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_properties_become_similarities_of_the_concepts_that_have_them(tmp_path):
    file = write(tmp_path, "word\tlog_frequency\tconcreteness\nCat\t3\t5\nice-cream\t1\t4\nlove\t4\t1.5\ndog\t9\t9\n")
    found = word_property_similarities(file, ["cat", "owl", "ice cream", "love"])
    assert list(found) == [
        f"{name}_{kind}" for name in ("log_frequency", "concreteness") for kind in ("difference", "mean")
    ]
    difference = found["log_frequency_difference"]
    assert difference["concept"].values.tolist() == ["cat", "ice cream", "love"]
    np.testing.assert_array_equal(difference, [[0, -2, -1], [-2, 0, -3], [-1, -3, 0]])
    np.testing.assert_array_equal(found["concreteness_mean"], [[5, 4.5, 3.25], [4.5, 4, 2.75], [3.25, 2.75, 1.5]])


def test_what_is_left_beside_them_is_the_partial_correlation_of_ranks(tmp_path):
    rng = np.random.default_rng(0)
    frequency = rng.normal(size=12)
    file = write(tmp_path, "word\tf\n" + "".join(f"{n}\t{f}\n" for n, f in zip(NAMES, frequency, strict=True)))
    controls = word_property_similarities(file, NAMES)
    pairs = [(i, j) for i in range(12) for j in range(i)]
    control = np.array([controls["f_difference"].values[pair] for pair in pairs])
    values = controls["f_difference"].values + rng.normal(size=(12, 12))
    similarity = xr.DataArray(values + values.T, dims=("concept", "other"), coords={"concept": NAMES, "other": NAMES})
    scores = control + rng.normal(size=len(pairs))
    ratings = Ratings("made", tuple((NAMES[i], NAMES[j]) for i, j in pairs), scores)
    table = partial_alignments(similarity, {"f": controls["f_difference"]}, ratings).iloc[0]
    # pingouin's partial_corr(method="spearman"): ranks, regressed on the control's ranks, correlated
    ranks = [scipy.stats.rankdata(each) for each in ([similarity.values[pair] for pair in pairs], scores, control)]
    design = np.stack([np.ones(len(pairs)), ranks[2]], axis=1)
    left = [each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in ranks[:2]]
    assert table["partial_spearman"] == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word\tf\nw0\t1\nw1\tmany\n", "words.tsv:3: 'f' is 'many', which is no finite number; leave the word out"),
        ("word\tf\nw0\t1\nw1\tnan\n", "'f' is 'nan', which is no finite number"),
        ("word\tf\nw0\t1\nW0\t2\n", "words.tsv:3: 'W0' is at line 2 too; keep one of them"),
        ("word\tf\nw0\t1\t2\n", "words.tsv:2: wanted a word and 1 number"),
        ("word\nw0\n", r"the columns after the word are \[\]; give each a name of its own"),
        ("word\tf\tf\nw0\t1\t2\n", "give each a name of its own"),
        ("word\tf\nw0\t1\nw1\t2\nowl\t3\n", "words.tsv has 2 of the 12 concepts; at least 3 are needed"),
        ("", "give each a name of its own"),
    ],
)
def test_what_a_file_of_properties_may_not_hold_is_told(tmp_path, text, message):
    with pytest.raises(ExpertLensError, match=message):
        word_property_similarities(write(tmp_path, text), NAMES)


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(ExpertLensError, match="no file 'absent.tsv' of word properties"):
        word_property_similarities("absent.tsv", NAMES)
    with pytest.raises(ExpertLensError, match="can't read the file .*words.xlsx"):
        word_property_similarities(write(tmp_path, "x", "words.xlsx"), NAMES)
