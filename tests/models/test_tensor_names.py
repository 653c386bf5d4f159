"""Which files and tensors of a checkpoint are read, against what transformers makes of the same directory."""

import json
import pathlib
import shutil

import families
import hooks
import jax
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, ExpertLensWarning, UnsupportedModelError
from expertlens_jax.models import loading

pytestmark = pytest.mark.compiled_quickly

TOLERANCE = 1e-4  # absolute, float32, on outputs of order 1 to 10
TOKEN_IDS = np.random.default_rng(0).integers(4, families.VOCABULARY, (3, 9))


def case_of(name: str, **options) -> families.Case:
    found = next(case for case in families.CASES if case.name == name)
    return families.Case(name, found.config, found.options | options)


def save(directory: pathlib.Path, name: str, **options) -> pathlib.Path:
    """Saves the family's random model."""
    directory.mkdir(exist_ok=True)
    return families.save(families.make_hf_model(case_of(name, **options)), directory)


def read(directory: pathlib.Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def write(directory: pathlib.Path, tensors: dict[str, torch.Tensor], file: str = "model.safetensors") -> None:
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, directory / file, metadata={"format": "pt"})


def rename(directory: pathlib.Path, new_name) -> None:
    write(directory, {new_name(name): tensor for name, tensor in read(directory).items()})


def change_config(directory: pathlib.Path, **changes) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


def by_transformers(directory: pathlib.Path) -> np.ndarray:
    auto = families.auto_class_of(json.loads((directory / "config.json").read_text())["model_type"])
    model = auto.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager", **families.EAGER).eval()
    return hooks.run(model, TOKEN_IDS, np.ones(TOKEN_IDS.shape, bool))


def assert_as_transformers(model: el.models.model.Model, directory: pathlib.Path) -> None:
    np.testing.assert_allclose(np.asarray(model(TOKEN_IDS)), by_transformers(directory), atol=TOLERANCE, rtol=0)


def same_parameters(model, reference) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, model.params, reference.params)))


# Names


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_layer_norms_may_have_their_old_names(name, tmp_path):
    """With the heads and buffers that google-bert/bert-base-uncased and files of RoBERTa's time have."""
    reference = el.load_model(save(tmp_path, name))
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def old_name(stored):
        for new, former in old.items():
            stored = stored.replace(new, former)
        return f"{name}.{stored}"

    rename(tmp_path, old_name)
    heads = {
        "bert": ("cls.predictions.transform.LayerNorm.gamma", "cls.seq_relationship.weight"),
        "roberta": ("lm_head.layer_norm.weight", "lm_head.dense.bias"),
    }[name]
    buffers = {f"{name}.embeddings.position_ids": torch.arange(40)[None]}
    write(tmp_path, read(tmp_path) | {head: torch.ones(36) for head in heads} | buffers)
    model = el.load_model(tmp_path)
    assert same_parameters(model, reference)
    assert_as_transformers(model, tmp_path)


PLACES = {
    "gemma3": ("language_model.model.", "model.language_model."),
    "gemma4": ("model.language_model.",),
    "gemma4_unified": ("model.language_model.",),
    "mistral3": ("language_model.model.", "model.language_model."),
    "mistral3-ministral3": ("language_model.model.", "model.language_model."),
    "qwen2_5_vl": ("model.", "model.language_model."),
    "qwen3_vl": ("model.language_model.",),
    "qwen3_vl_moe": ("model.language_model.",),
    "llama4": ("language_model.model.",),
}


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, places in PLACES.items() for place in places])
def test_a_text_tower_stands_where_files_of_any_age_have_it(name, place, tmp_path):
    """And nothing of the vision part is read: it may be damaged."""
    reference = el.load_model(save(tmp_path, name))

    def moved(stored):
        if "vis" in stored or "projector" in stored:
            return stored
        if stored == "lm_head.weight":
            return "language_model.lm_head.weight" if place == "language_model.model." else stored
        inside = stored.replace("language_model.", "").replace("model.", "")
        return place + inside

    rename(tmp_path, moved)
    tensors = read(tmp_path)
    assert f"{place}embed_tokens.weight" in tensors
    vision = [stored for stored in tensors if "vis" in stored or "projector" in stored]
    write(tmp_path, tensors | {stored: torch.ones(3, dtype=torch.int8) for stored in vision})
    assert vision and same_parameters(el.load_model(tmp_path), reference)
    tower = "language_model.model" if name == "llama4" else "model.language_model"
    assert reference.units["hf_module"].iloc[0] == f"{tower}.layers.0.self_attn.q_proj"


