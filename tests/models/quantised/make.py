"""Makes `by_libraries.npz`: layers that the libraries' own code has packed, and that their own code dequantises.

No test runs this. The libraries are no dependency of the project: give the unpacked source distributions of GPTQModel
7.7.0, AutoGPTQ 0.7.1 and AutoAWQ 0.2.9, and the unpacked wheels of compressed-tensors 0.20.1 and bitsandbytes 0.50.2,
in this order, beside torch and transformers. Of them only what packs and unpacks on a CPU is imported; what else they
import is left out.
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import types
from unittest.mock import MagicMock

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
OUTPUTS, INPUTS, WIDTH = 16, 32, 16
ABSENT = (
    "pcre",
    "tokenicer",
    "device_smi",
    "logbar",
    "random_word",
    "defuser",
    "accelerate",
    "datasets",
    "peft",
    "loguru",
)


class LeftOut(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has something in the place of packages that packing doesn't need."""

    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in ABSENT else None

    def create_module(self, spec):
        return MagicMock(name=spec.name, __spec__=spec, __path__=[], __name__=spec.name)

    def exec_module(self, module):
        pass


def without_init(root: pathlib.Path, *names: str) -> None:
    """Have packages found whose `__init__` isn't run."""
    for name in names:
        package = types.ModuleType(name)
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = package


sys.meta_path.append(LeftOut())
gptqmodel, auto_gptq, autoawq, compressed_tensors, bitsandbytes = map(pathlib.Path, sys.argv[1:])
without_init(gptqmodel, "gptqmodel", "gptqmodel.models", "gptqmodel.quantization", "gptqmodel.adapter")
config = importlib.import_module("gptqmodel.quantization.config")
sys.modules["gptqmodel.quantization"].FORMAT = config.FORMAT
sys.modules["gptqmodel.quantization"].METHOD = config.METHOD
linears = importlib.import_module("gptqmodel.nn_modules.qlinear")
TorchLinear = importlib.import_module("gptqmodel.nn_modules.qlinear.torch").TorchLinear
AwqTorchLinear = importlib.import_module("gptqmodel.nn_modules.qlinear.torch_awq").AwqTorchLinear
dequant = importlib.import_module("gptqmodel.utils.model_dequant")
gptqmodel_awq = importlib.import_module("gptqmodel.quantization.awq.utils.packing_utils")

without_init(autoawq, "awq", "awq.modules", "awq.modules.linear", "awq.utils", "awq.models")
AutoAwqLinear = importlib.import_module("awq.modules.linear.gemm").WQLinear_GEMM
autoawq_packing = importlib.import_module("awq.utils.packing_utils")
AutoAwqConfig = importlib.import_module("awq.models._config").AwqConfig

sys.path += [str(compressed_tensors), str(bitsandbytes)]
bnb = importlib.import_module("bitsandbytes")
schemes = importlib.import_module("compressed_tensors.quantization")
Packed = importlib.import_module("compressed_tensors.compressors.pack_quantized.base").PackedQuantizationCompressor


def auto_gptq_layer(name: str) -> type:
    path = auto_gptq / f"auto_gptq/nn_modules/qlinear/{name}.py"
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location(name, path))
    spec.loader.exec_module(module)
    return module.QuantLinear


def conversions() -> dict:
    """The functions between gptq and gptq_v2 of `gptqmodel/utils/model.py`, which imports much that they don't need."""
    tree = ast.parse((gptqmodel / "gptqmodel/utils/model.py").read_text())
    wanted = ("convert_gptq_v1_to_v2_format_module", "convert_gptq_v2_to_v1_format_module")
    tree.body = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name in wanted]
    names = dict(torch=torch, nn=torch.nn, log=MagicMock(), BaseQuantLinear=linears.BaseQuantLinear, Type=type)
    names |= dict(QuantizeConfig=config.QuantizeConfig) | {
        name: getattr(dequant, name) for name in ("_correct_gptq_v1_qzeros", "_revert_gptq_v1_qzeros_correction")
    }
    exec(compile(tree, "model.py", "exec"), names)
    return names


CONVERSIONS = conversions()


