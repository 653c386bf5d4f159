"""How the time and the memory of finding experts grow as concepts, sentences, tokens a sentence and units double.

    python benchmarks/growth.py [--doublings 4]

Each grows alone, the others as at the base; units grow by layers. Sentences are random words of a token each, every
concept has 32 of them, and the model is a small GPT-2 with random weights. Each point is a process of its own, which
runs `find_experts` twice, without halves or permutations: the first run compiles, the second, into a fresh directory,
is counted. Memory is its peak, anonymous memory as in `loading_memory.py`, above what the process holds between the
two (model, programs, libraries), once the allocator has given back what is free. Responses wait in it: they take 4
bytes a sentence and unit, up to `find_experts`'s budget. With `--positives` only ranking is timed, of random
responses to 6,400 sentences that concepts of 40 to 1,600 positives share among them, against one `np.argsort` of the
same matrix, in turns: processor seconds, over the cores that ranking has, so that other work on the machine weighs
less. The exponents are least squares over the points, log on log:
1 is in proportion, 0 is not at all. The figure is written beside this file. Linux only.
"""

import argparse
import ctypes
import dataclasses
import gc
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from loading_memory import MB, anonymous
from recording import hear, sampled_peak, save_gpt2, started, tell

VOCABULARY, WIDTH, HEADS, CONTEXT = 1024, 128, 4, 512
POSITIVES = 32


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a job; the base by default, where every sentence is a positive of one concept."""

    concepts: int = 64
    sentences: int = 64 * POSITIVES
    tokens: int = 8
    layers: int = 4

    def grown(self, name: str, times: int) -> "Size":
        """One number of it multiplied."""
        return dataclasses.replace(self, **{name: times * getattr(self, name)})


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a run."""

    seconds: float
    megabytes: float


QUANTITIES = {"concepts": "concepts", "sentences": "sentences", "tokens": "tokens a sentence", "layers": "units"}


