"""Quantised checkpoints: packed here number by number as each format says, read as PyTorch has what they stand for."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable

import families
import hooks
import jax
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, ExpertLensWarning, UnsupportedModelError
from expertlens_jax.models.families import FAMILIES
from expertlens_jax.models.quantised import FORMATS, matrices, read_quantisation
from expertlens_jax.models.weights import open_weights

pytestmark = pytest.mark.compiled_quickly

TOLERANCE = 1e-6  # relative, of a weight: one rounding of a product in float32 more or less

CASE = families.Case(
    "llama",
    "LlamaConfig",
    families.LLAMA
    | dict(hidden_size=64, num_hidden_layers=2, intermediate_size=48, mlp_bias=True, attention_bias=True),
)
FUSED = families.Case(
    "phi3", "Phi3Config", families.LLAMA | dict(hidden_size=64, num_hidden_layers=1, intermediate_size=48)
)
EXPERTS = families.Case(
    "mixtral",
    "MixtralConfig",
    families.MIXTURE | dict(hidden_size=64, num_hidden_layers=1, intermediate_size=48, num_local_experts=3),
)

NAME = "model.layers.1.mlp.up_proj."

Made = tuple[dict[str, torch.Tensor], torch.Tensor]
"""The tensors that a module has in a format, and the weights that they stand for, float32 `[outputs, inputs]`."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of quantising: what config.json says, and a module's random tensors."""

    name: str
    config: dict
    make: Callable[[torch.Generator, int, int], Made]


def numbers(key: torch.Generator, shape: tuple[int, ...], below: int) -> torch.Tensor:
    return torch.randint(0, below, shape, generator=key)


def scales(key: torch.Generator, *shape: int) -> torch.Tensor:
    """Of 11 bits, as they are mostly stored."""
    return (0.01 + 0.02 * torch.rand(shape, generator=key)).half()


