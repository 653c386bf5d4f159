"""Finding experts at scale: the table against measure_expertise, scikit-learn and scipy; budgets, errors, reading."""

import copy
import dataclasses
import pathlib
import warnings

import families
import jax
import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import average_precision_score
from tokenizers.processors import TemplateProcessing

import expertlens_jax as el
from expertlens_jax.data.resampling import join_contrasts, permuted_labels, split_halves
from expertlens_jax.errors import BudgetError, ExpertLensWarning, ResponsesError, RunDirectoryError
from expertlens_jax.experts import table
from expertlens_jax.experts.budget import Budget, plan_passes
from expertlens_jax.experts.ranking import rank_units
from expertlens_jax.experts.significance import familywise_p, null_distributions, p_values

PLENTY = 10**10
PERMUTATIONS = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    case = next(case for case in families.CASES if case.name == "gpt_neox")
    return el.load_model(families.save(families.make_hf_model(case), tmp_path_factory.mktemp("model")))


def make_concepts(num_concepts: int = 5, sentences_each: int = 6) -> el.ConceptDataset:
    """Random syllables, each sentence with its concept's own; sentences are of three lengths."""
    rng = np.random.default_rng(0)
    syllables = np.array([consonant + vowel for consonant in "bdfklmnp" for vowel in "aeiou"])
    words, others = syllables[:num_concepts], syllables[num_concepts:]
    sentences = [
        " ".join([word, *rng.choice(others, 4 + 7 * (i % 3), replace=False)])
        for word in words
        for i in range(sentences_each)
    ]
    return el.ConceptDataset(
        name="syllables",
        sentences=tuple(sentences),
        concepts=tuple(map(str, words)),
        domains=("",) * num_concepts,
        labels=np.repeat(np.eye(num_concepts, dtype=bool), sentences_each, axis=1),
        negative_pool=np.ones(len(sentences), bool),
    )


CONCEPTS = make_concepts()


def find(model, workdir, **options):
    return el.find_experts(model, CONCEPTS, workdir, **dict(permutations=PERMUTATIONS) | options)


def contents(workdir: pathlib.Path) -> dict[str, bytes]:
    """Every file of a table."""
    store = workdir / table.STORE
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("found") / "run"
    return workdir, find(model, workdir)


@pytest.fixture(scope="module")
def responses(model):
    return el.record_responses(model, CONCEPTS.sentences)


def test_it_is_recording_and_measuring_in_one(found, responses):
    want = el.measure_expertise(responses, CONCEPTS)
    for name, variable in want.data_vars.items():
        np.testing.assert_allclose(found[1][name].values, variable.values, rtol=2e-6, atol=1e-7)
    for name, coordinate in want.coords.items():
        np.testing.assert_array_equal(found[1][name].values, coordinate.values)
    assert found[1].attrs["negatives_per_positive"] == 2.5 and found[1].attrs["model"] == want.attrs["model"]


def test_halves_equal_scikit_learn(found, responses):
    contrast = el.contrast_concepts(CONCEPTS)
    rng = np.random.default_rng(0)
    for half, kept in enumerate(split_halves(contrast, seed=0)):
        for concept, unit in zip(rng.integers(0, 5, 40), rng.integers(0, 876, 40), strict=True):
            weights = contrast.weights()[concept] * kept
            positive = CONCEPTS.labels[concept]
            weights[~positive] *= 2.5 * (positive & kept).sum() / weights[~positive].sum()
            want = average_precision_score(positive, responses.values[:, unit], sample_weight=weights)
            got = found[1]["average_precision_halves"].values[half, concept, unit]
            assert got == pytest.approx(want, abs=1e-6)


def test_significance_is_that_of_its_parts(found, responses):
    contrast, expertise = el.contrast_concepts(CONCEPTS), found[1]
    precision = expertise["average_precision"].values
    p = p_values(precision, null_distributions(contrast, seed=0))
    np.testing.assert_allclose(expertise["p_value"].values, p, rtol=1e-6)
    np.testing.assert_allclose(
        expertise["q_value"].values, scipy.stats.false_discovery_control(p.astype(np.float32), axis=1), rtol=1e-5
    )
    permuted = rank_units(responses.values, join_contrasts(contrast, permuted_labels(contrast, PERMUTATIONS, seed=0)))
    maxima = permuted.average_precision[5:].max(axis=1)
    np.testing.assert_allclose(expertise["null_maximum"].values, maxima, rtol=1e-6)
    for row, got in zip(precision, expertise["familywise_p"].values, strict=True):
        np.testing.assert_array_equal(got, familywise_p(row, expertise["null_maximum"].values))
    assert expertise["familywise_p"].values.min() >= 1 / (1 + PERMUTATIONS) - 1e-7


