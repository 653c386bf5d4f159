"""The pretraining launcher from outside: killed and resumed it ends with the same bits; transformers reads them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
import transformers
from launched import ROOT, launch_here
from quick_compilation import quick_environment

import expertlens_jax as el
from expertlens_jax.errors import CorpusError, RunDirectoryError
from expertlens_jax.run_directory import open_run
from expertlens_jax.training.saved import text_digests


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    words = np.array("the a cat dog sat ran on under mat tree and then slept quietly".split())
    rng = np.random.default_rng(0)
    file.write_text("\n".join(" ".join(rng.choice(words, 12)) + "." for _ in range(2000)))
    return file


def arguments(text, workdir, *flags):
    passes = () if any("passes" in flag for flag in flags) else ("--config.passes=(1,)",)
    settings = [f"--config.corpus={text}", *passes, f"--workdir={workdir}", *flags]
    return ["--config=configs/lenslet.py:tiny", *settings]


def launch(*given):
    return launch_here("pretrain", *arguments(*given))


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    done = launch(text, os.path.relpath(workdir, ROOT))  # relative, as people write it
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.long
def test_a_run_leaves_what_readers_need(finished):
    training, evaluation = pd.read_csv(finished / "training.csv"), pd.read_csv(finished / "evaluation.csv")
    assert training["step"].tolist() == [2, 4, 6, 8, 10, 12] and (training["tokens"] == training["step"] * 128).all()
    assert evaluation["step"].tolist() == [0, 4, 8, 12] and evaluation["loss"].is_monotonic_decreasing
    np.testing.assert_allclose(evaluation["perplexity"], np.exp(evaluation["loss"]), rtol=1e-4)
    assert (finished / "figures" / "training.png").stat().st_size > 10_000
    assert {path.name for path in (finished / "revisions").iterdir()} == {"step0", "step4", "step12"}


@pytest.mark.long
def test_its_revisions_load_here_and_in_transformers(finished):
    directory = finished / "revisions" / "step12"
    assert json.loads((directory / "config.json").read_text())["model_type"] == "gpt_neox"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory)
    assert type(theirs).__name__ == "GPTNeoXForCausalLM"
    model = el.load_model(directory)
    tokens = np.array([model.tokenizer("the cat sat")["input_ids"]])
    with torch.no_grad():
        want = theirs.float()(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(model(tokens), want, atol=1e-4)
    assert len(model.units) == 2 * (4 * 16 + 64 + 16)
    first = el.load_model(finished / "revisions" / "step0")
    assert not np.array_equal(first.params["embed"]["token"], model.params["embed"]["token"])


@pytest.mark.long
def test_killed_and_resumed_it_ends_with_the_same_bits(text, finished, tmp_path):
    workdir = tmp_path / "killed"
    command = [sys.executable, "-m", "experiments.pretrain", *arguments(text, workdir)]
    silence = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, env=quick_environment(), **silence)  # as what resumes it
    deadline = time.monotonic() + 300
    while not (workdir / "checkpoints" / "4").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workdir / "revisions" / "step12").exists()
    done = launch(text, workdir)
    assert done.returncode == 0 and "Going on from step" in done.stdout, done.stderr
    tensors, want = (
        safetensors.numpy.load_file(directory / "revisions" / "step12" / "model.safetensors")
        for directory in (workdir, finished)
    )
    for name, tensor in want.items():
        np.testing.assert_array_equal(tensors[name].view(np.uint16), tensor.view(np.uint16))
    for table in "training.csv", "evaluation.csv":
        resumed, whole = (
            pd.read_csv(directory / table).drop(columns="tokens_per_second", errors="ignore")
            for directory in (workdir, finished)
        )
        pd.testing.assert_frame_equal(resumed, whole)


def test_tokens_are_of_these_texts(tmp_path):
    file, other = tmp_path / "a" / "text.txt", tmp_path / "b" / "text.txt"
    for each in (file, other):
        each.parent.mkdir()
        each.write_text("the cat sat")
    tokenizer = el.load_model("lenslet-2m").tokenizer
    open_run(tmp_path / "tokens", text_digests([str(file)], tokenizer))
    open_run(tmp_path / "tokens", text_digests([str(file)], tokenizer))
    file.write_text("the cat ran")
    with pytest.raises(RunDirectoryError, match=r"another config \(texts.text: '.{12}' there"):
        open_run(tmp_path / "tokens", text_digests([str(file)], tokenizer))
    with pytest.raises(CorpusError, match="corpus holds two files called text"):
        text_digests([str(file), str(other)], tokenizer)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.corpus=absent.txt"], "there is no text file absent.txt"),
        (["--config.passes=(1,2)"], "passes are (1, 2) for 1 file; give each file a whole number"),
        (["--config.recipe.optimizer=sgd"], "Unknown optimizer 'sgd'. Choose from: adamw, muon"),
        (["--config.tokenizer=nowhere"], "there is no tokenizer in nowhere"),
    ],
)
def test_mistakes_are_told_before_training(text, tmp_path, flags, message):
    done = launch(text, tmp_path / "run", *flags)
    assert done.returncode == 1 and message in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr
