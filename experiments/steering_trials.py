"""Which steerings the steering experiment measures, and how: each is kept in a file, so that a killed run goes on."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.analysis.steering.effects import Writing, measure_effect, word_in_place
from expertlens_jax.analysis.steering.summary import Trial, unsteered
from expertlens_jax.analysis.structure.organisation import map_concepts
from expertlens_jax.experts.controls import equally_active_units, random_units
from expertlens_jax.run_directory import write_text

from .measured import negatives, reading

CONTROLS = ("random", "equally_active", "another_concept")
AWAY = ["concept", "spared", "method", "sparing", "word", "units", "change", "ci_low", "ci_high"]
MOVED = ["concept", "spared", "of", "domain", "kept", "x", "y", "x_after", "y_after"]


def list_trials(settings: ml_collections.ConfigDict) -> list[Trial]:
    """Every steering to measure, each once: curves over counts, over strengths, other methods, domains."""
    wanted = []
    for concept in settings.concepts:
        wanted.append(unsteered(concept))
        for arm in ("experts", *settings.controls):
            wanted += [Trial(concept, arm, settings.method, count, 1.0) for count in settings.counts]
            wanted += [Trial(concept, arm, settings.method, settings.drawn_count, s) for s in settings.strengths]
        for method in settings.methods:
            wanted += [Trial(concept, "experts", method, settings.drawn_count, s) for s in settings.strengths]
    for domain in settings.domains:
        wanted.append(unsteered(domain))
        wanted += [Trial(domain, "shared", settings.method, count, 1.0) for count in settings.counts]
    return list(dict.fromkeys(wanted))


def saved_json(file: epath.Path, compute: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What a file holds; computed and written first if it isn't there."""
    if not file.exists():
        write_text(file, json.dumps(compute()) + "\n")
    return json.loads(file.read_text())


def make_steering(expertise: xr.Dataset, trial: Trial, config: ml_collections.ConfigDict) -> el.Steering | None:
    """The trial's steering; controls are given the concept's own values on units that aren't its experts."""
    if trial.arm == "unsteered":
        return None
    expertise = table_of(expertise, trial, config)
    options = {"method": trial.method, "strength": trial.strength}
    experts = el.select_experts(expertise.sel(concept=[trial.concept]), top=trial.count)
    experts = expertise["unit"].values[experts.values[0]]
    match trial.arm:
        case "random":
            units = random_units(expertise, experts, seed=config.seed)
        case "equally_active":
            units = equally_active_units(expertise, trial.concept, experts)
        case "another_concept":
            among = list(config.steering.concepts)
            other = among[(among.index(trial.concept) + 1) % len(among)]
            return el.steer(expertise, other, top=trial.count, **options)
        case _:
            units = experts
    return el.steer(expertise, trial.concept, units=units, **options)


def table_of(expertise: xr.Dataset, trial: Trial, config: ml_collections.ConfigDict) -> xr.Dataset:
    """The table that has the trial's concept; a domain's is what its members share."""
    in_domains = trial.concept in config.steering.domains
    return el.share_expertise(expertise, trial.concept) if in_domains else expertise


def measure(
    model: el.Model, expertise: xr.Dataset, trial: Trial, writing: Writing, config: ml_collections.ConfigDict
) -> dict[str, Any]:
    """A trial's measures `[rows, columns]`, the continuations, and the steering in words."""
    steering = make_steering(expertise, trial, config)
    expertise = table_of(expertise, trial, config)
    words = tuple(expertise.attrs["members"]) if trial.concept in config.steering.domains else (trial.concept,)
    written, values = measure_effect(model, expertise, trial.concept, words, steering, writing)
    return {
        "steering": repr(steering) if steering else "none",
        "words": words,
        "texts": written.texts.tolist(),
        "measures": {name: np.where(np.isnan(value), None, value).tolist() for name, value in values.items()},
    }


