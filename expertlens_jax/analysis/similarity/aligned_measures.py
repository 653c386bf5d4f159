"""How many similarities of the same concepts go with human ratings, one of them compared with all others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from expertlens_jax.analysis.similarity.alignment import align
from expertlens_jax.analysis.similarity.comparison import compare_alignments, partial_alignments
from expertlens_jax.analysis.similarity.measures import Measure
from expertlens_jax.data.ratings import Ratings


def align_measures(
    measures: Sequence[Measure],
    drawn: Measure,
    ratings: Sequence[Ratings],
    sentences: str,
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, pd.DataFrame]:
    """Align each similarity with each ratings, and compare one with the others.

    Args:
      measures: similarities of the same concepts.
      drawn: the one of them that is compared with the others, those of group "ExpertLens" left out.
      ratings: of people.
      sentences: what to call the sentence set that the concepts are of.
      resamples: of the 95% intervals, over concepts.
      permutations: of the p-values.
      seed: of both.
      progress: shows a bar.

    Returns:
      alignment: a row per measure and ratings: group, sentences, measure, threshold, negatives_per_positive,
        experts_median, ratings, pairs, spearman, ci_low, ci_high, p_value, note, ceiling.
      pairs: the rated pairs of `drawn`, see `Alignment.table`.
      comparisons: of `compare_alignments`.
      partial: of `partial_alignments`, with the measures of group "Controls".
      The last three have columns sentences and ratings at their end.
    """
    rows, pairs = [], []
    for measure, rated in tqdm(
        list(itertools.product(measures, ratings)), desc="aligning", unit="measure", mininterval=1, disable=not progress
    ):
        found = align(measure.similarity, rated, resamples=resamples, permutations=permutations, seed=seed)
        rows.append(
            {
                "group": measure.group,
                "sentences": sentences,
                "measure": measure.name,
                "threshold": measure.threshold,
                "negatives_per_positive": measure.negatives_per_positive,
                "experts_median": measure.experts_median,
                **{name: getattr(found, name) for name in ("ratings", "pairs", "spearman", "ci_low", "ci_high")},
                **{"p_value": found.p_value, "note": found.note, "ceiling": rated.ceiling},
            }
        )
        if measure is drawn:
            pairs.append(found.table.assign(sentences=sentences, ratings=rated.name))
    others = {each.name: each.similarity for each in measures if each.group != "ExpertLens"}
    controls = {each.name: each.similarity for each in measures if each.group == "Controls"}
    compared, partial = [], []
    for rated in ratings:
        source = {"sentences": sentences, "ratings": rated.name}
        compared.append(compare_alignments(drawn.similarity, others, rated).assign(**source))
        partial.append(partial_alignments(drawn.similarity, controls, rated).assign(**source))
    return {
        "alignment": pd.DataFrame(rows),
        "pairs": pd.concat(pairs, ignore_index=True),
        "comparisons": pd.concat(compared, ignore_index=True),
        "partial": pd.concat(partial, ignore_index=True),
    }
