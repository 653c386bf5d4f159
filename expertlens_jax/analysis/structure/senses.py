"""Are experts of the concept or of the word? Words in two senses, and other words for each sense.

Of a homograph (bat: the animal, the club) and its partners (pipistrelle, racket) there are pairs of three kinds: the
same word in another sense, another word in the same sense, and neither. An expert of the word serves the first kind, an
expert of the concept the second. With experts found in either half of the sentences there is the fourth kind too, the
same word in the same sense, and all four stand on equal terms: each pair is of two different sets of sentences.

A number is first a mean over the pairs of one homograph, then one over homographs, which are what is resampled: pairs
of a homograph share its sentences.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.conditions.stability import cross_jaccard
from expertlens_jax.analysis.statistics import bootstrap_mean, least_p_of_signs
from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import SelectionError, UnfitConceptsError

SAME = "same word, same sense"
SAME_SENSE = "other word, same sense"
SAME_WORD = "same word, other sense"
NEITHER = "neither"
KINDS = (SAME, SAME_SENSE, SAME_WORD, NEITHER)
DIFFERENCES = ((SAME_SENSE, SAME_WORD), (SAME_SENSE, NEITHER), (SAME_WORD, NEITHER), (SAME, SAME_WORD))


def find_homographs(concepts: ConceptDataset) -> list[str]:
    """Return the words that stand for concepts of two domains or more, if one of these has a concept of another word.

    Raises:
      UnfitConceptsError: there is none; the message says what such a set is.
    """
    words, domains = concepts.words or concepts.concepts, concepts.domains
    of_word, of_domain = collections.defaultdict(set), collections.defaultdict(set)
    for word, domain in zip(words, domains, strict=True):
        of_word[word].add(domain)
        of_domain[domain].add(word)
    several = [word for word, found in of_word.items() if word and len(found) > 1]
    found = [word for word in several if any(len(of_domain[domain]) > 1 for domain in of_word[word] if domain)]
    if not found:
        lacks = (
            f"{', '.join(map(repr, several[:3]))} have no concept of another word in the domain of either sense"
            if several
            else "no word stands for two concepts of different domains"
        )
        raise UnfitConceptsError(
            f"{concepts.name!r} can't tell concepts from words: {lacks}. Wanted a column `word`, with the same word "
            "for concepts of several domains, and in these domains a concept of another word, as in "
            'el.load_concepts("senses").'
        )
    return found


def compare_senses(similarity: np.ndarray, words: Sequence[str], domains: Sequence[str]) -> pd.DataFrame:
    """Average a similarity over the pairs of each kind, by homograph.

    Args:
      similarity: float `[concepts, concepts]`. Its diagonal counts only as "same word, same sense"; NaN there leaves
        that kind out.
      words: `[concepts]`.
      domains: `[concepts]`: two concepts of one domain are one sense.

    Returns:
      A row per homograph and kind: `homograph`, `kind`, `overlap` (mean), `pairs`. A homograph without pairs of a kind
      has no row of it.
    """
    of_word, of_domain = np.array(words), np.array(domains)
    similarity = np.asarray(similarity, np.float64)
    same_word, same_domain = of_word[:, None] == of_word, of_domain[:, None] == of_domain
    rows = []
    for word in dict.fromkeys(words):
        own = np.equal(of_word, word)
        if not word or len(set(of_domain[own].tolist())) < 2:
            continue
        mine = np.broadcast_to(own[:, None], same_word.shape)
        masks = {
            SAME: mine & np.eye(len(words), dtype=bool),
            SAME_SENSE: mine & ~same_word & same_domain,
            SAME_WORD: mine & same_word & ~same_domain,
            NEITHER: mine & ~same_word & ~same_domain,
        }
        for kind, mask in masks.items():
            values = similarity[mask]
            values = values[~np.isnan(values)]
            if len(values):
                pairs = len(values) // 2 if kind == SAME_WORD else len(values)  # both ends are the homograph's
                rows.append({"homograph": word, "kind": kind, "overlap": float(values.mean()), "pairs": pairs})
    return pd.DataFrame(rows, columns=["homograph", "kind", "overlap", "pairs"])


def summarise_senses(homographs: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Average each kind over homographs, with its 95% interval from resampling these.

    Args:
      homographs: of `compare_senses`.
      resamples: draws of the bootstrap.
      seed: of these.

    Returns:
      A row per kind: `kind`, `overlap`, `ci_low`, `ci_high`, `ratio` (to the mean of "neither"), `homographs`.
    """
    table = homographs.pivot_table(index="homograph", columns="kind", values="overlap", sort=False)
    rows = []
    for kind in KINDS:
        if kind in table:
            values = table[kind].dropna().to_numpy()
            mean, low, high = bootstrap_mean(values[:, None], resamples, seed)
            base = float(table[NEITHER].mean()) if NEITHER in table else 0.0
            ratio = mean / base if base > 0 else np.nan
            rows.append((kind, mean, low, high, ratio, len(values)))
    return pd.DataFrame(rows, columns=["kind", "overlap", "ci_low", "ci_high", "ratio", "homographs"])


