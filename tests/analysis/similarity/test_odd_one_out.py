"""The odd one out, against a look at every triplet; its interval against every two triplets, and by simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.similarity.odd_one_out import odd_one_out_accuracy
from expertlens_jax.analysis.statistics import mean_over_triplets
from expertlens_jax.data.things import Things
from expertlens_jax.errors import ExpertLensError

NAMES = [f"thing{i}" for i in range(9)]


def similarity_of(values, names):
    return xr.DataArray(values, dims=("concept", "other"), coords={"concept": names, "other": names})


def symmetric(rng, size, levels=None):
    values = rng.normal(size=(size, size)) if levels is None else rng.integers(levels, size=(size, size)).astype(float)
    return values + values.T


def things_of(triplets, names=NAMES):
    return Things(tuple(names), similarity_of(np.eye(len(names)), names), np.array(triplets))


def draw_triplets(rng, size, count):
    return np.array([rng.choice(size, 3, replace=False) for _ in range(count)])


@pytest.mark.parametrize("levels", [None, 2])  # without ties, and with many
def test_the_accuracy_is_that_of_looking_at_each_triplet(levels):
    rng = np.random.default_rng(0)
    values, triplets = symmetric(rng, 9, levels), draw_triplets(rng, 9, 200)
    order = rng.permutation(9)  # the similarity has other concepts too, in another order, and lacks one
    kept = [i for i in order if i != 4]
    names = [*(NAMES[i].upper() for i in kept), "other"]
    larger = np.zeros((9, 9))
    larger[:8, :8] = values[np.ix_(kept, kept)]
    expected = []
    for triplet in triplets:
        if 4 in triplet:
            continue
        alike = {odd: values[tuple(i for i in triplet if i != odd)] for odd in triplet}
        best = [odd for odd in triplet if alike[odd] == max(alike.values())]
        expected.append((triplet[2] in best) / len(best))
    got = odd_one_out_accuracy(similarity_of(larger, names), things_of(triplets))
    assert (got.triplets, got.concepts) == (len(expected), 8)
    assert got.accuracy == pytest.approx(np.mean(expected), abs=1e-12)
    assert 0 <= got.ci_low < got.accuracy < got.ci_high <= 1


def test_a_similarity_that_knows_nothing_is_at_chance():
    got = odd_one_out_accuracy(similarity_of(np.zeros((9, 9)), NAMES), things_of([[0, 1, 2], [3, 4, 5]]))
    assert got.accuracy == pytest.approx(1 / 3)


def test_the_interval_is_from_leaving_out_ones_twos_and_threes():
    rng = np.random.default_rng(1)
    triplets = draw_triplets(rng, 25, 60)
    triplets = np.concatenate([triplets, triplets[:5, ::-1]])  # the same three again, in another order
    effects = rng.normal(size=25)
    values = effects[triplets].sum(axis=1) + 0.3 * rng.normal(size=65)
    concepts = np.unique(triplets)
    sums = {
        together: sum(
            (values[without].mean() - values.mean()) ** 2
            for held in itertools.combinations(concepts, together)
            if not (without := np.array([not set(held) <= set(triplet) for triplet in triplets])).all()
        )
        for together in (1, 2, 3)
    }
    variance = sums[1] - sums[2] + sums[3]
    assert variance > sums[3] / 2
    got = mean_over_triplets(values, triplets)
    half = scipy.stats.t.ppf(0.975, len(concepts) - 1) * np.sqrt(variance)
    assert (got.value, got.low, got.high) == pytest.approx((values.mean(), got.value - half, got.value + half))
    assert got.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(got.value) / np.sqrt(variance), len(concepts) - 1))


def test_the_variance_is_of_every_two_triplets_that_share_a_concept_with_many():
    rng = np.random.default_rng(3)
    triplets = draw_triplets(rng, 300, 500)
    values = rng.normal(size=300)[triplets].sum(axis=1)
    residuals = values - values.mean()
    share = (triplets[:, None, :, None] == triplets[None, :, None, :]).any(axis=(2, 3))
    error = np.sqrt(residuals @ share @ residuals) / 500
    got = mean_over_triplets(values, triplets)
    quantile = scipy.stats.t.ppf(0.975, len(np.unique(triplets)) - 1)
    assert (got.high - got.low) / 2 / quantile == pytest.approx(error, rel=0.03)


@pytest.mark.long
def test_the_interval_covers_the_truth():
    """Where people and similarity each see the objects through noise of their own: 300 simulated copies of THINGS."""
    rng = np.random.default_rng(2)

    def simulate(size, count):
        truth = rng.normal(size=(size, 3))
        seen = [truth + 0.7 * rng.normal(size=(size, 3)) for _ in range(2)]
        ours, theirs = (-np.linalg.norm(each[:, None] - each, axis=-1) for each in seen)
        triplets = draw_triplets(rng, size, count)
        odd = [
            triplet[np.argmax([theirs[b, c], theirs[a, c], theirs[a, b]])]
            for triplet in triplets
            for a, b, c in [triplet]
        ]
        ordered = [[*(i for i in triplet if i != last), last] for triplet, last in zip(triplets, odd, strict=True)]
        names = [f"thing{i}" for i in range(size)]
        return odd_one_out_accuracy(similarity_of(ours, names), things_of(ordered, names))

    truth = np.mean([simulate(400, 3000).accuracy for _ in range(10)])
    results = [simulate(40, 150) for _ in range(300)]
    assert 0.92 <= np.mean([got.ci_low <= truth <= got.ci_high for got in results]) <= 0.98
    assert np.mean([got.p_value < 0.05 for got in results]) > 0.5  # mostly told from chance


def test_an_interval_nobody_can_give_is_nan():
    assert np.isnan(mean_over_triplets(np.array([1.0, 0.0]), np.array([[0, 1, 2], [0, 1, 2]])).low)
    assert np.isnan(mean_over_triplets(np.ones(2), np.array([[0, 1, 2], [3, 4, 5]])).p_value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"other{i}" for i in range(9)], "none of the 2 triplets .* 9 concepts, and 0 of them are objects"),
        (["THING1", "thing1", *NAMES[2:]], "the same except for capitals"),
    ],
)
def test_concepts_that_do_not_fit(names, message):
    with pytest.raises(ExpertLensError, match=message):
        odd_one_out_accuracy(similarity_of(np.eye(9), names), things_of([[0, 1, 2], [3, 4, 5]]))


def test_nan_and_asymmetry_are_refused():
    values = np.eye(9)
    values[0, 1] = values[1, 0] = np.nan
    with pytest.raises(ExpertLensError, match="'thing0' and 'thing1', both rated in THINGS, is NaN"):
        odd_one_out_accuracy(similarity_of(values, NAMES), things_of([[0, 1, 2]]))
    with pytest.raises(ExpertLensError, match="isn't symmetric"):
        odd_one_out_accuracy(similarity_of(np.triu(np.ones((9, 9))), NAMES), things_of([[0, 1, 2]]))