def draw(bits: int, width=WIDTH, inputs=INPUTS, outputs=OUTPUTS, *, symmetric=False, order=False, lowest=0):
    """Draw a layer that numbers of so many bits hold, with scales and zero points by output, and groups by input."""
    key = torch.Generator().manual_seed(len(FILES))
    groups, half = -(-inputs // width), 2 ** (bits - 1)
    numbers = torch.randint(0, 2**bits, (outputs, inputs), generator=key)
    zeros = torch.randint(lowest, 2**bits, (outputs, groups), generator=key)
    zeros[::5] = lowest
    zeros = torch.full_like(zeros, half) if symmetric else zeros
    scales = (0.01 + 0.02 * torch.rand(outputs, groups, generator=key)).half().float()
    of_inputs = torch.arange(inputs) // width
    of_inputs = of_inputs[torch.randperm(inputs, generator=key)] if order else of_inputs
    linear = torch.nn.Linear(inputs, outputs)
    linear.weight.data = scales[:, of_inputs] * (numbers - zeros[:, of_inputs])
    return linear, scales, zeros.float(), of_inputs.int()


FILES: dict[str, np.ndarray] = {}


def keep(name: str, settings: dict, state: dict, parts: tuple[str, ...], weight: torch.Tensor, original):
    """Keep a layer's tensors as they are saved, and `[outputs, inputs]` what the library makes of them."""
    assert weight.dtype == torch.float32
    if original is not None:
        torch.testing.assert_close(weight, original.weight.data, rtol=1e-6, atol=0)
    FILES.update({f"{name}/{part}": state[part].contiguous().numpy() for part in parts})
    FILES[f"{name}/dequantised"] = weight.contiguous().numpy()
    FILES[f"{name}/settings"] = np.array(json.dumps(settings, default=lambda value: value.value))


GPTQ_PARTS = ("qweight", "qzeros", "scales", "g_idx", "bias")


def by_gptqmodel(name: str, *, bits=4, version="gptq", width=WIDTH, inputs=INPUTS, symmetric=False, order=False):
    """As GPTQModel packs: in gptq_v2, turned into gptq where that is asked for; dequantised by its torch kernel."""
    settings = config.GPTQConfig(
        bits=bits, group_size=width, sym=symmetric, desc_act=order, format=version, offload_to_disk=False
    )
    settings.meta_set_versionable("quantizer", ["gptqmodel:7.7.0"])
    wide, outputs = inputs if width == -1 else width, 32 if bits == 3 else OUTPUTS  # of 3 bits, 32 fill three words
    linear, scales, zeros, of_inputs = draw(bits, wide, inputs, outputs, symmetric=symmetric, order=order)
    kinds = dict(bits=bits, group_size=width, sym=symmetric, desc_act=order, in_features=inputs, out_features=outputs)
    layer = TorchLinear(**kinds, bias=True, format=config.FORMAT(version))
    layer.pack_original(linear, scales.clone(), zeros.clone(), of_inputs)
    if version == "gptq":
        CONVERSIONS["convert_gptq_v2_to_v1_format_module"](layer, settings)
    saved = {part: tensor.clone() for part, tensor in layer.state_dict().items()}
    if version == "gptq":
        CONVERSIONS["convert_gptq_v1_to_v2_format_module"](layer, bits, torch.int32)
    layer.scales = layer.scales.float()
    weight = layer.train().dequantize_weight().T
    layer.load_state_dict(saved)
    layer.scales = saved["scales"]
    keep(f"gptqmodel/{name}", settings.to_dict(), layer.state_dict(), GPTQ_PARTS, weight, linear)


def by_auto_gptq(name: str, *, bits=4, symmetric=False, order=False, lowest=1):
    """As AutoGPTQ packs, and what its layer makes of the unit vectors.

    A zero point of 0 breaks those after it in its word. Of such, one layer takes 0 as kernels for GPUs do, another 16.
    """
    linear, scales, zeros, of_inputs = draw(bits, outputs=32, symmetric=symmetric, order=order, lowest=lowest)
    kernel = auto_gptq_layer("qlinear_cuda" if lowest else "qlinear_cuda_old")
    layer = kernel(bits, WIDTH, INPUTS, 32, True, weight_dtype=torch.float32)
    layer.pack(linear, scales.clone(), zeros.clone(), of_inputs)
    layer.bias = torch.zeros_like(layer.bias)
    weight = layer(torch.eye(INPUTS)).T
    layer.scales, layer.bias = layer.scales.half(), linear.bias.data.half()
    settings = dict(quant_method="gptq", bits=bits, group_size=WIDTH, damp_percent=0.01, desc_act=order)
    settings |= dict(static_groups=False, sym=symmetric, true_sequential=True, is_marlin_format=False)
    settings |= dict(model_name_or_path=None, model_file_base_name=None, awq_gemm_checkpoint=False)
    keep(f"auto_gptq/{name}", settings, layer.state_dict(), GPTQ_PARTS, weight, linear if lowest else None)


AWQ_PARTS = ("qweight", "qzeros", "scales", "bias")


def by_autoawq(name: str, *, width=WIDTH):
    wide = INPUTS if width == -1 else width
    linear, scales, zeros, _ = draw(4, wide, outputs=32)
    layer = AutoAwqLinear.from_linear(linear, 4, wide, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
    weight = autoawq_packing.dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, layer.group_size).T
    settings = AutoAwqConfig(q_group_size=width).to_transformers_dict()
    keep(f"autoawq/{name}", settings, layer.state_dict(), AWQ_PARTS, weight, linear)


def awq_by_gptqmodel(name: str, *, symmetric: bool):
    linear, scales, zeros, _ = draw(4, symmetric=symmetric)
    kinds = dict(bits=4, group_size=WIDTH, sym=symmetric, desc_act=False, in_features=INPUTS, out_features=OUTPUTS)
    layer = AwqTorchLinear(**kinds, bias=True)
    layer.pack(linear, scales.clone(), zeros.clone())
    layer.scales, layer.bias = layer.scales.half(), layer.bias.half()
    weight = gptqmodel_awq.dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, WIDTH).T
    settings = config.AWQConfig(bits=4, group_size=WIDTH, sym=symmetric, offload_to_disk=False)
    settings.meta_set_versionable("quantizer", ["gptqmodel:7.7.0"])
    keep(f"gptqmodel/{name}", settings.to_dict(), layer.state_dict(), AWQ_PARTS, weight, linear)