def steer_away(
    model: el.Model,
    expertise: xr.Dataset,
    concepts: el.ConceptDataset,
    elsewhere: el.ConceptDataset,
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Removes a concept and spares another: their words' probability where they stand in held-out sentences, and
    every concept's experts as the steered model has them.

    Returns:
      `away`: a row per pair, method, whether the other was spared, and whose word: `change` of its log-probability,
      with interval over sentences. `moved`: a row per pair and concept (`of`), by the first method, sparing:
      see `find_moved`.
    """
    s, away, moved = config.steering, [], []

    @functools.cache
    def unsteered_in_place(word: str) -> np.ndarray:  # the same for all steerings of a pair
        return word_in_place(model, elsewhere, word, None)

    for concept, spared in s.away:
        steerings = {
            (method, sparing): el.steer(
                expertise, concept, top=s.drawn_count, method=method, sparing=(spared,) if sparing else ()
            )
            for method in s.away_methods
            for sparing in (False, True)
        }
        for (method, sparing), steering in steerings.items():
            for word in (concept, spared):

                def change(word: str = word, steering: el.Steering = steering) -> dict[str, Any]:
                    after = word_in_place(model, elsewhere, word, steering)
                    return {"change": (after - unsteered_in_place(word)).tolist()}

                name = f"away_{concept}_{spared}_{method}_{'sparing' if sparing else 'all'}_{word}"
                values = saved_json(workdir / "measured" / f"{name}.json", change)["change"]
                mean, low, high = bootstrap_mean(np.array(values)[:, None], config.resamples, config.seed)
                away.append(
                    {
                        **{"concept": concept, "spared": spared, "method": method, "sparing": sparing, "word": word},
                        **{"units": len(steering), "change": mean, "ci_low": low, "ci_high": high},
                    }
                )

        def move(steering: el.Steering = steerings[s.away_methods[0], True]) -> dict[str, Any]:
            responses = el.record_responses(
                model, concepts.sentences, steering=steering, progress=True, **reading(config)
            )
            after = el.measure_expertise(responses, concepts, **negatives(config))
            before, after = (el.select_experts(t, threshold=config.drawn_threshold) for t in (expertise, after))
            return find_moved(before, after).to_dict("list")

        values = pd.DataFrame(saved_json(workdir / "measured" / f"moved_{concept}_{spared}.json", move))
        moved.append(pd.DataFrame({"concept": concept, "spared": spared}, index=values.index).join(values))
    if not s.away:
        return pd.DataFrame(columns=AWAY), pd.DataFrame(columns=MOVED)
    return pd.DataFrame(away)[AWAY], pd.concat(moved, ignore_index=True)[MOVED]


def find_moved(before: xr.DataArray, after: xr.DataArray) -> pd.DataFrame:
    """How far steering moved each concept's expert set, and where to on the map of overlaps.

    The map is one of all sets, those before and those after, so that only what changed its experts moves on it.

    Args:
      before: bool (concept, unit).
      after: bool (concept, unit), of the steered model.

    Returns:
      A row per concept: `of`, `domain`, `kept` (Jaccard overlap of the set before with that after; 1 if both are
      empty), and its places `x`, `y`, `x_after`, `y_after`.
    """
    names, domains = ([str(name) for name in before[key].values] for key in ("concept", "domain"))
    sets = np.concatenate([before.values, after.values])
    twice = [*names, *(f"{name} (steered)" for name in names)]
    both = xr.DataArray(sets, {"concept": twice, "domain": ("concept", [*domains, *domains])}, ("concept", "unit"))
    overlap = el.jaccard(both)
    kept = np.diag(overlap.values[: len(names), len(names) :])
    places = map_concepts(overlap)[["x", "y"]].to_numpy()
    return pd.DataFrame(
        {
            **{"of": names, "domain": domains},
            "kept": np.where(before.values.any(1) | after.values.any(1), kept, 1.0),
            **dict(zip(("x", "y"), places[: len(names)].T, strict=True)),
            **dict(zip(("x_after", "y_after"), places[len(names) :].T, strict=True)),
        }
    )