def test_experts_whose_inputs_come_first_are_read_as_those_whose_outputs_do(tmp_path):
    """As the hub's files of Qwen3-VL's mixtures have them; transformers turns them too."""
    reference = el.load_model(save(tmp_path, "qwen3_vl_moe"))
    tensors = read(tmp_path)
    experts = {name: tensor.swapaxes(1, 2) for name, tensor in tensors.items() if ".experts." in name}
    assert len(experts) == 4
    write(tmp_path, tensors | experts)
    assert same_parameters(el.load_model(tmp_path), reference)
    assert_as_transformers(reference, tmp_path)


def test_granites_mixtures_are_read_by_the_names_that_the_hubs_files_have(tmp_path):
    reference = el.load_model(save(tmp_path, "granitemoe"))
    names = {"experts.gate_up_proj": "input_linear.weight", "experts.down_proj": "output_linear.weight"}
    names |= {"router.weight": "router.layer.weight"}

    def on_the_hub(stored):
        end = stored.partition("block_sparse_moe.")[2]
        return stored.removesuffix(end) + names[end] if end in names else stored

    rename(tmp_path, on_the_hub)
    assert sum(stored.endswith("_linear.weight") for stored in read(tmp_path)) == 4
    model = el.load_model(tmp_path)
    assert same_parameters(model, reference)
    assert_as_transformers(model, tmp_path)


HEADS = {
    "xlm-roberta": ("roberta.", ("lm_head.layer_norm.weight", "classifier.out_proj.bias")),
    "distilbert": ("distilbert.", ("vocab_transform.weight", "vocab_layer_norm.bias", "pre_classifier.weight")),
    "modernbert": ("model.", ("head.dense.weight", "head.norm.weight", "decoder.bias", "classifier.weight")),
    "electra": ("electra.", ("discriminator_predictions.dense.weight", "generator_lm_head.bias", "classifier.bias")),
}


@pytest.mark.parametrize("name", HEADS)
def test_an_encoders_heads_are_left_where_they_are(name, tmp_path):
    reference = el.load_model(save(tmp_path, name))
    prefix, heads = HEADS[name]
    rename(tmp_path, lambda stored: prefix + stored)
    write(tmp_path, read(tmp_path) | {head: torch.ones(36) for head in heads})
    model = el.load_model(tmp_path)
    assert same_parameters(model, reference)
    assert_as_transformers(model, tmp_path)


PREFIXES = {"gpt2": "transformer.", "llama": "model.", "gpt_neox": "gpt_neox.", "opt": "model.", "phi": "model."}


@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize("times", [0, 1, 2])
def test_the_base_models_prefix_may_stand_never_once_and_twice(name, times, tmp_path):
    reference = el.load_model(save(tmp_path, name))
    prefix = PREFIXES[name]

    def prefixed(stored):
        inside = stored.startswith(prefix)
        return prefix * times + stored.removeprefix(prefix) if inside else stored

    rename(tmp_path, prefixed)
    model = el.load_model(tmp_path)
    assert same_parameters(model, reference)
    assert_as_transformers(model, tmp_path)


