"""`el.analysis.detection`: its table, intervals, chance and paired tests; bad input is told before anything is read."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import expertlens_jax as el
from expertlens_jax.analysis.detecting.examples import Examples, concept_labels, draw_examples
from expertlens_jax.analysis.detecting.pairs import pair_sets
from expertlens_jax.analysis.detecting.question import default_detectors
from expertlens_jax.analysis.detecting.readings import read_model, read_stream
from expertlens_jax.errors import (
    ConceptDataError,
    ExpertLensWarning,
    ResponsesError,
    SelectionError,
    UnfitConceptsError,
)

WORDS = ("cat", "dog", "bread", "car", "rain", "piano")
FAST = {"negatives_per_positive": (1, 10), "resamples": 50}


def read(sentences, readings):
    """Units that count a concept's word, and many that are noise; all readings alike."""
    rng = np.random.default_rng(len(sentences))
    values = rng.normal(size=(len(sentences), 40)).astype(np.float32)
    for column, word in enumerate(WORDS):
        values[:, column] += 3 * np.array([word in each.lower() for each in sentences])
    return {name: values[:, None] if name == "stream" else values for name in readings}


@pytest.fixture(scope="module")
def sets():
    return {name: el.load_concepts(name).subset(WORDS) for name in ("facts", "stories")}


@pytest.fixture(scope="module")
def result(sets):
    detectors = ("best_expert", "top_experts", "random_units", "mean_difference", "bag_of_words")
    return el.analysis.detection(
        read, sets["facts"], sets["stories"], detectors=detectors, positives=(5, 40), label_noise=(0.25,), **FAST
    )


def test_the_table_has_a_row_per_detector_condition_and_measure_beside_chance(result):
    table = result.table
    assert len(table) == 5 * 3 * 5  # detectors; conditions; AUROC, and AP and F1 at either base rate
    assert set(zip(table["train"], table["test"], strict=True)) == {("facts", "stories")}
    chance = table.groupby(["measure", "negatives_per_positive"], dropna=False)["chance"].unique().explode()
    assert chance["average_precision", 10] == pytest.approx(1 / 11) and chance["f1", 1] == pytest.approx(2 / 3)
    assert (table["ci_low"] <= table["value"]).all() and (table["value"] <= table["ci_high"]).all()
    rows = table.set_index(["detector", "positives", "label_noise", "measure", "negatives_per_positive"])["value"]
    assert rows["best_expert", 40, 0, "average_precision", 10] > 0.75
    assert rows["random_units", 40, 0, "average_precision", 10] < 0.4
    assert rows["best_expert", 40, 0, "f1", 10] > 0.75


def test_numbers_are_means_over_concepts_and_tests_pair_them(result):
    concepts, table = result.tables["concepts"], result.table
    keys = ["detector", "positives", "label_noise", "measure", "negatives_per_positive"]
    means = concepts.groupby(keys, dropna=False)["value"].mean()
    np.testing.assert_allclose(table.set_index(keys)["value"].sort_index(), means.sort_index())
    row = result.tables["comparisons"].query(
        "measure == 'average_precision' and negatives_per_positive == 10 and other == 'random_units'"
    )
    most = concepts.query("positives == 40 and label_noise == 0 and measure == 'average_precision'")
    most = most[most["negatives_per_positive"] == 10].pivot_table(index="concept", columns="detector", values="value")
    differences = most["top_experts"] - most["random_units"]
    assert row["difference"].item() == pytest.approx(differences.mean())
    assert row["p_value"].item() == pytest.approx(scipy.stats.wilcoxon(differences).pvalue)
    assert row["least_p"].item() == pytest.approx(4 * 2 / 2**6) and row["p_holm"].item() >= row["p_value"].item()
    assert set(result.tables["comparisons"]["detector"]) == {"top_experts"}


def test_what_was_found_is_told_with_the_losses_first(result):
    first, second, third = result.sentences
    assert first.startswith("facts to stories: top experts lose against none, and win against")
    assert "(chance 0.091)" in second and "of mean difference" in second
    assert third.startswith("Experts are ") and "of the squared difference" in third
    shares = result.tables["shares"]
    assert ((0 < shares["share_of_square"]) & (shares["share_of_square"] <= 1)).all()
    assert (shares["share_of_square"] > shares["share_of_units"]).all()
    assert repr(result).startswith("detection\n") and "<h4>detection</h4>" in result._repr_html_()


