"""Scores are data: units are selected and compared by any of them, and by going up, down, or either."""

import re

import numpy as np
import pytest
import test_pipeline
import xarray as xr
from sklearn.metrics import average_precision_score, roc_auc_score

import expertlens_jax as el
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.errors import SelectionError, SettingError
from expertlens_jax.experts.ranking import rank_units
from expertlens_jax.experts.scores import SCORES, check_threshold

MORE = ("average_precision_down", "cohens_d")


def made(sampled, ties, own=False):
    """Concepts of many sizes, some sentences that mention another, and responses that may tie."""
    rng = np.random.default_rng(5)
    sizes, names = (1, 2, 9, 80), ("cat", "dog", "car", "cow")
    labels = np.concatenate([np.repeat(np.eye(4, dtype=bool), sizes, axis=1), np.zeros((4, 150), bool)], axis=1)
    count = labels.shape[1]
    sentences = tuple(f"a {names[i % 4]} of {i}" if i % 9 == 0 else f"sentence {i}" for i in range(count))
    given = (rng.random((4, count)) < 0.8) & ~labels if own else None
    concepts = ConceptDataset("made", sentences, names, ("",) * 4, labels, np.ones(count, bool), own_negatives=given)
    values = (rng.normal(size=(count, 24)) - 2 * labels[3][:, None]).astype(np.float32)
    values[:, 8:16] = 1e4 + np.exp(values[:, 8:16])  # far from zero beside how much they differ
    if ties:
        values[:, :8] = np.maximum(values[:, :8].round(), -1)
        values[:, 20] = 3.0
    return concepts, values, contrast_concepts(concepts, sampled=sampled, negatives_per_positive=1.3)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_scores_equal_scikit_learn_and_numpy(sampled, ties, own):
    concepts, values, contrast = made(sampled, ties, own)
    ranking, weights = rank_units(values, contrast, scores=MORE), contrast.weights()
    for row, (mine, weight) in enumerate(zip(concepts.labels, weights, strict=True)):
        kept = weight > 0
        for unit, column in enumerate(values.T):
            down = average_precision_score(mine[kept], -column[kept], sample_weight=weight[kept])
            assert ranking.average_precision_down[row, unit] == pytest.approx(down, abs=1e-6)
            up = average_precision_score(mine[kept], column[kept], sample_weight=weight[kept])
            assert ranking.average_precision[row, unit] == pytest.approx(up, abs=1e-6)
            assert ranking.auroc[row, unit] == pytest.approx(roc_auc_score(mine[kept], column[kept]), abs=1e-6)
            positives, negatives = (column[rows].astype(np.float64) for rows in (mine, kept & ~mine))
            squares = sum(((each - each.mean()) ** 2).sum() for each in (positives, negatives))
            difference = positives.mean() - negatives.mean()
            spread = np.sqrt(squares / max(len(positives) + len(negatives) - 2, 1))
            want = difference / spread if spread else np.copysign(np.inf, difference) if difference else 0.0
            assert ranking.cohens_d[row, unit] == pytest.approx(want, rel=1e-3, abs=1e-4)


@pytest.mark.long
def test_asking_for_more_changes_no_byte_of_the_rest():
    _, values, contrast = made(sampled=False, ties=True)
    bare, more = rank_units(values, contrast), rank_units(values, contrast, scores=MORE)
    assert not {*MORE} & {*bare.measured()}
    for name, each in bare.measured().items():
        assert each.tobytes() == getattr(more, name).tobytes()
    turned = rank_units(-values, contrast)
    np.testing.assert_allclose(turned.average_precision, more.average_precision_down, rtol=1e-6)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    model, workdir = el.load_model("lenslet-2m"), tmp_path_factory.mktemp("scores") / "run"
    return el.find_experts(model, test_pipeline.CONCEPTS, workdir, scores=MORE, halves=False, permutations=0).load()


def test_find_experts_and_measure_expertise_give_the_same(table):
    responses = el.record_responses(el.load_model("lenslet-2m"), test_pipeline.CONCEPTS.sentences)
    want = el.measure_expertise(responses, test_pipeline.CONCEPTS, scores=MORE)
    for name in MORE:
        np.testing.assert_array_equal(table[name].values, want[name].values)
    assert table.attrs["scores"] == list(MORE)


