"""How many concepts and domains a unit serves, and what the experts that two concepts share are like."""

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.statistics import count_groupings, least_p_of_permutations, p_of_draws, resample_counts
from expertlens_jax.data.rows import each_row
from expertlens_jax.experts.concept_tree import concept_domains, concept_names
from expertlens_jax.experts.selection import average_precision, check_same_table, expert_sets

SIMILAR, DISSIMILAR = "same domain", "different domains"


def count_services(experts: xr.DataArray) -> pd.DataFrame:
    """Return how many concepts, and how many domains, each unit is an expert on.

    Args:
      experts: bool (concept, unit), with `domain` of the concepts.

    Returns:
      A row per unit: `unit`, `layer`, `site`, `channel`, `concepts`, `domains`; of a mixture of experts `expert` too.
    """
    names = ("unit", "layer", "site", "channel", "expert")
    columns = {name: experts[name].values for name in names if name in experts.coords}
    sets = expert_sets(experts).values
    return pd.DataFrame(columns).assign(concepts=sets.sum(axis=0), domains=_domains_served(sets, _member(experts)))


def spread_services(experts: xr.DataArray, *, draws: int = 200, seed: int = 0) -> pd.DataFrame:
    """Return how many units serve 0, 1, 2 … concepts or domains, against experts drawn at random.

    The null draws for each concept as many units as it has experts, from all units alike: what polysemanticity there
    would be if concepts didn't share experts more than they must.

    Args:
      experts: bool (concept, unit), with `domain` of the concepts.
      draws: of the null.
      seed: of `np.random.default_rng`.

    Returns:
      A row per kind ("concepts", "domains") and number: `served` (the kind), `number`, `units`, `null_mean`,
      `null_low`, `null_high` (95% of the draws).
    """
    sets, member = expert_sets(experts).values, _member(experts)
    num_units = sets.shape[1]
    sizes = sets.sum(axis=1)
    rng = np.random.default_rng(seed)
    observed = {"concepts": sets.sum(axis=0), "domains": _domains_served(sets, member)}
    limits = {"concepts": len(sets) + 1, "domains": member.shape[0] + 1}
    null = {name: np.zeros((draws, limit), np.int64) for name, limit in limits.items()}
    for draw in range(draws):
        drawn = np.zeros_like(sets)
        for row, size in zip(drawn, sizes, strict=True):
            row[rng.choice(num_units, size, replace=False)] = True
        for name, counts in (("concepts", drawn.sum(axis=0)), ("domains", _domains_served(drawn, member))):
            null[name][draw] = np.bincount(counts, minlength=limits[name])
    tables = []
    for name, counts in observed.items():
        low, high = np.percentile(null[name], [2.5, 97.5], axis=0)
        table = pd.DataFrame({"served": name, "number": np.arange(limits[name])})
        table["units"] = np.bincount(counts, minlength=limits[name])
        table["null_mean"], table["null_low"], table["null_high"] = null[name].mean(axis=0), low, high
        last = table.index[(table["units"] > 0) | (table["null_high"] > 0)].max()
        tables.append(table.loc[:last])
    return pd.concat(tables, ignore_index=True)


