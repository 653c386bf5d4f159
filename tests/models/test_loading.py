"""Loading local directories: forms of weights, dtypes, memory, and a plain error for all that is wrong."""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import absent
import families
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import tokenizers
import torch
import transformers

import expertlens_jax as el
from expertlens_jax.errors import (
    CheckpointError,
    ExpertLensWarning,
    TokenizationError,
    UnsupportedModelError,
)

pytestmark = pytest.mark.compiled_quickly

CASE = next(case for case in families.CASES if case.name == "gpt_neox")
GPT2 = next(case for case in families.CASES if case.name == "gpt2")
REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    return families.save(families.make_hf_model(CASE), tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def reference(saved):
    return el.load_model(saved)


@pytest.fixture
def directory(saved, tmp_path) -> pathlib.Path:
    """A copy of the model to spoil."""
    return shutil.copytree(saved, tmp_path / "pythia-tiny")


def tensors_of(directory: pathlib.Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def write(directory: pathlib.Path, tensors: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def pickle_instead(directory: pathlib.Path, content, **options) -> pathlib.Path:
    """Puts a pytorch_model.bin in the place of the safetensors."""
    (directory / "model.safetensors").unlink()
    torch.save(content, directory / "pytorch_model.bin", **options)
    return directory / "pytorch_model.bin"


def change_config(directory: pathlib.Path, **changes) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


def same_parameters(model, reference) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, model.params, reference.params)))


def test_the_name_is_the_directory(directory, monkeypatch):
    assert el.load_model(directory).name == "pythia-tiny"
    monkeypatch.chdir(directory)
    assert el.load_model(".").name == "pythia-tiny"


