"""What one accelerator does, measured: recording and ranking, right and fast, in under eight minutes.

    python benchmarks/on_device.py --json=h100.json      # on a machine with one accelerator
    python benchmarks/on_device.py --small               # anywhere: the same steps at small sizes

Steps, each with a time of its own and none that another's failure stops; one table at the end:

- the rate of a large bfloat16 matrix product: the peak that the others are held against;
- recording against the CPU: pooled responses of a small model in float32, the same weights and tokens;
- ranking against scikit-learn: average precision with ties and weights;
- a plain sort of a block of units at MEN's size, and what ranking takes over it (wanted: at most 2 times as long);
- recording at the shapes of Pythia-1b and 6.9b, random weights in bfloat16 (wanted: at least 60% of the peak);
- ranking's share of a whole run of MEN's sentences through Pythia-1b (wanted: at most 10%);
- from these, what MEN x Pythia-12b would take on this one device.

Everything is made on the device; no weights are downloaded. Unlike `compile_for.py`, whose figures are a compiler's
estimates, these are measurements of the device that the table names.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from compile_for import matmul_flops
from programs import find_config
from sklearn.metrics import average_precision_score

from expertlens_jax.data.contrast import Contrast
from expertlens_jax.experts import ranking
from expertlens_jax.experts.concept_sets import concept_sets
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.model import respond
from expertlens_jax.models.taps import Taps
from expertlens_jax.models.tokens import tokens_per_batch_of
from expertlens_jax.models.transformer import Transformer

TOTAL_SECONDS = 460  # under eight minutes, with what comes before and after the steps
TOKENS = 32


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the steps are."""

    matrix: int
    """Rows and columns of the product that gives the peak."""
    concepts: int
    sentences_per_concept: int
    models: tuple[str, str]
    """The smaller and the larger recorded shape."""
    extrapolated: str
    repeats: int
    most_ranked: int
    """Numbers in the block that is ranked."""
    patience: int
    """By what steps may take longer: at small sizes, nobody pays for the device."""

    @property
    def sentences(self) -> int:
        """Of all concepts."""
        return self.concepts * self.sentences_per_concept


FULL = Sizes(8192, 751, 100, ("Pythia-1b", "Pythia-6.9b"), "Pythia-12b", 5, 2**28, 1)
SMALL = Sizes(256, 12, 10, ("Lenslet-5m", "Lenslet-5m"), "Lenslet-5m", 1, 2**16, 10)


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step found."""

    name: str
    found: str = ""
    """In words."""
    wanted: str = ""
    met: bool | None = None
    """Whether what was wanted was found; None: nothing was, or the step gave nothing."""
    why_not: str = ""
    """Why there is nothing."""
    seconds: float = 0.0
    figures: dict[str, float] = dataclasses.field(default_factory=dict)


Found = tuple[str, str, bool | None, dict[str, float]]
"""Of a step: in words, what was wanted, whether it was met, and figures, which later steps may use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the steps and prints the table; returns 1 if one gave nothing or isn't what was wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--small", action="store_true", help="small sizes, to try the script where there's no accelerator"
    )
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file as well")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="for all steps together")
    asked = parser.parse_args(arguments)
    device = jax.devices()[0]
    named = f"{device.device_kind} ({device.platform}), jax {jax.__version__}"
    if device.platform == "cpu" and not asked.small:
        print(
            "Error: there is only a CPU here; give --small to try the steps, or run on an accelerator.", file=sys.stderr
        )
        return 1
    sizes = SMALL if asked.small else FULL
    steps = run_steps(all_steps(sizes), sizes.patience * asked.seconds)
    title = f"Measured on {named}, one device" + (" (small sizes: figures mean nothing)" if asked.small else "")
    print(format_table(title, steps))
    if asked.json:
        listed = [dataclasses.asdict(step) for step in steps]
        asked.json.write_text(json.dumps({"device": named, "small": asked.small, "steps": listed}, indent=1))
    return int(any(step.why_not or step.met is False for step in steps))


def run_steps(steps: Sequence[tuple[str, float, Callable[[dict[str, float]], Found]]], total: float) -> list[Step]:
    """Runs each step in a thread of its own for at most its seconds; whatever happens in it, the next one follows.

    Args:
      steps: name, the most seconds, and what to do with the figures so far.
      total: seconds for all.
    """
    end, so_far, done = time.perf_counter() + total, {}, []
    for name, most, work in steps:
        print(f"{name} ...", file=sys.stderr, flush=True)
        start, outcome = time.perf_counter(), {}
        thread = threading.Thread(target=_run, args=(work, dict(so_far), outcome), daemon=True)
        room = min(most, end - start)
        if room > 0:
            thread.start()
            thread.join(room)
        took = time.perf_counter() - start
        if "found" in outcome:
            found, wanted, met, figures = outcome["found"]
            so_far |= figures
            done.append(Step(name, found, wanted, met, "", took, figures))
        else:
            late = f"stopped after {took:.0f} s" if room > 0 else "no time was left"
            done.append(Step(name, why_not=outcome.get("failed", late), seconds=took))
    return done


