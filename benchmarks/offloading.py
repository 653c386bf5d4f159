"""Peak memory and speed of recording with layers on the device, in the host's memory, and in the checkpoint's files.

    python benchmarks/offloading.py --megabytes 800

Each row loads a random GPT-NeoX checkpoint of about that size (in float32) in a process of its own, which has
recorded with a tiny one before, and records sentences of `--tokens` tokens together. Memory is counted as in
`loading_memory.py`: the process's anonymous memory, sampled from outside, over what it had before. Devices are the
CPU's, whose memory is the host's: so the peak is the device's where layers are in files (what isn't of layers, two
layers and a batch), and that of host and device together where they are in the host's memory. Pages of mapped files
aren't counted. Linux only.
"""

import argparse
import json
import pathlib
import tempfile

from loading_memory import MB, make_checkpoint, measure, sizes

CHILD = """
import sys, time, jax, tokenizers
import expertlens_jax as el
directory, tiny, offload, tokens, batch = sys.argv[1:]
offload = None if offload == "none" else offload
sentences = ["w1 " * 15 + f"w{i}" for i in range(2, int(tokens) // 16 + 2)]

def load(path):
    model = el.load_model(path, offload=offload)
    model.tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return model

el.record_responses(load(tiny), sentences[:8], sites="attn.v")
print("ready", flush=True)
sys.stdin.readline()
model = load(directory)
model.digest
el.record_responses(model, sentences[: int(batch) // 16], sites="attn.v", tokens_per_batch=int(batch))  # compiles
start = time.perf_counter()
el.record_responses(model, sentences, sites="attn.v", tokens_per_batch=int(batch))
seconds = time.perf_counter() - start
held = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
print(seconds, held, flush=True)
"""


def main() -> None:
    """Measures every place of layers, and prints a table or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=800, help="size of the model in float32")
    parser.add_argument("--tokens", type=int, default=8192, help="how many are read")
    parser.add_argument("--batch", type=int, default=4096, help="of them at a time")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    options = parser.parse_args()
    config = sizes(options.megabytes)
    width, inner, layers = (config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    layer = 4 * (4 * width * width + 2 * width * inner)
    whole = layers * layer + 4 * 2 * width * config["vocab_size"]
    if not options.json:
        print(f"{'MB':8} {'parameters':>10} {'layer':>6} {'on device':>9} {'peak':>6} {'tokens/s':>9}")
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        make_checkpoint(root / "tiny", "float32", "safetensors", sizes(0))
        make_checkpoint(root / "model", "float32", "safetensors", config)
        for offload in ("none", "host", "disk"):
            given = [str(root / "model"), str(root / "tiny"), offload, str(options.tokens), str(options.batch)]
            row = measure(given, 1, CHILD)
            row |= {"offload": offload, "whole": whole, "layer": layer, "speed": options.tokens / row["seconds"]}
            if options.json:
                print(json.dumps(row), flush=True)
            else:
                figures = f"{whole / MB:10.0f} {layer / MB:6.0f} {row['parameters'] / MB:9.0f} {row['peak'] / MB:6.0f}"
                print(f"{offload:8} {figures} {row['speed']:9,.0f}", flush=True)


if __name__ == "__main__":
    main()