# Forms of weights


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "phi3"])
@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
def test_forms_hold_the_same(name, form, tmp_path):
    """Of fused and transposed kernels too."""
    case = next(case for case in families.CASES if case.name == name)
    model = families.make_hf_model(case)
    reference = el.load_model(families.save(model, tmp_path / "reference"))
    directory = tmp_path / "model"
    model.save_pretrained(directory, max_shard_size="20KB" if "sharded" in form else "1GB")
    families.tokenizer().save_pretrained(directory)
    if "bin" in form:
        for path in directory.glob("*.safetensors"):
            torch.save(safetensors.torch.load_file(path), path.parent / f"pytorch_{path.stem}.bin")
            path.unlink()
        for path in directory.glob("*.index.json"):
            index = path.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
            (directory / "pytorch_model.bin.index.json").write_text(index)
            path.unlink()
    assert len(list(directory.glob("*model*"))) > 2 if "sharded" in form else 1
    assert same_parameters(el.load_model(directory), reference)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("target", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(directory, stored, target, form):
    """Every value is the stored one, rounded once."""
    tensors = {name: tensor.to(getattr(torch, stored)) for name, tensor in tensors_of(directory).items()}
    if form == "bin":
        pickle_instead(directory, tensors)
    else:
        write(directory, tensors)
    model = el.load_model(directory, dtype=target)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} == {target}
    exact = tensors["gpt_neox.embed_in.weight"].double().numpy()
    wanted = exact.astype({"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}[target])
    np.testing.assert_array_equal(np.asarray(model.params["embed"]["token"]), wanted)
    kernel = tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"].double().numpy().T.astype(wanted.dtype)
    np.testing.assert_array_equal(np.asarray(model.params["layers"]["mlp"]["up"]["kernel"][1]), kernel)


def test_bfloat16_answers_as_float32_does_about(saved, reference):
    model = el.load_model(saved, dtype="bfloat16")
    token_ids = np.random.default_rng(0).integers(4, families.VOCABULARY, (4, 9))
    exact = np.asarray(reference.respond(token_ids))
    responses = model.respond(token_ids)
    assert responses.dtype == np.float32
    assert np.abs(np.asarray(responses) - exact).max() < 0.1 * np.abs(exact).max()  # 8 bits of mantissa


def test_old_torch_files_are_read_whole_with_a_warning(directory, reference):
    pickle_instead(directory, tensors_of(directory), _use_new_zipfile_serialization=False)
    with pytest.warns(ExpertLensWarning, match=r"before 1.6, which can't be mapped"):
        assert same_parameters(el.load_model(directory), reference)


@pytest.mark.long
def test_peak_memory_is_within_the_bound():
    """The benchmark on a small model, where fixed costs weigh most."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    case = "float16 safetensors to float32"
    command = [
        sys.executable,
        "benchmarks/loading_memory.py",
        "--megabytes",
        "250",
        "--json",
        "--cases",
        case,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["parameters"] < row["peak"] <= row["bound"]


# What is wrong with paths, config and dtype


def test_no_directory(tmp_path):
    with pytest.raises(CheckpointError, match=r"no directory .*/nowhere/at/all.*owner/name"):
        el.load_model(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(CheckpointError, match=r"no directory \./pythia"):
        el.load_model("./pythia")


def test_a_file(saved):
    with pytest.raises(CheckpointError, match=r"model.safetensors is a file. Give the directory"):
        el.load_model(saved / "model.safetensors")


def test_revision_of_a_directory(saved):
    with pytest.raises(CheckpointError, match=r"is a directory here, which has no revisions.*'step512'"):
        el.load_model(saved, revision="step512")


def test_no_config(directory):
    (directory / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"pythia-tiny has no config.json.*save_pretrained"):
        el.load_model(directory)


@pytest.mark.parametrize("content", ['{"model_type": "gpt', "", "\xff"])
def test_broken_config(directory, content):
    (directory / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config.json is not JSON: .*Get it again"):
        el.load_model(directory)


@pytest.mark.parametrize("content", ["{}", "[]", '{"model_type": 3}'])
def test_config_without_a_model_type(directory, content):
    (directory / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config.json states no model_type"):
        el.load_model(directory)


@pytest.mark.parametrize("model_type", ["mamba", "no-such-model"])  # transformers knows the first
def test_unsupported_model(directory, model_type):
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(UnsupportedModelError, match=rf"'{model_type}'.*Supported: arcee, bert, .*gpt_neox"):
        el.load_model(directory)


def test_config_with_nonsense(directory):
    change_config(directory, num_attention_heads="many")
    with pytest.raises(CheckpointError, match=r"config.json.*gpt_neox"):
        el.load_model(directory)


def test_unknown_dtype(saved):
    with pytest.raises(CheckpointError, match=r"dtype 'float8' was given; wanted one of float32, bfloat16"):
        el.load_model(saved, dtype="float8")
    with pytest.raises(CheckpointError, match=r"Checkpoints in float16 are read, into either: float32"):
        el.load_model(saved, dtype="float16")


def test_code_of_a_checkpoint_is_not_run(directory):
    change_config(directory, auto_map={"AutoConfig": "evil.Config", "AutoTokenizer": "evil.Tokenizer"})
    (directory / "evil.py").write_text(f"open({str(directory / 'ran')!r}, 'w')")
    el.load_model(directory)
    assert not (directory / "ran").exists()


# What is wrong with weights


def test_no_weights(directory):
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights in .*model.safetensors, .*pytorch_model.bin"):
        el.load_model(directory)


@pytest.mark.parametrize("keep", [0, 5, 200, -1, -1000], ids=lambda keep: f"keep{keep}")
def test_truncated_safetensors(directory, keep):
    """In the length of the header, in the header, and in the data."""
    path = directory / "model.safetensors"
    size = path.stat().st_size
    os.truncate(path, keep if keep >= 0 else size + keep)
    with pytest.raises(CheckpointError, match=r"model.safetensors \([\d,]+ bytes\) can't be read.*truncated"):
        el.load_model(directory)


def test_truncated_bin(directory):
    path = pickle_instead(directory, tensors_of(directory))
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin \([\d,]+ bytes\) can't be read .*truncated"):
        el.load_model(directory)


def test_a_missing_shard(directory):
    tensors = tensors_of(directory)
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    weight_map = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=r"names 2 shards, and model-00002-of-00002\S+ is missing"):
        el.load_model(directory)


def test_a_broken_index(directory):
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text('{"weight_map": ')
    with pytest.raises(CheckpointError, match=r"index.json isn't an index of weight files"):
        el.load_model(directory)


def test_missing_and_unexpected_tensors_are_all_named(directory):
    tensors = tensors_of(directory)
    names = ["gpt_neox.layers.0.mlp.dense_h_to_4h.bias", "embed_out.weight"]
    for name in names:
        tensors[f"{name}_renamed"] = tensors.pop(name)
    write(directory, tensors)
    with pytest.raises(CheckpointError) as error:
        el.load_model(directory)
    message = str(error.value)
    assert "lacks 2 tensors (embed_out.weight, gpt_neox.layers.0.mlp.dense_h_to_4h.bias)" in message
    assert "has unexpected 2 tensors (embed_out.weight_renamed, gpt_neox.layers.0.mlp" in message


def test_a_shape_that_does_not_fit(directory):
    change_config(directory, intermediate_size=60)
    match = (
        r"tensor gpt_neox.layers.0.mlp.dense_4h_to_h.weight .*stored as \[48, 52\].*"
        r"shape \[52, 48\], but the config wants \[60, 48\]"
    )
    with pytest.raises(CheckpointError, match=match):
        el.load_model(directory)


def test_a_fused_tensor_too_narrow(tmp_path):
    directory = families.save(families.make_hf_model(GPT2), tmp_path / "model")
    tensors = tensors_of(directory)
    name = next(name for name in tensors if name.endswith("h.1.attn.c_attn.weight"))
    tensors[name] = tensors[name][:, :60].contiguous()
    write(directory, tensors)
    with pytest.raises(CheckpointError, match=rf"tensor {name} .*stored as \[24, 60\].*wants \[24, 24\]"):
        el.load_model(directory)


def test_quantised_weights(directory):
    tensors = tensors_of(directory)
    name = "gpt_neox.layers.0.attention.dense.weight"
    tensors[name] = tensors[name].to(torch.int8)
    write(directory, tensors)
    with pytest.raises(CheckpointError, match=rf"tensor {name} .* stored as I8; .*not quantised"):
        el.load_model(directory)


class Exploit:
    """Pickles as a call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(directory, zipped):
    content = {"a": Exploit(directory / "ran")}
    pickle_instead(directory, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"can't be read as PyTorch weights.*never unpickled"):
        el.load_model(directory)
    assert not (directory / "ran").exists()


def test_a_plain_pickle_is_refused(directory):
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Exploit(directory / "ran")}, protocol=2))
    with pytest.raises(CheckpointError, match=r"can't be read as PyTorch weights"):
        el.load_model(directory)
    assert not (directory / "ran").exists()