def pack(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Numbers `[rows, columns]` as words `[rows, columns * bits / 32]`, the lowest bits first."""
    rows, columns = values.shape
    a_word = 32 // bits
    filled = torch.zeros(rows, -(-columns // a_word) * a_word, dtype=torch.int64)
    filled[:, :columns] = values
    words = sum(filled[:, place::a_word] << bits * place for place in range(a_word))
    return torch.from_numpy(words.numpy().astype(np.uint32).view(np.int32))


def gptq(bits: int, *, version: str = "gptq", symmetric: bool = True, order: bool = False, stored: int = -1) -> Way:
    """`order` is whether inputs belong to groups out of turn; `stored` is what a zero point is stored with more."""
    width = 16

    def make(key: torch.Generator, outputs: int, inputs: int) -> Made:
        codes, groups = numbers(key, (inputs, outputs), 2**bits), inputs // width
        zero = torch.full((groups, outputs), 2 ** (bits - 1)) if symmetric else numbers(key, (groups, outputs), 2**bits)
        scale = scales(key, groups, outputs)
        of_inputs = torch.arange(inputs) // width
        of_inputs = of_inputs[torch.randperm(inputs, generator=key)] if order else of_inputs
        weight = (scale.float()[of_inputs] * (codes - zero[of_inputs])).T
        parts = {
            "qweight": pack(codes.T, bits).T.contiguous(),
            "qzeros": pack((zero + stored) % 2**bits, bits),
            "scales": scale,
            "g_idx": of_inputs.int(),
        }
        return parts, weight

    config = dict(quant_method="gptq", bits=bits, group_size=width, sym=symmetric, checkpoint_format=version)
    config |= dict(desc_act=order)
    return Way(f"gptq-{bits}-{version}{'' if symmetric else '-asymmetric'}{'-order' * order}{stored}", config, make)


def awq(width: int = 16, *, zero_point: bool = True) -> Way:
    def make(key: torch.Generator, outputs: int, inputs: int) -> Made:
        groups, wide = (1, inputs) if width == -1 else (inputs // width, width)
        codes, zero = numbers(key, (inputs, outputs), 16), numbers(key, (groups, outputs), 16)
        zero = zero if zero_point else torch.full_like(zero, 8)
        scale, of_inputs = scales(key, groups, outputs), torch.arange(inputs) // wide

        def packed(values: torch.Tensor) -> torch.Tensor:
            """As AutoAWQ packs: the i-th number of a word is that of the `order[i]`-th of its eight outputs."""
            order = [0, 2, 4, 6, 1, 3, 5, 7]
            mixed = torch.cat([eight[:, order] for eight in values.split(8, dim=1)], dim=1)
            return pack(mixed, 4)

        weight = (scale.float()[of_inputs] * (codes - zero[of_inputs])).T
        return {"qweight": packed(codes), "qzeros": packed(zero), "scales": scale}, weight

    config = dict(quant_method="awq", bits=4, group_size=width, zero_point=zero_point, version="gemm")
    return Way(f"awq{width}{'' if zero_point else '-symmetric'}", config, make)


def eight_bits() -> Way:
    def make(key: torch.Generator, outputs: int, inputs: int) -> Made:
        codes, largest = numbers(key, (outputs, inputs), 255) - 127, torch.rand(outputs, generator=key)
        parts = {"weight": codes.to(torch.int8), "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
        return parts, codes * largest[:, None] / 127

    return Way("bitsandbytes-8", dict(quant_method="bitsandbytes", load_in_8bit=True, load_in_4bit=False), make)


def four_bits(kind: str, nested: bool) -> Way:
    block, of_blocks = 64, 16

    def make(key: torch.Generator, outputs: int, inputs: int) -> Made:
        count = outputs * inputs
        codes, values = numbers(key, (count,), 16), torch.linspace(-1, 1, 16) ** 3
        bytes_ = (codes[::2] << 4 | codes[1::2]).to(torch.uint8)
        state = dict(quant_type=kind, blocksize=block, dtype="bfloat16", shape=[outputs, inputs])
        parts = {"weight": bytes_[:, None], "weight.quant_map": values}
        if nested:
            short, offset = numbers(key, (count // block,), 256), 0.25
            table, largest = torch.linspace(-0.2, 0.2, 256), torch.rand(-(-count // block // of_blocks), generator=key)
            absmax = table[short] * largest.repeat_interleave(of_blocks)[: count // block] + offset
            parts |= {
                "weight.absmax": short.to(torch.uint8),
                "weight.nested_absmax": largest,
                "weight.nested_quant_map": table,
            }
            state |= dict(nested_blocksize=of_blocks, nested_dtype="float32", nested_offset=offset)
        else:
            absmax = parts["weight.absmax"] = torch.rand(count // block, generator=key)
        written = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        parts[f"weight.quant_state.bitsandbytes__{kind}"] = written
        return parts, (values[codes] * absmax.repeat_interleave(block)).view(outputs, inputs)

    config = dict(quant_method="bitsandbytes", load_in_4bit=True, load_in_8bit=False, bnb_4bit_quant_type=kind)
    return Way(f"bitsandbytes-{kind}{'-nested' * nested}", config, make)


def fp8(block: tuple[int, int] | None, stored: str = "float32") -> Way:
    def make(key: torch.Generator, outputs: int, inputs: int) -> Made:
        codes = torch.randn(outputs, inputs, generator=key).mul(4).to(torch.float8_e4m3fn)
        rows, columns = block or (outputs, inputs)
        exponents = numbers(key, (-(-outputs // rows), -(-inputs // columns)), 4)
        scale = (exponents - 7.0).exp2() * (1 if "8" in stored else 1.37)
        scale = {"float32": scale, "bfloat16": scale.bfloat16(), "uint8": (exponents + 120).to(torch.uint8)}.get(
            stored, scale.to(torch.float8_e8m0fnu)
        )
        known = (exponents - 7.0).exp2() if "8" in stored else scale.float()
        spread = known.repeat_interleave(rows, 0)[:outputs].repeat_interleave(columns, 1)[:, :inputs]
        parts = {"weight": codes, "weight_scale_inv": scale if block else scale.reshape(())}
        return parts | ({} if block else {"activation_scale": torch.tensor(0.5)}), codes.float() * spread

    config = dict(quant_method="fp8", activation_scheme="dynamic" if block else "static", weight_block_size=block)
    return Way(f"fp8-{block}-{stored}", config, make)


def compressed(layout: str, strategy: str, bits: int = 8, *, symmetric: bool = True, order: bool = False) -> Way:
    width, block = 16, [24, 32]
    floats = layout == "float-quantized"

    def make(key: torch.Generator, outputs: int, inputs: int) -> Made:
        rows, columns = {
            "tensor": (outputs, inputs),
            "channel": (1, inputs),
            "group": (1, width),
            "block": tuple(block),
        }[strategy]
        grid = -(-outputs // rows), -(-inputs // columns)
        scale, half = scales(key, *grid), 2 ** (bits - 1)
        codes = numbers(key, (outputs, inputs), 2**bits) - half
        if floats:
            codes = torch.randn(outputs, inputs, generator=key).mul(4).to(torch.float8_e4m3fn)
        zero = torch.zeros(grid) if symmetric else numbers(key, grid, 2**bits) - half
        of_rows, of_columns = torch.arange(outputs) // rows, torch.arange(inputs) // columns
        if order:
            of_columns = of_columns[torch.randperm(inputs, generator=key)]
        spread = (each.float()[of_rows][:, of_columns] for each in (zero, scale))
        weight = (codes.float() - next(spread)) * next(spread)
        parts = {"weight_scale": scale.reshape(-1) if strategy == "tensor" else scale}
        if order:
            parts["weight_g_idx"] = of_columns.int()
        if layout == "pack-quantized":
            parts |= {"weight_packed": pack(codes + half, bits), "weight_shape": torch.tensor([outputs, inputs])}
            if not symmetric:
                parts["weight_zero_point"] = pack((zero + half).T, bits).T.contiguous()
            return parts, weight
        parts |= {"weight": codes if floats else codes.to(torch.int8)}
        parts |= {} if symmetric else {"weight_zero_point": zero.to(torch.int8)}
        return parts | {"input_scale": torch.tensor([0.5])}, weight

    weights = dict(
        num_bits=bits,
        type="float" if floats else "int",
        strategy=strategy,
        symmetric=symmetric,
        group_size=width if strategy == "group" else None,
        block_structure=block if strategy == "block" else None,
        dynamic=False,
        actorder="group" if order else None,
    )
    config = dict(
        quant_method="compressed-tensors",
        format=layout,
        config_groups={"group_0": {"targets": ["Linear"], "weights": weights}},
        quantization_status="compressed",
        ignore=["lm_head"],
    )
    return Way(f"{layout}-{strategy}-{bits}{'' if symmetric else '-asymmetric'}{'-order' * order}", config, make)


WAYS = [
    fp8((16, 32)),
    fp8((40, 24), "bfloat16"),  # the last blocks of which are smaller
    fp8((16, 16), "uint8"),
    fp8((16, 16), "float8_e8m0fnu"),
    fp8(None),
    compressed("float-quantized", "tensor"),
    compressed("float-quantized", "channel"),
    compressed("float-quantized", "block"),
    compressed("int-quantized", "channel"),
    compressed("int-quantized", "channel", symmetric=False),
    compressed("naive-quantized", "group"),
    compressed("pack-quantized", "group", 4),
    compressed("pack-quantized", "group", 4, symmetric=False),
    compressed("pack-quantized", "group", 4, order=True),
    compressed("pack-quantized", "channel", 8, symmetric=False),
    eight_bits(),
    four_bits("nf4", nested=False),
    four_bits("fp4", nested=True),
    gptq(4),
    gptq(8, order=True),
    gptq(2, symmetric=False),
    gptq(4, version="gptq_v2", symmetric=False, order=True, stored=0),
    gptq(4, stored=0),  # says gptq, and has zero points as gptq_v2 does
    awq(),
    awq(width=-1),
]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A directory of each case, as PyTorch saves it."""
    return {
        case.name: families.save(families.make_hf_model(case), tmp_path_factory.mktemp(case.name))
        for case in (CASE, FUSED, EXPERTS)
    }


def quantise(original, way: Way, directory, names: str = r".*(_proj|\.w[123])\.weight"):
    """Writes the model twice, its linear layers drawn anew: quantised, and as what these stand for."""
    key, tensors = torch.Generator().manual_seed(0), safetensors.torch.load_file(original / "model.safetensors")
    packed, plain = dict(tensors), dict(tensors)
    for name, weight in tensors.items():
        if re.fullmatch(names, name):
            parts, stands_for = way.make(key, *weight.shape)
            del packed[name]
            packed |= {name.removesuffix("weight") + part: tensor for part, tensor in parts.items()}
            plain[name] = stands_for.contiguous()
    for where, what in (directory / "packed", packed), (directory / "plain", plain):
        shutil.copytree(original, where)
        safetensors.torch.save_file(what, where / "model.safetensors", metadata={"format": "pt"})
    change_config(directory / "packed", way.config)
    return directory / "packed", directory / "plain"


def change_config(directory, quantization_config) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization_config}))