def test_the_order_of_concepts_changes_nothing(sets, result):
    moved = {name: each.subset(WORDS[::-1]) for name, each in sets.items()}
    detectors = tuple(dict.fromkeys(result.table["detector"]))
    again = el.analysis.detection(
        read, *moved.values(), detectors=detectors, positives=(5, 40), label_noise=(0.25,), **FAST
    )
    keys = ["detector", "positives", "label_noise", "measure", "negatives_per_positive", "concept"]
    first, second = (each.tables["concepts"].set_index(keys)["value"].sort_index() for each in (result, again))
    np.testing.assert_allclose(second, first, atol=1e-6)


def test_a_single_set_is_halved(sets):
    found = el.analysis.detection(read, sets["facts"], detectors=("best_expert", "top_experts"), **FAST)
    assert set(found.table["train"]) == {"facts, first half"} and set(found.table["test"]) == {"facts, second half"}
    assert set(found.table["positives"]) == {5, 10, 20}
    first, second = pair_sets(sets["facts"], None)
    assert not set(first.sentences) & set(second.sentences)
    assert len(first.sentences) + len(second.sentences) == len(sets["facts"].sentences)


def test_examples_are_drawn_within_one_another_and_noise_keeps_the_number(sets):
    labels = concept_labels(sets["facts"])
    few, many, wrong = (
        draw_examples(labels, WORDS, each, negatives=60, seed=1)
        for each in (Examples(5), Examples(20), Examples(20, 0.25))
    )
    assert ((few == 1).sum(1) == 5).all() and ((many == 1).sum(1) == 20).all() and (many[few == 1] == 1).all()
    assert ((wrong == 1).sum(1) == 20).all() and (((wrong == 1) & (labels == 1)).sum(1) == 15).all()
    assert ((many == 0).sum(1) == 60).all() and ((wrong >= 0) == (many >= 0)).all()
    assert not ((many >= 0) & (labels < 0)).any()


def short(name, place):
    """Sentences of one length, which compile once."""
    sentences = [
        f"The {word} was in the {thing} {place}." for word in ("cat", "dog") for thing in ("old", "new", "red")
    ]
    labels = np.repeat(np.eye(2, dtype=bool), 3, axis=1)
    return el.ConceptDataset(name, tuple(sentences), ("cat", "dog"), ("", ""), labels, np.ones(6, bool))


def test_a_model_is_read_and_its_saes_are_asked_only_if_it_carries_some():
    model = el.load_model("lenslet-2m")
    assert "sae_feature" not in default_detectors(model) and "sae_feature" in default_detectors(read)
    sae = el.SAE(
        np.random.default_rng(0).normal(size=(128, 16)).astype(np.float32),
        np.zeros(16, np.float32),
        layer=2,
        site="resid",
    )
    found = el.analysis.detection(
        model.with_sae(sae),
        *(short(name, place) for name, place in (("here", "house"), ("there", "field"))),
        detectors=("top_experts", "mean_difference", "embedding_probe", "sae_feature"),
        sites=("mlp.up",),
        **FAST,
    )
    rows = found.table[found.table["measure"] == "auroc"].set_index("detector")
    assert rows["reads"].to_dict() == {
        "top_experts": "units",
        "mean_difference": "stream",
        "embedding_probe": "embedding",
        "sae_feature": "sae",
    }
    assert rows.loc["top_experts", "value"] > 0.8


def test_the_stream_of_a_model_is_what_it_captures():
    model = el.load_model("lenslet-2m")
    sentences = ["The cat was in the house.", "A cat."]
    found = read_stream(model, sentences, el.Recording("resid"))
    for sentence, row in zip(sentences, found, strict=True):
        ids = model.tokenizer([sentence])["input_ids"]
        captured = np.asarray(model.capture(ids, sites="resid")["resid"])[:, 0]  # [layers, tokens, channels]
        wanted = captured.transpose(1, 0, 2).reshape(captured.shape[1], -1)
        np.testing.assert_allclose(row[: len(wanted)], wanted, atol=1e-4)
        assert np.isnan(row[len(wanted) :]).all()


def test_units_are_rounded_and_embeddings_are_not():
    model, sentences = el.load_model("lenslet-2m"), ["The cat was in the house.", "A cat was in the field."]
    asked = dict(readings=("units", "embedding"))
    plain, rounded = (
        read_model(model, sentences, **asked, recording=el.Recording("mlp.up", significant_bits=bits))
        for bits in (None, 12)
    )
    np.testing.assert_array_equal(rounded["embedding"], plain["embedding"])
    np.testing.assert_allclose(rounded["units"], plain["units"], rtol=2**-12)
    assert (rounded["units"] != plain["units"]).mean() > 0.9