def test_a_bin_of_something_else(directory):
    pickle_instead(directory, [torch.zeros(1)])
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin holds a list instead of tensors by name"):
        el.load_model(directory)


def test_a_bin_without_torch(directory, monkeypatch):
    pickle_instead(directory, tensors_of(directory))
    absent.hide_torch(monkeypatch)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is a PyTorch file.*pip install 'torch>=2.6'"):
        el.load_model(directory)


def test_a_bin_with_an_unsafe_torch(directory, monkeypatch):
    pickle_instead(directory, tensors_of(directory))
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(CheckpointError, match=r"torch installed here, 2.5.1\+cpu.*pip install 'torch>=2.6'"):
        el.load_model(directory)


# What is wrong with tokenizers


def test_no_tokenizer(directory):
    for path in directory.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(TokenizationError, match=r"no tokenizer in .*tokenizer.json.*tokenizer.save_pretrained"):
        el.load_model(directory)


def test_broken_tokenizer(directory):
    (directory / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizationError, match=r"tokenizer in .* can't be read"):
        el.load_model(directory)


def bare_tokenizer(**tokens) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer with only these special tokens."""
    words = ["<unk>", "<end>", *"abcdefghij"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **tokens)


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_of_text(directory):
    """As GPT-2's and Pythia's do."""
    bare_tokenizer(eos_token="<end>").save_pretrained(directory)
    model = el.load_model(directory)
    assert model.tokenizer.pad_token is None
    responses = el.record_responses(model, ["a b", "a b c d e f g h i j"])
    alone = el.record_responses(model, ["a b"])
    np.testing.assert_allclose(responses.values[0], alone.values[0], atol=1e-5)


def test_a_tokenizer_that_cannot_pad_is_refused_at_once(directory):
    bare_tokenizer().save_pretrained(directory)
    with pytest.raises(TokenizationError, match=r"pythia-tiny.*no pad token, and no end-of-text.*pad_token"):
        el.load_model(directory)