def same_parameters(one, other) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=0), one.params, other.params)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_quantised_model_is_the_one_that_it_stands_for(way, originals, tmp_path, monkeypatch):
    """By its parameters, and by what PyTorch computes with them; read in parts of which no row is whole."""
    monkeypatch.setattr(matrices, "VALUES", 200)
    packed, plain = quantise(originals["llama"], way, tmp_path)
    model = el.load_model(packed)
    same_parameters(model, el.load_model(plain))
    token_ids = np.random.default_rng(0).integers(4, families.VOCABULARY, (2, 9))
    reference = transformers.AutoModelForCausalLM.from_pretrained(plain, attn_implementation="eager")
    theirs = hooks.run(reference, token_ids, np.ones(token_ids.shape, bool))
    np.testing.assert_allclose(np.asarray(model(token_ids)), theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize(
    "way", [gptq(4), awq(), fp8((16, 32)), four_bits("nf4", nested=True)], ids=lambda way: way.name
)
@pytest.mark.parametrize("case", [FUSED, EXPERTS], ids=lambda case: case.name)
def test_so_are_fused_layers_and_experts(way, case, originals, tmp_path):
    packed, plain = quantise(originals[case.name], way, tmp_path)
    same_parameters(el.load_model(packed), el.load_model(plain))


STREAMED = [
    *(("llama", way, "disk") for way in (gptq(4), awq(), fp8((16, 32)), four_bits("nf4", nested=True), eight_bits())),
    ("llama", compressed("pack-quantized", "group", 4), "host"),
    ("phi3", gptq(4), "disk"),
    ("mixtral", fp8((16, 32)), "disk"),
]


@pytest.mark.parametrize(("name", "way", "offload"), STREAMED, ids=lambda value: getattr(value, "name", value))
def test_so_is_one_whose_layers_stay_in_its_files(name, way, offload, originals, tmp_path):
    """Every layer's parameters and every site's responses, to the bit."""
    packed, _ = quantise(originals[name], way, tmp_path)
    whole, streamed = el.load_model(packed), el.load_model(packed, offload=offload)
    for layer in range(whole.config.num_layers):
        of_layer = jax.tree.map(lambda stacked, i=layer: stacked[i], whole.params["layers"])
        jax.tree.map(np.testing.assert_array_equal, streamed.params["layers"].read(layer), of_layer)
    token_ids = np.random.default_rng(0).integers(4, families.VOCABULARY, (2, 9))
    sites = tuple(whole.config.site_channels())
    np.testing.assert_array_equal(streamed.respond(token_ids, sites=sites), whole.respond(token_ids, sites=sites))
    assert streamed.provenance == whole.provenance


def test_so_are_heads_and_models_of_which_only_some_layers_are_quantised(originals, tmp_path):
    packed, plain = quantise(originals["llama"], gptq(4), tmp_path, r"lm_head\.weight|.*(down|q)_proj\.weight")
    assert "lm_head.qweight" in safetensors.torch.load_file(packed / "model.safetensors")
    same_parameters(el.load_model(packed), el.load_model(plain))


@pytest.mark.parametrize("way", [gptq(4), fp8((16, 32))], ids=lambda way: way.name)
def test_so_are_pytorch_files(way, originals, tmp_path):
    packed, plain = quantise(originals["llama"], way, tmp_path)
    torch.save(safetensors.torch.load_file(packed / "model.safetensors"), packed / "pytorch_model.bin")
    (packed / "model.safetensors").unlink()
    same_parameters(el.load_model(packed), el.load_model(plain))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_part_of_a_matrix_is_that_part_of_the_whole(way, originals, tmp_path):
    """As devices read it that have a part each."""
    packed, _ = quantise(originals["llama"], way, tmp_path)
    tensor = read_quantisation("llama", way.config, FAMILIES["llama"].quantised)(open_weights(packed)).tensors[
        f"{NAME}weight"
    ]
    assert tensor.shape == (48, 64)
    everything = tensor.read((slice(0, 48), slice(0, 64)))
    for part in (slice(0, 48), slice(17, 45)), (slice(5, 11), slice(0, 64)), (slice(13, 46), slice(3, 62)):
        np.testing.assert_array_equal(tensor.read(part), everything[part])


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "uint8"])
def test_fp8_is_what_transformers_dequantises(stored, originals, tmp_path):
    """By the operation that `FineGrainedFP8Config(dequantize=True)` puts into its loading."""
    packed, _ = quantise(originals["llama"], fp8((16, 16), stored), tmp_path)
    name, tensors = f"{NAME}weight", safetensors.torch.load_file(packed / "model.safetensors")
    theirs = Fp8Dequantize(None)._dequantize_one(tensors[name], tensors[f"{name}_scale_inv"], torch.float32)
    kernel = el.load_model(packed).params["layers"]["mlp"]["up"]["kernel"][1]
    np.testing.assert_array_equal(kernel, theirs.numpy().T)


