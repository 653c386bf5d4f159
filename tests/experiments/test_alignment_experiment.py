"""The launcher from the outside, on a small random model and concepts of its own: files, resuming, and errors."""

import json
import subprocess
import sys

import families
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from launched import ROOT, launch_here

import expertlens_jax as el
from expertlens_jax.analysis.similarity.word_vectors import word_vector_similarity
from expertlens_jax.report.conclusions import CONCLUSIONS, read_conclusions

COLUMNS = (
    "sentences measure threshold negatives_per_positive ratings pairs experts_median spearman ci_low ci_high p_value"
).split()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model directory, a sentence file of 12 concepts, and ratings of all their pairs."""
    directory = tmp_path_factory.mktemp("inputs")
    case = next(case for case in families.CASES if case.name == "bert")
    families.save(families.make_hf_model(case), directory / "model")
    rng = np.random.default_rng(0)
    syllables = np.array([consonant + vowel for consonant in "bdfklmnp" for vowel in "aeiou"])
    words, others = syllables[:12], syllables[12:]
    rows = [
        {"concept": word, "domain": "early" if word < "di" else "late", "sentence": f"{word} {' '.join(rest)}"}
        for word in words
        for rest in rng.choice(others, (8, 7))
    ]
    pd.DataFrame(rows).to_csv(directory / "syllables.tsv", sep="\t", index=False)
    lines = [f"{a} {b} {rng.random():.3f}" for i, a in enumerate(words) for b in words[:i]]
    (directory / "ratings.txt").write_text("\n".join(lines))
    (directory / "few.txt").write_text("\n".join(lines[:5]))
    return directory


def launch(*arguments):
    return launch_here("alignment", *arguments)


def arguments(inputs, workdir, **changes):
    settings = {
        "model": inputs / "model",
        "model_sha256": "",
        "sentences": inputs / "syllables.tsv",
        "ratings": (str(inputs / "ratings.txt"), str(inputs / "few.txt")),
        "resamples": 50,
        "permutations": 99,
    } | changes
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return ["--config=configs/minilm.py:small", f"--workdir={workdir}", *flags]


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    done = launch(*arguments(inputs, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_run_directory_has_what_readers_need(finished):
    workdir, done = finished
    table = pd.read_csv(workdir / "alignment.csv")
    assert list(table.columns) == COLUMNS
    assert set(table["measure"]) == {
        *("jaccard", "cosine_centred", "input_embedding", "single_word", "mean_sentence", "last_token", "tfidf"),
        "mean_difference",
        *("jaccard_random_weights_0", "cosine_centred_random_weights_0"),
    }
    assert json.loads((workdir / "config.json").read_text())["negatives_per_positive"] == 2.5
    (launched,) = json.loads((workdir / "environment.json").read_text())
    assert launched["packages"]["jax"] and launched["devices"]
    for name in "alignment", "measures", "overlap_syllables", "localisation_syllables":
        for suffix in "png", "svg", "pdf":
            assert (workdir / "figures" / f"{name}.{suffix}").stat().st_size > 0
    assert str(workdir) in done.stdout


def test_numbers_are_those_of_the_library(finished, inputs):
    workdir, _ = finished
    concepts = el.load_concepts(inputs / "syllables.tsv")
    model = el.load_model(inputs / "model")
    expertise = el.measure_expertise(el.record_responses(model, concepts.sentences), concepts)
    overlap = el.jaccard(el.select_experts(expertise, threshold=0.5))
    result = el.align(overlap, el.load_ratings(inputs / "ratings.txt"), resamples=50, permutations=99)
    table = pd.read_csv(workdir / "alignment.csv")
    row = table[(table["measure"] == "jaccard") & (table["ratings"] == "ratings")].iloc[0]
    for field in "pairs", "spearman", "ci_low", "ci_high", "p_value":
        assert row[field] == pytest.approx(getattr(result, field), rel=1e-5), field
    counts = pd.read_csv(workdir / "experts.csv").set_index("concept")["experts"]
    assert row["experts_median"] == counts.median()
    drawn = pd.read_csv(workdir / "overlap_syllables.csv", index_col="concept")
    np.testing.assert_allclose(drawn.to_numpy(), overlap.values, atol=1e-5)
    localisation = pd.read_csv(workdir / "localisation.csv")
    assert localisation["experts_per_concept"].sum() == pytest.approx(counts.mean(), rel=1e-4)


def test_too_few_pairs_give_no_number_and_say_so(finished):
    workdir, done = finished
    table = pd.read_csv(workdir / "alignment.csv")
    few = table[table["ratings"] == "few"]
    assert (few["pairs"] == 5).all() and few["spearman"].isna().all()
    assert "5 of the 5 rated pairs have both words among the 12 concepts" in done.stdout


def test_started_again_it_goes_on_from_its_tables_with_the_same_bytes(finished, inputs):
    workdir, _ = finished
    before = (workdir / "alignment.csv").read_bytes()
    written = (workdir / "expertise" / "model_syllables" / "expertise.zarr" / "zarr.json").stat().st_mtime_ns
    (workdir / "alignment.csv").unlink()
    again = launch(*arguments(inputs, workdir))
    assert again.returncode == 0, again.stderr
    assert (workdir / "alignment.csv").read_bytes() == before
    assert (workdir / "expertise" / "model_syllables" / "expertise.zarr" / "zarr.json").stat().st_mtime_ns == written
    assert len(json.loads((workdir / "environment.json").read_text())) == 2


def expect(done, *parts):
    """The launcher failed with one paragraph that holds these parts, and without a traceback."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split("Error: ")[1].split())
    for part in parts:
        assert part in message


