"""Where are experts, and what do they serve? Questions to one table of expertise, each answered by a `Result`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax import plot
from expertlens_jax.analysis.given import SET, given_experts, given_similarity, given_thresholds
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.analysis.structure import matched_controls as matching
from expertlens_jax.analysis.structure import polysemanticity as sharing
from expertlens_jax.analysis.structure.hierarchy import count_sharing, measure_inclusion, summarise_inclusion
from expertlens_jax.analysis.structure.localisation import ALL, count_experts, locate_experts, trace_depth
from expertlens_jax.analysis.structure.mixture import locate_in_mixture
from expertlens_jax.analysis.structure.organisation import (
    compare_spelling,
    count_within,
    find_misplaced,
    first_members,
    graph_concepts,
    map_concepts,
    relate_domains,
    tell_map,
)
from expertlens_jax.analysis.structure.recovery import recover_domains
from expertlens_jax.analysis.structure.senses import (
    SAME_SENSE,
    SAME_WORD,
    check_order,
    compare_senses,
    contrast_senses,
    find_homographs,
    similarity_of_halves,
    summarise_senses,
)
from expertlens_jax.analysis.structure.together import count_together, score_routers, summarise_together
from expertlens_jax.analysis.tables import label
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.rows import each_row
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.scores import Sign
from expertlens_jax.experts.selection import select_experts


def organisation(
    x: xr.Dataset | xr.DataArray,
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    neighbours: int = 5,
    maps: Sequence[str] = ("mds",),
    graph_edges: int = 3,
    graph_domains: int | None = None,
    graph_members: int | None = None,
    tokens: Sequence[Sequence[int]] = (),
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Ask whether people's domains (animals, food ...) come out of the overlap, which knows nothing of them.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other), with `domain` of the concepts.
      method: of `overlap`, if `x` is no similarity yet.
      threshold: for that.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      neighbours: how many of a concept's vote on its domain.
      maps: ways to make a map: "mds", "tsne" or both.
      graph_edges: from each concept to those that it overlaps with most.
      graph_domains: draw the graph of the first so many domains alone; None for all.
      graph_members: and of the first so many concepts of each, without the domain's own word; None for all.
      tokens: of each concept's word, in their order, to tell words that share one; none if left out.
      permutations: of the domains, for the null and p.
      seed: of those.

    Returns:
      A `Result`. Its table has a row per statistic (ARI, AMI, NMI, purity, silhouette, accuracy of nearest neighbours):
      `statistic`, `value`, `null_mean`, `null_low`, `null_high`, `p_value`, `concepts`, `domains`, `clusters`. Tables
      beside it: "domains" (overlap within and between any two), "misplaced" (concepts that sit elsewhere), "graph"
      (edges from each concept, those of words that begin alike told) and "within" (how many stay within domains,
      against chance), "spelling" (with `tokens`), "map" (with four concepts or more: a row per `method` and concept).
      Figures: "tree", "recovery", "domains", "graph", "map", and "map_tsne" of a second map.

    Raises:
      SelectionError: concepts without domains, an unknown map, or as `overlap`.

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
    similarity, quantity = given_similarity(x, method, threshold, by, sign)
    draws = {"permutations": permutations, "seed": seed}
    table = recover_domains(similarity, neighbours=neighbours, **draws)
    tables = {"domains": relate_domains(similarity, **draws), "misplaced": find_misplaced(similarity, neighbours)}
    figures = {
        "tree": functools.partial(plot.tree, similarity, quantity=quantity),
        "recovery": functools.partial(plot.recovery, table.assign(sentences=SET, measure=quantity)),
        "domains": functools.partial(plot.domain_graph, tables["domains"]),
    }
    if len(tokens):
        tables["spelling"] = compare_spelling(similarity, tokens)
    few, shown = similarity, range(len(similarity))
    if graph_domains is not None or graph_members is not None:
        shown = first_members(similarity, graph_domains or len(similarity), graph_members or len(similarity))
        few = similarity.isel(concept=shown, other=shown)
    # Texts read from zarr are of a type of their own, which numpy's astype(str) refuses.
    places = pd.DataFrame({name: [str(each) for each in few[name].values] for name in ("concept", "domain")})
    places = places.sort_values("domain", key=lambda of: of.map(list(dict.fromkeys(of)).index), kind="stable")
    tables["graph"] = graph_concepts(few, graph_edges, tokens=[tokens[i] for i in shown] if len(tokens) else ())
    tables["within"] = count_within(tables["graph"], places["domain"], places["concept"], **draws)
    figures["graph"] = functools.partial(plot.concept_graph, tables["graph"], places, tables["within"])
    if len(similarity) >= 4:
        drawn = {each: map_concepts(similarity, each, neighbours) for each in maps}
        drawn = {
            each: label(place, method=each, **{str(name): value for name, value in place.attrs.items()})
            for each, place in drawn.items()
        }
        tables["map"] = pd.concat(drawn.values(), ignore_index=True)
        for i, (each, place) in enumerate(drawn.items()):
            figure = functools.partial(plot.map, place, title=f"{quantity}: {tell_map(place)}")
            figures["map" if i == 0 else f"map_{each}"] = figure
    names = {"ari": "the tree's clusters agree with the domains by an adjusted Rand index of", "knn_accuracy": ""}
    names["knn_accuracy"] = "the nearest neighbours tell a concept's domain in a share of"
    sentences = [
        f"{len(similarity)} concepts of {table['domains'].iloc[0]} domains: {names[row.statistic]} {row.value:.3g} "
        f"(by chance {row.null_mean:.3g} [{row.null_low:.3g}, {row.null_high:.3g}], p = {row.p_value:.2g})."
        for row in each_row(table)
        if row.statistic in names
    ]
    misplaced = list(tables["misplaced"]["concept"])
    shown = ", ".join(misplaced[:8]) + (" ..." if len(misplaced) > 8 else "")
    sentences.append(f"{len(misplaced)} concepts sit with another domain{': ' + shown if shown else ''}.")
    return Result("organisation", table, tuple(sentences), figures, tables)


def hierarchy(
    x: xr.Dataset | xr.DataArray,
    *,
    threshold: float | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    resamples: int = 2000,
    seed: int = 0,
) -> Result:
    """Ask whether the experts of a domain's word ("animal") are those that its members ("cat", "dog") share.

    Args:
      x: a table of expertise, or expert sets, with `domain` of the concepts. A domain's word is the concept of its
        name.
      threshold: if `x` is a table.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      resamples: draws of the intervals' bootstrap over domains.
      seed: of those.

    Returns:
      A `Result`. Its table has a row per statistic ("a_in_b": the share of A's experts that are B's too; "b_in_a";
      "lift": 1 is chance) and pair ("own word", "two members", "another domain's word"): `mean`, `ci_low`, `ci_high`,
      `own_less_this` with its interval, `p_value`, `domains`. Tables beside it: "inclusion" (a row per pair of
      concepts) and "sharing" (units that k members share, and how many of them are experts on the word). Figure:
      "hierarchy".

    Raises:
      SelectionError: concepts without domains or of a single one; no domain has its word and two members among the
        concepts; or as `select_experts`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> sets = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    >>> names, domains = ["animal", "cat", "dog", "bread"], ["animal"] * 3 + ["food"]
    >>> experts = xr.DataArray(sets, {"concept": names, "domain": ("concept", domains)}, ("concept", "unit"))
    >>> found = el.analysis.hierarchy(experts).table
    >>> found.query("statistic == 'a_in_b'")[["pair", "mean"]].round(2).values.tolist()
    [['own word', 1.0], ['two members', 0.83]]
    """
    experts, draws = given_experts(x, threshold, by, sign), {"resamples": resamples, "seed": seed}
    inclusion = measure_inclusion(experts)
    table = summarise_inclusion(inclusion, **draws)
    sharing = count_sharing(experts, **draws)
    rows = {pair: row for pair, row in table.set_index(["statistic", "pair"]).loc["lift"].iterrows()}
    told = "; ".join(f"{pair}: {interval(row, 'mean')}" for pair, row in rows.items())
    sentences = [f"Experts are in another concept's by a lift (chance 1) of, in pairs of {told}."]
    if len(sharing):
        most = sharing.iloc[-1]
        own = interval(most, "own", "own_ci_low", "own_ci_high")
        sentences.append(
            f"Of the units that {most['members']:.0f} members share, a share of {own} are experts on their domain's "
            f"word, and a share of {most['others']:.3g} on other domains' words."
        )
    figure = functools.partial(plot.hierarchy, table.assign(sentences=SET), sharing.assign(sentences=SET))
    return Result(
        "hierarchy", table, tuple(sentences), {"hierarchy": figure}, {"inclusion": inclusion, "sharing": sharing}
    )


def localisation(
    expertise: xr.Dataset,
    *,
    thresholds: float | Sequence[float] = 0.5,
    by: str = "average_precision",
    sign: Sign = "up",
    resamples: int = 2000,
    seed: int = 0,
) -> Result:
    """Ask where in the model the experts are, and whether that is more than an even spread would give.

    Args:
      expertise: from `measure_expertise` or `find_experts`, with `layer` and `site` of the units.
      thresholds: on the score; one or several.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
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
    thresholds = given_thresholds("localisation", thresholds, by)
    draws = {"resamples": resamples, "seed": seed}
    experts = {threshold: select_experts(expertise, threshold, by=by, sign=sign) for threshold in thresholds}
    located = [locate_experts(each, **draws).assign(threshold=threshold) for threshold, each in experts.items()]
    table = pd.concat(located, ignore_index=True)
    first = ["threshold", "domain"]
    table = table[[*first, *(name for name in table if name not in first)]]
    depth, counts = trace_depth(expertise, thresholds, by=by, sign=sign, **draws), count_experts(experts[thresholds[0]])
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


