"""The questions that tables of expertise answer: each function takes tables, and returns a `Result`.

Each is made of the functions of `similarity/`, `structure/` and `conditions/`, which give single tables and take every
setting.
"""

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
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.analysis.similarity.alignment import align
from expertlens_jax.analysis.similarity.comparison import compare_alignments, partial_alignments
from expertlens_jax.analysis.structure import matched_controls as matching
from expertlens_jax.analysis.structure import polysemanticity as sharing
from expertlens_jax.analysis.structure.localisation import ALL, count_experts, locate_experts, trace_depth
from expertlens_jax.analysis.structure.organisation import find_misplaced, map_concepts, relate_domains
from expertlens_jax.analysis.structure.recovery import recover_domains
from expertlens_jax.data.ratings import Ratings, load_ratings
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.overlap import overlap
from expertlens_jax.experts.selection import check_threshold, select_experts

_SET = "concepts"  # what a figure calls a sentence set that has no name here


def alignment(
    x: xr.Dataset | xr.DataArray,
    ratings: Ratings | str | Sequence[Ratings | str],
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Ask whether concepts whose experts overlap are concepts that people call alike.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other) that is compared already.
      ratings: human ratings, or the name or file of some, or several of them.
      method: of `overlap`, if `x` is no similarity yet.
      threshold: for that.
      permutations: draws of the p-value.
      seed: of the draws.

    Returns:
      A `Result`. Its table has a row per ratings: `ratings`, `pairs`, `spearman`, `ci_low`, `ci_high` (95%, over
      concepts), `chance` (0), `p_value` (concepts permuted), `missing` (rated words that are no concepts), `note` (why
      there is no number). Its figure draws rating against similarity; `tables["pairs"]` holds the pairs.

    Raises:
      SelectionError, ExpertLensError, RatingsError: as `overlap`, `align` and `load_ratings`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> names = [f"word{i}" for i in range(6)]
    >>> close = 1 / (1 + np.abs(np.subtract.outer(np.arange(6), np.arange(6))))
    >>> similarity = xr.DataArray(close, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> pairs = [(names[i], names[j]) for i in range(6) for j in range(i)]
    >>> rated = el.Ratings("mine", tuple(pairs), tuple(10.0 - abs(int(a[4]) - int(b[4])) for a, b in pairs))
    >>> result = el.analysis.alignment(similarity, rated, permutations=99)
    >>> result.table[["ratings", "pairs", "spearman"]].values.tolist()
    [['mine', 15, 1.0]]
    """
    similarity, quantity = _similarity(x, method, threshold)
    rows, pairs = [], []
    for rated in _loaded(ratings):
        found = align(similarity, rated, permutations=permutations, seed=seed)
        pairs.append(found.table.assign(ratings=rated.name))
        rows.append(
            {name: getattr(found, name) for name in ("ratings", "pairs", "spearman", "ci_low", "ci_high")}
            | {"chance": 0.0, "p_value": found.p_value, "missing": len(found.missing), "note": found.note}
        )
    table, drawn = pd.DataFrame(rows), pd.concat(pairs, ignore_index=True)
    sentences = [
        f"{row['ratings']}: Spearman's correlation with people's ratings is {interval(row, 'spearman')} "
        f"(chance 0, p = {row['p_value']:.2g}), over {row['pairs']} pairs."
        if not row["note"]
        else f"{row['ratings']}: there is no correlation: {row['note']}."
        for row in rows
    ]
    figure = functools.partial(
        plot.alignment, drawn.assign(sentences=_SET), table.assign(sentences=_SET), quantity=quantity
    )
    return Result("alignment", table, tuple(sentences), {"alignment": figure}, {"pairs": drawn})


def baselines(
    x: xr.Dataset | xr.DataArray,
    others: Mapping[str, xr.Dataset | xr.DataArray],
    ratings: Ratings | str | Sequence[Ratings | str],
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    seed: int = 0,
) -> Result:
    """Ask whether experts go with people's ratings better than other similarities of the same concepts do.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other).
      others: the baselines by name: similarities, such as TF-IDF of the sentences, or tables of expertise (of a
        network with random weights, say), which are compared as `x` is.
      ratings: human ratings, or the name or file of some, or several of them.
      method: of `overlap`, for all that are no similarities yet.
      threshold: for that.
      seed: of the draws.

    Returns:
      A `Result`. Its table has a row per ratings and baseline: `ratings`, `baseline`, `pairs`, `spearman`,
      `baseline_spearman`, `difference`, `ci_low`, `ci_high`, `p_value`, `p_holm`, `note`. Figures: "comparisons" (the
      differences, and what is left when each is partialled out).

    Raises:
      SelectionError, ExpertLensError, RatingsError: as `overlap`, `compare_alignments` and `load_ratings`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> names, rng = [f"word{i}" for i in range(6)], np.random.default_rng(0)
    >>> def similarity(values):
    ...     return xr.DataArray(values + values.T, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> ours, theirs = similarity(rng.random((6, 6))), similarity(rng.random((6, 6)))
    >>> pairs = tuple((names[i], names[j]) for i in range(6) for j in range(i))
    >>> rated = el.Ratings("mine", pairs, tuple(float(ours.sel(concept=a, other=b)) for a, b in pairs))
    >>> el.analysis.baselines(ours, {"noise": theirs}, rated).table["spearman"].tolist()
    [1.0]
    """
    compared, partialled = _against(x, others, ratings, method, threshold, seed)
    sentences = [
        f"{row['ratings']}: ρ = {row['spearman']:.3g} against {row['baseline_spearman']:.3g} of {row['baseline']}; "
        f"the difference is {interval(row, 'difference')} (chance 0, p = {row['p_holm']:.2g} after Holm)."
        if not row["note"]
        else f"{row['ratings']}, {row['baseline']}: there is no number: {row['note']}."
        for row in compared.to_dict("records")
    ]
    figures = {"comparisons": functools.partial(_comparisons, compared, partialled)}
    return Result("baselines", compared, tuple(sentences), figures, {"partial": partialled})


def controls(
    x: xr.Dataset | xr.DataArray,
    others: Mapping[str, xr.Dataset | xr.DataArray],
    ratings: Ratings | str | Sequence[Ratings | str],
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    seed: int = 0,
) -> Result:
    """Ask what is left of an alignment when a control is held constant.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other).
      others: the controls by name, as `baselines` takes them: TF-IDF of the sentences, a network with random weights,
        sentences whose word is masked.
      ratings: human ratings, or the name or file of some, or several of them.
      method: of `overlap`, for all that are no similarities yet.
      threshold: for that.
      seed: of the draws.

    Returns:
      A `Result`. Its table has a row per ratings and control, and one for all together: `ratings`, `control`, `pairs`,
      `spearman`, `partial_spearman`, `ci_low`, `ci_high`, `p_value`, `share_left`, `note`. Figure: "comparisons".

    Raises:
      SelectionError, ExpertLensError, RatingsError: as `overlap`, `partial_alignments` and `load_ratings`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> names, rng = [f"word{i}" for i in range(6)], np.random.default_rng(0)
    >>> def similarity(values):
    ...     return xr.DataArray(values + values.T, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> ours, theirs = similarity(rng.random((6, 6))), similarity(rng.random((6, 6)))
    >>> pairs = tuple((names[i], names[j]) for i in range(6) for j in range(i))
    >>> rated = el.Ratings("mine", pairs, tuple(float(ours.sel(concept=a, other=b)) for a, b in pairs))
    >>> el.analysis.controls(ours, {"noise": theirs}, rated).table["partial_spearman"].round(3).tolist()
    [1.0]
    """
    compared, partialled = _against(x, others, ratings, method, threshold, seed)
    sentences = [
        f"{row['ratings']}: ρ = {row['spearman']:.3g}; with {row['control']} partialled out it is "
        f"{interval(row, 'partial_spearman')} (chance 0, p = {row['p_value']:.2g})."
        if not row["note"]
        else f"{row['ratings']}, {row['control']}: there is no number: {row['note']}."
        for row in partialled.to_dict("records")
    ]
    figures = {"comparisons": functools.partial(_comparisons, compared, partialled)}
    return Result("controls", partialled, tuple(sentences), figures, {"comparisons": compared})


def stability(
    tables: Mapping[str, xr.Dataset | xr.DataArray],
    *,
    threshold: float | None = None,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Ask whether concepts have the same experts under several conditions: other sentences, seeds, checkpoints.

    Args:
      tables: two or more tables of expertise by the condition's name, of the same concepts; or expert sets.
      threshold: on average precision, for tables of expertise.
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
        given = f"{len(tables)} tables" if named else f"a {type(tables).__name__}"
        raise SelectionError(
            f"stability was given {given}; wanted a dict of two or more: {{'facts': ..., 'stories': ...}}."
        )
    sets = {name: _experts(table, threshold) for name, table in tables.items()}
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
        given = f"{len(checkpoints)} tables" if named else f"a {type(checkpoints).__name__}"
        raise SelectionError(f"settling was given {given}; wanted a dict of two or more: {{0: ..., 512: ...}}.")
    thresholds = _thresholds("settling", thresholds)
    rated = _loaded(ratings) if isinstance(ratings, Ratings | str) or len(ratings) else []
    steps = dict(sorted(checkpoints.items()))
    draws = {"resamples": resamples, "permutations": permutations, "seed": seed}
    followed, table = follow_training({_SET: steps}, thresholds, rated, **draws)
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
        plot.lines, followed.assign(sentences=_SET), "step", "Training step", statistics, note="dashed: chance"
    )
    return Result("settling", table, tuple(sentences), {"steps": drawn}, {"steps": followed})


def organisation(
    x: xr.Dataset | xr.DataArray,
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    neighbours: int = 5,
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Ask whether people's domains (animals, food ...) come out of the overlap, which knows nothing of them.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other), with `domain` of the concepts.
      method: of `overlap`, if `x` is no similarity yet.
      threshold: for that.
      neighbours: how many of a concept's vote on its domain.
      permutations: of the domains, for the null and p.
      seed: of those.

    Returns:
      A `Result`. Its table has a row per statistic (ARI, AMI, NMI, purity, silhouette, accuracy of nearest neighbours):
      `statistic`, `value`, `null_mean`, `null_low`, `null_high`, `p_value`, `concepts`, `domains`, `clusters`. Tables
      beside it: "domains" (overlap within and between any two), "misplaced" (concepts that sit elsewhere), "map"
      (with four concepts or more). Figures: "tree", "recovery", "domains", "map".

    Raises:
      SelectionError: concepts without domains, or as `overlap`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> similarity = xr.DataArray(
    ...     np.kron(np.eye(2), np.ones((3, 3))), dims=("concept", "other"),
    ...     coords={"concept": list("abcdef"), "domain": ("concept", ["x"] * 3 + ["y"] * 3), "other": list("abcdef")},
    ... )
    >>> result = el.analysis.organisation(similarity, permutations=99)
    >>> result.table.set_index("statistic").loc["ari", "value"].item()
    1.0
    """
    similarity, quantity = _similarity(x, method, threshold)
    draws = {"permutations": permutations, "seed": seed}
    table = recover_domains(similarity, neighbours=neighbours, **draws)
    tables = {"domains": relate_domains(similarity, **draws), "misplaced": find_misplaced(similarity, neighbours)}
    figures = {
        "tree": functools.partial(plot.tree, similarity, quantity=quantity),
        "recovery": functools.partial(plot.recovery, table.assign(sentences=_SET, measure=quantity)),
        "domains": functools.partial(plot.domain_graph, tables["domains"]),
    }
    if len(similarity) >= 4:
        tables["map"] = map_concepts(similarity, neighbours=neighbours)
        figures["map"] = functools.partial(plot.map, tables["map"], title=quantity)
    names = {"ari": "the tree's clusters agree with the domains by an adjusted Rand index of", "knn_accuracy": ""}
    names["knn_accuracy"] = "the nearest neighbours tell a concept's domain in a share of"
    sentences = [
        f"{len(similarity)} concepts of {table['domains'].iloc[0]} domains: {names[row.statistic]} {row.value:.3g} "
        f"(by chance {row.null_mean:.3g} [{row.null_low:.3g}, {row.null_high:.3g}], p = {row.p_value:.2g})."
        for row in table.itertuples()
        if row.statistic in names
    ]
    misplaced = list(tables["misplaced"]["concept"])
    shown = ", ".join(misplaced[:8]) + (" ..." if len(misplaced) > 8 else "")
    sentences.append(f"{len(misplaced)} concepts sit with another domain{': ' + shown if shown else ''}.")
    return Result("organisation", table, tuple(sentences), figures, tables)


def localisation(
    expertise: xr.Dataset, *, thresholds: float | Sequence[float] = 0.5, resamples: int = 2000, seed: int = 0
) -> Result:
    """Ask where in the model the experts are, and whether that is more than an even spread would give.

    Args:
      expertise: from `measure_expertise` or `find_experts`, with `layer` and `site` of the units.
      thresholds: on average precision; one or several.
      resamples: draws of the intervals' bootstrap over concepts.
      seed: of those.

    Returns:
      A `Result`. Its table has a row per threshold, domain and place, as `locate_experts` describes: `enrichment` (1 is
      chance) with `ci_low` and `ci_high`, `share`, `experts_per_concept` ... `tables["depth"]` is of `trace_depth`,
      `tables["counts"]` of `count_experts` at the first threshold. Figures: "enrichment", "counts", "depth", and
      "domains" where concepts have domains.

    Raises:
      SelectionError: this is no table of expertise, or a threshold isn't in [0, 1].

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> precision = np.where(np.arange(40) < 10, 0.9, 0.1).astype(np.float32) * np.ones((3, 1), np.float32)
    >>> table = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), precision)},
    ...     {"concept": list("abc"), "layer": ("unit", np.arange(40) // 10), "site": ("unit", ["mlp.up"] * 40)},
    ... )
    >>> found = el.analysis.localisation(table, thresholds=0.5).table
    >>> found.loc[found["site"] == "mlp.up", ["layer", "enrichment"]].values.tolist()[:2]
    [[0, 4.0], [1, 0.0]]
    """
    thresholds = _thresholds("localisation", thresholds)
    draws = {"resamples": resamples, "seed": seed}
    experts = {threshold: select_experts(expertise, threshold=threshold) for threshold in thresholds}
    located = [locate_experts(each, **draws).assign(threshold=threshold) for threshold, each in experts.items()]
    table = pd.concat(located, ignore_index=True)
    first = ["threshold", "domain"]
    table = table[[*first, *(name for name in table if name not in first)]]
    depth, counts = trace_depth(expertise, thresholds, **draws), count_experts(experts[thresholds[0]])
    overall = table[table["domain"] == ALL]
    sentences = []
    for threshold in thresholds:
        here = overall[(overall["threshold"] == threshold) & (overall["site"] != ALL) & (overall["layer"] != ALL)]
        known = here.dropna(subset="enrichment")
        if known.empty:
            sentences.append(f"At τ = {threshold:g} no concept has experts. Lower the threshold.")
            continue
        most = known.loc[known["enrichment"].idxmax()]
        whole = depth[(depth["threshold"] == threshold) & (depth["block"] == ALL)].iloc[0]
        sentences.append(
            f"At τ = {threshold:g} a concept has {whole['experts_per_concept']:.3g} experts. They are densest in layer "
            f"{most['layer']}, {most['site']}: {interval(most, 'enrichment')} times an even spread (chance 1). "
            f"Their mean depth is {interval(whole, 'depth')}, and {whole['even_depth']:.2g} by chance (0 is the first "
            "layer, 1 the last)."
        )
    figures = {
        "enrichment": functools.partial(plot.enrichment, overall),
        "counts": functools.partial(plot.localisation, counts),
        "depth": functools.partial(plot.depth, depth.assign(weights="trained")),
    }
    if len(set(table["domain"])) > 1:
        figures["domains"] = functools.partial(plot.domain_enrichment, table[table["threshold"] == thresholds[0]])
    return Result("localisation", table, tuple(sentences), figures, {"depth": depth, "counts": counts})


def polysemanticity(
    expertise: xr.Dataset,
    *,
    threshold: float = 0.5,
    draws: int = 200,
    minimum: int = 5,
    pairs: int = 2000,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Ask how many concepts and domains a unit is an expert on, and whether they are of one kind.

    Args:
      expertise: from `measure_expertise` or `find_experts`, with `domain` of the concepts.
      threshold: on average precision.
      draws: of random expert sets, for the null of how many concepts a unit serves.
      minimum: shared and unshared experts that a pair of concepts must have to be compared.
      pairs: at most so many pairs of either kind.
      resamples: draws of the intervals' bootstrap over concepts.
      permutations: of the domains, for the null of how many domains a unit serves.
      seed: of all these.

    Returns:
      A `Result`. Its table has a row per number of concepts that a unit is an expert on (0 stands for two or more):
      `concepts`, `units`, `domains` (mean), `null_mean`, `null_low`, `null_high`, `p_value`, `least_p`. Tables beside
      it: "units" (each unit's concepts and domains), "spread", "shared", "shared_summary", "distributions". Figures:
      "services", and "shared" where pairs can be compared.

    Raises:
      SelectionError: this is no table of expertise, or concepts have no domains.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> precision = np.kron(np.eye(2, dtype=np.float32), np.full((3, 12), 0.9, np.float32))
    >>> table = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), precision)},
    ...     {"concept": list("abcdef"), "domain": ("concept", ["x"] * 3 + ["y"] * 3)},
    ... )
    >>> result = el.analysis.polysemanticity(table, permutations=99, draws=10)
    >>> result.table[["concepts", "units", "domains"]].values.tolist()
    [[0.0, 24.0, 1.0], [3.0, 24.0, 1.0]]
    """
    experts = select_experts(expertise, threshold=threshold)
    units = sharing.count_services(experts)
    spread = sharing.spread_services(experts, draws=draws, seed=seed)
    table = sharing.gather_domains(experts, permutations=permutations, seed=seed)
    shared = sharing.compare_shared(expertise, experts, minimum=minimum, pairs=pairs, seed=seed)
    summary = sharing.summarise_shared(shared, resamples=resamples, seed=seed)
    several = int((units["concepts"] > 1).sum())
    sentences = [
        f"Of {len(units)} units, {int((units['concepts'] > 0).sum())} are experts on a concept at τ = {threshold:g}, "
        f"and {several} on several (at most {units['concepts'].max()})."
    ]
    for row in table[table["concepts"] == 0].to_dict("records"):
        sentences.append(
            f"The concepts of such a unit are of {row['domains']:.3g} domains on average (by chance "
            f"{row['null_mean']:.3g} [{row['null_low']:.3g}, {row['null_high']:.3g}], p = {row['p_value']:.2g})."
        )
    sentences += [
        f"Pairs of {'the ' * row['pair'].startswith('same')}{row['pair']}: shared experts have an average precision "
        f"higher by {interval(row, 'difference')} than unshared ones (chance 0), over {row['pairs']} pairs."
        for row in summary.to_dict("records")
    ]
    figures = {
        "services": functools.partial(plot.services, spread.assign(sentences=_SET), table.assign(sentences=_SET)),
    }
    distributions = sharing.distribute_shared(expertise, experts, shared)
    if len(summary):
        figures["shared"] = functools.partial(
            plot.shared, distributions.assign(sentences=_SET), summary.assign(sentences=_SET)
        )
    tables = {"units": units, "spread": spread, "shared": shared, "shared_summary": summary}
    tables["distributions"] = distributions
    return Result("polysemanticity", table, tuple(sentences), figures, tables)


def matched_controls(
    expertise: xr.Dataset,
    *,
    threshold: float = 0.5,
    held_out: xr.Dataset | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Result:
    """Ask whether experts differ from units of the same layer and site that respond as strongly.

    Args:
      expertise: from `measure_expertise` or `find_experts`, with `domain` of the concepts.
      threshold: on average precision.
      held_out: expertise of the same units on other sentences; only there is an expert's average precision free of the
        selection by it.
      resamples: draws of the intervals' bootstrap over concepts.
      seed: of those.

    Returns:
      A `Result`. Its table has a row per match (by response to the "concept", to the "others", to "both") and measure:
      `match`, `measure`, `concepts`, `experts`, `matched` (means over concepts), `difference`, `ci_low`, `ci_high`.

    Raises:
      SelectionError: as `compare_matched`; or no concept has experts that can be matched.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> dims = ("concept", "unit")
    >>> table = xr.Dataset(
    ...     {name: (dims, rng.random((4, 60)).astype(np.float32)) for name in
    ...      ("average_precision", "positive_median", "negative_mean")},
    ...     {"concept": list("abcd"), "domain": ("concept", ["x", "x", "y", "y"]),
    ...      "layer": ("unit", np.arange(60) // 30), "site": ("unit", ["mlp.up"] * 60)},
    ... )
    >>> found = el.analysis.matched_controls(table, threshold=0.6).table
    >>> sorted(set(found["match"]))
    ['both', 'concept', 'others']
    """
    experts = select_experts(expertise, threshold=threshold)
    compared = {match: matching.compare_matched(expertise, experts, held_out, match) for match in matching.MATCHES}
    if not any(len(each) for each in compared.values()):
        raise SelectionError(
            f"no concept has an expert at threshold={threshold:g} with another unit of its layer and site to match. "
            "Choose a threshold at which some units are experts and others aren't."
        )
    parts = [
        matching.summarise_matched(each, resamples=resamples, seed=seed).assign(match=match)
        for match, each in compared.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table[["match", *(name for name in table if name != "match")]]
    both = table[table["match"] == "both"].set_index("measure")
    names = {
        "ap": "an average precision (by which experts were chosen)",
        "held_out_ap": "a held-out average precision",
        "same_domain": "expertise on other concepts of the domain",
    }
    sentences = [
        f"Experts exceed equally active units of their layer and site in {said} by "
        f"{interval(both.loc[name], 'difference')} (chance 0)."
        for name, said in names.items()
        if not np.isnan(both.loc[name, "difference"])
    ]
    figures = {"matched": functools.partial(plot.matched, table.assign(sentences=_SET))}
    per_concept = pd.concat([each.assign(match=match) for match, each in compared.items()], ignore_index=True)
    return Result("matched controls", table, tuple(sentences), figures, {"concepts": per_concept})


def _similarity(x: xr.Dataset | xr.DataArray, method: str, threshold: float | None) -> tuple[xr.DataArray, str]:
    """A similarity of concepts, compared now if need be; and what it is, for a figure."""
    if isinstance(x, xr.DataArray) and x.dims == ("concept", "other"):
        if threshold is not None:
            raise SelectionError(
                f"a similarity (concept, other) was given, which is compared already, and threshold={threshold}. "
                "Leave the threshold out, or give the table of expertise."
            )
        return x, str(x.name or "Similarity").replace("_", " ")
    similarity = overlap(x, method, threshold=threshold)
    threshold = similarity.attrs.get("threshold")
    at = "" if threshold is None else f", τ = {threshold:g}"
    return similarity, f"Overlap of experts ({method.replace('_', ' ')}{at})"


def _experts(x: xr.Dataset | xr.DataArray, threshold: float | None) -> xr.DataArray:
    """Expert sets, selected now if need be."""
    if isinstance(x, xr.Dataset):
        return select_experts(x, threshold=threshold)
    if threshold is not None:
        raise SelectionError(
            f"expert sets were given, which are selected already, and threshold={threshold}. Leave the threshold out, "
            "or give tables of expertise."
        )
    return x


def _thresholds(question: str, thresholds: float | Sequence[float]) -> list[float]:
    """One or several thresholds, as a list."""
    several = [check_threshold(each) for each in np.atleast_1d(thresholds).tolist()]
    if not several:
        raise SelectionError(f"{question} was given no threshold. Give one or more, such as thresholds=(0.5, 0.6).")
    return several


def _loaded(ratings: Ratings | str | Sequence[Ratings | str]) -> list[Ratings]:
    """Ratings, read where they are named."""
    several = [ratings] if isinstance(ratings, Ratings | str) or hasattr(ratings, "__fspath__") else list(ratings)
    if not several:
        raise SelectionError("no ratings were given. Give some, such as el.load_ratings('wordsim353').")
    return [each if isinstance(each, Ratings) else load_ratings(each) for each in several]


def _against(
    x: xr.Dataset | xr.DataArray,
    others: Mapping[str, xr.Dataset | xr.DataArray],
    ratings: Ratings | str | Sequence[Ratings | str],
    method: str,
    threshold: float | None,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The comparisons of an alignment with others', and what is left of it beside them, for each ratings."""
    if not isinstance(others, Mapping) or isinstance(others, xr.Dataset) or not others:
        given = "an empty dict" if others == {} else f"a {type(others).__name__}"
        raise SelectionError(f"others is {given}; wanted a dict of names and similarities: {{'tfidf': ...}}.")

    def compared(each: xr.Dataset | xr.DataArray) -> xr.DataArray:
        ready = isinstance(each, xr.DataArray) and each.dims == ("concept", "other")
        return _similarity(each, method, None if ready else threshold)[0]

    ours = _similarity(x, method, threshold)[0]
    theirs = {name: compared(each) for name, each in others.items()}
    tables: tuple[list, list] = ([], [])
    for rated in _loaded(ratings):
        for parts, function in zip(tables, (compare_alignments, partial_alignments), strict=True):
            parts.append(function(ours, theirs, rated, seed=seed).assign(ratings=rated.name))
    first, second = (pd.concat(parts, ignore_index=True) for parts in tables)
    return tuple(each[["ratings", *(name for name in each if name != "ratings")]] for each in (first, second))


def _comparisons(compared: pd.DataFrame, partialled: pd.DataFrame) -> plot.style.Figure:
    return plot.comparisons(compared.assign(sentences=_SET), partialled.assign(sentences=_SET))
