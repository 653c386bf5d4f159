"""The models that ship with the package: they load offline, transformers loads them, and training shows in them."""

import jax
import numpy as np
import pytest
import torch
import transformers

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError
from expertlens_jax.models import loading
from expertlens_jax.models.packaged import ROOT, packaged_directory, packaged_models, packaged_revisions
from expertlens_jax.training.pretrain import next_token_loss

SENTENCE = "The cat sat by the fire, and the old man looked at her for a long time without a word."


def loss(model: el.Model) -> float:
    """Mean cross-entropy of a thousand next tokens of the packaged sentences, in nats."""
    ids = np.concatenate(
        [model.tokenizer(sentence)["input_ids"] for sentence in el.load_concepts("stories").sentences[::90]]
    )
    return float(next_token_loss(model.params, model.config, ids[:1024].reshape(16, 64)))


def test_all_of_them_load_whole_and_small():
    assert packaged_models() == ("lenslet-2m", "lenslet-2m-seed1", "lenslet-5m")
    for name in packaged_models():
        model = el.load_model(name)
        assert model.name == name and model.family.model_type == "gpt_neox"
    size = sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file())
    assert size < 40e6


@pytest.mark.long
def test_a_revision_is_a_training_step_and_training_lowers_the_loss():
    revisions = packaged_revisions("lenslet-2m")
    steps = [int(revision.removeprefix("step")) for revision in revisions]
    assert steps == sorted(steps) and steps[0] == 0 and len(steps) == 6 and "step256" in revisions
    losses = [loss(el.load_model("lenslet-2m", revision=revision)) for revision in revisions]
    assert losses[0] == pytest.approx(np.log(8192), rel=0.05)  # before training every token is as likely
    assert losses == sorted(losses, reverse=True) and losses[-1] < 6
    assert el.load_model("lenslet-2m", revision="step256").name == "lenslet-2m@step256"


def test_the_default_is_the_last_step():
    assert packaged_directory("lenslet-2m", None) == packaged_directory("lenslet-2m", "main")
    assert packaged_directory("lenslet-2m", None).name == packaged_revisions("lenslet-2m")[-1]


def test_a_second_seed_is_another_model_of_the_same_text():
    first, second = (el.load_model(name) for name in ("lenslet-2m", "lenslet-2m-seed1"))
    assert first.config == second.config and first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    assert loss(second) == pytest.approx(loss(first), abs=0.1)  # trained as long, on as much
    shared = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*map(kernels, (first, second)), strict=True)]
    assert np.abs(shared).max() < 0.1  # from other first weights


def kernels(model: el.Model) -> list[np.ndarray]:
    """Of every linear layer, all depths stacked."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.params) if np.ndim(leaf) > 2]


def test_transformers_loads_them_and_agrees():
    directory = packaged_directory("lenslet-2m", None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    assert type(theirs).__name__ == "GPTNeoXForCausalLM"
    ours = el.load_model("lenslet-2m")
    tokens = np.array([transformers.AutoTokenizer.from_pretrained(directory)(SENTENCE)["input_ids"]])
    with torch.no_grad():
        np.testing.assert_allclose(ours(tokens), theirs(torch.tensor(tokens)).logits.numpy(), atol=1e-4)


def test_random_weights_of_all_seeds_are_drawn_by_one_program():
    model = el.load_model("lenslet-2m")
    loading._drawing.cache_clear()
    first, again, other = (el.randomize_weights(model, seed) for seed in (0, 0, 1))
    assert loading._drawing.cache_info()[:2] == (2, 1)  # hits and misses
    assert first.digest == again.digest and len({first.digest, other.digest, model.digest}) == 3
    assert (first.name, other.name) == ("lenslet-2m-random0", "lenslet-2m-random1")
    (kernels,) = (
        leaf for path, leaf in jax.tree.leaves_with_path(other.params) if "up" in str(path) and leaf.ndim == 3
    )
    assert np.std(kernels) == pytest.approx(0.02, rel=0.01) and abs(np.mean(kernels)) < 1e-3


def test_a_revision_it_does_not_ship_with_is_refused():
    with pytest.raises(CheckpointError, match=r"lenslet-2m has no revision 'step7'; it ships with step0, .*step256"):
        el.load_model("lenslet-2m", revision="step7")
