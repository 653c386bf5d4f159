"""Ranking all units for all concepts: against one sort of the same matrix, and against scikit-learn unit by unit.

    python benchmarks/ranking.py [--units 20736]

The sentences and concepts are the packaged `facts` (7,040 and 176), the responses random. scikit-learn is timed on
a sample of (concept, unit) pairs and multiplied up; the same sample shows the largest difference in AP.
"""

import argparse
import time

import numpy as np
from sklearn.metrics import average_precision_score

import expertlens_jax as el
from expertlens_jax.experts.ranking import rank_units


def main() -> None:
    """Times the three in one run and prints their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=20_736)
    parser.add_argument("--sampled_pairs", type=int, default=300)
    arguments = parser.parse_args()

    concepts = el.load_concepts("facts")
    contrast = el.contrast_concepts(concepts)
    num_concepts, num_sentences = concepts.labels.shape
    rng = np.random.default_rng(0)
    values = rng.standard_normal((num_sentences, arguments.units), dtype=np.float32)

    ranking, first = timed(lambda: rank_units(values, contrast))
    _, ours = timed(lambda: rank_units(values, contrast))
    by_unit = np.ascontiguousarray(values.T)
    _, floor = timed(lambda: [np.argsort(block, axis=1) for block in np.array_split(by_unit, 64)])

    weights = contrast.weights()
    pairs = rng.integers([num_concepts, arguments.units], size=(arguments.sampled_pairs, 2))

    def scikit_learn() -> list[float]:
        return [average_precision_score(concepts.labels[c], by_unit[u], sample_weight=weights[c]) for c, u in pairs]

    theirs, sampled = timed(scikit_learn)
    extrapolated = sampled / len(pairs) * num_concepts * arguments.units
    error = np.abs(ranking.average_precision[tuple(pairs.T)] - theirs).max()

    print(f"{num_concepts} concepts x {num_sentences} sentences x {arguments.units} units")
    print(f"expertlens_jax       {ours:10.1f} s   ({first:.1f} s with compilation)")
    print(f"np.argsort           {floor:10.1f} s   ours takes {ours / floor:.2f} x as long")
    print(f"scikit-learn         {extrapolated:10.0f} s   ours is {extrapolated / ours:,.0f} x as fast (extrapolated)")
    print(f"largest difference in AP from scikit-learn: {error:.1e}")


def timed(work):  # noqa: ANN001, ANN201
    """What `work()` returns, and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