@pytest.mark.parametrize(
    "options",
    [
        dict(budget=Budget(PLENTY, 0, 0)),
        dict(budget=Budget(0, PLENTY, 0)),
        dict(budget=Budget(0, 0, PLENTY)),
        dict(passes=3),
        dict(passes=2, budget=Budget(PLENTY, 0, 0)),
    ],
    ids=["device", "host", "disk", "passes", "passes on the device"],
)
def test_where_responses_wait_changes_no_byte(model, found, tmp_path, options):
    find(model, tmp_path / "run", **options)
    assert contents(tmp_path / "run") == contents(found[0])
    assert not list((tmp_path / "run").glob("scratch/*"))


def test_a_table_can_do_without_halves_and_significance(model, found, tmp_path):
    bare = find(model, tmp_path / "run", halves=False, permutations=0)
    positive = {"positive_median", "positive_p90", "positive_mean"}
    assert set(bare.data_vars) == {"average_precision", "negative_mean", "auroc", "transport_slope"} | positive
    np.testing.assert_allclose(bare["average_precision"].values, found[1]["average_precision"].values, atol=1e-7)


def test_sites_and_pooling_are_passed_on(model, tmp_path):
    few = find(model, tmp_path / "run", sites=("resid",), pooling="mean", halves=False, permutations=0)
    responses = el.record_responses(model, CONCEPTS.sentences, sites=("resid",), pooling="mean")
    want = el.measure_expertise(responses, CONCEPTS)["average_precision"].values
    np.testing.assert_allclose(few["average_precision"].values, want, atol=1e-7)
    assert set(few["site"].values) == {"resid"}


def test_a_finished_run_is_read_and_not_run_again(model, found, monkeypatch):
    monkeypatch.setattr("expertlens_jax.experts.pipeline.record", None)  # would be called
    again = find(model, found[0])
    assert again.identical(el.open_expertise(found[0]))


def test_an_opened_table_reads_what_is_asked_for(found):
    expertise = el.open_expertise(found[0])
    assert not isinstance(expertise["average_precision"].variable._data, np.ndarray)  # nothing is read yet
    one = expertise["average_precision"].sel(concept="ba").values
    np.testing.assert_array_equal(one, found[1]["average_precision"].values[0])
    experts = el.select_experts(expertise, threshold=0.5)
    assert el.jaccard(experts).shape == (5, 5)


def test_an_unfinished_table_says_so_and_gives_what_is_done(model, found, tmp_path, monkeypatch):
    stopped = RuntimeError("stopped")
    calls = []

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise stopped
        return original(*args, **kwargs)

    from expertlens_jax.experts import pipeline

    original = pipeline.record
    monkeypatch.setattr(pipeline, "record", once)
    with pytest.raises(RuntimeError, match="stopped"):
        find(model, tmp_path / "run", passes=3)
    with pytest.warns(ExpertLensWarning, match=r"isn't done: 292 of 876 units are ranked, and only these are given"):
        part = el.open_expertise(tmp_path / "run")
    whole = found[1]["average_precision"].values[:, :292]
    np.testing.assert_array_equal(part["average_precision"].values, whole)
    monkeypatch.setattr(pipeline, "record", original)
    find(model, tmp_path / "run")  # in one pass this time: what is done stays done
    assert contents(tmp_path / "run") == contents(found[0])


def test_there_may_be_no_table_or_nothing_in_it(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"holds no expertise.zarr. Give the workdir of el.find_experts"):
        el.open_expertise(tmp_path)