@pytest.mark.parametrize("head", ["embed_out.weight", "lm_head.weight"])
def test_a_neox_head_goes_by_either_name(head, tmp_path):
    reference = el.load_model(save(tmp_path, "gpt_neox"))
    rename(tmp_path, lambda stored: head if stored in ("embed_out.weight", "lm_head.weight") else stored)
    model = el.load_model(tmp_path)
    assert same_parameters(model, reference)
    assert_as_transformers(model, tmp_path)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "language_model."])
def test_a_wrappers_prefix_is_refused_and_named(wrapper, tmp_path):
    rename(save(tmp_path, "llama"), lambda stored: wrapper + stored)
    with pytest.raises(CheckpointError, match=rf"unexpected 30 tensors .*names begin with {wrapper}, which a wrapper"):
        el.load_model(tmp_path)


def test_a_prefix_beyond_those_that_transformers_reads_is_refused(tmp_path):
    rename(save(tmp_path, "bert"), lambda stored: f"bert.bert.{stored}")
    with pytest.raises(CheckpointError, match=r"lacks .*unexpected .*names begin with bert\., which a wrapper"):
        el.load_model(tmp_path)


BUFFERS = {
    "llama": [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "rotary_emb.inv_freq",
        "model.model.layers.1.self_attn.rotary_emb.cos_cached",
        "layers.2.self_attn.rotary_emb.sin_cached",
        "model.layers.0.self_attn.rotary_emb.original_inv_freq",
    ],
    "gemma3_text": ["model.rotary_emb_local.inv_freq", "model.rotary_emb.inv_freq"],
    "gpt_neox": [
        "gpt_neox.layers.0.attention.bias",
        "gpt_neox.layers.1.attention.masked_bias",
        "layers.2.attention.rotary_emb.inv_freq",
        "gpt_neox.gpt_neox.layers.0.attention.rotary_emb.cos_cached",
    ],
    "gpt2": ["h.0.attn.bias", "transformer.h.1.attn.masked_bias", "transformer.transformer.h.2.attn.bias"],
    "gpt_neo": ["transformer.h.0.attn.attention.bias", "h.1.attn.attention.masked_bias"],
    "gptj": ["transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias", "transformer.h.0.attn.embed_positions"],
    "bert": ["embeddings.position_ids", "bert.embeddings.position_ids", "embeddings.token_type_ids"],
}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_that_older_versions_kept_are_left_where_they_are(name, tmp_path):
    reference = el.load_model(save(tmp_path, name))
    write(tmp_path, read(tmp_path) | {buffer: torch.full((4,), 7.0) for buffer in BUFFERS[name]})
    assert same_parameters(el.load_model(tmp_path), reference)


@pytest.mark.parametrize(
    "stray",
    [
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.3.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "score.weight",
        "lm_head.bias",
        "model.layers.0.mlp.up_proj.weight_scale",
    ],
)
def test_any_other_tensor_is_an_error_that_names_it(stray, tmp_path):
    """Of a tied model too, whose head may be there."""
    save(tmp_path, "llama", tie_word_embeddings=True)
    write(tmp_path, read(tmp_path) | {stray: torch.ones(4)})
    with pytest.raises(CheckpointError, match=rf"has unexpected 1 tensor \({stray}\)"):
        el.load_model(tmp_path)


def test_one_tensor_under_two_names_must_be_one(tmp_path):
    reference = el.load_model(save(tmp_path, "llama"))
    kernel = read(tmp_path)["model.layers.1.mlp.up_proj.weight"]
    write(tmp_path, read(tmp_path) | {"layers.1.mlp.up_proj.weight": kernel})
    assert same_parameters(el.load_model(tmp_path), reference)
    write(tmp_path, read(tmp_path) | {"layers.1.mlp.up_proj.weight": kernel + 1e-3})
    with pytest.raises(CheckpointError) as error:
        el.load_model(tmp_path)
    for part in ("model.layers.1.mlp.up_proj.weight", " layers.1.mlp.up_proj.weight", "the same tensor", "Remove"):
        assert part in str(error.value)


