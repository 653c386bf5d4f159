"""Features of autoencoders beside units, end to end on the packaged model: files, tables, the user's own, errors."""

import numpy as np
import pandas as pd
import pytest
from eight_concepts import CONCEPTS, change, small_config, write_ratings

import expertlens_jax as el
from experiments import reproduce, sparse_features
from experiments.autoencoders import check_model
from expertlens_jax.analysis.conditions.equal_counts import FEATURES, UNITS
from expertlens_jax.errors import (
    ConceptDataError,
    CorpusError,
    ExpertLensError,
    SelectionError,
    SettingError,
    UnfitConceptsError,
)
from expertlens_jax.models.sae import never_fires


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where tables lie, and ratings of all pairs."""
    directory = tmp_path_factory.mktemp("shared")
    write_ratings(directory)
    return directory


def small(shared, **changes):
    config = small_config(shared)
    section = config.sparse_features
    section.features, section.k, section.steps, section.batch = 40, 4, 6, 64
    return change(config, **changes)


@pytest.fixture(scope="module")
def done(shared):
    return sparse_features.run(small(shared), shared / "run")


@pytest.mark.long
def test_tables_say_what_was_compared(shared, done):
    table, autoencoders = (pd.read_csv(shared / "run" / f"{n}.csv") for n in ("sparse_features", "autoencoders"))
    assert list(dict.fromkeys(table["source"])) == [FEATURES, UNITS, "frozen decoder"]
    counts = table.groupby("source")["units"].first()
    assert counts[FEATURES] == counts[UNITS] == 40 - table["silent"].iloc[0]
    assert set(table["statistic"]) == {"alignment", "detection", "stability"}
    assert autoencoders["source"].tolist() == [FEATURES, "frozen decoder"]
    assert (autoencoders["loss"] < autoencoders["loss_spliced"]).all() and (autoencoders["l0"] <= 4.01).all()
    assert len(done) == 4 and all(each.figure == "sparse_features" for each in done)
    assert (shared / "run" / "figures" / "sparse_features.png").stat().st_size > 10_000


@pytest.mark.long
def test_detection_is_that_of_tables_of_the_written_autoencoder(shared, done):
    table = pd.read_csv(shared / "run" / "sparse_features.csv")
    (row,) = table[(table["source"] == FEATURES) & (table["statistic"] == "detection")].itertuples()
    sae = el.load_sae(shared / "run" / "saes" / "SAE_features" / "layer2" / "layer2_resid")
    model, scores = el.load_model("lenslet-2m").with_sae(sae), []
    for name in ("facts", "stories"):
        concepts = el.load_concepts(name).subset(CONCEPTS)
        responses = el.record_responses(model, concepts.sentences, sites="sae", significant_bits=12)
        scores.append(el.measure_expertise(responses, concepts)["average_precision"].values)
    both = [(scores[1 - i][concept, scores[i][concept].argmax()]) for i in (0, 1) for concept in range(len(CONCEPTS))]
    assert row.value == pytest.approx(np.mean(both), abs=1e-4)


@pytest.mark.long
def test_the_users_own_autoencoders_are_taken_instead(shared, done):
    own = shared / "run" / "saes" / "SAE_features" / "layer2" / "layer2_resid"
    sparse_features.run(small(shared, sparse_features__saes=(str(own),)), shared / "own")
    before, after = (pd.read_csv(shared / name / "sparse_features.csv") for name in ("run", "own"))
    assert list(dict.fromkeys(after["source"])) == [FEATURES, UNITS]
    np.testing.assert_allclose(after["value"], before["value"][before["source"].isin([FEATURES, UNITS])], atol=1e-6)
    assert not (shared / "own" / "saes").exists() and not (shared / "own" / "autoencoders.csv").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(sparse_features__layers=(7,)), SelectionError, "layer=7 was given; lenslet-2m has layers 0 to 3"),
        (dict(sparse_features__layers=(1, 1)), SelectionError, r"sparse_features.layers is \(1, 1\)"),
        (dict(sparse_features__site="mlp.gate"), SelectionError, "the site 'mlp.gate' is to be read"),
        (
            dict(sparse_features__twins=("frozen",)),
            SelectionError,
            "sparse_features.twins hold 'frozen'; there are froz",
        ),
        (dict(sparse_features__draws=0), SelectionError, "sparse_features.draws is 0; wanted 1 or more"),
        (dict(sparse_features__top=41), SelectionError, "top is 41, and the autoencoders have 40 features a layer"),
        (
            dict(sparse_features__kind="gated"),
            SettingError,
            "kind 'gated' was asked for; there are topk, jumprelu, relu",
        ),
        (dict(sparse_features__kind="relu"), SettingError, "k=4 was given for the kind 'relu'; only topk has it"),
        (dict(sparse_features__k=41), SettingError, "k=41 features of 40 can't be kept; wanted 1 to 40"),
        (
            dict(sparse_features__steps=10_000),
            UnfitConceptsError,
            "640 texts give .* at most 10.* sparse_features.texts",
        ),
        (dict(sparse_features__texts=("nowhere.txt",)), CorpusError, "nowhere.txt"),
        (dict(sparse_features__saes=("nowhere",)), ExpertLensError, "nowhere holds no sparse autoencoder"),
        (dict(concepts=("cat",)), ConceptDataError, "concept 'cat' needs at least 1 negative sentence and has 0"),
    ],
)
def test_wrong_settings_are_explained_before_anything_is_written(shared, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        sparse_features.run(small(shared, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_autoencoders_whose_features_are_dead_are_told_before_the_model_runs(shared, done, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    own = shared / "run" / "saes" / "SAE_features" / "layer2" / "layer2_resid"
    for number, dead in enumerate((3, 40)):
        copy = tmp_path / f"dead{number}"
        copy.mkdir()
        (copy / "cfg.json").write_bytes((own / "cfg.json").read_bytes())
        weights = load_file(own / "sae_weights.safetensors")
        weights["W_enc"][:, :dead] = 0
        weights["b_enc"][:dead] = -1
        save_file(
            {name: np.ascontiguousarray(value) for name, value in weights.items()}, copy / "sae_weights.safetensors"
        )
        assert never_fires(el.load_sae(copy)).sum() == dead
        config = small(shared, sparse_features__saes=(str(copy),))
        model = el.load_model("lenslet-2m")
        if dead == 40:
            with pytest.raises(SelectionError, match="all 40 features of dead1 are dead: none can fire"):
                check_model(config, (), model)
        else:
            check_model(config, (), model)
            assert "3 of the 40 features of dead0 are dead" in capsys.readouterr().out


def test_too_few_sentences_leave_the_experiment_out_of_a_suite_and_stop_no_other(shared, tmp_path):
    config = small(shared, experiments=("localisation", "sparse_features"), sparse_features__steps=10_000)
    kept, left = reproduce.plan(config, tmp_path)
    assert (kept.state, left.state) == ("waiting", "left out") and "640 texts give" in left.reason
    few = small(shared, sparse_features__steps=10_000, sparse_features__texts=(str(shared / "mine.txt"),))
    with pytest.raises(CorpusError, match="of at most 10"):
        check_model(few, (), el.load_model("lenslet-2m"))