@pytest.mark.parametrize("by", ["average_precision", "auroc", "cohens_d"])
def test_units_are_selected_by_any_score_and_sign(table, by):
    up = table[by].values
    down = {"average_precision": table["average_precision_down"].values, "auroc": 1 - up, "cohens_d": -up}[by]
    for sign, want in (("up", up), ("down", down), ("both", np.maximum(up, down))):
        np.testing.assert_array_equal(el.score_units(table, by, sign).values, want)
        np.testing.assert_array_equal(el.select_experts(table, 0.7, by=by, sign=sign).values, want >= np.float32(0.7))
        top = el.select_experts(table, top=20, by=by, sign=sign)
        assert (top.sum("unit") == 20).all()
        assert all(row[chosen].min() >= row[~chosen].max() for row, chosen in zip(want, top.values, strict=True))
        assert (top.attrs.get("by", "average_precision"), top.attrs.get("sign", "up")) == (by, sign)
        np.testing.assert_array_equal(
            el.overlap(table, "jaccard", top=20, by=by, sign=sign).values, el.jaccard(top).values
        )


def test_overlaps_go_by_another_score(table):
    table = table.assign(auroc=table["auroc"].clip(0.01, 1))
    other = table.assign(average_precision=table["auroc"])
    for method, options in (("cosine", {}), ("kl", {}), ("js", {}), ("weighted_jaccard", dict(threshold=0.6))):
        want = el.overlap(other, method, **options).values
        np.testing.assert_array_equal(el.overlap(table, method, by="auroc", **options).values, want)
    both = other.assign(average_precision=el.score_units(table, "cohens_d", "both"))
    np.testing.assert_array_equal(
        el.cosine(table, by="cohens_d", sign="both").values, el.cosine(both, centred=True).values
    )
    for method in ("kl", "js"):
        with pytest.raises(SelectionError, match="some cohens_d is .* which is no share of a whole. Use cosine."):
            el.overlap(table, method, by="cohens_d")
    with pytest.raises(SelectionError, match="threshold=-1; a weighted overlap wants scores above 0|threshold=-1.0"):
        el.weighted_jaccard(table, -1, by="cohens_d")


def test_steering_chooses_its_units_by_another_score(table):
    steering = el.steer(table, "ba", top=7, by="cohens_d", sign="down")
    want = el.select_experts(table, top=7, by="cohens_d", sign="down").sel(concept="ba").values
    units = [
        (int(layer), str(site), int(channel))
        for layer, site, channel in zip(
            *(table[name].values[want] for name in ("layer", "site", "channel")), strict=True
        )
    ]
    assert set(steering.units) == set(units)


def test_a_score_of_your_own_can_be_named(table, monkeypatch):
    difference = el.Score("difference", lambda table: table["positive_mean"] - table["negative_mean"])
    monkeypatch.setitem(SCORES, "difference", difference)
    assert el.SCORES is SCORES
    want = (table["positive_mean"] - table["negative_mean"]).values >= 0.2
    np.testing.assert_array_equal(el.select_experts(table, 0.2, by="difference").values, want)
    with pytest.raises(SelectionError, match="the score 'difference' has no sign 'both': its Score has no `down`"):
        el.select_experts(table, 0.2, by="difference", sign="both")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(by="accuracy"),
            "Unknown score 'accuracy'. Choose from: average_precision, auroc, cohens_d, attribution.",
        ),
        (dict(sign="minus"), "Unknown sign 'minus'. Choose from: up, down, both."),
        (
            dict(by="cohens_d"),
            "needs cohens_d, which this table of expertise doesn't have. Measure it with scores=['coh",
        ),
        (
            dict(sign="both"),
            "needs average_precision_down, which this table of expertise doesn't have. Measure it with",
        ),
        (dict(by="auroc", threshold=1.5), "threshold=1.5; wanted a value of auroc, a number from 0 to 1."),
        (dict(threshold=1.5), "threshold=1.5; wanted an average precision, a number from 0 to 1."),
    ],
)
def test_what_the_table_does_not_have_is_told(table, options, message):
    bare = table.drop_vars(MORE)
    with pytest.raises(SelectionError, match=re.escape(message)):
        el.select_experts(bare, **dict(threshold=0.5) | options)
    with pytest.raises(SelectionError, match="select_experts|by='auroc'|Unknown|needs|threshold"):
        el.overlap(bare, "jaccard", **dict(threshold=0.5) | options)


def test_scores_that_cannot_be_measured_are_refused(table):
    assert check_threshold(3, "cohens_d") == 3.0 and check_threshold(-2.5, "cohens_d") == -2.5
    with pytest.raises(SelectionError, match="threshold='2'; wanted a value of cohens_d, a number."):
        check_threshold("2", "cohens_d")
    with pytest.raises(SettingError, match="Unknown score 'f1'. Choose from: average_precision_down, cohens_d;"):
        el.measure_expertise(xr.Dataset(), test_pipeline.CONCEPTS, scores=["f1"])
    with pytest.raises(SelectionError, match="compares average precision: its function takes no by and no sign"):
        el.OVERLAPS["mine"] = el.Overlap("mine", lambda expertise: el.cosine(expertise), "expertise")
        try:
            el.overlap(table, "mine", by="auroc")
        finally:
            del el.OVERLAPS["mine"]
