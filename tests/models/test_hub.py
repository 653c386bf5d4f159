"""Loading from a hub: the real client against a server on loopback, with all that can go wrong."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import absent
import families
import hub_server
import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.torch
import torch

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, UnsupportedModelError
from expertlens_jax.models import hub as hub_module

pytestmark = pytest.mark.compiled_quickly

CASE = next(case for case in families.CASES if case.name == "gpt_neox")
NAME = "EleutherAI/pythia-tiny"


@pytest.fixture(scope="module")
def branches(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Checkpoints in every form that the hub has them in; the same values in all but "step512"."""
    root = tmp_path_factory.mktemp("branches")
    model, other = families.make_hf_model(CASE, seed=0), families.make_hf_model(CASE, seed=1)
    main = families.save(model, root / "main")
    sharded = root / "sharded"
    model.save_pretrained(sharded, max_shard_size="40KB")
    families.tokenizer().save_pretrained(sharded)
    pickled = {name: families.save(each, root / name) for name, each in (("bin", model), ("step512", other))}
    for directory in pickled.values():
        tensors = safetensors.torch.load_file(directory / "model.safetensors")
        torch.save({name: tensor.half() for name, tensor in tensors.items()}, directory / "pytorch_model.bin")
        (directory / "model.safetensors").unlink()
    (main / "README.md").write_text("not needed")
    torch.save({"big": torch.zeros(1)}, main / "pytorch_model.bin")  # not needed beside safetensors
    assert len(list(sharded.glob("*.safetensors"))) > 2
    return {"main": main, "sharded": sharded, **pickled}


@pytest.fixture
def hub(branches, tmp_path, monkeypatch):
    """A fresh hub with one repository, and a fresh download cache."""
    with hub_server.serve() as hub:
        hub.repos[NAME] = hub_server.Repo(dict(branches))
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "downloads"))
        monkeypatch.setenv("EXPERTLENS_CACHE", str(tmp_path / "converted"))
        yield hub


def same_parameters(model, reference) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, model.params, reference.params)))


def test_fetches_only_what_is_needed(hub, branches):
    model = el.load_model(NAME)
    assert model.name == NAME
    assert same_parameters(model, el.load_model(branches["main"]))
    fetched = {path.rsplit("/", 1)[1] for method, path in hub.requests if method == "GET" and "api/" not in path}
    text_files = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    assert fetched == {"config.json", "model.safetensors"} | text_files
    assert ("GET", f"store:/{NAME}/{hub.repos[NAME].find('main')[0]}/model.safetensors") in hub.requests


def test_what_ends_a_text_and_lays_out_a_chat_is_fetched_too(hub, branches, tmp_path):
    directory = shutil.copytree(branches["main"], tmp_path / "instruct")
    (directory / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    (directory / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    hub.repos[NAME] = hub_server.Repo({"main": directory})
    model = el.load_model(NAME, use_cache=False)
    assert model.end_ids == (3, 5) == el.load_model(directory).end_ids
    ask = [{"role": "user", "content": "hello"}]
    assert model.tokenizer.apply_chat_template(ask, tokenize=False) == "hello!"


def test_a_second_load_downloads_nothing(hub):
    el.load_model(NAME, use_cache=False)
    hub.requests.clear()
    el.load_model(NAME, use_cache=False)
    assert [method for method, path in hub.requests if "api/" not in path] == ["HEAD"]  # has the branch moved?


def test_revision_with_only_a_bin(hub, branches):
    model = el.load_model(NAME, revision="step512")
    assert model.name == f"{NAME}@step512"
    assert same_parameters(model, el.load_model(branches["step512"]))
    assert not same_parameters(model, el.load_model(branches["bin"]))


def test_without_torch_a_bin_is_refused_before_it_is_fetched(hub, monkeypatch):
    absent.hide_torch(monkeypatch)
    with pytest.raises(
        CheckpointError, match=r"pytorch_model.bin of .* at revision step512 .*pip install 'torch>=2.6'"
    ):
        el.load_model(NAME, revision="step512")
    assert not any("store:" in path for _, path in hub.requests)


def test_a_bin_once_converted_needs_no_torch(hub, monkeypatch):
    reference = el.load_model(NAME, revision="step512")
    absent.hide_torch(monkeypatch)
    assert same_parameters(el.load_model(NAME, revision="step512"), reference)


def test_shards(hub, branches):
    assert same_parameters(el.load_model(NAME, revision="sharded"), el.load_model(branches["main"]))


def branch(hub, branches, tmp_path, name: str, without: str = "") -> pathlib.Path:
    """A copy of the main branch, without some files, to add others to."""
    directory = tmp_path / name
    shutil.copytree(branches["main"], directory, ignore=shutil.ignore_patterns(without))
    hub.repos[NAME].branches[name] = directory
    return directory


def test_the_file_that_a_config_names_is_fetched(hub, branches, tmp_path):
    directory = branch(hub, branches, tmp_path, "named")
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    safetensors.torch.save_file({name: tensor * 2 for name, tensor in tensors.items()}, directory / "twice.safetensors")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"transformers_weights": "twice.safetensors"}))
    model = el.load_model(NAME, revision="named")
    assert same_parameters(model, el.load_model(directory))
    assert not same_parameters(model, el.load_model(branches["main"]))
    assert not any("model.safetensors" in path for _, path in hub.requests)