@pytest.fixture(scope="module")
def everything(inputs, tmp_path_factory):
    """A run with what the finished one leaves out: other base rates, own and other tokens, and trained word vectors."""
    directory = tmp_path_factory.mktemp("everything")
    (directory / "text.txt").write_text("\n".join(["ba be bi bo bu fa fe fi fo fu da de di do du"] * 50))
    options = {
        "own_tokens": True,
        "base_rates.negatives_per_positive": (1.0, 2.5),
        "base_rates.thresholds": (0.6,),
        "vector_corpora": str(directory / "text.txt"),
        "word2vec.dimensions": 8,
    }
    workdir = directory / "run"
    done = launch(*arguments(inputs, workdir, **options))
    assert done.returncode == 0, done.stderr
    return workdir, done, options


@pytest.mark.long
def test_every_base_rate_has_the_librarys_numbers(everything, finished, inputs):
    workdir, done, _ = everything
    table = pd.read_csv(workdir / "alignment.csv")
    jaccard = table[(table["measure"] == "jaccard") & (table["ratings"] == "ratings")]
    assert sorted(zip(jaccard["negatives_per_positive"], jaccard["threshold"], strict=True)) == [
        *((1.0, 0.5), (1.0, 0.6), (2.5, 0.5), (2.5, 0.6)),
    ]
    concepts = el.load_concepts(inputs / "syllables.tsv")
    responses = el.record_responses(el.load_model(inputs / "model"), concepts.sentences)
    rated = el.load_ratings(inputs / "ratings.txt")
    for row in jaccard.itertuples():
        expertise = el.measure_expertise(responses, concepts, negatives_per_positive=row.negatives_per_positive)
        experts = el.select_experts(expertise, threshold=row.threshold)
        overlap = el.jaccard(experts)
        of_pairs = [float(overlap.sel(concept=a, other=b)) for a, b in rated.pairs]
        assert row.spearman == pytest.approx(scipy.stats.spearmanr(of_pairs, rated.scores).statistic, abs=1e-5)
        assert row.experts_median == np.median(experts.sum("unit"))
    assert jaccard["spearman"].nunique() == 4
    cosine = table[table["measure"] == "cosine_centred"]
    assert sorted(set(cosine["negatives_per_positive"])) == [1.0, 2.5]
    # What is drawn, told and held against others is as without them.
    plain = pd.read_csv(finished[0] / "alignment.csv")
    for name in "pairs.csv", "experts.csv", "overlap_syllables.csv":
        assert (workdir / name).read_bytes() == (finished[0] / name).read_bytes()
    same = table.merge(plain, how="inner")
    assert len(same) == len(plain)
    (found,), (plainly,) = (read_conclusions(each / CONCLUSIONS) for each in (workdir, finished[0]))
    assert found.found == plainly.found
    assert "τ = 0.6" not in done.stdout
    assert (workdir / "figures" / "base_rates.png").exists()
    assert not (finished[0] / "figures" / "base_rates.png").exists()


@pytest.mark.long
def test_controls_by_tokens_are_the_experts_of_those_tokens(everything, inputs, tmp_path):
    workdir, _, _ = everything
    concepts = el.load_concepts(inputs / "syllables.tsv")
    model = el.load_model(inputs / "model")
    table = pd.read_csv(workdir / "alignment.csv").set_index(["measure", "ratings"])
    partial = pd.read_csv(workdir / "partial.csv")
    for name, pool_over in ("own_tokens", "concept"), ("other_tokens", "others"):
        expertise = el.find_experts(
            model, concepts, tmp_path / name, pool_over=pool_over, halves=False, permutations=0
        ).load()
        kept = el.open_expertise(workdir / "expertise" / f"model_syllables_pool_over-{pool_over}")
        np.testing.assert_array_equal(kept["average_precision"], expertise["average_precision"])
        result = el.align(
            el.jaccard(el.select_experts(expertise, threshold=0.5)), el.load_ratings(inputs / "ratings.txt")
        )
        assert table.loc[(f"jaccard_{name}", "ratings"), "spearman"] == pytest.approx(result.spearman, abs=1e-5)
        assert f"jaccard_{name}" in set(partial["control"])


