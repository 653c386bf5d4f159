"""Makes `by_libraries.npz`: layers that the libraries' own code has packed, and that their own code dequantises.

No test runs this. The libraries are no dependency of the project: give the unpacked source distributions of GPTQModel
7.7.0, AutoGPTQ 0.7.1 and AutoAWQ 0.2.9 (`python make.py gptqmodel-7.7.0 auto_gptq-0.7.1 autoawq-0.2.9`), beside torch
and transformers. Of them only what packs and unpacks on a CPU is imported; what else they import is left out.
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

HERE = pathlib.Path(__file__).parent
OUTPUTS, INPUTS, WIDTH = 16, 32, 16
ABSENT = ("pcre", "tokenicer", "device_smi", "logbar", "random_word", "defuser", "accelerate", "datasets", "peft")


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
gptqmodel, auto_gptq, autoawq = map(pathlib.Path, sys.argv[1:])
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


def keep(name: str, settings: dict, layer: torch.nn.Module, parts: tuple[str, ...], weight: torch.Tensor, original):
    """Keep a layer's tensors as they are saved, and `[outputs, inputs]` what the library makes of them."""
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, original.weight.data, rtol=1e-6, atol=0)
    state = {part: layer.state_dict()[part].contiguous() for part in parts}
    FILES.update({f"{name}/{part}": tensor.numpy() for part, tensor in state.items()})
    FILES[f"{name}/weight"] = weight.contiguous().numpy()
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
    keep(f"gptqmodel/{name}", settings.to_dict(), layer, GPTQ_PARTS, weight, linear)


def by_auto_gptq(name: str, *, bits=4, symmetric=False, order=False):
    """As AutoGPTQ packs, which a zero point of 0 breaks; dequantised as its layer's product with unit vectors."""
    linear, scales, zeros, of_inputs = draw(bits, outputs=32, symmetric=symmetric, order=order, lowest=1)
    layer = auto_gptq_layer("qlinear_cuda")(bits, WIDTH, INPUTS, 32, True, weight_dtype=torch.float32)
    layer.pack(linear, scales.clone(), zeros.clone(), of_inputs)
    layer.bias = torch.zeros_like(layer.bias)
    weight = layer(torch.eye(INPUTS)).T
    layer.scales, layer.bias = layer.scales.half(), linear.bias.data.half()
    settings = dict(quant_method="gptq", bits=bits, group_size=WIDTH, damp_percent=0.01, desc_act=order)
    settings |= dict(static_groups=False, sym=symmetric, true_sequential=True, is_marlin_format=False)
    settings |= dict(model_name_or_path=None, model_file_base_name=None, awq_gemm_checkpoint=False)
    keep(f"auto_gptq/{name}", settings, layer, GPTQ_PARTS, weight, linear)


AWQ_PARTS = ("qweight", "qzeros", "scales", "bias")


def by_autoawq(name: str, *, width=WIDTH):
    wide = INPUTS if width == -1 else width
    linear, scales, zeros, _ = draw(4, wide, outputs=32)
    layer = AutoAwqLinear.from_linear(linear, 4, wide, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
    weight = autoawq_packing.dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, layer.group_size).T
    settings = AutoAwqConfig(q_group_size=width).to_transformers_dict()
    keep(f"autoawq/{name}", settings, layer, AWQ_PARTS, weight, linear)


def awq_by_gptqmodel(name: str, *, symmetric: bool):
    linear, scales, zeros, _ = draw(4, symmetric=symmetric)
    kinds = dict(bits=4, group_size=WIDTH, sym=symmetric, desc_act=False, in_features=INPUTS, out_features=OUTPUTS)
    layer = AwqTorchLinear(**kinds, bias=True)
    layer.pack(linear, scales.clone(), zeros.clone())
    layer.scales, layer.bias = layer.scales.half(), layer.bias.half()
    weight = gptqmodel_awq.dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, WIDTH).T
    settings = config.AWQConfig(bits=4, group_size=WIDTH, sym=symmetric, offload_to_disk=False)
    settings.meta_set_versionable("quantizer", ["gptqmodel:7.7.0"])
    keep(f"gptqmodel/{name}", settings.to_dict(), layer, AWQ_PARTS, weight, linear)


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
by_autoawq("gemm")
by_autoawq("gemm-one-group", width=-1)
awq_by_gptqmodel("awq-symmetric", symmetric=True)
awq_by_gptqmodel("awq", symmetric=False)
np.savez_compressed(HERE / "by_libraries.npz", **FILES)