def main() -> None:
    """Measures all points and shows them, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--doublings", type=int, default=4, help="points of each line, less one")
    parser.add_argument("--positives", action="store_true", help="ranking alone, over the positives of a concept")
    parser.add_argument("--figure", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".png"))
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)  # given to the processes that it starts
    parser.add_argument("--directory", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.positives:
        grow_positives()
        return
    if arguments.point:
        be_point(arguments.directory, Size(**arguments.point))
        return
    measured: dict[Size, Cost] = {}
    lines = {name: [Size().grown(name, 2**i) for i in range(arguments.doublings + 1)] for name in QUANTITIES}
    print("| grows | to | seconds | peak MB |\n| --- | --- | --- | --- |")
    for name, sizes in lines.items():
        for size in sizes:
            if size not in measured:  # the base is on every line
                measured[size] = measure(size)
            cost, value = measured[size], shown(name, size)
            print(f"| {QUANTITIES[name]} | {value:,} | {cost.seconds:.2f} | {cost.megabytes:.0f} |", flush=True)
    costs = {name: [measured[size] for size in sizes] for name, sizes in lines.items()}
    print("\n| grows | exponent of seconds | of memory |\n| --- | --- | --- |")
    for name, each in costs.items():
        print(f"| {QUANTITIES[name]} | {exponent(of(each, 'seconds')):.2f} | {exponent(of(each, 'megabytes')):.2f} |")
    draw(arguments.figure, lines, costs)


def grow_positives(num_sentences: int = 6400, num_units: int = 512, rounds: int = 5) -> None:
    """Prints ranking's ratio to np.argsort over the positives of a concept, with transport and without."""
    import expertlens_jax as el
    from expertlens_jax.experts.ranking import rank_units
    from expertlens_jax.parallel import num_cores

    values = np.random.default_rng(0).standard_normal((num_sentences, num_units), np.float32)
    by_unit = np.ascontiguousarray(values.T)
    print("| positives a concept | concepts | ranking / np.argsort | without transport |\n| --- | --- | --- | --- |")
    for positives in (40, 160, 400, 800, 1600):
        labels = np.repeat(np.eye(num_sentences // positives, dtype=bool), positives, axis=1)
        names = tuple(f"concept{i}" for i in range(len(labels)))
        sentences = tuple(map(str, range(num_sentences)))
        everything = np.ones(num_sentences, bool)
        concepts = el.ConceptDataset("random", sentences, names, ("",) * len(names), labels, everything)
        contrast = el.contrast_concepts(concepts)
        works = [
            lambda: [np.argsort(block, axis=1) for block in np.array_split(by_unit, 16)],
            lambda contrast=contrast: rank_units(values, contrast),
            lambda contrast=contrast: rank_units(values, contrast, transport=False),
        ]
        for work in works:
            work()  # compiles
        floor, ours, without = np.min([[processor_seconds(work) for work in works] for _ in range(rounds)], axis=0)
        cores = floor * num_cores()
        print(f"| {positives:,} | {len(names)} | {ours / cores:.2f} | {without / cores:.2f} |", flush=True)


def processor_seconds(work) -> float:  # noqa: ANN001
    """Of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def shown(name: str, size: Size) -> int:
    """A quantity, units for layers: those of c_attn, c_proj, c_fc and the MLP's c_proj."""
    return 9 * WIDTH * size.layers if name == "layers" else getattr(size, name)


def of(costs: Sequence[Cost], name: str) -> list[float]:
    """Seconds or megabytes of a line."""
    return [getattr(cost, name) for cost in costs]


def exponent(costs: Sequence[float]) -> float:
    """Of the growth of a line whose points double."""
    return float(np.polyfit(np.arange(len(costs)), np.log2(costs), 1)[0])


def measure(size: Size) -> Cost:
    """Runs a point in its own process."""
    with tempfile.TemporaryDirectory() as directory:
        shape = {"width": WIDTH, "heads": HEADS, "vocabulary": VOCABULARY, "context": CONTEXT}
        save_gpt2(pathlib.Path(directory) / "model", layers=size.layers, **shape)
        save_word_tokenizer(pathlib.Path(directory) / "model")
        point = json.dumps(dataclasses.asdict(size))
        with started([sys.executable, __file__, "--point", point, "--directory", directory]) as process:
            hear(process)
            before = anonymous(process.pid)
            with sampled_peak(process.pid) as peak:
                seconds = hear(process, "go")["seconds"]
        return Cost(seconds, (max(peak) - before) / MB)


def save_word_tokenizer(directory: pathlib.Path) -> None:
    """A tokenizer whose words are numbers."""
    import tokenizers
    import transformers

    vocabulary = {str(i) if i else "[PAD]": i for i in range(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(directory)


def be_point(directory: pathlib.Path, size: Size) -> None:
    """Loads the model and runs once, then once more, when told to."""
    import expertlens_jax as el

    model, concepts = el.load_model(str(directory / "model")), random_concepts(size)

    def run(workdir: pathlib.Path) -> float:
        start = time.perf_counter()
        el.find_experts(model, concepts, workdir, halves=False, permutations=0)
        return time.perf_counter() - start

    compiling = run(directory / "first")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # glibc's; else what the first run freed would hide what the second takes
    tell(seconds=compiling)
    sys.stdin.readline()
    tell(seconds=run(directory / "second"))


def random_concepts(size: Size):  # noqa: ANN201 (expertlens_jax is a measured process's import)
    """Random sentences, dealt out to concepts: all once, then, where concepts need more, all once more."""
    import expertlens_jax as el

    rng = np.random.default_rng(0)
    words = rng.integers(1, VOCABULARY, (size.sentences, size.tokens))
    rounds = -(-size.concepts * POSITIVES // size.sentences)
    dealt = np.concatenate([rng.permutation(size.sentences) for _ in range(rounds)])
    labels = np.zeros((size.concepts, size.sentences), bool)
    np.put_along_axis(labels, dealt[: size.concepts * POSITIVES].reshape(size.concepts, POSITIVES), True, axis=1)
    return el.ConceptDataset(
        name="random",
        sentences=tuple(" ".join(map(str, row)) for row in words),
        concepts=tuple(f"concept{i}" for i in range(size.concepts)),
        domains=("",) * size.concepts,
        labels=labels,
        negative_pool=np.ones(size.sentences, bool),
    )


def draw(file: pathlib.Path, lines: dict[str, list[Size]], costs: dict[str, list[Cost]]) -> None:
    """Two panels, time and memory; a line for each quantity, with its exponent."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    from expertlens_jax.plot.style import FAINT, colours, styled

    with styled():
        figure = Figure(figsize=(7.2, 3.3), layout="constrained")
        shade = colours(list(QUANTITIES.values()))
        panels = {"seconds": "Seconds, compiled", "megabytes": "Peak memory above the idle process's, MB"}
        for axes, (cost, title) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            for name, sizes in lines.items():
                values, times = of(costs[name], cost), 2 ** np.arange(len(sizes))
                span = f"{shown(name, sizes[0]):,} to {shown(name, sizes[-1]):,}"
                label = f"{QUANTITIES[name]}, {span}: {exponent(values):.2f}"
                axes.plot(times, values, marker="o", markersize=3, color=shade[QUANTITIES[name]], label=label)
            low = of(costs["concepts"], cost)[0]  # the base
            axes.plot(times, low * times, color=FAINT, linewidth=0.8, linestyle=":", label="in proportion: 1")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(times, [f"×{each}" for each in times])
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.set_xlabel("Times the base, the others fixed")
            axes.set_title(title)
            axes.legend(title="what grows: exponent", alignment="left", loc="upper left", fontsize=6.5)
        figure.savefig(file, dpi=200, facecolor="white")


if __name__ == "__main__":
    main()