def _run(work: Callable[[dict[str, float]], Found], so_far: dict[str, float], outcome: dict[str, Any]) -> None:
    try:
        outcome["found"] = work(so_far)
    except KeyError as error:
        outcome["failed"] = f"needs {error.args[0]}, which no step before gave"
    except Exception as error:  # of whatever kind: the table must come out
        traceback.print_exc()
        line = (str(error).splitlines() or [""])[0]
        outcome["failed"] = f"{type(error).__name__}: {line[:120]}"


def format_table(title: str, steps: Sequence[Step]) -> str:
    """A line a step."""
    cells = [("step", "found", "wanted", "met", "seconds")]
    for step in steps:
        met = "" if step.met is None else "yes" if step.met else "NO"
        cells.append((step.name, step.found or f"nothing: {step.why_not}", step.wanted, met, f"{step.seconds:.1f}"))
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([title, *lines])


def all_steps(sizes: Sizes) -> list[tuple[str, float, Callable[[dict[str, float]], Found]]]:
    """Every step with the seconds that it may take; they add up to less than eight minutes."""
    smaller, larger = sizes.models
    steps = [
        ("matrix product", 30, lambda _: product_rate(sizes)),
        ("recording against the CPU", 60, lambda _: recording_parity()),
        ("ranking against scikit-learn", 60, lambda _: ranking_parity()),
        ("ranking over a sort", 90, lambda _: ranking_over_sort(sizes)),
        (f"recording {smaller}", 80, lambda so_far: recording_rate(sizes, smaller, "smaller", so_far)),
        (f"recording {larger}", 110, lambda so_far: recording_rate(sizes, larger, "larger", so_far)),
        ("ranking's share", 10, lambda so_far: ranking_share(sizes, so_far)),
        (f"extrapolated to {sizes.extrapolated}", 10, lambda so_far: extrapolate(sizes, so_far)),
    ]
    return [(name, sizes.patience * most, work) for name, most, work in steps]


def seconds_of(work: Callable[[], Any], repeats: int) -> float:
    """The median, after one run that compiles."""
    jax.block_until_ready(work())
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(work())
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def product_rate(sizes: Sizes) -> Found:
    """Ten products in a row, each of the last one's result, so that none is waited for."""
    n = sizes.matrix
    a, b = (jax.random.normal(jax.random.key(i), (n, n), jnp.bfloat16) / n**0.5 for i in range(2))
    ten = jax.jit(lambda a, b: jax.lax.fori_loop(0, 10, lambda _, a: (a @ b).astype(a.dtype), a))
    rate = 10 * 2 * n**3 / seconds_of(lambda: ten(a, b), sizes.repeats)
    return f"{rate / 1e12:,.3g} TFLOP/s in bfloat16", "", None, {"peak": rate}


def random_parameters(config: TransformerConfig, dtype: Any) -> Any:
    """Drawn on the default device."""
    token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    network = Transformer(config, dtype=dtype)
    return jax.jit(lambda key: network.init(key, token, mask, mask)["params"])(jax.random.key(0))


