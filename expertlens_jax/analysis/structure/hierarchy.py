"""Whether a domain's own word ("animal") is to a model what its members ("cat", "dog") share.

Inclusion is asymmetric: |A∩B| / |A| is the share of A's experts that are B's too. How far it differs from
|A∩B| / |B| is only a matter of which set is larger; what it says of a hierarchy lies in the comparison with other
pairs, of members among themselves and of members with the words of other domains, and in the lift, which leaves the
sizes out: |A∩B| units / (|A| |B|), 1 if experts were drawn at random.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.concept_tree import concept_domains, concept_names
from expertlens_jax.experts.ratio import ratio

OWN, MEMBERS, OTHER = "own word", "two members", "another domain's word"


def measure_inclusion(experts: xr.DataArray) -> pd.DataFrame:
    """Return the inclusion of expert sets in one another.

    It is asked of words in their domain's members, members in members, and other words.

    A domain's word is the concept of the domain's name, and is no member. Domains without one are left out.

    Args:
      experts: bool (concept, unit), with `domain`.

    Returns:
      A row per pair: `pair` ("own word": A is the word of B's domain; "two members": of one domain; "another
      domain's word": A is the word of another domain than the member B's), `domain` (of B), `concept_a`,
      `concept_b`, `experts_a`, `experts_b`, `shared`, `a_in_b` (|A∩B|/|A|, NaN if A is empty), `b_in_a`, `lift`.

    Raises:
      SelectionError: no domain has its word and two members among the concepts.
    """
    domains, names = concept_domains(experts), concept_names(experts)
    sets = experts.transpose("concept", "unit").values.astype(np.float32)
    shared = (sets @ sets.T).astype(np.int64)
    index = {name: i for i, name in enumerate(names)}
    members = members_of_domains(names, domains.tolist())
    pairs = []
    for word, those in members.items():
        pairs += [(OWN, word, index[word], member) for member in those]
        pairs += [(MEMBERS, word, a, b) for a in those for b in those if a != b]
        pairs += [(OTHER, word, index[other], member) for other in members if other != word for member in those]
    a, b = (np.array([pair[k] for pair in pairs]) for k in (2, 3))
    size = np.diag(shared).astype(np.float64)
    common = shared[a, b].astype(np.float64)
    table = pd.DataFrame({"pair": [pair[0] for pair in pairs], "domain": [pair[1] for pair in pairs]})
    table["concept_a"], table["concept_b"] = np.array(names)[a], np.array(names)[b]
    table["experts_a"], table["experts_b"], table["shared"] = size[a].astype(int), size[b].astype(int), shared[a, b]
    for column, whole in (("a_in_b", size[a]), ("b_in_a", size[b]), ("lift", size[a] * size[b] / sets.shape[1])):
        table[column] = ratio(common, whole, empty=np.nan)
    return table


def members_of_domains(concepts: Sequence[str], domains: Sequence[str]) -> dict[str, list[int]]:
    """Return the places of each domain's members, of the domains that have their own word among the concepts.

    Args:
      concepts: names.
      domains: of each concept.

    Raises:
      SelectionError: no domain has its word and two members among the concepts.
    """
    index = {name: i for i, name in enumerate(concepts)}
    members = {
        word: [i for i, domain in enumerate(domains) if domain == word and concepts[i] != word]
        for word in dict.fromkeys(domains)
        if word in index and domains[index[word]] == word
    }
    members = {word: those for word, those in members.items() if len(those) > 1}
    if not members:
        raise SelectionError(
            f"no domain of {', '.join(dict.fromkeys(domains))} has its own word and two members or more among "
            "the concepts, so there is no hierarchy to look at. Add the domains' words as concepts."
        )
    return members


def summarise_inclusion(inclusion: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return the mean inclusion by kind of pair, over domains, and each kind against members among themselves.

    Args:
      inclusion: from `measure_inclusion`.
      resamples: draws of a bootstrap over domains.
      seed: of `np.random.default_rng`.

    Returns:
      A row per statistic (`a_in_b`, `b_in_a`, `lift`) and pair: `mean` (over domains, of the mean over their pairs),
      `ci_low`, `ci_high`; `own_less_this` (the own word's mean less this), `difference_ci_low`, `difference_ci_high`,
      and `p_value` (two-sided, Wilcoxon's signed ranks over domains); NaN for the own word itself.
    """
    rows = []
    for statistic in ("a_in_b", "b_in_a", "lift"):
        means = inclusion.pivot_table(index="domain", columns="pair", values=statistic, aggfunc="mean")
        for pair in (name for name in (OWN, MEMBERS, OTHER) if name in means):
            mean, low, high = bootstrap_mean(means[[pair]].to_numpy(), resamples, seed)
            difference = (means[OWN] - means[pair]).dropna()
            change, change_low, change_high = bootstrap_mean(difference.to_numpy()[:, None], resamples, seed)
            compared = pair != OWN and len(difference) > 1 and difference.any()
            rows.append(
                {
                    "statistic": statistic,
                    "pair": pair,
                    "domains": int(means[pair].notna().sum()),
                    "mean": mean,
                    "ci_low": low,
                    "ci_high": high,
                    "own_less_this": change if pair != OWN else np.nan,
                    "difference_ci_low": change_low if pair != OWN else np.nan,
                    "difference_ci_high": change_high if pair != OWN else np.nan,
                    "p_value": float(scipy.stats.wilcoxon(difference).pvalue) if compared else np.nan,
                }
            )
    return pd.DataFrame(rows)


def count_sharing(experts: xr.DataArray, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return, of the units that at least k members of a domain share, the share that are experts on the domain's word.

    If a word's experts are what its members share, it rises with k, and more than for the words of other domains.

    Args:
      experts: bool (concept, unit), with `domain`.
      resamples: draws of a bootstrap over domains.
      seed: of `np.random.default_rng`.

    Returns:
      A row per k: `members` (k), `domains` (with such units), `units` (of all domains), `own`, `own_ci_low`,
      `own_ci_high`, `others`, `others_ci_low`, `others_ci_high`: means over domains, of the own word, and of the mean
      of all other domains' words.

    Raises:
      SelectionError: as `measure_inclusion`.
    """
    inclusion = measure_inclusion(experts)
    words = list(dict.fromkeys(inclusion["domain"]))
    domains, names = concept_domains(experts), np.array(concept_names(experts))
    sets = experts.transpose("concept", "unit").values
    of_words = np.stack([sets[(names == word) & (domains == word)][0] for word in words])
    sharing = np.stack([sets[(domains == word) & (names != word)].sum(axis=0) for word in words])
    rows = []
    for k in range(1, sharing.max() + 1):
        shared = sharing >= k  # [domains, units]
        size = shared.sum(axis=1)
        known = size > 0
        rate = (shared.astype(np.float64) @ of_words.T)[known] / size[known, None]  # [domains, words]
        own = rate[np.arange(len(rate)), np.flatnonzero(known)]
        others = (rate.sum(axis=1) - own) / max(1, len(words) - 1)
        row: dict[str, Any] = {"members": k, "domains": int(known.sum()), "units": int(size.sum())}
        for name, values in (("own", own), ("others", others)):
            mean, low, high = bootstrap_mean(values[:, None], resamples, seed)
            row |= {name: mean, f"{name}_ci_low": low, f"{name}_ci_high": high}
        rows.append(row)
    return pd.DataFrame(rows)