def nobody(*_):
    pytest.fail("the model was read")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detectors": ("svm", "top_experts")}, "Unknown detector 'svm'. Choose from: best_expert"),
        ({"detectors": ("probe",)}, "reference='top_experts' isn't among the detectors, which are probe"),
        ({"positives": (0,)}, "positives holds 0; wanted numbers of sentences"),
        ({"positives": ()}, "positives is empty"),
        (
            {"positives": (50,)},
            "positives holds 50, and the concept 'cat' has 40 positive sentences to train on in facts",
        ),
        ({"negatives_per_positive": ()}, "negatives_per_positive is empty"),
        ({"negatives_per_positive": (0,)}, "negatives_per_positive holds 0; wanted numbers above 0"),
        ({"negatives_per_positive": (1, 1)}, "wanted several numbers, each once"),
        ({"label_noise": (0.6,)}, "label_noise holds 0.6; wanted shares of wrong labels above 0 and below 0.5"),
        ({"label_noise": (0.1,), "positives": (3,)}, "label_noise holds 0.1, which of 3 positives"),
        ({"training_negatives": 0}, "training_negatives=0; wanted a number of sentences"),
    ],
)
def test_wrong_settings_are_told_by_name_before_the_model_is_read(sets, changes, message):
    with pytest.raises(SelectionError, match=message):
        el.analysis.detection(nobody, sets["facts"], sets["stories"], **changes)


def test_sets_that_do_not_fit_are_told_by_name_before_the_model_is_read(sets):
    facts, stories = sets["facts"], sets["stories"]
    other = stories.subset(WORDS[:3])
    with pytest.raises(UnfitConceptsError, match=r"'facts' and 'stories' have no concept in common: 'car', 'rain'"):
        el.analysis.detection(nobody, facts.subset(WORDS[3:]), other)
    with pytest.raises(UnfitConceptsError, match="240 sentences of 'facts' are in 'facts' too"):
        el.analysis.detection(nobody, facts, facts)
    with pytest.warns(ExpertLensWarning, match="3 of the 6 concepts of 'facts' aren't in 'stories' and are left out"):
        train, test = pair_sets(facts, other)
    assert train.concepts == test.concepts == WORDS[:3]
    with pytest.raises(SelectionError, match="a int was given; wanted a model"):
        el.analysis.detection(3, facts, stories)


def test_labels_of_one_kind_or_too_few_to_halve_are_told_by_the_concepts_name(sets):
    facts, stories = sets["facts"], sets["stories"]
    labels = facts.labels.copy()
    labels[2] = False
    with pytest.raises(ConceptDataError, match="concept 'bread' has no positive sentences"):
        el.analysis.detection(nobody, dataclasses.replace(facts, labels=labels), stories)
    with pytest.raises(ConceptDataError, match="'cat' needs at least 1 negative sentence and has 0"):
        el.analysis.detection(nobody, facts.subset(("cat",)), stories.subset(("cat",)))
    labels = facts.labels.copy()
    labels[2, np.flatnonzero(labels[2])[3:]] = False
    few = dataclasses.replace(facts, labels=labels)
    with pytest.raises(
        UnfitConceptsError, match="'bread' of 'facts' has 3 positive sentences, too few to learn from a"
    ):
        el.analysis.detection(nobody, few)


def test_features_of_no_sae_are_refused_before_the_model_runs(sets, monkeypatch):
    model = el.load_model("lenslet-2m")
    monkeypatch.setattr("expertlens_jax.analysis.detecting.readings.record_responses", nobody)
    with pytest.raises(SelectionError, match="'sae_feature' reads features of sparse autoencoders, and lenslet-2m"):
        el.analysis.detection(model, *sets.values(), detectors=("top_experts", "sae_feature"))
    with pytest.raises(SelectionError, match="sites mlp.gate were given"):
        el.analysis.detection(model, *sets.values(), sites=("mlp.gate",))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda sentences: {}, r"returned nothing, and no units"),
        (lambda sentences: {"units": np.zeros((3, 4))}, r"has shape \[3, 4\]; wanted \[240, channels\]"),
        (lambda sentences: {"units": np.full((len(sentences), 4), np.nan)}, "wanted .*finite"),
    ],
)
def test_a_function_that_reads_amiss_is_told(sets, returned, message):
    with pytest.raises(ResponsesError, match=message):
        el.analysis.detection(
            lambda sentences, readings: returned(sentences), *sets.values(), detectors=("top_experts",)
        )


def test_figures_are_drawn_of_the_table_as_a_file_holds_it(result, tmp_path):
    result.table.to_csv(tmp_path / "detection.csv", index=False)
    table = pd.read_csv(tmp_path / "detection.csv")
    for figure in (el.plot.detection(table), el.plot.detection_examples(table), result.plot(), result.plot("examples")):
        said = [text.get_text() for axes in figure.axes for text in (*axes.get_yticklabels(), axes.xaxis.label)]
        assert "bag of words" in said or "Positives to learn from" in said