@pytest.mark.long
def test_trained_word_vectors_are_kept_and_compared(everything, inputs):
    workdir, done, options = everything
    (vectors,) = (workdir / "word_vectors").iterdir()
    similarity = word_vector_similarity(vectors, el.load_concepts(inputs / "syllables.tsv"))
    result = el.align(similarity, el.load_ratings(inputs / "ratings.txt"))
    table = pd.read_csv(workdir / "alignment.csv").set_index(["measure", "ratings"])
    assert table.loc[("word2vec", "ratings"), "spearman"] == pytest.approx(result.spearman, abs=1e-5)
    assert table.loc[("word2vec", "ratings"), "pairs"] == 66
    assert "word2vec" in set(pd.read_csv(workdir / "comparisons.csv")["baseline"])
    assert "epoch 3 of 3" in done.stderr
    before, written = (workdir / "alignment.csv").read_bytes(), vectors.stat().st_mtime_ns
    again = launch(*arguments(inputs, workdir, **options))
    assert again.returncode == 0, again.stderr
    assert "epoch" not in again.stderr and vectors.stat().st_mtime_ns == written
    assert (workdir / "alignment.csv").read_bytes() == before


def test_what_a_baseline_or_control_lacks_is_told_before_the_model_runs(inputs, tmp_path):
    workdir = tmp_path / "run"
    done = launch(*arguments(inputs, workdir, vector_corpora=str(tmp_path / "none.txt")))
    expect(done, "there is no text file", "none.txt to train word vectors on")
    done = launch(*arguments(inputs, workdir, word_vectors=str(tmp_path / "none.kv")))
    expect(done, "there is no file of word vectors", "none.kv")
    done = launch(*arguments(inputs, workdir, **{"base_rates.negatives_per_positive": (0.0,)}))
    expect(done, "negatives_per_positive")
    done = launch(*arguments(inputs, workdir, **{"base_rates.thresholds": (1.5,)}))
    expect(done, "1.5")
    lacking = tmp_path / "lacking.tsv"
    lacking.write_text((inputs / "syllables.tsv").read_text().replace("\tba ", "\tfe ", 1))
    done = launch(*arguments(inputs, workdir, sentences=lacking, own_tokens=True))
    expect(done, "lacks the word of its concept 'ba'", "--config.own_tokens=False")
    assert not workdir.exists()


def test_a_workdir_of_another_config_is_refused(finished, inputs):
    workdir, _ = finished
    done = launch(*arguments(inputs, workdir, seed=3))
    expect(done, "holds a run with another config (seed: 0 there, 3 asked for)", "choose another --workdir")


@pytest.mark.long
def test_a_workdir_with_other_files_is_refused(inputs, tmp_path):
    """By a process of its own: what it ends with and tells is what all the others here are held to."""
    (tmp_path / "thesis.txt").write_text("precious")
    command = [sys.executable, "-m", "experiments.alignment", *arguments(inputs, tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    expect(done, "holds files but no config.json", "Choose another --workdir")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--config=configs/minilm.py", "--workdir=w", "--config.tresholds=0.5"], ["no setting 'tresholds'"]),
        (["--config=configs/nope.py", "--workdir=w"], ["configs/nope.py can't be found"]),
        (["--config=configs/minilm.py:huge", "--workdir=w"], ["minilm.py:full and minilm.py:small"]),
        (["--config=configs/minilm.py"], ["--workdir is missing"]),
        (["--config=configs/minilm.py", "--workdir=w", "--config.seed=x"], ["--config.seed=x"]),
        (["--config=configs/minilm.py", "--workdir=w", "extra"], ["unexpected arguments extra"]),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, parts):
    expect(launch(*flags), *parts)


def test_a_broken_input_is_told_in_a_paragraph_before_anything_is_written(inputs, tmp_path):
    workdir = tmp_path / "run"
    done = launch(*arguments(inputs, workdir, model=tmp_path / "nowhere"))
    expect(done, "nowhere")
    done = launch(*arguments(inputs, workdir, ratings=tmp_path / "none.txt"))
    expect(done, "none.txt")
    done = launch(*arguments(inputs, workdir, drawn_threshold=0.9))
    expect(done, "drawn_threshold is 0.9, which is none of the thresholds")
    done = launch(*arguments(inputs, workdir, measures="cosine"))
    expect(done, "jaccard must be among them")
    done = launch(*arguments(inputs, workdir, control_measures="cosin"))
    expect(done, "Unknown measures cosin. Choose from: jaccard")
    done = launch(*arguments(inputs, workdir, negatives_per_positive=-1.0))
    expect(done, "negatives_per_positive")
    done = launch(*arguments(inputs, workdir, model_sha256="abc"))
    expect(done, "the config pins abc", "it isn't the model that was meant")
    done = launch(*arguments(inputs, workdir, model="EleutherAI/pythia-70m", model_sha256="abc"))
    expect(done, "the config pins abc", "no such file", "set --config.model_sha256=")
    done = launch(*arguments(inputs, workdir, model="package:no_such_package/model"))
    expect(done, "package no_such_package, which isn't installed", "requirements-minilm.txt")
    assert not workdir.exists()
