"""Recording responses alone: against PyTorch with hooks, and against TransformerLens's `run_with_cache`.

    python benchmarks/recording.py --sentences 2000 [--transformer_lens_python PATH_TO_A_PYTHON]

The model has GPT-2's shape (124 million parameters) and random weights; the sentences are the first of the packaged
`facts`, under a byte-level BPE tokenizer trained on the packaged sentences. All sides record the same units (what
`c_attn`, `c_proj`, `c_fc` and the MLP's `c_proj` put out, the maximum over a sentence's tokens), in batches of about
as many tokens, on all cores, each in a process of its own:

- expertlens_jax: `record_responses`;
- PyTorch: sentences sorted by length, the masked maximum taken in forward hooks, so that no activation outlives its
  layer, and the head left out;
- TransformerLens: `run_with_cache` with a `names_filter` for the same sites, pooled out of each batch's cache, the head
  for the last token only (it can't be left out). It has requirements of its own, so it runs under the python that is
  given, in an environment with `transformer_lens>=4` (which loads Hugging Face checkpoints through its
  TransformerBridge); without one it is left out. It reads the same directory, so nothing is downloaded.

Each process first loads the model and records 8 sentences. Then come two passes: memory is the peak of the first,
anonymous memory as in `loading_memory.py`, above what it was before; tokens (real ones, without padding) a second
are the second's, and the first's are told beside it, since there expertlens_jax compiles. The responses themselves,
the same size for all, are part of the peak. PyTorch's threads wait for each other at every operation, so that another
program on one core slows it down many times over, and expertlens_jax far less: take no numbers unless the load that
is printed, of the minute before, is near 0. Linux only.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from loading_memory import MB, anonymous

if TYPE_CHECKING:  # a side imports only what it needs: not every python has all of them
    import torch

MODULES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""Of each block, in the order of the units' table."""
HOOKS = ("attn.hook_q", "attn.hook_k", "attn.hook_v", "hook_attn_out", "mlp.hook_pre", "hook_mlp_out")
"""TransformerLens's names of the same."""
CHECKED = 64  # sentences whose responses are compared


def main() -> None:
    """Runs the sides one after the other and prints a table, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--tokens_per_batch", type=int, default=1024, help="padding included")
    parser.add_argument("--transformer_lens_python", help="a python that can import transformer_lens")
    add_model_arguments(parser)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # given to the processes that it starts
    parser.add_argument("--directory", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        be_side(arguments)
        return
    show_load()
    pythons = {"expertlens_jax": sys.executable, "pytorch": sys.executable}
    if arguments.transformer_lens_python:
        pythons["transformer_lens"] = arguments.transformer_lens_python
    with tempfile.TemporaryDirectory() as name:
        arguments.directory = pathlib.Path(name)
        num_tokens = prepare(arguments)
        rows = {side: measure(python, side, arguments) for side, python in pythons.items()}
        print_rows(rows, num_tokens, arguments)
    if not arguments.transformer_lens_python:
        print("TransformerLens was left out: give --transformer_lens_python")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The shape of the model; GPT-2's by default."""
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)


def show_load() -> None:
    """How busy the machine is with other things."""
    print(f"load of the machine in the minute before: {os.getloadavg()[0]:.1f} of {num_cores()} cores")


def prepare(arguments: argparse.Namespace) -> int:
    """Writes the model and the sentences into the directory; the number of tokens in them."""
    import expertlens_jax as el

    sentences = el.load_concepts("facts").sentences
    save_tokenizer(arguments.directory, [*sentences, *el.load_concepts("stories").sentences])
    save_gpt2(arguments.directory, layers=arguments.layers, width=arguments.width, heads=arguments.heads)
    sentences = sentences[: arguments.sentences]
    (arguments.directory / "sentences.json").write_text(json.dumps(sentences))
    return sum(map(len, tokenize(arguments.directory, sentences)))


def save_gpt2(directory: pathlib.Path, **shape: int) -> None:
    """A GPT-2 with random weights: by `layers`, `width`, `heads`, and perhaps `vocabulary` and `context`."""
    import torch
    import transformers

    torch.manual_seed(0)
    names = {"layers": "n_layer", "width": "n_embd", "heads": "n_head", "context": "n_positions"}
    names["vocabulary"] = "vocab_size"
    sizes = {names[key]: value for key, value in shape.items()}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)  # a tokenizer's first piece
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)


def save_tokenizer(directory: pathlib.Path, texts: Sequence[str]) -> None:
    """A byte-level BPE tokenizer; 8,000 pieces cut these sentences to about GPT-2's number of tokens a word."""
    import transformers

    tokenizer = tokenizers.ByteLevelBPETokenizer()
    end = "<|endoftext|>"
    tokenizer.train_from_iterator(texts, vocab_size=8000, special_tokens=[end], show_progress=False)
    inner = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end).save_pretrained(directory)


