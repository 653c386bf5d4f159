"""Ranking all units for all concepts: against one sort of the same matrix, and against scikit-learn unit by unit.

    python benchmarks/ranking.py [--model DIRECTORY_OR_ID | --responses FILE.npy | --units 20736]

The sentences and concepts are the packaged `facts` (7,040 and 176). The responses are a model's to these sentences,
or a file's, float32 [sentences, units]; without either they are random. scikit-learn is timed on a sample of
(concept, unit) pairs and multiplied up; the same sample shows the largest difference in AP. Ours is the median of 3.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from sklearn.metrics import average_precision_score

import expertlens_jax as el
from expertlens_jax.experts import ranking
from expertlens_jax.experts.measuring import measure
from expertlens_jax.experts.orders import Scratch, empty_orders, order_on_device, order_on_host


def main() -> None:
    """Times the three in one run and prints their ratios, then ours by part."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", help="a Hugging Face directory or hub id, whose responses are recorded first")
    source.add_argument("--responses", help="a .npy file of responses to the sentences of `facts`")
    source.add_argument("--units", type=int, default=20_736, help="of random responses")
    parser.add_argument("--sampled_pairs", type=int, default=300)
    arguments = parser.parse_args()

    concepts = el.load_concepts("facts")
    contrast = el.contrast_concepts(concepts)
    values, kind = responses_from(arguments, concepts)
    (num_concepts, num_sentences), num_units = concepts.labels.shape, values.shape[1]

    ranked, first = timed(lambda: ranking.rank_units(values, contrast))
    ours = statistics.median(timed(lambda: ranking.rank_units(values, contrast))[1] for _ in range(3))
    ranking.rank_units(values[:, :256], contrast, transport=False)  # compiles
    _, without = timed(lambda: ranking.rank_units(values, contrast, transport=False))
    by_unit = np.ascontiguousarray(values.T)
    _, floor = timed(lambda: [np.argsort(block, axis=1) for block in np.array_split(by_unit, 64)])

    weights = contrast.weights()
    pairs = np.random.default_rng(0).integers([num_concepts, num_units], size=(arguments.sampled_pairs, 2))

    def scikit_learn() -> list[float]:
        return [average_precision_score(concepts.labels[c], by_unit[u], sample_weight=weights[c]) for c, u in pairs]

    theirs, sampled = timed(scikit_learn)
    extrapolated = sampled / len(pairs) * num_concepts * num_units
    error = np.abs(ranked.average_precision[tuple(pairs.T)] - theirs).max()

    print(f"{num_concepts} concepts x {num_sentences} sentences x {num_units} units, {kind}")
    print(f"on {jax.local_device_count()} {jax.local_devices()[0].device_kind}, jax {jax.__version__}")
    print(f"expertlens_jax       {ours:10.2f} s   ({first:.2f} s with compilation)")
    print(f"without transport    {without:10.2f} s   {without / floor:.2f} x as long as np.argsort")
    print(f"np.argsort           {floor:10.2f} s   ours takes {ours / floor:.2f} x as long")
    print(f"scikit-learn         {extrapolated:10.0f} s   ours is {extrapolated / ours:,.0f} x as fast (extrapolated)")
    print(f"largest difference in AP from scikit-learn: {error:.1e}")
    sort, rest = parts(values, ranking.concept_sets(contrast))
    print(f"ours by part, on one core: ordering {sort:.2f} s, measuring {rest:.2f} s")


def responses_from(arguments: argparse.Namespace, concepts: el.ConceptDataset) -> tuple[np.ndarray, str]:
    """Responses float32 [sentences, units] and what they are, in words."""
    if arguments.model:
        responses = el.record_responses(el.load_model(arguments.model), concepts.sentences)
        return responses.values, f"responses of {responses.model}"
    if arguments.responses:
        return np.load(arguments.responses), f"responses in {arguments.responses}"
    shape = len(concepts.sentences), arguments.units
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32), "random responses"


def parts(values: np.ndarray, sets: ranking.ConceptSets) -> tuple[float, float]:
    """Seconds of ordering and of measuring, each alone: medians of 3, of 1,024 units, for all on one core."""
    width = 32 if jax.default_backend() == "cpu" else 1024
    blocks = [np.ascontiguousarray(values[:, start : start + width]) for start in range(0, 1024 - width + 1, width)]
    room, scratch = empty_orders(sets, width), Scratch.empty(sets, width)

    def order(block: np.ndarray) -> object:
        if jax.default_backend() == "cpu":
            order_on_host(block, sets, room, scratch)
            return room
        return on_device(block, sets)

    on_device, measured = jax.jit(order_on_device), jax.jit(measure)
    ordered = order(blocks[0])
    jax.block_until_ready(measured(ordered, sets))  # compiles
    times = values.shape[1] / (width * len(blocks))
    sort = median_of_three(lambda: jax.block_until_ready([order(block) for block in blocks]))
    return sort * times, times * median_of_three(
        lambda: jax.block_until_ready([measured(ordered, sets) for _ in blocks])
    )


def median_of_three(work: Callable[[], object]) -> float:
    """Seconds."""
    return statistics.median(timed(work)[1] for _ in range(3))


def timed(work):  # noqa: ANN001, ANN201
    """What `work()` returns, and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