def contrast_senses(homographs: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Compare the kinds homograph by homograph.

    p is that of Wilcoxon's signed ranks, two-sided (scipy's; 1 where all differences are 0).

    Args:
      homographs: of `compare_senses`.
      resamples: draws of the bootstrap over homographs.
      seed: of these.

    Returns:
      A row per two kinds: `first`, `second`, `difference` (mean of first - second), `ci_low`, `ci_high`, `share` (of
      homographs whose first is larger; of equal ones half) with `share_low`, `share_high`, `p_value`, `least_p`,
      `homographs`.
    """
    table = homographs.pivot_table(index="homograph", columns="kind", values="overlap", sort=False)
    rows = []
    for first, second in DIFFERENCES:
        if first not in table or second not in table:
            continue
        differences = (table[first] - table[second]).dropna().to_numpy()
        larger = (differences > 0) + (differences == 0) / 2
        p_value = float(scipy.stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
        rows.append(
            (
                *(first, second, *bootstrap_mean(differences[:, None], resamples, seed)),
                *bootstrap_mean(larger[:, None].astype(float), resamples, seed),
                *(p_value, least_p_of_signs(len(differences)), len(differences)),
            )
        )
    columns = ["first", "second", "difference", "ci_low", "ci_high", "share", "share_low", "share_high"]
    return pd.DataFrame(rows, columns=[*columns, "p_value", "least_p", "homographs"])


def similarity_of_halves(expertise: xr.Dataset, threshold: float) -> np.ndarray | None:
    """Return the Jaccard overlap of experts found in one half of the sentences with those found in the other.

    Args:
      expertise: with `average_precision_halves` (half, concept, unit).
      threshold: τ.

    Returns:
      float64 `[concepts, concepts]`, symmetric: the mean of both ways. None without halves.
    """
    if "average_precision_halves" not in expertise:
        return None
    halves = expertise["average_precision_halves"]
    first, second = (halves.isel(half=half).values >= np.float32(threshold) for half in (0, 1))
    crossed = cross_jaccard(first, second)
    return (crossed + crossed.T) / 2


def check_order(similarity: xr.DataArray | xr.Dataset, concepts: ConceptDataset, what: str) -> None:
    """Check that a table is of these concepts, in their order.

    Raises:
      SelectionError: it isn't; the message names the first that differs.
    """
    names = [str(name) for name in similarity["concept"].values]
    if names != list(concepts.concepts):
        pairs = zip([*names, None], [*concepts.concepts, None], strict=False)
        at, (one, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        raise SelectionError(
            f"{what} has {counted(len(names), 'concept')} and {concepts.name!r} has {len(concepts.concepts)}; number "
            f"{at + 1} is {one!r} there and {other!r} here. Give the sentence set that it was measured on, as it was."
        )