def tokenize(directory: pathlib.Path, sentences: Sequence[str]) -> list[list[int]]:
    """Token ids of each sentence."""
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    return [encoded.ids for encoded in tokenizer.encode_batch(list(sentences))]


def torch_batches(ids: Sequence[Sequence[int]], size: int) -> Iterator[tuple[np.ndarray, "torch.Tensor", Any]]:
    """Sentences by length, the longest first: row numbers, token ids and mask `[batch, tokens]`, padded right."""
    import torch

    lengths = np.array([len(row) for row in ids])
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        rows = order[start : start + max(1, size // longest)]
        token_ids = torch.zeros((len(rows), longest), dtype=torch.long)
        for i, row in enumerate(rows):
            token_ids[i, : lengths[row]] = torch.tensor(ids[row])
        yield rows, token_ids, torch.arange(longest)[None] < torch.tensor(lengths[rows])[:, None]
        start += len(rows)


def pool(values: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """The maximum over a sentence's own tokens: `[batch, tokens, units]` -> `[batch, units]`."""
    if not mask.all():  # most batches hold sentences of one length
        values = values.masked_fill(~mask[..., None], -float("inf"))
    return values.amax(1)


def load_pytorch(directory: pathlib.Path) -> Any:
    """GPT-2 in PyTorch without its head, on all cores."""
    import torch
    import transformers

    torch.set_num_threads(num_cores())
    return transformers.GPT2Model.from_pretrained(directory).eval()


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def record_with_hooks(model: Any, ids: Sequence[Sequence[int]], tokens_per_batch: int) -> np.ndarray:
    """What a careful user of PyTorch would write: float32 `[sentences, units]`."""
    import torch

    modules = [block.get_submodule(name) for block in model.h for name in MODULES]
    starts = np.cumsum([0, *(module.nf for module in modules)])
    values = np.empty((len(ids), starts[-1]), np.float32)
    pooled, mask = None, None

    def keep(start: int, module: Any, inputs: Any, output: "torch.Tensor") -> None:
        pooled[:, start : start + output.shape[-1]] = pool(output, mask)

    def hook(start: int) -> Any:
        return lambda *call: keep(start, *call)

    hooks = [module.register_forward_hook(hook(start)) for module, start in zip(modules, starts[:-1], strict=True)]
    with torch.inference_mode():
        for rows, token_ids, mask in torch_batches(ids, tokens_per_batch):
            pooled = torch.empty(len(rows), starts[-1])
            model(input_ids=token_ids, attention_mask=mask, use_cache=False)
            values[rows] = pooled.numpy()
    for each in hooks:
        each.remove()
    return values


def load_transformer_lens(directory: pathlib.Path) -> Any:
    """The same weights as a TransformerBridge, as they are: nothing folded or centred."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    torch.set_num_threads(num_cores())
    return TransformerBridge.boot_transformers(str(directory), device="cpu")


def record_with_cache(model: Any, ids: Sequence[Sequence[int]], tokens_per_batch: int) -> np.ndarray:
    """TransformerLens's own way, a batch at a time: float32 `[sentences, units]`.

    Its attention is causal and padding stands on the right, so no mask is needed but the pool's.
    """
    import torch

    names = [f"blocks.{layer}.{hook}" for layer in range(model.cfg.n_layers) for hook in HOOKS]
    # Stopping at a layer that there isn't would still compute all logits; so only the last token's are kept.
    options = {"names_filter": names, "return_type": None, "logits_to_keep": 1}
    values = None
    with torch.inference_mode():
        for rows, token_ids, mask in torch_batches(ids, tokens_per_batch):
            _, cache = model.run_with_cache(token_ids, **options)
            pooled = torch.cat([pool(cache[name].flatten(2), mask) for name in names], dim=1)
            if values is None:
                values = np.empty((len(ids), pooled.shape[1]), np.float32)
            values[rows] = pooled.numpy()
    return values


def be_side(arguments: argparse.Namespace) -> None:
    """Loads, records a little, then twice all, when told to; what is told back are lines of JSON."""
    sentences = json.loads((arguments.directory / "sentences.json").read_text())
    record, version = SIDES[arguments.side](arguments)
    record(sentences[:8])
    tell(version=version)
    for _ in range(2):
        sys.stdin.readline()
        start = time.perf_counter()
        values = record(sentences)
        tell(seconds=time.perf_counter() - start, bytes=values.nbytes)
        checked = values[:CHECKED].copy()
        del values
    np.save(arguments.directory / f"{arguments.side}.npy", checked)


def tell(**facts: Any) -> None:
    """A line of JSON to the process that started this one."""
    print(json.dumps(facts), flush=True)


def be_expertlens_jax(arguments: argparse.Namespace) -> tuple[Any, str]:
    """Our side."""
    import jax

    import expertlens_jax as el

    model = el.load_model(str(arguments.directory))
    modules = [name.partition(".h.")[2].partition(".")[2] for name in model.units["hf_module"]]
    if list(dict.fromkeys(modules)) != list(MODULES):
        raise RuntimeError(f"units are of {list(dict.fromkeys(modules))}; wanted {list(MODULES)} in this order")

    def record(sentences: Sequence[str]) -> np.ndarray:
        return el.record_responses(model, sentences, tokens_per_batch=arguments.tokens_per_batch).values

    return record, f"jax {jax.__version__}"


def be_pytorch(arguments: argparse.Namespace) -> tuple[Any, str]:
    """PyTorch's side."""
    import torch
    import transformers

    model = load_pytorch(arguments.directory)

    def record(sentences: Sequence[str]) -> np.ndarray:
        return record_with_hooks(model, tokenize(arguments.directory, sentences), arguments.tokens_per_batch)

    return record, f"torch {torch.__version__}, transformers {transformers.__version__}"


def be_transformer_lens(arguments: argparse.Namespace) -> tuple[Any, str]:
    """TransformerLens's side."""
    from importlib.metadata import version

    model = load_transformer_lens(arguments.directory)

    def record(sentences: Sequence[str]) -> np.ndarray:
        return record_with_cache(model, tokenize(arguments.directory, sentences), arguments.tokens_per_batch)

    return record, f"transformer_lens {version('transformer_lens')}, torch {version('torch')}"


SIDES = {"expertlens_jax": be_expertlens_jax, "pytorch": be_pytorch, "transformer_lens": be_transformer_lens}


def measure(python: str, side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs a side in its own process: its version, seconds of the passes, and peak bytes over those before."""
    command = [python, __file__, "--side", side, "--directory", str(arguments.directory)]
    command += ["--tokens_per_batch", str(arguments.tokens_per_batch)]
    with started(command) as process:
        row = hear(process)
        before = anonymous(process.pid)
        with sampled_peak(process.pid) as peak:
            first = hear(process, "go")
        second = hear(process, "go")
    row |= {"first": first["seconds"], "second": second["seconds"], "responses": second["bytes"]}
    return row | {"peak": max(peak) - before}


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen]:
    """A process that is told things in lines and tells lines of JSON."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def hear(process: subprocess.Popen, told: str = "") -> dict[str, Any]:
    """What a process tells next, once it was told to go on; what its libraries print is passed over."""
    if told:
        process.stdin.write(told + "\n")
        process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError("a process that measures failed; see above")


@contextlib.contextmanager
def sampled_peak(pid: int) -> Iterator[list[int]]:
    """A list whose one number is a process's peak anonymous memory in bytes while this is open.

    Sampled every 10 ms, which takes a core's hundredth part at most.
    """
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], anonymous(pid))
            done.wait(0.01)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def print_rows(rows: dict[str, dict[str, Any]], num_tokens: int, arguments: argparse.Namespace) -> None:
    """The table, and how far responses are apart."""
    ours = rows["expertlens_jax"]
    print(f"{arguments.sentences} sentences, {num_tokens} tokens, on {num_cores()} cores; responses (in all peaks):")
    print(f"{ours['responses'] / MB:.0f} MB. A ratio is how many times as fast or as small expertlens_jax is.")
    header = f"{'':17} {'tokens/s':>9} {'(first pass)':>12} {'ratio':>6} {'peak MB':>8} {'ratio':>6}"
    print(f"{header} {'less responses':>15} {'ratio':>6}")
    for side, row in rows.items():
        rate, first = num_tokens / row["second"], num_tokens / row["first"]
        rest, our_rest = (each["peak"] - each["responses"] for each in (row, ours))
        faster, smaller = row["second"] / ours["second"], row["peak"] / ours["peak"]
        figures = f"{rate:9.0f} {first:12.0f} {faster:6.2f} {row['peak'] / MB:8.0f} {smaller:6.2f}"
        print(f"{side:17} {figures} {rest / MB:15.0f} {rest / our_rest:6.2f}   {row['version']}")
    values = {side: np.load(arguments.directory / f"{side}.npy") for side in rows}
    apart = {side: np.abs(each - values["expertlens_jax"]).max() for side, each in values.items()}
    apart.pop("expertlens_jax")
    told = ", ".join(f"{side} {difference:.1e}" for side, difference in apart.items())
    print(f"largest difference of responses from ours, {len(values['pytorch'])} sentences: {told}")


if __name__ == "__main__":
    main()
