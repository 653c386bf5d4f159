"""Saved models: every family comes back bit for bit, and transformers reads what was written."""

import families
import jax
import numpy as np
import pytest
import torch

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError
from expertlens_jax.models.saving import save_model

pytestmark = pytest.mark.compiled_quickly


@pytest.fixture(params=families.CASES, ids=lambda case: case.name)
def saved(request, tmp_path):
    """A family's model as we load it, its Hugging Face config, and where we saved it again."""
    model = el.load_model(families.save(families.make_hf_model(request.param), tmp_path / "theirs"))
    save_model(tmp_path / "ours", model.params, families.make_config(request.param), model.tokenizer)
    return request.param, model, tmp_path


def test_a_saved_model_is_the_same_model_here_and_in_transformers(saved):
    case, model, directory = saved
    again = el.load_model(directory / "ours")
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, dict(again.params), dict(model.params))
    theirs, ours = (
        families.load_hf_model(case, directory / name, torch.float32).state_dict() for name in ("theirs", "ours")
    )
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        if not any(part in name for part in ("pooler", "visi", "visual", "projector")):  # which we don't read
            torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


@pytest.fixture
def neox(tmp_path):
    case = next(case for case in families.CASES if case.name == "gpt_neox")
    return el.load_model(families.save(families.make_hf_model(case), tmp_path / "model")), families.make_config(case)


def test_bfloat16_is_rounded_once(neox, tmp_path):
    model, hf_config = neox
    save_model(tmp_path / "half", model.params, hf_config, model.tokenizer, dtype="bfloat16")
    half = el.load_model(tmp_path / "half", dtype="bfloat16")
    direct = el.load_model(tmp_path / "model", dtype="bfloat16")
    jax.tree.map(np.testing.assert_array_equal, dict(half.params), dict(direct.params))


def test_parameters_of_another_model_are_refused(neox, tmp_path):
    model, hf_config = neox
    with pytest.raises(CheckpointError, match="aren't of this gpt_neox config's model: final_norm/bias.*layers/attn"):
        save_model(tmp_path / "x", {"embed": model.params["embed"]}, hf_config, model.tokenizer)
    wide = type(hf_config).from_dict(hf_config.to_dict() | {"vocab_size": 99})
    with pytest.raises(CheckpointError, match="embed/token"):
        save_model(tmp_path / "x", model.params, wide, model.tokenizer)
    with pytest.raises(CheckpointError, match="dtype 'float8' was given; wanted one of float32, bfloat16"):
        save_model(tmp_path / "x", model.params, hf_config, model.tokenizer, dtype="float8")
    assert not (tmp_path / "x").exists()