def gather_domains(experts: xr.DataArray, *, permutations: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Return whether the concepts that a unit serves are of one domain more often than chance.

    Of the units that serve exactly k concepts, the mean number of domains these are of, against concepts that are
    handed each other's domains. Fewer domains than that is polysemanticity along human lines. p is
    (1 + #{null <= observed}) / (1 + permutations), one-sided.

    Args:
      experts: bool (concept, unit), with `domain` of the concepts.
      permutations: how many to draw.
      seed: of `np.random.default_rng`.

    Returns:
      A row per k of 2 or more: `concepts` (k; 0 for all units that serve two or more), `units`, `domains` (mean),
      `null_mean`, `null_low`, `null_high` (95%), `p_value`, `least_p` (the smallest that it could have been, with so
      many permutations and so many ways to group the concepts).
    """
    sets, member = expert_sets(experts).values, _member(experts)
    served = sets.sum(axis=0)
    sets = sets[:, served >= 2]
    served = served[served >= 2]
    numbers, group = np.unique(served, return_inverse=True)
    units = np.bincount(group)
    columns = ["concepts", "units", "domains", "null_mean", "null_low", "null_high", "p_value", "least_p"]
    if not len(served):
        return pd.DataFrame(columns=columns)

    def means(member: np.ndarray) -> np.ndarray:
        domains = _domains_served(sets, member)
        return np.concatenate([[domains.mean()], np.bincount(group, domains) / units])

    observed = means(member)
    rng = np.random.default_rng(seed)
    null = np.stack([means(member[:, rng.permutation(len(sets))]) for _ in range(permutations)])
    low, high = np.percentile(null, [2.5, 97.5], axis=0)
    p = p_of_draws((null <= observed + 1e-12).sum(axis=0), permutations)
    of = np.concatenate([[0], numbers]), np.concatenate([[len(served)], units])
    least_p = least_p_of_permutations(permutations, count_groupings(member.argmax(axis=0).tolist()))
    found = (*of, observed, null.mean(axis=0), low, high, p, np.full(len(p), least_p))
    return pd.DataFrame(dict(zip(columns, found, strict=True)))


def compare_shared(
    expertise: xr.Dataset, experts: xr.DataArray, *, minimum: int = 5, pairs: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Average precision of the experts that a concept shares with another, against those it doesn't share.

    Two-sample Kolmogorov-Smirnov test (scipy's `ks_2samp`) of a concept A's AP over A∩B and over A without B. Its p
    takes units as independent, which they are not quite: a share of small p above 5% is read against that.

    Args:
      expertise: from `measure_expertise`, with `domain`.
      experts: of it, bool (concept, unit).
      minimum: units that each of the two samples must have.
      pairs: at most so many (A, B) of either kind, drawn at random; (A, B) and (B, A) are two.
      seed: of that draw.

    Returns:
      A row per (A, B): `pair` ("same domain", "different domains"), `comparable` (the share of all pairs of the kind
      that have enough experts of both sorts), `concept_a`, `concept_b`, `shared`, `unshared`
      (how many units), `ap_shared`, `ap_unshared` (mean AP on A), `ks`, `p_value`.
    """
    check_same_table(expertise, experts)
    precision = average_precision(expertise).values
    sets, domains, names = expert_sets(experts).values, concept_domains(experts), concept_names(experts)
    shared = sets.astype(np.float32) @ sets.T.astype(np.float32)
    enough = (shared >= minimum) & (np.diag(shared)[:, None] - shared >= minimum)
    np.fill_diagonal(enough, False)
    same = domains[:, None] == domains
    rng = np.random.default_rng(seed)
    rows = []
    for kind, mask in ((SIMILAR, enough & same), (DISSIMILAR, enough & ~same)):
        found = np.argwhere(mask)
        comparable = len(found) / max(1, (same if kind == SIMILAR else ~same).sum() - len(same) * (kind == SIMILAR))
        if len(found) > pairs:
            found = found[np.sort(rng.choice(len(found), pairs, replace=False))]
        for a, b in found:
            ours, theirs = precision[a, sets[a] & sets[b]], precision[a, sets[a] & ~sets[b]]
            test = scipy.stats.ks_2samp(ours, theirs)
            rows.append(
                {
                    "pair": kind,
                    "comparable": comparable,
                    "concept_a": names[a],
                    "concept_b": names[b],
                    "shared": len(ours),
                    "unshared": len(theirs),
                    "ap_shared": ours.mean(dtype=np.float64),
                    "ap_unshared": theirs.mean(dtype=np.float64),
                    "ks": test.statistic,
                    "p_value": test.pvalue,
                }
            )
    columns = [
        "pair",
        "comparable",
        "concept_a",
        "concept_b",
        "shared",
        "unshared",
        "ap_shared",
        "ap_unshared",
        "ks",
        "p_value",
    ]
    return pd.DataFrame(rows, columns=columns)


def summarise_shared(compared: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return what `compare_shared` found, by kind of pair.

    Args:
      compared: its table.
      resamples: draws of a bootstrap over the concepts A, each with all its pairs.
      seed: of `np.random.default_rng`.

    Returns:
      A row per kind: `pair`, `comparable`, `pairs`, `concepts` (A), `ks_median`, `small_p` (share with p < 0.05),
      `ap_shared`, `ap_unshared` (means over pairs), `difference` (of the two), `ci_low`, `ci_high`.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for kind, some in compared.groupby("pair", sort=False):
        difference = (some["ap_shared"] - some["ap_unshared"]).groupby(some["concept_a"]).agg(["sum", "size"])
        number = len(difference)
        drawn = resample_counts(number, resamples, rng)
        means = (drawn @ difference["sum"].to_numpy()) / (drawn @ difference["size"].to_numpy())
        low, high = np.percentile(means, [2.5, 97.5]) if number > 1 else (np.nan, np.nan)
        rows.append(
            {
                "pair": kind,
                "comparable": some["comparable"].iloc[0],
                "pairs": len(some),
                "concepts": number,
                "ks_median": some["ks"].median(),
                "small_p": (some["p_value"] < 0.05).mean(),
                "ap_shared": some["ap_shared"].mean(),
                "ap_unshared": some["ap_unshared"].mean(),
                "difference": difference["sum"].sum() / len(some),
                "ci_low": low,
                "ci_high": high,
            }
        )
    columns = [
        "pair",
        "comparable",
        "pairs",
        "concepts",
        "ks_median",
        "small_p",
        "ap_shared",
        "ap_unshared",
        "difference",
    ]
    return pd.DataFrame(rows, columns=[*columns, "ci_low", "ci_high"])


def distribute_shared(
    expertise: xr.Dataset, experts: xr.DataArray, compared: pd.DataFrame, *, steps: int = 50
) -> pd.DataFrame:
    """Return the distributions behind `compare_shared`: empirical, averaged over its pairs.

    Args:
      expertise: from `measure_expertise`.
      experts: of it, bool (concept, unit).
      compared: the table of `compare_shared`.
      steps: between the lowest AP of an expert and 1.

    Returns:
      A row per kind of pair, `experts` ("shared", "unshared") and `average_precision`: `share` of these experts whose
      AP is at most that.
    """
    check_same_table(expertise, experts)
    precision, sets = average_precision(expertise).values, expert_sets(experts).values
    index = {name: i for i, name in enumerate(concept_names(experts))}
    grid = np.linspace(precision[sets].min() if sets.any() else 0.0, 1, steps + 1)
    tables = []
    for kind, some in compared.groupby("pair", sort=False):
        sums = {"shared": np.zeros(len(grid)), "unshared": np.zeros(len(grid))}
        for row in each_row(some):
            a, b = index[row.concept_a], index[row.concept_b]
            for name, units in (("shared", sets[a] & sets[b]), ("unshared", sets[a] & ~sets[b])):
                ordered = np.sort(precision[a, units])
                sums[name] += np.searchsorted(ordered, grid, side="right") / len(ordered)
        for name, total in sums.items():
            table = pd.DataFrame({"average_precision": grid, "share": total / len(some)})
            tables.append(table.assign(pair=kind, experts=name))
    columns = ["pair", "experts", "average_precision", "share"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _member(experts: xr.DataArray) -> np.ndarray:
    """Return which concepts are of each domain, bool [domains, concepts]."""
    domains = concept_domains(experts)
    return np.array([domains == domain for domain in dict.fromkeys(domains.tolist())])


def _domains_served(sets: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Of expert sets [concepts, units] and domains [domains, concepts], how many domains each unit serves: [units]."""
    return ((member.astype(np.float32) @ sets.astype(np.float32)) > 0).sum(axis=0)