def mixture(
    expertise: xr.Dataset,
    *,
    threshold: float = 0.5,
    by: str = "average_precision",
    sign: Sign = "up",
    held_out: xr.Dataset | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Result:
    """Ask which experts of a mixture hold a concept's experts, and whether the router's logits know the concept too.

    An expert of a mixture is one of a layer's MLPs, which the router chooses; a concept's experts are units.

    Args:
      expertise: from `measure_expertise` or `find_experts`, of a mixture of experts.
      threshold: on the score.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      held_out: the same model's table from other sentences, of which the scores of the router in "router" are taken.
      resamples: draws of the intervals' bootstrap over concepts.
      seed: of those.

    Returns:
      A `Result`. Its table has a row per concept, layer and expert of the mixture, as `locate_in_mixture` describes:
      `experts` (the concept's units there), `enrichment` (1 is an even spread), `router` (the score of the router's
      logit for it) ... Tables beside it: "together" (a row per layer and kind of pair: how many times as often as by
      chance two experts are in one of the mixture's, and how much oftener on one concept than on two) and "router" (the
      scores of the logits that choose a concept's experts, beside the same layers' others). Figures: "mixture", and
      "together" where there are pairs.

    Raises:
      SelectionError: this is no table of expertise, or has no units within a mixture's experts; or a threshold that no
        unit could meet or miss.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> precision = np.where(np.arange(40) < 10, 0.9, 0.1).astype(np.float32) * np.ones((2, 1), np.float32)
    >>> places = {"layer": [0] * 40, "site": ["mlp.up"] * 40, "expert": np.arange(40) // 10}
    >>> table = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), precision)},
    ...     {"concept": ["cat", "dog"], **{name: ("unit", values) for name, values in places.items()}},
    ... )
    >>> found = el.analysis.mixture(table).table.query("concept == 'cat'")
    >>> found[["layer", "expert", "experts", "enrichment"]].values.tolist()[:2]
    [[0.0, 0.0, 10.0, 4.0], [0.0, 1.0, 0.0, 0.0]]
    """
    table = locate_in_mixture(expertise, threshold, by=by, sign=sign)
    others = None if held_out is None else locate_in_mixture(held_out, threshold, by=by, sign=sign)
    draws = {"resamples": resamples, "seed": seed}
    together = summarise_together(count_together(select_experts(expertise, threshold, by=by, sign=sign)), **draws)
    tables = {"together": together, "router": score_routers(table, others, **draws)}
    names = table["concept"].unique()
    places = table.groupby(["layer", "expert"])[["experts", "units"]].sum()
    total = int(places["experts"].sum())
    if not total:
        told = f"At τ = {threshold:g} no concept has experts there. Lower the threshold."
        return Result("mixture", table, (told,), tables=tables)
    dense = places["experts"] / total / (places["units"] / places["units"].sum())
    layer, expert = dense.idxmax()
    sentences = [
        f"At τ = {threshold:g} a concept has {total / len(names):.3g} experts within the mixture's, densest in "
        f"layer {layer}, expert {expert}: {dense.max():.2g} times an even spread (chance 1)."
    ]
    figures = {"mixture": functools.partial(plot.mixture, table)}
    pairs = together[(together["layer"] == ALL) & (together["concepts"] > 0)]
    if len(pairs):
        told = "; ".join(f"{row['pair']} {interval(row, 'times_chance')}" for row in pairs.to_dict("records"))
        sentences.append(f"Two experts in a layer are in one of its mixture's, in times of chance (1): {told}.")
        figures["together"] = functools.partial(plot.together, together.assign(sentences=SET, weights="trained"))
    (known,) = tables["router"].to_dict("records")
    if known["concepts"]:
        whose = "" if held_out is None else ", in other sentences"
        sentences.append(
            f"The router's logits for those that hold a concept's have a mean {by.replace('_', ' ')} of "
            f"{known['own']:.2f}{whose}, and all logits of the same layers {known['layer']:.2f}: a difference of "
            f"{interval(known, 'lead', 'lead_ci_low', 'lead_ci_high')} (chance 0)."
        )
    return Result("mixture", table, tuple(sentences), figures, tables)


def polysemanticity(
    expertise: xr.Dataset,
    *,
    threshold: float = 0.5,
    by: str = "average_precision",
    sign: Sign = "up",
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
      threshold: on the score.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
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
    experts = select_experts(expertise, threshold, by=by, sign=sign)
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
        "services": functools.partial(plot.services, spread.assign(sentences=SET), table.assign(sentences=SET)),
    }
    distributions = sharing.distribute_shared(expertise, experts, shared)
    if len(summary):
        figures["shared"] = functools.partial(
            plot.shared, distributions.assign(sentences=SET), summary.assign(sentences=SET)
        )
    tables = {"units": units, "spread": spread, "shared": shared, "shared_summary": summary}
    tables["distributions"] = distributions
    return Result("polysemanticity", table, tuple(sentences), figures, tables)


def matched_controls(
    expertise: xr.Dataset,
    *,
    threshold: float = 0.5,
    by: str = "average_precision",
    sign: Sign = "up",
    held_out: xr.Dataset | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Result:
    """Ask whether experts differ from units of the same layer and site that respond as strongly.

    Args:
      expertise: from `measure_expertise` or `find_experts`, with `domain` of the concepts.
      threshold: on the score.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
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
    experts = select_experts(expertise, threshold, by=by, sign=sign)
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
    figures = {"matched": functools.partial(plot.matched, table.assign(sentences=SET))}
    per_concept = pd.concat([each.assign(match=match) for match, each in compared.items()], ignore_index=True)
    return Result("matched controls", table, tuple(sentences), figures, {"concepts": per_concept})


def senses(
    x: xr.Dataset | xr.DataArray,
    concepts: ConceptDataset,
    others: Mapping[str, xr.Dataset | xr.DataArray] | None = None,
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    resamples: int = 2000,
    seed: int = 0,
) -> Result:
    """Ask whether experts are of the concept or of the word: a word in two senses, and other words for each sense.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other). From a table with
        `average_precision_halves` (`el.find_experts(..., halves=True)`), the overlap between experts found in either
        half of the sentences is asked too: it has the fourth kind of pair, the same word in the same sense.
      concepts: the sentence set it was measured on: concepts with one `word` and several domains are a word in several
        senses, concepts with one domain and several words are other words for a sense. `el.load_concepts("senses")`.
      others: controls by name: similarities, such as TF-IDF of the sentences or embeddings of the same model, or tables
        of expertise, which are compared as `x` is.
      method: of `overlap`, for all that are no similarities yet.
      threshold: for that.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      resamples: draws of the intervals' bootstrap over homographs.
      seed: of these.

    Returns:
      A `Result`. Its table has a row per measure and kind of pair: `measure`, `kind` ("same word, same sense", "other
      word, same sense", "same word, other sense", "neither"), `overlap`, `ci_low`, `ci_high`, `ratio` (to "neither"),
      `homographs`. `tables["differences"]` compares kinds homograph by homograph: `measure`, `first`, `second`,
      `difference` and `share` (of homographs whose first is larger: chance 0.5) with their intervals, `p_value`;
      `tables["homographs"]` has the numbers of each. Figure: "senses".

    Raises:
      UnfitConceptsError: no word of the set has two senses, or none a partner.
      SelectionError: a table of other concepts, or as `overlap`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> concepts = el.load_concepts("senses")
    >>> same_sense = np.equal.outer(np.array(concepts.domains), np.array(concepts.domains)).astype(float)
    >>> names = list(concepts.concepts)
    >>> similarity = xr.DataArray(same_sense, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> el.analysis.senses(similarity, concepts).table[["kind", "overlap"]].values.tolist()
    [['other word, same sense', 1.0], ['same word, other sense', 0.0], ['neither', 0.0]]
    """
    find_homographs(concepts)
    words = concepts.words or concepts.concepts
    similarities: dict[str, np.ndarray] = {}
    for name, each in {"experts": x, **(others or {})}.items():
        check_order(each, concepts, name if others and name in others else "what was given")
        compared = isinstance(each, xr.DataArray) and each.dims == ("concept", "other")
        similarity, quantity = given_similarity(each, method, None if compared else threshold, by, sign)
        values = np.array(similarity.values, np.float64)
        np.fill_diagonal(values, np.nan)
        similarities[quantity if name == "experts" else name] = values
    quantity = next(iter(similarities))
    if isinstance(x, xr.Dataset) and (method, by, sign) == ("jaccard", "average_precision", "up") and threshold:
        halves = similarity_of_halves(x, threshold)
        if halves is not None:
            similarities[f"{quantity}, between halves of the sentences"] = halves
    parts: dict[str, list[pd.DataFrame]] = {"table": [], "differences": [], "homographs": []}
    for name, values in similarities.items():
        found = compare_senses(values, words, concepts.domains)
        parts["homographs"].append(found.assign(measure=name))
        parts["table"].append(summarise_senses(found, resamples=resamples, seed=seed).assign(measure=name))
        parts["differences"].append(contrast_senses(found, resamples=resamples, seed=seed).assign(measure=name))
    joined = {name: pd.concat(each, ignore_index=True) for name, each in parts.items()}
    tables = {name: each[["measure", *each.columns.drop("measure")]] for name, each in joined.items()}
    sentences = []
    for name in similarities:
        kinds = tables["table"].set_index("measure").loc[[name]].to_dict("records")
        told = "; ".join(f"{row['kind']}: {interval(row, 'overlap')}" for row in kinds)
        rows = tables["differences"]
        rows = rows[(rows["measure"] == name) & (rows["first"] == SAME_SENSE) & (rows["second"] == SAME_WORD)]
        for row in rows.to_dict("records"):
            share = f"{row['share']:.2f} [{row['share_low']:.2f}, {row['share_high']:.2f}]"
            told += (
                f". Of {row['homographs']} homographs a share of {share} is more alike by sense than by word (chance "
                f"0.5, p = {row['p_value']:.2g})"
            )
        sentences.append(f"{name}: {told}.")
    figure = functools.partial(plot.senses, tables["table"], tables["differences"], tables["homographs"])
    return Result("senses", tables.pop("table"), tuple(sentences), {"senses": figure}, tables)