def test_the_settings_count_where_converted_parameters_are_kept(originals, tmp_path):
    """The same files by other settings are another model."""
    packed, _ = quantise(originals["llama"], gptq(4, version="gptq_v2", symmetric=False, stored=0), tmp_path)
    kept = dict(use_cache=True, cache_dir=tmp_path / "kept")
    digest = el.load_model(packed, **kept).digest
    assert el.load_model(packed, **kept).digest == digest == el.load_model(packed).digest
    change_config(packed, gptq(4, symmetric=False).config)
    assert el.load_model(packed, **kept).digest == el.load_model(packed).digest != digest


PACKED = compressed("pack-quantized", "group", 4).config
GROUP = PACKED["config_groups"]["group_0"]
REFUSED = [
    (dict(quant_method="hqq"), "quantised by hqq, which isn't read. Read of this family are: fp8 (float8 e4m3"),
    (dict(bits=4), "quantised by a method that it does not name"),
    (dict(quant_method="mxfp4"), "quantised by mxfp4, which isn't read"),
    (gptq(4).config | dict(bits=5), "by gptq, and its settings say bits=5, of which only 2 and 3 and 4 and 8 can be"),
    (gptq(4).config | dict(checkpoint_format="marlin"), "checkpoint_format='marlin', of which only 'gptq' and"),
    (gptq(4).config | dict(checkpoint_format=None, format="gptq_p"), "format='gptq_p', of which only 'gptq' and"),
    (
        gptq(4).config | dict(format="gptq_v2"),
        "checkpoint_format='gptq' and format='gptq_v2', of which only one can be true",
    ),
    (gptq(4).config | dict(is_marlin_format=True), "is_marlin_format=True"),
    (gptq(4).config | dict(awq_gemm_checkpoint=True), "awq_gemm_checkpoint=True"),
    (gptq(4).config | dict(pack_dtype="int16"), "pack_dtype='int16', of which only 'int32'"),
    (gptq(4).config | dict(rotation="hadamard"), "rotation='hadamard', which turns what layers are given"),
    (gptq(4).config | dict(data_type="mx_fp4"), "data_type='mx_fp4', of which only 'int' and None can be read"),
    (gptq(2).config | dict(super_bits=6), "super_bits=6, of which only None can be read"),
    (gptq(4).config | dict(adapter={"path": "eora"}), "adapter={'path': 'eora'}, which adds to what layers give"),
    (gptq(4).config | dict(group_size=0), "group_size=0; it should be a number of inputs, or -1"),
    (gptq(4).config | dict(dynamic={"+:.*down.*": {"bits": 8}}), "modules with settings of their own"),
    (awq().config | dict(version="gemv"), "version='gemv', of which only 'gemm' can be read"),
    (awq().config | dict(bits=8), "bits=8, of which only 4 can be read"),
    (awq().config | dict(version=None, format="gemv_fast"), "format='gemv_fast', of which only 'gemm' can be read"),
    (awq().config | dict(version="marlin"), "version='marlin', of which only 'gemm' can be read"),
    (awq().config | dict(format="gemv"), "version='gemm' and format='gemv', of which only one can be true"),
    (awq().config | dict(rotation="random"), "rotation='random', which turns what layers are given"),
    (awq().config | dict(dynamic={".*down.*": {}}), "modules with settings of their own"),
    (awq().config | dict(backend="llm-awq"), "backend='llm-awq'"),
    (fp8(None).config | dict(expert_dtype="fp4"), "expert_dtype='fp4'"),
    (fp8(None).config | dict(weight_block_size=[128]), "weight_block_size=[128]; it should be two numbers"),
    (fp8(None).config | dict(weight_scale_semantics="inverse"), "weight_scale_semantics='inverse'"),
    (four_bits("nf4", False).config | dict(bnb_4bit_quant_type="int4"), "bnb_4bit_quant_type='int4'"),
    (four_bits("nf4", False).config | dict(bnb_4bit_quant_storage="bfloat16"), "bnb_4bit_quant_storage='bfloat16'"),
    (dict(quant_method="bitsandbytes"), "settings say neither load_in_8bit nor load_in_4bit"),
    (PACKED | dict(format="nvfp4-pack-quantized"), "format='nvfp4-pack-quantized', of which only 'float-quantized'"),
    (PACKED | dict(sparsity_config={"format": "sparse-24-bitmask"}), "format='sparse-24-bitmask'"),
    (PACKED | dict(moe_sparsity_config={"layers": {}}), "moe_sparsity_config, by which layers have different experts"),
    (PACKED | dict(config_groups={"a": {"weights": {"num_bits": 4}}}), "strategy=None, of which only"),
    (PACKED | dict(config_groups={"W4A16": ["Linear"]}), "config_groups of presets, ['Linear']"),
    (
        PACKED | dict(config_groups={"a": {"weights": {"num_bits": 4, "codebook": "c.npy"}}}),
        "codebook='c.npy' of a group of modules, which isn't known",
    ),
    (PACKED | dict(transform_config={"config_groups": {"u": {}}}), "transform_config, which turns weights"),
    (
        PACKED | dict(config_groups={"a": GROUP, "b": GROUP | dict(weights=GROUP["weights"] | dict(group_size=32))}),
        "config_groups with 2 ways of quantising, of which one can be read",
    ),
]