@pytest.mark.parametrize("parts", [("weight_g", "weight_v"), ("qweight", "qzeros", "scales")])
def test_weights_in_parts_are_refused_by_name(parts, tmp_path):
    """Weight norm's, and GPTQ's."""
    save(tmp_path, "llama")
    name = "model.layers.0.mlp.up_proj"
    tensors = read(tmp_path)
    kernel = tensors.pop(f"{name}.weight")
    write(tmp_path, tensors | {f"{name}.{part}": kernel for part in parts})
    with pytest.raises(CheckpointError) as error:
        el.load_model(tmp_path)
    assert f"lacks 1 tensor ({name}.weight)" in str(error.value)
    assert all(f"{name}.{part}" in str(error.value) for part in parts)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float8_e4m3fn"])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"])
def test_tensors_that_are_not_numbers_of_16_bits_or_more_are_refused_by_name(name, dtype, tmp_path):
    save(tmp_path, "llama", tie_word_embeddings=True)
    tensors = read(tmp_path)
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"] + 1)
    tensors[name] = tensors[name].to(getattr(torch, dtype))
    write(tmp_path, tensors)
    with (
        pytest.warns(ExpertLensWarning, match="ties the head"),
        pytest.raises(CheckpointError, match=rf"tensor {name} .* stored as \w+; .*not quantised"),
    ):
        el.load_model(tmp_path)


# The head


TIED = ("gpt2", "llama", "qwen2", "gpt_neox", "opt", "gptj", "phi", "gemma2")


@pytest.mark.parametrize("name", TIED)
@pytest.mark.parametrize("stored", ["equal", "another", "absent", "without the embedding"])
def test_a_tied_head_is_the_one_that_transformers_takes(name, stored, tmp_path):
    """What the config says is tied, while the checkpoint holds both, alike or not, or only one of them."""
    save(tmp_path, name, tie_word_embeddings=False)
    change_config(tmp_path, tie_word_embeddings=True)
    tensors = read(tmp_path)
    head = next(each for each in ("lm_head.weight", "embed_out.weight") if each in tensors)
    embedding = next(
        each for each in tensors if each.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight"))
    )
    match stored:
        case "equal":
            tensors[head] = tensors[embedding]
        case "absent":
            del tensors[head]
        case "without the embedding":
            del tensors[embedding]
    write(tmp_path, tensors)
    if stored == "another":
        with pytest.warns(ExpertLensWarning, match=r"ties the head .*other values.*tie_word_embeddings=false"):
            model = el.load_model(tmp_path)
        assert model.config.head == "linear"
    else:
        model = el.load_model(tmp_path)
        assert model.config.head == "tied"
    assert_as_transformers(model, tmp_path)