def random_batch(config: TransformerConfig, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask `[rows, TOKENS]`, padded on the right as sentences are."""
    random = np.random.default_rng(0)
    token_ids = random.integers(0, config.vocab_size, (rows, TOKENS)).astype(np.int32)
    return token_ids, np.arange(TOKENS) < random.integers(TOKENS - 7, TOKENS + 1, (rows, 1))


def recording_parity() -> Found:
    """The same float32 weights and tokens on the device and on the host's CPU."""
    config = find_config("Lenslet-5m")
    host = jax.devices("cpu")[0]
    network = Transformer(config, Taps(config.default_sites()), jnp.float32)
    with jax.default_device(host):
        params = random_parameters(config, jnp.float32)
    token_ids, mask = random_batch(config, 32)
    with jax.default_matmul_precision("highest"):
        theirs, ours = (
            np.asarray(respond(network, *jax.device_put((params, token_ids, mask, mask), device), None))
            for device in (host, jax.devices()[0])
        )
    apart = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return f"responses differ by {apart:.1e} of the largest", "1e-4", apart <= 1e-4, {"responses_apart": apart}


def concepts_of(num_concepts: int, each: int) -> Contrast:
    """Concepts of their own sentences, each against the sentences of all others."""
    sentences = num_concepts * each
    positives = np.arange(sentences, dtype=np.int32).reshape(num_concepts, each)
    weight = np.full(num_concepts, 2.5 / (num_concepts - 1), np.float32)
    taken_out = np.full(positives.shape, -1, np.float32)
    return Contrast(positives, np.ones(sentences, bool), positives, taken_out, weight)


def ranking_parity() -> Found:
    """Responses of few different values, so that many tie."""
    contrast = concepts_of(12, 20)
    values = np.random.default_rng(0).normal(size=(240, 128)).round(1).astype(np.float32)
    precision = np.asarray(ranking.rank_units(values, contrast).average_precision)
    weights = contrast.weights()
    apart = 0.0
    for concept in range(12):
        labels = np.isin(np.arange(240), contrast.positives[concept])
        for unit in range(0, 128, 8):
            theirs = average_precision_score(labels, values[:, unit], sample_weight=weights[concept])
            apart = max(apart, abs(float(precision[concept, unit]) - theirs))
    return f"average precision differs by {apart:.1e}", "1e-6", apart <= 1e-6, {"precision_apart": apart}


def ranking_over_sort(sizes: Sizes) -> Found:
    """A block as wide as a run's: its plain sort, and its ranking, on responses that are there already."""
    sets = concept_sets(concepts_of(sizes.concepts, sizes.sentences_per_concept))
    width = block_width(sizes, sets)
    block = jax.random.normal(jax.random.key(0), (sizes.sentences, width), jnp.float32)
    sort = jax.jit(lambda block: jax.lax.sort(block.T, dimension=1, is_stable=False))
    sorting = seconds_of(lambda: sort(block), sizes.repeats)
    blocks = jax.pmap(lambda block: block, devices=jax.local_devices())(
        jnp.broadcast_to(block, (jax.local_device_count(), *block.shape))
    )
    ranks = seconds_of(lambda: jax.tree.leaves(ranking.rank_blocks(blocks, sets)), min(3, sizes.repeats))
    keys = sizes.sentences * width / sorting
    figures = {"seconds_per_ranked_unit": ranks / width, "keys_per_second": keys, "ranking_over_sort": ranks / sorting}
    found = f"sort {keys / 1e9:.3g} G keys/s; ranking {ranks / sorting:.2f} x as long ({width:,} units at once)"
    return found, "2 x", ranks <= 2 * sorting, figures


def block_width(sizes: Sizes, sets: Any) -> int:
    """Units that a run ranks at once, but no more than a gigabyte of responses for a quick look."""
    return max(1, min(ranking.units_per_block(sizes.sentences, sets), sizes.most_ranked // sizes.sentences))


def recording_rate(sizes: Sizes, name: str, kind: str, so_far: dict[str, float]) -> Found:
    """Batches of the size that a run would take, one after the other."""
    config = find_config(name)
    network = Transformer(config, Taps(config.default_sites()), jnp.bfloat16)
    params = random_parameters(config, jnp.bfloat16)
    rows = tokens_per_batch_of(jax.devices()[0].platform) // TOKENS
    arrays = jax.device_put((*random_batch(config, rows),))
    arrays = (*arrays, arrays[1])
    flops = matmul_flops(respond.trace(network, params, *arrays, None).jaxpr)

    def three() -> list[jax.Array]:
        return [respond(network, params, *arrays, None) for _ in range(3)]

    rate = 3 * flops / seconds_of(three, sizes.repeats)
    figures = {f"{kind}_rate": rate, f"{kind}_flops_per_sentence": flops / rows}
    share = rate / so_far["peak"]
    found = f"{rate / 1e12:,.3g} TFLOP/s, {share:.0%} of the product's ({rows} x {TOKENS} tokens)"
    return found, "60%", share >= 0.6, figures | {f"{kind}_mfu": share}


def num_units(config: TransformerConfig) -> int:
    """Of the default sites of all layers."""
    return config.num_layers * sum(config.site_channels()[site] for site in config.default_sites())


def ranking_share(sizes: Sizes, so_far: dict[str, float]) -> Found:
    """Of recording and ranking all of MEN's sentences with the smaller model."""
    records = sizes.sentences * so_far["smaller_flops_per_sentence"] / so_far["smaller_rate"]
    ranks = num_units(find_config(sizes.models[0])) * so_far["seconds_per_ranked_unit"]
    share = ranks / (records + ranks)
    found = f"{share:.0%} ({records:,.3g} s of recording, {ranks:,.3g} s of ranking)"
    return found, "10%", share <= 0.1, {"ranking_share": share}


def extrapolate(sizes: Sizes, so_far: dict[str, float]) -> Found:
    """Recording at the rate of the larger model that was measured, and ranking at its own."""
    config, measured = find_config(sizes.extrapolated), find_config(sizes.models[1])
    flops = so_far["larger_flops_per_sentence"] * kernel_size(config) / kernel_size(measured)
    records = sizes.sentences * flops / so_far["larger_rate"]
    ranks = num_units(config) * so_far["seconds_per_ranked_unit"]
    found = (
        f"{(records + ranks) / 3600:.3g} hours for {sizes.concepts} concepts x {sizes.sentences_per_concept} sentences "
        f"x {num_units(config):,} units"
    )
    return found, "", None, {"extrapolated_seconds": records + ranks}


def kernel_size(config: TransformerConfig) -> int:
    """Numbers in the kernels of all layers: two operations a token for each."""
    heads = (config.num_heads + config.num_kv_heads) * config.head_dim * 2
    return (
        config.num_layers
        * config.d_model
        * (heads + (3 if config.gated else 2) * config.d_mlp * max(1, config.experts_per_token))
    )


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a step that was stopped may still wait for the device