def by_compressed_tensors(name: str, bits=4, strategy="group", *, symmetric=False):
    """As compressed-tensors packs what llm-compressor quantises, by AWQ, GPTQ or otherwise."""
    width, half = INPUTS if strategy == "channel" else WIDTH, 2 ** (bits - 1)
    linear, scales, zeros, _ = draw(bits, width, symmetric=symmetric)
    stated = dict(num_bits=bits, symmetric=symmetric, strategy=strategy)
    stated |= dict(group_size=WIDTH) if strategy == "group" else {}
    arguments = schemes.QuantizationArgs(**stated)
    scheme = schemes.QuantizationScheme(targets=["Linear"], weights=arguments, format="pack-quantized")
    unpacked = dict(weight=linear.weight.data, weight_scale=scales, weight_zero_point=(zeros - half).to(torch.int8))
    packed = Packed.compress(unpacked, scheme)
    weight = Packed.decompress(packed, scheme)["weight"]
    settings = schemes.QuantizationConfig(
        config_groups={"group_0": scheme}, format="pack-quantized", quantization_status="compressed"
    )
    packed["weight_scale"] = packed["weight_scale"].half()
    keep(f"compressed-tensors/{name}", settings.to_dict(), packed, tuple(packed), weight, linear)


def by_bitsandbytes(name: str, kind: str | None, *, inputs=64, nested=False):
    """As bitsandbytes quantises random weights, of 8 bits or in blocks of 64 numbers of 4.

    Blocks that aren't within a row are dequantised by its code for any device: its kernel for CPUs gets them wrong.
    """
    random = torch.randn(8, inputs, generator=torch.Generator().manual_seed(len(FILES)))
    if kind is None:
        layer = bnb.nn.Linear8bitLt(inputs, 8, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(random.half(), requires_grad=False, has_fp16_weights=False)
        settings = transformers.BitsAndBytesConfig(load_in_8bit=True)
        state = layer.to("cpu").state_dict()
        weight = bnb.functional.int8_vectorwise_dequant(state["weight"], state["SCB"])
    else:
        layer = bnb.nn.Linear4bit(inputs, 8)
        layer.weight = bnb.nn.Params4bit(random, requires_grad=False, quant_type=kind, compress_statistics=nested)
        settings = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=nested
        )
        state = layer.to("cpu").state_dict()
        if inputs % 64 == 0:
            weight = bnb.functional.dequantize_4bit(layer.weight, layer.weight.quant_state)
        else:
            compute = importlib.import_module("bitsandbytes.backends.default.ops")._dequantize_4bit_compute
            codes, values = state["weight"].reshape(-1), state["weight.quant_map"]
            weight = compute(codes, state["weight.absmax"], values, 64, random.shape, torch.float32)
    FILES[f"bitsandbytes/{name}/dequantised"] = weight.numpy()
    FILES.update({f"bitsandbytes/{name}/{part}": tensor.detach().numpy() for part, tensor in state.items()})
    FILES[f"bitsandbytes/{name}/settings"] = np.array(json.dumps(settings.to_dict(), default=str))


by_gptqmodel("gptq-4-symmetric", symmetric=True)
by_gptqmodel("gptq-4")  # some zero points are 0, which less one borrows from the next
by_gptqmodel("gptq-2", bits=2)
by_gptqmodel("gptq-3", bits=3)
by_gptqmodel("gptq-8", bits=8, order=True)
by_gptqmodel("gptq_v2-4", version="gptq_v2", order=True)
by_gptqmodel("gptq_v2-3", bits=3, version="gptq_v2")
by_gptqmodel("gptq-4-one-group", width=-1)
by_gptqmodel("gptq-4-odd", inputs=28, width=16)  # neither words nor groups are full
by_auto_gptq("gptq-4", order=True)
by_auto_gptq("gptq-4-symmetric", symmetric=True)
by_auto_gptq("gptq-3", bits=3)
by_auto_gptq("gptq-4-zero", lowest=0)
by_autoawq("gemm")
by_autoawq("gemm-one-group", width=-1)
awq_by_gptqmodel("awq-symmetric", symmetric=True)
awq_by_gptqmodel("awq", symmetric=False)
by_compressed_tensors("group-4")
by_compressed_tensors("group-4-symmetric", symmetric=True)
by_compressed_tensors("channel-8", 8, "channel")
by_bitsandbytes("8", None, inputs=INPUTS)
by_bitsandbytes("nf4", "nf4")
by_bitsandbytes("nf4-nested", "nf4", nested=True)
by_bitsandbytes("fp4", "fp4", inputs=40)
np.savez_compressed(HERE / "by_libraries.npz", **FILES)