def test_a_head_of_its_own_that_is_absent_is_refused(tmp_path):
    """PyTorch draws it at random."""
    save(tmp_path, "llama", tie_word_embeddings=False)
    tensors = read(tmp_path)
    del tensors["lm_head.weight"]
    write(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor \(lm_head.weight\).*tie_word_embeddings=true"):
        el.load_model(tmp_path)


def test_a_head_of_its_own_is_found_in_the_cache_too(tmp_path, monkeypatch):
    """And is told there as well; the entry isn't taken for that of a model whose head is tied."""
    directory, cache = save(tmp_path / "model", "gpt2", tie_word_embeddings=False), tmp_path / "cache"
    reference = el.load_model(directory)
    change_config(directory, tie_word_embeddings=True)
    for converted in (True, False):
        with pytest.warns(ExpertLensWarning, match="ties the head"):
            model = el.load_model(directory, use_cache=True, cache_dir=cache)
        assert model.config == reference.config
        assert same_parameters(model, reference)
        if converted:
            monkeypatch.setattr(loading, "open_weights", None)
    monkeypatch.undo()
    change_config(directory, tie_word_embeddings=False)
    assert same_parameters(el.load_model(directory, use_cache=True, cache_dir=cache), reference)
    assert len([path for path in (cache / "expertlens_jax").iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "falcon-new"])
def test_a_classifier_gives_its_backbones_last_hidden_state(name, tmp_path):
    """Its own head isn't read; of a language head there is none, and what needs one is refused."""
    config = families.make_config(case_of(name))
    torch.manual_seed(0)
    classifier = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    families.save(classifier, tmp_path)
    model = el.load_model(tmp_path)
    theirs = classifier.base_model(torch.tensor(TOKEN_IDS)).last_hidden_state.detach().numpy()
    np.testing.assert_allclose(np.asarray(model(TOKEN_IDS)), theirs, atol=TOLERANCE, rtol=0)
    assert "causal, without a language head" in repr(model)
    address = model.units["hf_module"].iloc[0]
    assert classifier.get_submodule(address) is not None
    with pytest.raises(
        UnsupportedModelError, match=r"is a decoder without a language head \(\w+\) and predicts no next"
    ):
        el.generate(model, "a b", max_new_tokens=2)


def test_a_base_model_by_itself_gives_its_last_hidden_state(tmp_path):
    """Unless its head would be its embedding, as transformers then has it too."""
    case = case_of("llama")
    torch.manual_seed(0)
    base = transformers.AutoModel.from_config(families.make_config(case), attn_implementation="eager").eval()
    families.save(base, tmp_path)
    theirs = base(torch.tensor(TOKEN_IDS)).last_hidden_state.detach().numpy()
    np.testing.assert_allclose(np.asarray(el.load_model(tmp_path)(TOKEN_IDS)), theirs, atol=TOLERANCE, rtol=0)
    write(tmp_path, read(tmp_path) | {"lm_head.weight": torch.ones(83, 24)})
    with pytest.raises(
        CheckpointError, match=r"unexpected 1 tensor \(lm_head.weight\).*architectures name a model with"
    ):
        el.load_model(tmp_path)
    tensors = read(tmp_path)
    del tensors["lm_head.weight"]
    write(tmp_path, tensors)
    change_config(tmp_path, tie_word_embeddings=True)
    tied = el.load_model(tmp_path)
    assert tied.config.head == "tied"
    assert_as_transformers(tied, tmp_path)


# Files


def test_the_file_that_a_config_names_is_read(tmp_path):
    """Rather than the usual one, which is another model here."""
    save(tmp_path, "llama")
    write(tmp_path, {name: tensor + 0.1 for name, tensor in read(tmp_path).items()}, "other.safetensors")
    usual = el.load_model(tmp_path)
    change_config(tmp_path, transformers_weights="other.safetensors")
    model = el.load_model(tmp_path)
    assert not same_parameters(model, usual)
    assert_as_transformers(model, tmp_path)


def test_an_index_that_a_config_names_is_read(tmp_path):
    save(tmp_path, "llama")
    tensors = {name: tensor + 0.1 for name, tensor in read(tmp_path).items()}
    shards = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    for i, shard in enumerate(shards):
        write(tmp_path, shard, f"part{i}.safetensors")
    weight_map = {name: f"part{i}.safetensors" for i, shard in enumerate(shards) for name in shard}
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (tmp_path / "other.safetensors.index.json").write_text(index)
    change_config(tmp_path, transformers_weights="other.safetensors.index.json")
    assert_as_transformers(el.load_model(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("absent.safetensors", "there is no such file beside it"),
        ("../model.safetensors", "the name of a safetensors file"),
        ("pytorch_model.bin", "the name of a safetensors file"),
        (7, "the name of a safetensors file"),
    ],
)
def test_a_config_that_names_what_is_no_weights_file_is_refused(named, message, tmp_path):
    change_config(save(tmp_path, "llama"), transformers_weights=named)
    with pytest.raises(CheckpointError, match=rf"config.json says transformers_weights='{named}'.*{message}"):
        el.load_model(tmp_path)


def test_of_two_sets_of_weights_the_one_read_is_told(tmp_path):
    """A whole file and an index, as a second run of save_pretrained with other shards may leave them."""
    save(tmp_path, "llama")
    write(tmp_path, {name: tensor + 0.1 for name, tensor in read(tmp_path).items()}, "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(read(tmp_path), "model-00001-of-00001.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with pytest.warns(ExpertLensWarning, match=r"two sets of weights; model.safetensors is read, as by transformers"):
        model = el.load_model(tmp_path)
    assert_as_transformers(model, tmp_path)
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(read(tmp_path), "model.safetensors")}))
    assert same_parameters(el.load_model(tmp_path), model)


