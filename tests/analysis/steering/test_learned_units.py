"""Which units learned steering changes, against the steerings themselves and a count by hand."""

import numpy as np
import pytest

import expertlens_jax as el
from expertlens_jax.errors import SelectionError

pytestmark = pytest.mark.compiled_quickly

LEARNING = el.Learning(objective="distribution", sparsity=2.0, steps=6, sentences=4, most_tokens=10)


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def concepts():
    ends = ("was here", "is new", "stood there", "came back", "fell down")
    return el.load_concepts({word: [f"The {word} {end}." for end in ends] for word in ("cat", "rain", "bread")})


@pytest.fixture(scope="module")
def expertise(model, concepts):
    return el.measure_expertise(el.record_responses(model, concepts.sentences, sites="mlp.down"), concepts)


def test_shares_are_those_of_the_steerings(model, concepts, expertise):
    found = el.analysis.learned_units(
        model, expertise, concepts, ["cat", "rain"], learning=LEARNING, by=("average_precision", "auroc"), resamples=20
    )
    each = found.tables["concepts"].set_index(["concept", "score"])
    shares = []
    for concept in ("cat", "rain"):
        steering = el.learn_steering(model, concepts, concept, sites="mlp.down", learning=LEARNING)
        assert 0 < len(steering) < 512
        precision = expertise["average_precision"].sel(concept=concept).values
        keys = list(zip(*(expertise[name].values.tolist() for name in ("layer", "site", "channel")), strict=True))
        highest = {keys[i] for i in np.argsort(-precision, kind="stable")[: len(steering)]}
        shares.append(len(highest & set(steering.units)) / len(steering))
        row = each.loc[(concept, "average_precision")]
        assert row["changed"] == len(steering) and row["shared"] == pytest.approx(shares[-1])
        own = precision[[keys.index(unit) for unit in steering.units]]
        assert row["higher"] == pytest.approx((own.mean() - precision.mean()) / precision.std(), rel=1e-5)
    row = found.table.set_index("score").loc["average_precision"]
    assert row["shared"] == pytest.approx(np.mean(shares)) and row["concepts"] == 2
    assert row["chance"] == pytest.approx(each["changed"].groupby("concept").first().mean() / 512)
    assert "is among as many highest by average precision (chance" in found.summary()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning": el.Learning()}, "learning has sparsity=0, at which all units are changed"),
        ({"names": ["unicorn"]}, "the concept 'unicorn' isn't in this table"),
        ({"by": ()}, "3 concepts and 0 scores were given"),
        ({"by": ("attribution",)}, "attribution"),
    ],
)
def test_what_cannot_be_asked_is_told(model, concepts, expertise, given, message):
    with pytest.raises(SelectionError, match=message):
        el.analysis.learned_units(model, expertise, concepts, **{"learning": LEARNING} | given)
