"""Every suite has every shared setting, each reaches what it is for, and none is there for nobody."""

import ast
import importlib
import pathlib

import ml_collections
import pytest

import expertlens_jax as el
from configs import common
from experiments import expertise, find_experts, sources
from expertlens_jax.experts.budget import GB

ROOT = pathlib.Path(__file__).parents[2]
MEASURING = {
    **{
        "demo": ("full", "small", "novels"),
        "minilm": ("full", "small", "novels"),
        "find_experts": ("",),
        "gemma": ("2b", "2b-it"),
    },
    **{"gpt2": ("small", "xl"), "llama": ("1b", "3b-it"), "pythia": ("70m", "12b"), "mixture": ("olmoe", "granite")},
}
SIZES = [(name, size) for name, sizes in MEASURING.items() for size in sizes]
OTHERS = {"write_concepts": ("model", "endpoint", "mine", "novels"), "lenslet": ("2m", "tiny")}


def config_of(name, size):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config(size) if size else module.get_config()


def test_the_lists_above_hold_every_config():
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"common", "__init__"}
    assert files == set(MEASURING) | set(OTHERS)


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_every_suite_has_every_shared_setting_of_its_type(name, size):
    config, shared = config_of(name, size), common.measuring_settings("")
    for key, value in shared.items():
        assert type(config[key]) is type(value), key


def test_what_writes_sentences_has_the_settings_of_a_model():
    assert set(common.model_settings("")) <= set(config_of("write_concepts", "model"))


class Table:
    def load(self):
        return self


ASKED = {
    "sites": ("mlp.up",),
    "pooling": "mean",
    "truncate": True,
    "significant_bits": 12,
    "tokens_per_batch": 77,
    "negatives_per_positive": 3.5,
    "exclude_mentions": False,
    "sampled": True,
    "seed": 5,
    "passes": 3,
}
CHAT = {"chat": "assistant", "chat_system": "Be brief.", "chat_asked": "What is it?"}
GIGABYTES = {"device_gigabytes": 1.5, "host_gigabytes": 2.0, "disk_gigabytes": 0.0}


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_each_setting_reaches_find_experts(name, size, tmp_path, monkeypatch):
    config = config_of(name, size)
    config.update(ASKED | CHAT | GIGABYTES)
    given = {}
    monkeypatch.setattr(el, "find_experts", lambda *_, **settings: given.update(settings) or Table())
    model = type("Model", (), {"name": "made"})()
    concepts = el.load_concepts("facts").subset(("cat", "dog"))
    if name == "find_experts":
        monkeypatch.setattr(find_experts, "find_model", lambda _: model)
        monkeypatch.setattr(find_experts.parallel, "is_first_host", lambda: False)
        find_experts.run(config, tmp_path)
    else:
        expertise.saved_expertise(model, concepts, config, tmp_path)
    recording, negatives, budget = (given[value] for value in ("recording", "negatives", "budget"))
    found = {key: getattr(recording, key) for key in recording.plain} | negatives.attributes()
    found |= {"passes": budget.passes}
    for key, value in ASKED.items():
        assert found[key] == value, key
    assert given["statistics"].permutations.seed == ASKED["seed"]
    assert recording.chat == el.Chat("assistant", "Be brief.", "What is it?")
    assert (budget.device, budget.host, budget.disk) == (int(1.5 * GB), 2 * GB, 0)
    shared = set(common.measuring_settings("")) - set(common.model_settings(""))
    assert shared == set(ASKED) | set(CHAT) | set(GIGABYTES)  # one that is added is tried here too


def test_a_system_prompt_without_a_chat_is_told():
    config = common.measuring_settings("")
    assert expertise.read_chat(config) is None
    config.chat_system = "Be brief."
    with pytest.raises(el.ExpertLensError, match="chat_system='Be brief.' and chat_asked='' are set, and chat isn't"):
        expertise.read_chat(config)


@pytest.mark.parametrize(("name", "size"), [*SIZES, ("write_concepts", "model")])
def test_each_setting_reaches_load_model(name, size, tmp_path, monkeypatch):
    config = config_of(name, size)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    config.model, config.revision, config.dtype, config.model_devices = str(tmp_path), "step5", "bfloat16", 2
    config.model_sha256 = "9dbbaeedfe4ec8a5db0e3ff0e8a8e1c3f4bc8d1e5ea2ee6a4eae6aaf5f0ff7c1"
    assert set(common.model_settings("")) == {"model", "revision", "model_sha256", "dtype", "model_devices"}
    calls = []
    monkeypatch.setattr(el, "load_model", lambda path, **settings: calls.append((path, settings)))
    monkeypatch.setattr(el, "make_mesh", lambda **settings: settings)
    with pytest.raises(el.ExpertLensError, match="the config pins 9dbbaeed"):
        sources.find_model(config)
    config.model_sha256 = ""
    sources.find_model(config)
    sources.load_named("other", config)
    asked = {"dtype": "bfloat16", "mesh": {"model": 2}}
    assert calls == [(str(tmp_path), asked | {"revision": "step5"}), ("other", asked | {"revision": None})]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_responses_of_causal_models_are_rounded_and_an_encoders_are_not(name, size):
    config = config_of(name, size)
    assert expertise.read_recording(config).significant_bits == (None if name == "minilm" else 12)
    config.significant_bits = 0
    assert expertise.read_recording(config) == el.Recording()


@pytest.mark.parametrize(("given", "read"), [(0, None), (77, 77)])
def test_tokens_a_batch_follow_the_device_unless_they_are_given(given, read):
    config = config_of("demo", "full")
    assert config.tokens_per_batch == 0
    config.tokens_per_batch = given
    assert expertise.read_recording(config) == el.Recording(tokens_per_batch=read, significant_bits=12)
    config.tokens_per_batch = -1
    with pytest.raises(el.ExpertLensError, match="tokens_per_batch must be an integer above 0, or None, not -1"):
        expertise.read_recording(config)


def names_read(*files):
    """Every attribute and every string in sources: what a setting can be read by."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def leaves(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict) and key != "recipe" and not key.startswith("arch"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize(("name", "size"), [*SIZES, *((name, size) for name, s in OTHERS.items() for size in s)])
def test_no_setting_is_there_for_nobody(name, size):
    """A section that is passed on whole (`**config.word2vec`) is held by the function that takes it."""
    read = names_read(*(ROOT / "experiments").glob("*.py"))
    passed_on = {"word2vec", "endpoint", "openings", "prompts"}
    for setting in leaves(config_of(name, size)):
        section, _, key = setting.rpartition(".")
        if section in passed_on:
            assert section in read
        elif setting.endswith("_gigabytes"):
            assert '_gigabytes"' in (ROOT / "experiments" / "expertise.py").read_text()
        else:
            assert key in read, f"{name}:{size} has {setting}, which no experiment reads"