def test_a_variant_is_not_read_by_itself(tmp_path):
    save(tmp_path, "llama")
    (tmp_path / "model.safetensors").rename(tmp_path / "model.fp16.safetensors")
    with pytest.raises(CheckpointError) as error:
        el.load_model(tmp_path)
    assert "no weights in" in str(error.value)
    assert "To read model.fp16.safetensors, call it model.safetensors." in str(error.value)


def test_weights_of_other_formats_are_named(tmp_path):
    save(tmp_path, "llama")
    (tmp_path / "model.safetensors").rename(tmp_path / "consolidated.safetensors")
    (tmp_path / "ggml-model.gguf").touch()
    with pytest.raises(CheckpointError, match=r"There is consolidated.safetensors, ggml-model.gguf, which isn't read"):
        el.load_model(tmp_path)


def test_a_variant_beside_the_weights_is_left_where_it_is(tmp_path):
    reference = el.load_model(save(tmp_path, "llama"))
    write(tmp_path, {name: tensor + 0.1 for name, tensor in read(tmp_path).items()}, "model.fp16.safetensors")
    assert same_parameters(el.load_model(tmp_path), reference)


def test_shards_that_disagree_are_refused(tmp_path):
    save(tmp_path, "llama")
    tensors = read(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    write(tmp_path, tensors, first)
    weight_map = dict.fromkeys(tensors, first) | {"model.norm.weight": second}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    write(tmp_path, {"model.norm.weight": tensors["model.norm.weight"]}, second)
    assert_as_transformers(el.load_model(tmp_path), tmp_path)
    write(tmp_path, {"model.norm.weight": tensors["model.norm.weight"] + 1}, second)
    with pytest.raises(CheckpointError, match=rf"tensor model.norm.weight stands in several files .*{second}"):
        el.load_model(tmp_path)


# Adapters


def add_adapter(directory: pathlib.Path, suffix: str = "safetensors") -> None:
    """As peft saves a LoRA."""
    tensors = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 24)}
    if suffix == "safetensors":
        write(directory, tensors, "adapter_model.safetensors")
    elif suffix == "bin":
        torch.save(tensors, directory / "adapter_model.bin")
    config = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "someone/base-7b"}
    (directory / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "none"])
def test_an_adapter_beside_the_model_is_refused_with_what_to_do(suffix, tmp_path):
    save(tmp_path, "llama")
    add_adapter(tmp_path, suffix)
    with pytest.raises(CheckpointError) as error:
        el.load_model(tmp_path)
    for part in ("adapter beside the model (adapter_config.json", "merge_and_unload()", "without it, remove these"):
        assert part in str(error.value)


def test_an_adapter_alone_names_its_base_model(tmp_path):
    families.tokenizer().save_pretrained(tmp_path)
    add_adapter(tmp_path)
    with pytest.raises(CheckpointError) as error:
        el.load_model(tmp_path)
    for part in ("only an adapter", "no config.json", "the base model someone/base-7b", "merge_and_unload()"):
        assert part in str(error.value)


def test_an_adapter_whose_config_is_broken_is_refused_too(tmp_path):
    directory = shutil.copytree(save(tmp_path / "model", "llama"), tmp_path / "copy")
    (directory / "adapter_config.json").write_text("[")
    with pytest.raises(CheckpointError, match="adapter beside the model"):
        el.load_model(directory)