def test_another_run_is_refused(model, found, tmp_path):
    with pytest.raises(RunDirectoryError, match=r"another config \(negatives_per_positive: 2.5 there, 5.0 asked for\)"):
        find(model, found[0], negatives_per_positive=5)
    other = model.replace(params=jax.tree.map(lambda leaf: leaf * 1.001, dict(model.params)))
    with pytest.raises(RunDirectoryError, match="another config .weights: "):
        find(other, found[0])
    shuffled = dataclasses.replace(CONCEPTS, sentences=CONCEPTS.sentences[::-1])
    with pytest.raises(RunDirectoryError, match="another config .sentences_sha256: "):
        el.find_experts(model, shuffled, found[0], permutations=PERMUTATIONS)
    begins = copy.deepcopy(model.tokenizer)
    first = begins.convert_ids_to_tokens(0)
    begins.backend_tokenizer.post_processor = TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 0)])
    with pytest.raises(RunDirectoryError, match=r"another config \(tokens_sha256: "):
        find(model.replace(tokenizer=begins), found[0])


def test_a_second_writer_is_refused(model, tmp_path):
    from expertlens_jax.run_directory import only_writer

    with only_writer(tmp_path / "run"):
        with pytest.raises(RunDirectoryError, match="another process is writing to .*run. Wait until it is done"):
            find(model, tmp_path / "run")
    find(model, tmp_path / "run", halves=False, permutations=0)


def test_what_fits_nowhere_is_refused_before_the_model_runs(model, tmp_path, monkeypatch):
    monkeypatch.setattr("expertlens_jax.experts.pipeline.record", None)  # would be called
    with pytest.raises(BudgetError, match=r"one layer's responses take .* MB and the largest place for them, the host"):
        find(model, tmp_path / "run", budget=Budget(0, 1000, 500), tokens_per_batch=4096)
    monkeypatch.setattr("expertlens_jax.experts.planning.free_disk", lambda path: 1000)
    with pytest.raises(BudgetError, match=r"the table takes up to .* has 1 kB free. Choose another workdir"):
        find(model, tmp_path / "run")


def test_responses_that_are_not_finite_name_their_unit(model, tmp_path):
    params = jax.tree.map(lambda leaf: leaf, dict(model.params))
    up = params["layers"]["mlp"]["up"]
    params["layers"] = params["layers"] | {
        "mlp": params["layers"]["mlp"] | {"up": up | {"bias": up["bias"].at[2, 5].set(np.nan)}}
    }
    with pytest.raises(ResponsesError, match=r"layer 2, site mlp.up, channel 5\) to sentence 0 .*'ba "):
        find(model.replace(params=params), tmp_path / "run")


def test_a_full_disk_is_told_and_the_run_goes_on_afterwards(model, found, tmp_path, monkeypatch):
    import resource

    written, limits = [], resource.getrlimit(resource.RLIMIT_FSIZE)
    original = table.write_progress

    def fill_up(workdir, progress):
        original(workdir, progress)
        written.append(progress)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # no file may be larger any more

    monkeypatch.setattr(table, "write_progress", fill_up)
    try:
        with pytest.raises(RunDirectoryError, match=r"could not be written to: File too large.*free some space"):
            find(model, tmp_path / "run", passes=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(written) == 1
    monkeypatch.setattr(table, "write_progress", original)
    find(model, tmp_path / "run", passes=3)
    assert contents(tmp_path / "run") == contents(found[0])


@pytest.mark.parametrize(
    ("budget", "place", "layers"),
    [
        (Budget(4000, 4000, 4000), "device", ((0, 10),)),
        (Budget(3999, 8000, 0), "host", ((0, 10),)),  # two devices' rows are in one host's memory
        (Budget(3999, 7999, 8000), "disk", ((0, 10),)),
        (Budget(1200, 800, 0), "device", ((0, 3), (3, 6), (6, 9), (9, 10))),
        (Budget(0, 1700, 0), "host", ((0, 2), (2, 4), (4, 6), (6, 8), (8, 10))),
    ],
)
def test_passes_are_as_few_as_fit(budget, place, layers):
    passes = plan_passes(10, [10] * 10, budget, devices=2)
    assert (passes.place, passes.layers) == (place, layers)
    size = getattr(budget, place)
    assert passes.bytes_per_pass <= size


def test_reading_warns_only_when_it_should(found):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ExpertLensWarning)
        el.open_expertise(found[0])