@pytest.mark.parametrize(("stated", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_not_read_is_refused_by_name_before_any_weights(stated, message, originals, tmp_path):
    directory = shutil.copytree(originals["llama"], tmp_path / "model")
    (directory / "model.safetensors").unlink()
    change_config(directory, stated)
    with pytest.raises(UnsupportedModelError, match=r"this llama checkpoint is quantised.*give the original") as error:
        el.load_model(directory)
    assert message in str(error.value)


def test_layers_that_are_stored_transposed_are_refused(tmp_path):
    config = transformers.GPT2Config(quantization_config=gptq(4).config)
    config.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="gpt2 checkpoint is quantised by gptq.*of this family are: none"):
        el.load_model(tmp_path)


BROKEN = [
    (gptq(4), "scales", None, "lacks {name}scales, without which what it belongs to can't be dequantised"),
    (gptq(4), "scales", torch.ones(2, 48), r"{name}scales .* stored as F32 \[2, 48\]; .* should be .* \[4, 48\]"),
    (gptq(4), "qzeros", torch.full((4, 6), 3).int(), "say sym=true, and the zero points in {name}qzeros are neither"),
    (gptq(4), "g_idx", torch.full((64,), 9).int(), "{name}g_idx in .* names groups that aren't among the 4"),
    (gptq(4, order=True), "g_idx", None, "lacks {name}g_idx, without which what it belongs to can't be"),
    (
        awq(zero_point=False),
        "qzeros",
        torch.zeros(4, 6).int(),
        "say zero_point=false, and the zero points in {name}qzeros aren't",
    ),
    (awq(), "qweight", torch.zeros(64, 6), r"{name}qweight .* stored as F32 \[64, 6\]; .* should be I32"),
    (fp8((16, 32)), "weight_scale_inv", torch.ones(3, 3), r"_scale_inv .*stored as F32 \[3, 3\]; .* \[3, 2\]"),
    (eight_bits(), "weight_format", torch.tensor(2, dtype=torch.uint8), "in an order of some GPU's own"),
    (eight_bits(), "SCB", torch.ones(47), r"SCB .*stored as F32 \[47\]; .* \[48\]"),
    (
        four_bits("nf4", nested=False),
        "weight.quant_state.bitsandbytes__nf4",
        torch.zeros(3, dtype=torch.uint8),
        "quant_state.bitsandbytes__nf4 in .* can't be read",
    ),
    (
        compressed("pack-quantized", "group", 4),
        "weight_shape",
        torch.tensor([48, 100]),
        r"weight_packed .* stored as I32 \[48, 8\]; .* \[48, 13\]",
    ),
    (
        compressed("pack-quantized", "group", 4, order=True),
        "weight_g_idx",
        None,
        "lacks {name}weight_g_idx, without which what it belongs to can't be dequantised",
    ),
    (
        awq(),
        "act.scales",
        torch.ones(48),
        "holds {name}act.scales, by which AutoAWQ divides what an activation function",
    ),
]


@pytest.mark.parametrize(("way", "part", "value", "message"), BROKEN, ids=[case[-1] for case in BROKEN])
def test_parts_that_do_not_fit_are_named(way, part, value, message, originals, tmp_path):
    packed, _ = quantise(originals["llama"], way, tmp_path)
    tensors = safetensors.torch.load_file(packed / "model.safetensors")
    tensors = {name: each for name, each in tensors.items() if name != NAME + part or value is not None}
    if value is not None:
        tensors[NAME + part] = value
    safetensors.torch.save_file(tensors, packed / "model.safetensors")
    with pytest.raises(CheckpointError, match=message.format(name=NAME)):
        el.load_model(packed)


def test_quantised_token_embeddings_are_refused_by_name(originals, tmp_path):
    """GPTQModel's, which are packed along the tokens."""
    packed, _ = quantise(originals["llama"], gptq(4), tmp_path)
    tensors = safetensors.torch.load_file(packed / "model.safetensors")
    name = "model.embed_tokens."
    tensors |= {f"{name}qweight": tensors.pop(f"{name}weight").int()}
    safetensors.torch.save_file(tensors, packed / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"holds {name}qweight: its token embeddings are quantised"):
        el.load_model(packed)


def test_settings_that_are_not_known_are_told(originals, tmp_path):
    packed, plain = quantise(originals["llama"], gptq(4), tmp_path)
    change_config(packed, gptq(4).config | dict(damp_percent=0.1, codebook="c.npy", later=None))
    with pytest.warns(ExpertLensWarning, match=r"the quantization_config \(gptq\) of .* says codebook='c.npy', which"):
        same_parameters(el.load_model(packed), el.load_model(plain))


def test_a_quantised_layer_whose_settings_are_elsewhere_is_told_of(originals, tmp_path):
    """In `quantize_config.json`, where AutoGPTQ has them."""
    packed, _ = quantise(originals["llama"], gptq(4), tmp_path)
    change_config(packed, None)
    with pytest.raises(CheckpointError, match=r"has unexpected .*qweight.*put what quantize_config.json .* holds into"):
        el.load_model(packed)


def test_every_family_names_formats_that_there_are():
    for family in FAMILIES.values():
        assert set(family.quantised) <= FORMATS.keys(), family.model_type
