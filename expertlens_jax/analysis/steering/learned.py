"""Does a steering that is learned change the units that average precision chooses?

Average precision looks at each unit by itself. A steering that is learned at a price for each unit it changes chooses
as well, and sees what each unit does to the layers above (LinEAS; Rodriguez et al. 2025, arXiv 2503.10679). Where both
choose alike, experts are the units to steer by; where they don't, knowing a concept and moving it are two things.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from expertlens_jax import plot
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.analysis.steering.trials import Kept
from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.learned_steering import Learning, learn_steering
from expertlens_jax.experts.scores import score_units
from expertlens_jax.experts.steering import check_known_concepts
from expertlens_jax.models.model import Model

LEARNING = Learning(objective="distribution", sparsity=10.0, steps=40)


def learned_units(
    model: Model,
    expertise: xr.Dataset,
    concepts: ConceptDataset,
    names: Sequence[str] | None = None,
    *,
    learning: Learning = LEARNING,
    by: Sequence[str] = ("average_precision",),
    resamples: int = 2000,
    seed: int = 0,
    kept: Kept = lambda name, make: make(),
    progress: bool = False,
) -> Result:
    """Ask whether a steering that is learned changes the units that a score chooses.

    Of each concept a steering is learned from all units of the table, at a price for each unit that it changes. The
    units that it changes are set beside as many of the highest by each score: what share of them is among these?

    Args:
      model: the table's.
      expertise: a table of it, with the scores that are asked for.
      concepts: the sentences to learn from.
      names: whose steerings are learned; None for all of the table.
      learning: how; a price, `sparsity`, makes it choose.
      by: scores, names in `el.SCORES`.
      resamples: draws of the intervals' bootstrap over concepts.
      seed: of these.
      kept: returns what it has kept of a concept, by a name, or calls the function that learns it.
      progress: show a bar of concepts.

    Returns:
      A `Result`. Its table has a row per score: `score`, `shared` (mean share over concepts), `ci_low`, `ci_high`,
      `chance` (the share of all units that is changed), `higher` (how far the score of changed units is above that of
      all, in standard deviations), `higher_low`, `higher_high`, `concepts`. `tables["concepts"]` has the numbers of
      each, with `changed` units. Figure: "learned".

    Raises:
      SelectionError: a concept or score that the table doesn't have, or learning without a price; or see
        `el.learn_steering`.

    >>> import expertlens_jax as el
    >>> model, concepts = el.load_model("lenslet-2m"), el.load_concepts("facts").subset(["cat", "rain"])
    >>> expertise = el.measure_expertise(el.record_responses(model, concepts.sentences, sites="attn.out"), concepts)
    >>> learning = el.Learning(objective="distribution", sparsity=1.0, steps=2, sentences=4)
    >>> el.analysis.learned_units(model, expertise, concepts, learning=learning).table["concepts"].tolist()
    [2]
    """
    if not learning.sparsity > 0:
        raise SelectionError("learning has sparsity=0, at which all units are changed; give it a price, such as 10.")
    names = [str(each) for each in expertise["concept"].values] if names is None else list(names)
    check_known_concepts(expertise, names)
    scores = {score: score_units(expertise, score) for score in by}
    if not names or not scores:
        raise SelectionError(
            f"{counted(len(names), 'concept')} and {counted(len(scores), 'score')} were given; wanted one or more of "
            "each."
        )
    units = pd.DataFrame({name: expertise[name].values for name in ("layer", "site", "channel")})
    places = {key: place for place, key in enumerate(units.itertuples(index=False, name=None))}

    def changed(concept: str) -> Mapping[str, list[int]]:
        steering = learn_steering(model, concepts, concept, units=units, learning=learning)
        return {"changed": [places[unit] for unit in steering.units]}

    rows = []
    for concept in tqdm(names, desc="learning", unit="concept", disable=not progress):
        found = np.array(kept(f"learned-{concept}", functools.partial(changed, concept))["changed"])
        for score, values in scores.items():
            own = values.sel(concept=concept).values
            highest = np.argsort(-own, kind="stable")[: len(found)]
            spread = own.std() or 1.0
            rows.append(
                {"concept": concept, "score": score, "changed": len(found), "units": len(own)}
                | {"shared": np.isin(highest, found).mean(), "chance": len(found) / len(own)}
                | {"higher": float((own[found].mean() - own.mean()) / spread)}
            )
    each = pd.DataFrame(rows)
    parts = []
    for score, of_score in each.groupby("score", sort=False):
        mean, low, high = bootstrap_mean(of_score["shared"].to_numpy()[:, None], resamples, seed)
        higher = bootstrap_mean(of_score["higher"].to_numpy()[:, None], resamples, seed)
        parts.append(
            {"score": score, "shared": mean, "ci_low": low, "ci_high": high, "chance": of_score["chance"].mean()}
            | dict(zip(("higher", "higher_low", "higher_high"), higher, strict=True))
            | {"concepts": len(of_score)}
        )
    table = pd.DataFrame(parts)
    told = tuple(
        f"Of the units that learning changes ({each['changed'].mean():.0f} of {each['units'].iloc[0]:,} on average), a "
        f"share of {interval(row, 'shared')} is among as many highest by {row['score'].replace('_', ' ')} (chance "
        f"{row['chance']:.3f}), whose mean is {row['higher']:.2f} standard deviations above that of all units."
        for row in table.to_dict("records")
    )
    figure = functools.partial(plot.learned_units, table)
    return Result("learned units", table, told, {"learned": figure}, {"concepts": each})
