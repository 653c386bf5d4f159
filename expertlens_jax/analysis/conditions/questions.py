"""Are a concept's experts the same elsewhere? Questions to several tables of expertise, each answered by a `Result`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax import plot
from expertlens_jax.analysis.conditions.settling import follow_training
from expertlens_jax.analysis.conditions.stability import compare_conditions
from expertlens_jax.analysis.given import SET, given_experts, given_ratings, given_thresholds
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.cards import counted
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.scores import Sign


def stability(
    tables: Mapping[str, xr.Dataset | xr.DataArray],
    *,
    threshold: float | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Ask whether concepts have the same experts under several conditions: other sentences, seeds, checkpoints.

    Args:
      tables: two or more tables of expertise by the condition's name, of the same concepts; or expert sets.
      threshold: on the score, for tables of expertise.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      resamples: draws of the intervals' bootstrap over concepts.
      permutations: of concepts, for the p-values.
      seed: of both.

    Returns:
      A `Result`. Its table has a row per pair of conditions and statistic: `first`, `second`, `statistic`, `value`,
      `ci_low`, `ci_high`, `chance`, `p_value`. Statistics: `overlap_correlation` (of the two overlap matrices), and,
      where the units are the same, `jaccard_same`, `jaccard_different` and `retrieval`.

    Raises:
      SelectionError: fewer than two tables, or as `select_experts` and `compare_conditions`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> precision = np.random.default_rng(0).random((4, 50)).astype(np.float32)
    >>> table = xr.Dataset({"average_precision": (("concept", "unit"), precision)}, {"concept": list("abcd")})
    >>> result = el.analysis.stability({"facts": table, "stories": table}, threshold=0.5, permutations=99)
    >>> result.table.set_index("statistic").loc[["jaccard_same", "retrieval"], "value"].tolist()
    [1.0, 1.0]
    """
    named = isinstance(tables, Mapping) and not isinstance(tables, xr.Dataset)
    if not named or len(tables) < 2:
        given = counted(len(tables), "table") if named else f"a {type(tables).__name__}"
        raise SelectionError(
            f"stability was given {given}; wanted a dict of two or more: {{'facts': ..., 'stories': ...}}."
        )
    sets = {name: given_experts(table, threshold, by, sign) for name, table in tables.items()}
    parts = [
        compare_conditions(one, other, resamples=resamples, permutations=permutations, seed=seed).assign(
            first=first, second=second
        )
        for (first, one), (second, other) in itertools.combinations(sets.items(), 2)
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table[["first", "second", *(name for name in table if name not in ("first", "second"))]]
    told = {
        "overlap_correlation": "the overlap matrices correlate by",
        "jaccard_same": "a concept's two expert sets overlap by",
        "retrieval": "a concept is found by its set in a share of",
    }
    sentences = []
    for (first, second), rows in table.groupby(["first", "second"], sort=False):
        rows = {row["statistic"]: row for row in rows.to_dict("records")}
        found = [
            f"{told[name]} {interval(row, 'value')} (chance {row['chance']:.2g}, p = {row['p_value']:.2g})"
            for name, row in rows.items()
            if name in told
        ]
        sentences.append(f"{first} and {second}: {'; '.join(found)}.")
        if "retrieval" not in rows:
            sentences.append(f"{first} and {second} are of different units, so only overlaps can be compared.")
    figure = functools.partial(plot.stability, table.assign(kind="conditions", count=0))
    return Result("stability", table, tuple(sentences), {"stability": figure})


def settling(
    checkpoints: Mapping[int, xr.Dataset],
    ratings: Ratings | str | Sequence[Ratings | str] = (),
    *,
    thresholds: float | Sequence[float] = 0.5,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Ask when in training experts become what they end as.

    Args:
      checkpoints: two or more tables of expertise by training step, of the same concepts, sentences and units.
      ratings: human ratings to align the overlap with, or the name or file of some, or several of them, or none.
      thresholds: on average precision; one or several.
      resamples: draws of the intervals' bootstrap over concepts.
      permutations: of concepts, for the alignments' p-values.
      seed: of both.

    Returns:
      A `Result`. Its table has a row per threshold: `threshold`, `concepts` (with experts at the last step), `step`
      (where the mean overlap with the last step's experts reaches half of its end, which between two steps is a guess
      over the logarithm), `ci_low`, `ci_high`. `tables["steps"]` has a row per step, threshold and statistic (experts,
      share, empty, overlap, alignment, final_overlap). Figure: "steps".

    Raises:
      SelectionError: fewer than two tables, of other concepts or units, or a threshold that isn't in [0, 1].

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> def table(experts):
    ...     precision = np.where(np.arange(40) < experts, 0.9, 0.1).astype(np.float32) * np.ones((3, 1), np.float32)
    ...     return xr.Dataset({"average_precision": (("concept", "unit"), precision)}, {"concept": list("abc")})
    >>> result = el.analysis.settling({0: table(0), 100: table(10), 1000: table(10)}, permutations=9)
    >>> result.table[["threshold", "concepts", "step"]].round().values.tolist()  # between 0 and 100, over log(1 + step)
    [[0.0, 3.0, 9.0]]
    """
    named = isinstance(checkpoints, Mapping) and not isinstance(checkpoints, xr.Dataset)
    if not named or len(checkpoints) < 2:
        given = counted(len(checkpoints), "table") if named else f"a {type(checkpoints).__name__}"
        raise SelectionError(f"settling was given {given}; wanted a dict of two or more: {{0: ..., 512: ...}}.")
    thresholds = given_thresholds("settling", thresholds)
    rated = given_ratings(ratings) if isinstance(ratings, Ratings | str) or len(ratings) else []
    steps = dict(sorted(checkpoints.items()))
    draws = {"resamples": resamples, "permutations": permutations, "seed": seed}
    followed, table = follow_training({SET: steps}, thresholds, rated, **draws)
    followed, table = followed.drop(columns="sentences"), table.drop(columns=["sentences", "last_with"])
    sentences = []
    for row in table.to_dict("records"):
        if np.isnan(row["step"]):
            sentences.append(
                f"At τ = {row['threshold']:g} no concept has experts at the last step. Lower the threshold."
            )
            continue
        here = followed[(followed["statistic"] == "final_overlap") & (followed["threshold"] == row["threshold"])]
        first = here.sort_values("step").iloc[0]
        sentences.append(
            f"At τ = {row['threshold']:g} half of the last step's experts are there at step {interval(row, 'step')}, "
            f"over {row['concepts']} concepts; at step {first['step']} expert sets overlap with the last by "
            f"{interval(first, 'value')} (chance {first['chance']:.2g})."
        )
    statistics = ("experts", "final_overlap", "overlap", "alignment")
    drawn = functools.partial(
        plot.lines, followed.assign(sentences=SET), "step", "Training step", statistics, note="dashed: chance"
    )
    return Result("settling", table, tuple(sentences), {"steps": drawn}, {"steps": followed})
