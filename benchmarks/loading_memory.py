"""Peak host memory of loading, against its bound: parameters in the target dtype, twice the largest tensor.

    python benchmarks/loading_memory.py --megabytes 800

Each row loads a random GPT-NeoX checkpoint of about that size (as float32) in a process of its own, which has
loaded a tiny one before, so that imports, compiler and tokenizer are in the baseline. What is counted is the
process's anonymous memory (RssAnon in /proc), sampled from outside: pages of files that are mapped into
memory also count as resident, but the system takes them back whenever it wants, so they are left out. Devices
are the CPU's, so parameters count too; on an accelerator they don't, and the peak is two tensors. Linux only.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
import tokenizers
import transformers
from safetensors.numpy import save_file

MB = 1e6
CASES = {
    # name: stored dtype, target dtype, form, devices along `model`, whether the cache is used
    "float16 safetensors to float32": ("float16", "float32", "safetensors", 1, False),
    "float32 safetensors to float32": ("float32", "float32", "safetensors", 1, False),
    "float32 safetensors to bfloat16": ("float32", "bfloat16", "safetensors", 1, False),
    "float16 .bin to float32": ("float16", "float32", "bin", 1, False),
    "float32 safetensors, 8 devices": ("float32", "float32", "safetensors", 8, False),
    "read and put into the cache": ("float16", "float32", "safetensors", 1, True),
    "out of the cache": ("float16", "float32", "safetensors", 1, True),
    "out of the cache, 8 devices": ("float16", "float32", "safetensors", 8, True),
}

CHILD = """
import sys, time, jax
import expertlens_jax as el
from expertlens_jax import parallel
directory, tiny, dtype, model_axis, cache_dir = sys.argv[1:]
mesh = parallel.make_mesh(model=int(model_axis)) if int(model_axis) > 1 else None
options = dict(dtype=dtype, mesh=mesh, use_cache=bool(cache_dir), cache_dir=cache_dir or None)
el.load_model(tiny, **options)
if cache_dir:
    el.load_model(tiny, **options)
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
model = jax.block_until_ready(el.load_model(directory, **options).params)
held = {}  # on the CPU's devices a parameter that is whole on all of them is there that many times
for leaf in jax.tree.leaves(model):
    for shard in leaf.addressable_shards:
        held[shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
print(time.perf_counter() - start, sum(held.values()), flush=True)
"""


def sizes(megabytes: float) -> dict[str, int]:
    """A GPT-NeoX config, in Pythia's proportions, of about so many megabytes in float32."""
    width = 64
    while 4 * (2 * 24 * width * width + 12 * 8 * width * width) < megabytes * MB:
        width += 64
    return dict(vocab_size=24 * width, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=8)


def make_checkpoint(directory: pathlib.Path, stored: str, form: str, config: dict[str, int]) -> int:
    """Writes a random checkpoint, and returns the number of elements of its largest tensor."""
    directory.mkdir(parents=True)
    transformers.GPTNeoXConfig(**config, num_attention_heads=8).save_pretrained(directory)
    words = {f"w{i}": i for i in range(config["vocab_size"])} | {"<eos>": 0}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<eos>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")
    tokenizer.save_pretrained(directory)

    rng, width, inner_width = np.random.default_rng(0), config["hidden_size"], config["intermediate_size"]

    def tensor(*shape: int) -> np.ndarray:
        return rng.random(shape, np.float32).astype(stored)

    tensors = {
        "gpt_neox.embed_in.weight": tensor(config["vocab_size"], width),
        "embed_out.weight": tensor(config["vocab_size"], width),
        "gpt_neox.final_layer_norm.weight": tensor(width),
        "gpt_neox.final_layer_norm.bias": tensor(width),
    }
    for layer in range(config["num_hidden_layers"]):
        for name, outputs, inputs in (
            ("attention.query_key_value", 3 * width, width),
            ("attention.dense", width, width),
            ("mlp.dense_h_to_4h", inner_width, width),
            ("mlp.dense_4h_to_h", width, inner_width),
            ("input_layernorm", width, None),
            ("post_attention_layernorm", width, None),
        ):
            path = f"gpt_neox.layers.{layer}.{name}"
            tensors[f"{path}.weight"] = tensor(outputs, inputs) if inputs else tensor(outputs)
            tensors[f"{path}.bias"] = tensor(outputs)
    if form == "safetensors":
        save_file(tensors, directory / "model.safetensors")
    else:
        import torch

        state = {name: torch.from_numpy(values) for name, values in tensors.items()}
        torch.save(state, directory / "pytorch_model.bin")
    return max(values.size for values in tensors.values())


def anonymous(pid: int) -> int:
    """A process's anonymous resident memory, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


def measure(arguments: list[str], devices: int, child: str = CHILD) -> dict[str, float]:
    """Runs a load in its own process: seconds, bytes of parameters, and peak bytes over the baseline."""
    process = subprocess.Popen(
        [sys.executable, "-c", child, *arguments],
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the loading process failed; see above")
        baseline = peak = anonymous(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        while process.poll() is None:
            try:
                peak = max(peak, anonymous(process.pid))
            except (TypeError, FileNotFoundError):  # it has just ended
                break
            time.sleep(0.002)
        seconds, held = map(float, process.stdout.readline().split())
    return {"seconds": seconds, "parameters": held, "peak": peak - baseline}


def main() -> None:
    """Measures every case, or those asked for, and prints a table or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=800, help="size of the model in float32")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="names of rows")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    options = parser.parse_args()
    config, tiny_config = sizes(options.megabytes), sizes(0)
    if not options.json:
        print(f"{'MB':31} {'parameters':>10} {'largest':>8} {'bound':>8} {'peak':>8} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for case in options.cases:
            stored, target, form, axis, cached = CASES[case]
            directory, tiny = root / f"{stored}-{form}", root / f"{stored}-{form}-tiny"
            if not directory.exists():
                make_checkpoint(tiny, stored, form, tiny_config)
                make_checkpoint(directory, stored, form, config)
            largest = config["vocab_size"] * config["hidden_size"] * {"float32": 4, "bfloat16": 2}[target]
            cache_dir = str(root / "cache") if cached else ""
            row = measure([str(directory), str(tiny), target, str(axis), cache_dir], axis)
            row |= {"case": case, "largest": largest, "bound": row["parameters"] + 2 * largest}
            if options.json:
                print(json.dumps(row), flush=True)
            else:
                columns = zip(("parameters", "largest", "bound", "peak"), (10, 8, 8, 8), strict=True)
                figures = " ".join(f"{row[key] / MB:{width}.0f}" for key, width in columns)
                print(f"{case:31} {figures} {row['seconds']:8.1f}", flush=True)


if __name__ == "__main__":
    main()
