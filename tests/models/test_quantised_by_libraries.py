"""Layers that GPTQModel, AutoGPTQ, AutoAWQ, compressed-tensors and bitsandbytes packed, read as they dequantise them.

`quantised/make.py` made the file, and tells the libraries' versions.
"""

import inspect
import json
import pathlib

import numpy as np
import pytest
import transformers
from transformers.utils import quantization_config

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.families import FAMILIES
from expertlens_jax.models.quantised import FORMATS, matrices, read_quantisation
from expertlens_jax.models.weights import StoredTensor, Weights

pytestmark = pytest.mark.unit

FILES = dict(np.load(pathlib.Path(__file__).parent / "quantised/by_libraries.npz"))
LAYERS = sorted({name.rpartition("/")[0] for name in FILES})
DTYPES = {"int8": "I8", "uint8": "U8", "int32": "I32", "int64": "I64", "float16": "F16", "float32": "F32"}


def opened(layer: str, qzeros: np.ndarray | None = None, **changed) -> tuple[StoredTensor, np.ndarray]:
    """A layer, maybe with other zero points, as it is read by its settings or changed ones; and as by its library."""
    parts = {name.rpartition("/")[2]: array for name, array in FILES.items() if name.startswith(f"{layer}/")}
    settings, weight = json.loads(str(parts.pop("settings"))) | changed, parts.pop("dequantised")
    parts |= {} if qzeros is None else {"qzeros": qzeros}
    stored = {
        f"up.{part}": StoredTensor(each.shape, DTYPES[str(each.dtype)], each.__getitem__)
        for part, each in parts.items()
    }
    quantisation = read_quantisation("llama", settings, FAMILIES["llama"].quantised)
    assert quantisation is not None and not quantisation.unknown
    read = quantisation(Weights(stored, pathlib.Path("here"))).tensors
    assert read.keys() == {"up.weight", *(("up.bias",) if "bias" in parts else ())}
    return read["up.weight"], weight


def values(tensor: StoredTensor) -> np.ndarray:
    return tensor.read(tuple(slice(0, size) for size in tensor.shape))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_read_as_its_library_dequantises_it(layer, monkeypatch):
    """To the bit, whole and in parts; in some numbers cross words, inputs are out of turn, or a group isn't full."""
    monkeypatch.setattr(matrices, "VALUES", 100)
    read, weight = opened(layer)
    assert (read.shape, read.dtype) == (weight.shape, "F32")
    everything = values(read)
    tolerance = 2e-7 if layer == "bitsandbytes/8" else 0  # which multiplies by 1 / 127, and is rounded once more
    np.testing.assert_allclose(everything, weight, rtol=tolerance, atol=0)
    rows, columns = weight.shape
    for part in (slice(3, 7), slice(0, columns)), (slice(0, rows), slice(5, 27)), (slice(5, rows - 2), slice(19, 20)):
        np.testing.assert_array_equal(read.read(part), everything[part])


@pytest.mark.parametrize("layer", ["gptq-2", "gptq-4", "gptq-8"])
def test_zero_points_of_gptqmodel_are_less_one_by_word(layer):
    """Its zero points of 0 borrow from the next: whom settings name as the writer tells which are meant."""
    read, weight = opened(f"gptqmodel/{layer}")
    by_number, _ = opened(f"gptqmodel/{layer}", meta={"quantizer": ["auto_gptq:0.7.1"]})
    differ = values(by_number) != weight
    assert differ.any() and not differ[0].any()  # the first of a word has none to lend to
    for quantizer in "gptqmodel:1.2.3", ["optimum:1.24.0", "gptqmodel:2.0.0"]:
        same, _ = opened(f"gptqmodel/{layer}", meta={"quantizer": quantizer})
        np.testing.assert_array_equal(values(same), values(read))


@pytest.mark.parametrize(
    "stated",
    [dict(checkpoint_format="gptq_v2"), dict(format="GPTQ_V2"), dict(format="gptq_v2", checkpoint_format=None)],
)
def test_a_format_is_told_by_either_name(stated):
    """`checkpoint_format` is the older one."""
    layer = "gptqmodel/gptq_v2-4"
    _, weight = opened(layer)
    read, _ = opened(layer, **(dict(checkpoint_format=None, format=None) | stated))
    np.testing.assert_array_equal(values(read), weight)
    v1, _ = opened(layer, checkpoint_format="gptq", format=None)
    assert (values(v1) != weight).any()


def test_three_bits_of_old_gptqmodels_are_read_where_they_are_symmetric():
    """Before 7.0 its zero points of 3 bits are other numbers, which are only known where they all mean half."""
    old = {"quantizer": ["gptqmodel:6.0.3"]}
    with pytest.raises(
        UnsupportedModelError, match=r"bits=3 and sym=False in the format gptq, which GPTQModel before 7"
    ):
        opened("gptqmodel/gptq-3", meta=old)
    opened("gptqmodel/gptq_v2-3", meta=old)
    fours = np.tile(np.array([0x24924924, 0x49249249, 0x92492492], np.uint32), (2, 1))
    less = np.array([0x24924924, 0x92492492, 0x49249249], np.uint32)  # what it subtracted
    read, _ = opened("gptqmodel/gptq-3", (fours - less).view(np.int32), meta=old, sym=True)
    plain, _ = opened("gptqmodel/gptq-3", fours.view(np.int32), format="gptq_v2", checkpoint_format="gptq_v2")
    np.testing.assert_array_equal(values(read), values(plain))


CONFIGS = {
    "bitsandbytes": transformers.BitsAndBytesConfig(load_in_4bit=True),
    "gptq": transformers.GPTQConfig(bits=4),
    "awq": transformers.AwqConfig(),
    "fp8": transformers.FineGrainedFP8Config(),
    "mxfp4": transformers.Mxfp4Config(),
    "compressed-tensors": transformers.CompressedTensorsConfig,  # which can't be made without the library
}


@pytest.mark.parametrize("method", FORMATS)
def test_every_field_that_transformers_has_is_known(method):
    """So that one that comes later is told; what is known is read, refused, or changes nothing (`FIELDS` says why)."""
    config = CONFIGS[method]
    kind = config if inspect.isclass(config) else type(config)
    fields = set(inspect.signature(kind).parameters) | set({} if inspect.isclass(config) else config.to_dict())
    assert fields - {"kwargs", "quant_method"} <= set(FORMATS[method].fields)
    if not inspect.isclass(config):
        assert read_quantisation("any", config, (method,)).unknown == ()


METHODS = {each.value for each in quantization_config.QuantizationMethod} | {"auto-round", "exl3", "qqq", "paroquant"}


@pytest.mark.parametrize("method", sorted(METHODS - FORMATS.keys()))
def test_ways_that_are_not_read_are_refused_by_name(method):
    with pytest.raises(
        UnsupportedModelError, match=rf"quantised by {method}, which isn't read\. Read of this family are"
    ):
        read_quantisation("llama", {"quant_method": method, "bits": 4}, FAMILIES["llama"].quantised)
