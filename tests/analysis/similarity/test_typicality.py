"""Typicality: category by category against scipy, its p under no relation, and files as people keep them."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.similarity.typicality import align_typicality
from expertlens_jax.errors import ExpertLensError, ExpertLensWarning, RatingsError, SelectionError

BIRDS = [f"bird{i}" for i in range(7)]
TOOLS = [f"tool{i}" for i in range(6)]
NAMES = ["bird", *BIRDS, *TOOLS, "saw", "hammer"]


def made(seed=0):
    values = np.random.default_rng(seed).random((len(NAMES),) * 2)
    return xr.DataArray(values + values.T, {"concept": NAMES, "other": NAMES}, ("concept", "other"))


def rated(seed=1):
    """Two categories with enough members, one of which has no word among the concepts; and one with two members."""
    concepts = (*BIRDS, "dodo", *TOOLS, "saw", "hammer")
    categories = ("Bird",) * 8 + ("tool",) * 6 + ("thing",) * 2
    return el.Typicality("mine", concepts, categories, np.random.default_rng(seed).random(len(concepts)))


def by_scipy(similarity, ratings, category, others_of):
    own = [i for i, each in enumerate(ratings.categories) if each.lower() == category and ratings.concepts[i] in NAMES]
    x = [
        np.mean([similarity.sel(concept=ratings.concepts[i], other=other) for other in others_of(ratings.concepts[i])])
        for i in own
    ]
    return x, ratings.scores[own]


def test_each_category_is_scipys_over_its_members_and_the_mean_is_theirs():
    similarity, ratings = made(), rated()
    table, concepts = align_typicality(similarity, ratings, permutations=199, resamples=100)
    table = table.set_index("scope")
    found = []
    for category, members in (("bird", BIRDS), ("tool", TOOLS)):
        pair = by_scipy(similarity, ratings, category, lambda own, all_=members: [each for each in all_ if each != own])
        found.append(pair)
        assert table.loc[category, "spearman"] == pytest.approx(scipy.stats.spearmanr(*pair).statistic, abs=1e-12)
        assert table.loc[category, "concepts"] == len(members)
        np.testing.assert_allclose(concepts[concepts["category"] == category]["similarity"], pair[0])
    assert table.loc["thing", "note"] == "2 of its rated members are concepts; wanted are 5"
    assert table.loc["mean", "spearman"] == pytest.approx(np.mean([scipy.stats.spearmanr(*p).statistic for p in found]))
    assert table.loc["mean", "concepts"] == 13 and table.loc["pooled", "concepts"] == 15
    assert table.loc["mean", "ci_low"] < table.loc["mean", "spearman"] < table.loc["mean", "ci_high"]
    assert (table["chance"] == 0).all()


def test_the_word_of_a_category_is_asked_where_it_is_a_concept():
    similarity, ratings = made(), rated()
    table, _ = align_typicality(similarity, ratings, shared_with="word", permutations=99, resamples=50)
    table = table.set_index("scope")
    pair = by_scipy(similarity, ratings, "bird", lambda own: ["bird"])
    assert table.loc["bird", "spearman"] == pytest.approx(scipy.stats.spearmanr(*pair).statistic, abs=1e-12)
    assert table.loc["tool", "note"] == "its word is no concept, or none of its members is"
    assert table.loc["mean", "spearman"] == table.loc["bird", "spearman"]


def test_the_p_of_one_category_is_that_of_scipys_permutations():
    x, y = (np.random.default_rng(seed).random(6) for seed in (2, 3))
    y = y + x  # some relation
    names = ["bird", *BIRDS[:6]]
    values = np.zeros((7, 7))
    values[0, 1:] = values[1:, 0] = x
    similarity = xr.DataArray(values, {"concept": names, "other": names}, ("concept", "other"))
    ratings = el.Typicality("mine", tuple(BIRDS[:6]), ("bird",) * 6, y)
    table, _ = align_typicality(similarity, ratings, shared_with="word", permutations=4000, resamples=10)
    exact = scipy.stats.permutation_test(
        (x,), lambda x: scipy.stats.spearmanr(x, y).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    assert table.set_index("scope").loc["mean", "p_value"] == pytest.approx(exact.pvalue, abs=0.03)


def test_the_question_reads_a_file_and_says_chance(tmp_path):
    file = tmp_path / "birds.csv"
    lines = [f"{name},bird,{score}" for name, score in zip(BIRDS, range(7), strict=True)]
    file.write_text("\n".join(["concept,category,rating", *lines]))
    found = el.analysis.typicality(made(), file, permutations=99, resamples=50)
    assert "birds, within one category: Spearman's correlation" in found.summary()
    assert "(chance 0, p = " in found.summary() and len(found.tables["concepts"]) == 7
    with pytest.raises(SelectionError, match="shared_with='name' was given; wanted one of members, word"):
        el.analysis.typicality(made(), file, shared_with="name")


def test_what_a_file_may_hold(tmp_path):
    file = tmp_path / "mine.tsv"
    file.write_text(
        "Robin\tBird\t6\nrobin\tbird\t4\nbird\tbird\t7\npenguin\tbird\t2\ntomato\tfruit\t3\ntomato\tfood\t5\n"
    )
    with pytest.warns(ExpertLensWarning) as told:
        ratings = el.load_typicality(file)
    assert ratings.concepts == ("robin", "penguin", "tomato", "tomato") and ratings.scores.tolist() == [5, 2, 3, 5]
    assert repr(ratings) == "Typicality('mine': 4 ratings in 3 categories)"
    said = " ".join(str(each.message) for each in told)
    assert "1 of 4 concepts are rated more than once in their category, and get the mean; the first is 'robin'" in said
    assert "left out 1 rating of a category in itself, such as 'bird'" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("robin\tbird\t1\nowl\tbird\thigh\n", "bad.tsv:2: the rating 'high' is not a number"),
        ("robin\tbird\t1\npenguin\tbird\n", "bad.tsv:2: wanted two words and a number"),
        ("bird\tbird\t1\n", "there is no rating of a concept in a category"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, text, message):
    file = tmp_path / "bad.tsv"
    file.write_text(text)
    with pytest.raises(RatingsError, match=message):
        el.load_typicality(file)
    with pytest.raises(RatingsError, match="no file 'nowhere.tsv' of typicality"):
        el.load_typicality("nowhere.tsv")


def test_what_does_not_fit_is_told():
    with pytest.raises(RatingsError, match="mine: 2 concepts, 1 category and 2 scores were given"):
        el.Typicality("mine", ("a", "b"), ("c",), np.ones(2))
    with pytest.raises(SelectionError, match="minimum_concepts=2 was given; wanted 3 or more"):
        align_typicality(made(), rated(), minimum_concepts=2)
    table, _ = align_typicality(made(), el.Typicality("few", ("saw",), ("thing",), np.ones(1)))
    assert table["note"].tolist()[-1] == "no category has 5 rated concepts, or they are all the same"
    hole = made()
    hole.values[1, 2] = hole.values[2, 1] = np.nan
    with pytest.raises(ExpertLensError, match="the similarity of 'bird0' and 'bird1', both rated in mine, is NaN"):
        align_typicality(hole, rated())
