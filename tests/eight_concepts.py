"""A small suite of eight concepts on the packaged model, with made-up ratings of all their pairs."""

import itertools
import pathlib

import ml_collections
import numpy as np

from configs.demo import get_config

CONCEPTS = ("animal", "cat", "dog", "horse", "bread", "cheese", "car", "truck")


def write_ratings(directory: pathlib.Path) -> None:
    """Rate all pairs, in `mine.txt`."""
    rng = np.random.default_rng(0)
    lines = [f"{a} {b} {rng.random():.3f}" for a, b in itertools.combinations(CONCEPTS, 2)]
    (directory / "mine.txt").write_text("\n".join(lines))


def small_config(directory: pathlib.Path) -> ml_collections.ConfigDict:
    """The settings of runs that share the ratings and the tables of a directory."""
    config = get_config("small")
    config.concepts, config.ratings = CONCEPTS, (str(directory / "mine.txt"),)
    config.expertise = str(directory / "expertise")
    config.thresholds, config.drawn_threshold = (0.4, 0.5), 0.4
    config.resamples, config.permutations = 50, 99
    return config


def change(config: ml_collections.ConfigDict, **changes: object) -> ml_collections.ConfigDict:
    """Change settings, those of a section as `section__name`."""
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        (config[section] if section else config)[key] = value
    return config