def test_an_adapter_beside_the_model_is_refused_before_weights_are_fetched(hub, branches, tmp_path):
    directory = branch(hub, branches, tmp_path, "tuned")
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    (directory / "adapter_model.safetensors").touch()
    with pytest.raises(CheckpointError, match=rf"{NAME} holds an adapter beside the model .*merge_and_unload\(\)"):
        el.load_model(NAME, revision="tuned")
    assert not any("store:" in path for _, path in hub.requests)


def test_a_repository_with_only_an_adapter_names_the_base_model(hub, branches, tmp_path):
    directory = branch(hub, branches, tmp_path, "lora", without="config.json")
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    with pytest.raises(CheckpointError, match=rf"{NAME} at revision lora holds only an adapter .*model someone/base:"):
        el.load_model(NAME, revision="lora")


def test_an_adapter_and_its_base_model_are_fetched(hub, branches, tmp_path):
    """The base model from the revision that the adapter names, without its tokenizer if the adapter has one."""
    directory, module = tmp_path / "lora", "gpt_neox.layers.0.mlp.dense_h_to_4h"
    families.tokenizer().save_pretrained(directory)
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "base_model_name_or_path": NAME, "revision": "step512"}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(1, 48, generator=generator), 0.1 * torch.randn(52, 1, generator=generator)
    pair = {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    safetensors.torch.save_file(pair, directory / "adapter_model.safetensors")
    hub.repos["someone/lora"] = hub_server.Repo({"main": directory})
    model, base = el.load_model("someone/lora"), el.load_model(branches["step512"])
    assert model.name == "someone/lora"
    changed = np.asarray(model.params["layers"]["mlp"]["up"]["kernel"] - base.params["layers"]["mlp"]["up"]["kernel"])
    np.testing.assert_allclose(changed[0], 2 * (b @ a).T.numpy(), atol=1e-6)
    assert not changed[1:].any()
    fetched = [path for method, path in hub.requests if method == "GET" and NAME in path]
    assert any("pytorch_model.bin" in path for path in fetched)
    assert not any("tokenizer" in path for path in fetched)


def test_a_shard_that_the_repository_lacks(hub, branches):
    shard = sorted(path.name for path in branches["sharded"].glob("*.safetensors"))[1]
    hub.repos[NAME].unlisted = frozenset({shard})
    with pytest.raises(CheckpointError, match=rf"at revision sharded on http\S+ has no {shard}\."):
        el.load_model(NAME, revision="sharded")


def test_a_repository_without_weights(hub, branches, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(branches["main"], bare, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    (bare / "flax_model.msgpack").touch()
    hub.repos[NAME].branches["bare"] = bare
    with pytest.raises(CheckpointError, match=r"no weights .*model.safetensors.*among .*flax_model.msgpack"):
        el.load_model(NAME, revision="bare")


def test_an_unsupported_model_is_refused_before_its_weights_are_fetched(hub, branches, tmp_path):
    shutil.copytree(branches["main"], tmp_path / "mamba")
    (tmp_path / "mamba" / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    hub.repos[NAME].branches["mamba"] = tmp_path / "mamba"
    with pytest.raises(UnsupportedModelError, match=r"'mamba'.*Supported: .*gpt_neox"):
        el.load_model(NAME, revision="mamba")
    assert not any("store:" in path for _, path in hub.requests)


def test_absent_repository(hub):
    with pytest.raises(CheckpointError, match=r"no model someone/nothing on http\S+ .*no directory.*hf auth login"):
        el.load_model("someone/nothing")


def test_absent_revision(hub):
    with pytest.raises(CheckpointError, match=rf"{NAME} has no revision 'step513'.*/tree/main"):
        el.load_model(NAME, revision="step513")


def test_no_config(hub, tmp_path):
    (tmp_path / "empty").mkdir()
    hub.repos["someone/data"] = hub_server.Repo({"main": tmp_path / "empty"})
    with pytest.raises(CheckpointError, match=r"someone/data on http\S+ has no config.json"):
        el.load_model("someone/data")


def test_private_repository_opens_with_its_token_which_the_store_never_sees(hub):
    hub.repos[NAME].token = "right"
    with pytest.raises(CheckpointError, match=r"no model .* that you may see.*pass token="):
        el.load_model(NAME)
    assert el.load_model(NAME, token="right").name == NAME
    assert hub.store_tokens == [None]


def test_gated_repository(hub):
    hub.repos[NAME].token, hub.repos[NAME].gated = "right", True
    with pytest.raises(CheckpointError, match=rf"gated: .*accept terms.*{NAME}, then pass token="):
        el.load_model(NAME)
    assert el.load_model(NAME, token="right").name == NAME


def test_invalid_token(hub):
    with pytest.raises(CheckpointError, match=r"refused the token for .* \(HTTP 401\).*hf auth login"):
        el.load_model(NAME, token="wrong")


@pytest.mark.parametrize(
    "request_", [("HEAD", "config.json"), ("GET", "api/models"), ("GET", "/model.safetensors")], ids=str
)
def test_busy_then_fine(hub, request_):
    hub.trouble.append((*request_, "busy"))
    assert el.load_model(NAME, use_cache=False).name == NAME
    assert not hub.trouble


def test_busy_for_good(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.trouble += [("HEAD", "config.json", "busy")] * 100
    with pytest.raises(CheckpointError, match=r"limits how often.*429.*Wait"):
        el.load_model(NAME)


@pytest.mark.parametrize("how", ["drop", "reset"])
def test_connection_that_breaks_midway(hub, branches, how, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 2**10)  # what came whole is kept
    hub.trouble.append(("GET", "model.safetensors", how))
    assert same_parameters(el.load_model(NAME), el.load_model(branches["main"]))
    assert not hub.trouble
    if how == "drop":  # taken up where it broke off
        size = (branches["main"] / "model.safetensors").stat().st_size
        (taken_up,) = hub.ranges
        assert 0 < int(taken_up.removeprefix("bytes=").removesuffix("-")) <= size // 2


def test_connection_that_always_breaks(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.trouble += [("GET", "model.safetensors", "reset")] * 100
    with pytest.raises(CheckpointError, match=r"getting model.safetensors of .* failed: .*try again"):
        el.load_model(NAME)


def test_offline_without_the_files(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=rf"HF_HUB_OFFLINE.*config.json of {NAME}.*{tmp_path}/downloads"):
        el.load_model(NAME)


def test_offline_with_the_files(hub, monkeypatch):
    online = el.load_model(NAME, revision="sharded", use_cache=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert same_parameters(el.load_model(NAME, revision="sharded", use_cache=False), online)
    assert not hub.requests


def test_offline_with_some_of_the_files(hub, tmp_path, monkeypatch):
    hub_module.open_snapshot(NAME)
    snapshot = hub_module.open_snapshot(NAME, revision="sharded")
    hub_module.fetch_tokenizer(snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    wanted = rf"not downloaded before: looked for model.safetensors, .*in {snapshot.directory}"
    with pytest.raises(CheckpointError, match=wanted):
        el.load_model(NAME, revision="sharded")


def test_unreachable_hub(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(CheckpointError, match=r"can't be reached \(.*refused.*config.json of .*Connect"):
        el.load_model(NAME)


def test_cache_dir_holds_downloads_and_converted_parameters(hub, tmp_path):
    el.load_model(NAME, cache_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").glob("models--*/blobs/*"))
    assert list((tmp_path / "mine" / "expertlens_jax").iterdir())
    assert not (tmp_path / "downloads").exists() and not (tmp_path / "converted").exists()


@pytest.mark.long
def test_from_the_environment_alone(hub, tmp_path):
    """A fresh process that knows of the hub only by HF_ENDPOINT, as a user's would."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "EXPERTLENS_CACHE": str(tmp_path / "kept"),
    }
    script = (
        "import expertlens_jax as el\n"
        f"model = el.load_model({NAME!r}, revision='step512', dtype='bfloat16')\n"
        "print(model.name, model.params['embed']['token'].dtype)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{NAME}@step512", "bfloat16"]
    assert list((tmp_path / "kept").glob("*/files.json"))
