"""LoRA adapters merged on load, against PyTorch models whose kernels are W + scale * B A; what can't be is refused."""

import json
import pathlib

import families
import hooks
import numpy as np
import pytest
import safetensors.torch
import torch

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, UnsupportedModelError

pytestmark = pytest.mark.compiled_quickly

TOLERANCE = 1e-4  # absolute, float32, on outputs of order 1 to 10
TOKEN_IDS = np.random.default_rng(0).integers(4, families.VOCABULARY, (2, 7))
RANK = 3
SETTINGS = {  # as peft writes them
    **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "r": RANK, "lora_alpha": 5},
    **{"lora_dropout": 0.1, "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "use_rslora": False},
    **{"use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "loftq_config": {}},
    **{"megatron_config": None, "megatron_core": "megatron.core", "layer_replication": None, "revision": None},
    **{"layers_to_transform": None, "layers_pattern": None, "trainable_token_indices": None, "lora_bias": False},
    **{"corda_config": None, "eva_config": None, "exclude_modules": None, "use_qalora": False, "qalora_group_size": 16},
    **{"target_modules": ["q_proj", "down_proj"], "auto_mapping": None, "peft_version": "0.17.0"},
}
MODULES = {
    "llama": ("model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj", "lm_head"),
    "gpt2": ("transformer.h.1.attn.c_attn", "transformer.h.2.mlp.c_proj"),
    "gpt_neox": ("gpt_neox.layers.0.attention.query_key_value",),
    "gemma3": ("model.language_model.layers.1.mlp.up_proj", "model.vision_tower.encoder.layers.0.self_attn.q_proj"),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A family's saved model, and itself in PyTorch to be changed."""
    directories = {}

    def get(name):
        case = next(case for case in families.CASES if case.name == name)
        if name not in directories:
            directories[name] = families.save(families.make_hf_model(case), tmp_path_factory.mktemp(name))
        return directories[name], families.load_hf_model(case, directories[name], torch.float32)

    return get


def write(directory: pathlib.Path, base: pathlib.Path | None, tensors: dict[str, torch.Tensor], **settings) -> None:
    """An adapter's two files."""
    directory.mkdir(exist_ok=True)
    named = None if base is None else str(base)
    config = SETTINGS | {"base_model_name_or_path": named} | settings
    (directory / "adapter_config.json").write_text(json.dumps(config))
    tensors = {f"base_model.model.{name}": tensor.clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})


def draw(model: torch.nn.Module, modules: tuple[str, ...], rank: int = RANK) -> dict[str, torch.Tensor]:
    """A and B of modules of the model."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name in modules:
        shape = model.get_submodule(name).weight.shape
        outputs, inputs = reversed(shape) if is_transposed(model, name) else shape
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator)
    return tensors


def is_transposed(model: torch.nn.Module, name: str) -> bool:
    return type(model.get_submodule(name)).__name__ == "Conv1D"


def change(model: torch.nn.Module, tensors: dict[str, torch.Tensor], scale: float) -> None:
    """Adds scale * B A to the kernels of the PyTorch model."""
    with torch.no_grad():
        for name in [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith("lora_A.weight")]:
            product = scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
            model.get_submodule(name).weight.add_(product.T if is_transposed(model, name) else product)


def assert_as(model, reference) -> None:
    theirs = hooks.run(reference, TOKEN_IDS, np.ones_like(TOKEN_IDS))
    np.testing.assert_allclose(np.asarray(model(TOKEN_IDS)), theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", MODULES)
def test_an_adapter_is_merged_into_the_model_that_it_names(name, bases, tmp_path):
    base, reference = bases(name)
    plain = hooks.run(reference, TOKEN_IDS, np.ones_like(TOKEN_IDS))
    tensors = draw(reference, MODULES[name])
    write(tmp_path / "tuned", base, tensors, fan_in_fan_out=name == "gpt2")
    change(reference, tensors, 5 / RANK)
    model = el.load_model(tmp_path / "tuned")
    assert_as(model, reference)
    assert np.abs(plain - np.asarray(model(TOKEN_IDS))).max() > 0.1
    assert model.name == "tuned" and model.digest != el.load_model(base).digest


def test_ranks_and_scales_may_differ_by_module(bases, tmp_path):
    """As peft's patterns say it, and with the scale alpha / sqrt(rank)."""
    base, reference = bases("llama")
    one, two = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
    tensors = draw(reference, (one,), rank=2) | draw(reference, (two,))
    patterns = {
        "rank_pattern": {"model.layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {r"layers\.[01]\.\w+\.q_proj": 4},
    }
    write(tmp_path, base, tensors, use_rslora=True, **patterns)
    change(reference, {name: tensor for name, tensor in tensors.items() if one in name}, 4 / 2**0.5)
    change(reference, {name: tensor for name, tensor in tensors.items() if two in name}, 4 / RANK**0.5)
    assert_as(el.load_model(tmp_path), reference)


def test_tensors_in_the_place_of_the_models_own_are_taken(bases, tmp_path):
    """What `modules_to_save` trains whole, and biases; beside the model, whose own config and tokenizer count."""
    base, reference = bases("gpt_neox")
    tensors = draw(reference, MODULES["gpt_neox"])
    bias, head = "gpt_neox.layers.1.mlp.dense_h_to_4h.bias", "lm_head" if hasattr(reference, "lm_head") else "embed_out"
    generator = torch.Generator().manual_seed(0)
    own = {
        bias: torch.randn(52, generator=generator),
        f"{head}.weight": 0.1 * torch.randn(families.VOCABULARY, 48, generator=generator),
    }
    for path in base.iterdir():
        (tmp_path / path.name).symlink_to(path)
    write(tmp_path, None, tensors | own, bias="all", modules_to_save=[head])
    change(reference, tensors, 5 / RANK)
    with torch.no_grad():
        reference.get_parameter(bias).copy_(own[bias])
        reference.get_parameter(f"{head}.weight").copy_(own[f"{head}.weight"])
    assert_as(el.load_model(tmp_path), reference)


def test_an_adapter_is_merged_into_the_model_that_is_given(bases, tmp_path):
    """Whatever it names; bfloat16 is rounded once, after the merge; and what is cached is told from the base model."""
    base, reference = bases("llama")
    tensors = draw(reference, MODULES["llama"])
    write(tmp_path / "tuned", pathlib.Path("/nowhere/base"), tensors)
    change(reference, tensors, 5 / RANK)
    cached = dict(use_cache=True, cache_dir=tmp_path / "cache")
    plain = el.load_model(base, **cached)
    for _ in range(2):
        model = el.load_model(tmp_path / "tuned", base=base, **cached)
        assert_as(model, reference)
        assert model.digest != plain.digest
    half = el.load_model(tmp_path / "tuned", base=base, dtype="bfloat16")
    merged = reference.get_submodule("model.layers.0.self_attn.q_proj").weight.bfloat16().float().detach().numpy().T
    ours = np.asarray(half.params["layers"]["attn"]["q"]["kernel"][0], np.float32)
    np.testing.assert_allclose(ours, merged, rtol=2**-7)
    assert (ours == merged).mean() > 0.99


def test_an_adapter_of_a_classifier_gives_the_last_hidden_state(bases, tmp_path):
    base, reference = bases("llama")
    tensors = draw(reference, MODULES["llama"][:2])
    write(tmp_path, base, tensors | {"score.weight": torch.ones(2, 24)}, task_type="SEQ_CLS", modules_to_save=["score"])
    change(reference, tensors, 5 / RANK)
    model = el.load_model(tmp_path)
    assert model.config.head is None
    theirs = reference.model(torch.tensor(TOKEN_IDS)).last_hidden_state.detach().numpy()
    np.testing.assert_allclose(np.asarray(model(TOKEN_IDS)), theirs, atol=TOLERANCE, rtol=0)
    with pytest.raises(UnsupportedModelError, match="is a decoder without a language head"):
        el.generate(model, "a", max_new_tokens=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3'; only 'LORA' is merged"),
        ({"use_dora": True}, "use_dora=True, which isn't W"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4', by which peft changes the base"),
        ({"layer_replication": [[0, 2]]}, r"layer_replication=\[\[0, 2\]\], which isn't W"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters="),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens="),
        ({"setting_of_2031": 1}, "setting_of_2031=1"),
        ({"r": None}, "r=None, which is no number"),
        ({"lora_alpha": "16"}, "lora_alpha='16', which is no number"),
    ],
)
def test_settings_that_cant_be_merged_are_refused_by_name(settings, message, tmp_path):
    write(tmp_path, pathlib.Path("someone/base"), {}, **settings)
    told = rf"holds only an adapter .*merged here: adapter_config.json says {message}.*someone/base: merge it with peft"
    with pytest.raises(CheckpointError, match=told):
        el.load_model(tmp_path)


Q = "model.layers.0.self_attn.q_proj"
A, B = torch.ones(RANK, 24), torch.ones(40, RANK)
WHOLE = {f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B}


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [
        (WHOLE | {f"{Q}.lora_magnitude_vector": torch.ones(40)}, {}, "lora_magnitude_vector, which isn't an A or B"),
        (WHOLE | {"model.embed_tokens.lora_embedding_A": A}, {}, "lora_embedding_A, which isn't an A or B of a linear"),
        ({f"{Q}.lora_A.weight": A}, {}, rf"holds only A or only B of {Q}"),
        (
            {f"{Q}s.lora_A.weight": A, f"{Q}s.lora_B.weight": B},
            {},
            "q_projs.weight, which the llama model in .* doesn't",
        ),
        (WHOLE | {"score.weight": A}, {}, "changes score.weight, which the llama model"),
        (WHOLE, {"r": 2}, rf"{Q} by A \[3, 24\] and B \[40, 3\]; its settings say rank 2"),
        (WHOLE | {f"{Q}.lora_B.weight": B[:39]}, {}, r"B \[39, 3\]; .* kernel is \[40, 24\]"),
        (
            WHOLE,
            {"modules_to_save": ["lm_head"]},
            r"modules_to_save=\['lm_head'\], and adapter_model.safetensors holds",
        ),
    ],
)
def test_tensors_that_cant_be_merged_are_refused_by_name(tensors, settings, message, bases, tmp_path):
    write(tmp_path, bases("llama")[0], tensors, **settings)
    with pytest.raises(CheckpointError, match=message):
        el.load_model(tmp_path)


def test_a_head_that_is_the_embedding_isnt_changed(bases, tmp_path):
    base, reference = bases("gpt2")
    write(tmp_path, base, draw(reference, MODULES["gpt2"]) | {"transformer.wte.weight": torch.ones(83, 24)})
    with pytest.raises(CheckpointError, match=r"changes wte.weight, and in .* the head is the embedding"):
        el.load_model(tmp_path)


def test_a_base_model_that_isnt_there_is_told(bases, tmp_path):
    base, reference = bases("llama")
    tensors = draw(reference, MODULES["llama"])
    write(tmp_path / "lost", pathlib.Path("/nowhere/base"), tensors)
    with pytest.raises(
        CheckpointError, match=r"base model of the adapter in .*lost, /nowhere/base, can't be found: .*base="
    ):
        el.load_model(tmp_path / "lost")
    write(tmp_path / "silent", None, tensors)
    with pytest.raises(CheckpointError, match=r"silent doesn't say what it was trained on. Give that model: base="):
        el.load_model(tmp_path / "silent")
    write(tmp_path / "on-another", tmp_path / "lost", tensors)
    with pytest.raises(CheckpointError, match=r"on-another, .*lost, holds an adapter itself. Merge that one first"):
        el.load_model(tmp_path / "on-another")
    with pytest.raises(CheckpointError, match=r"base='x/y' was given, and .* holds no adapter"):
        el.load_model(base, base="x/y")
