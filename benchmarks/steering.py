"""Steerings measured in batches that they share, against one at a time: the same texts, the same numbers.

    python benchmarks/steering.py --size small --trials 16

The trials are the first of `experiments.steering` on `configs/demo.py:SIZE`, whose model, prompts, seeds and tokens
they have, on a table of their own concepts alone. Both ways take turns, so that what else the machine does falls on
both; each one's first run, which compiles, is left out, and the best of the others counts, in processor seconds.
"""

import argparse
import time
from collections.abc import Callable, Mapping

from expertlens_jax.configs.demo import VARIANTS, get_config
from expertlens_jax.experiments.steering_settings import read_design, read_writing
from tqdm.auto import tqdm

import expertlens_jax as el
from expertlens_jax.analysis.steering.trials import measure_trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[size for size in VARIANTS if size != "novels"], default="small")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    config = get_config(arguments.size)
    settings = config.steering
    facts, model = el.load_concepts("facts"), el.load_model(config.model)
    steered = {*settings.concepts, *(name for pair in settings.away for name in pair)}
    members = [
        name
        for name, domain in zip(facts.concepts, facts.domains, strict=True)
        if name in steered or domain in settings.domains
    ]
    concepts, elsewhere = facts.subset(members), el.load_concepts("stories").subset(members)
    expertise = el.measure_expertise(el.record_responses(model, concepts.sentences), concepts)
    design, writing = read_design(config), read_writing(config, elsewhere)
    trials = design.trials()[: arguments.trials]

    def together() -> Mapping[str, object]:
        return {trial.name: found for trial, found in measure_trials(model, expertise, trials, writing, design)}

    def alone() -> Mapping[str, object]:
        each = (measure_trials(model, expertise, [trial], writing, design, together=1) for trial in trials)
        return {trial.name: found for (one,) in map(list, each) for trial, found in [one]}

    ways = {"together": together, "alone": alone}
    found = {name: way() for name, way in ways.items()}
    seconds = {name: [] for name in ways}
    for _ in tqdm(range(arguments.repeats), unit="turn"):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    best = {name: min(times) / len(trials) for name, times in seconds.items()}
    print(f"{len(trials)} steerings of {model.name} ({arguments.size}): processor seconds a steering")
    print(f"in batches that they share {best['together']:.3f}, one at a time {best['alone']:.3f}", end="; ")
    same = texts(found["alone"]) == texts(found["together"])
    print(f"ratio {best['alone'] / best['together']:.2f}; {'the same texts' if same else 'TEXTS DIFFER'}")


def timed(way: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    began = time.process_time()
    way()
    return time.process_time() - began


def texts(found: Mapping[str, object]) -> list[object]:
    """What was written under each steering."""
    return [each["texts"] for each in found.values()]


if __name__ == "__main__":
    main()
