"""What words in two senses say: a table for a terminal, and the verdict on the claim."""

from collections.abc import Mapping

import pandas as pd

from expertlens_jax.analysis.similarity.beside_experts import experts_name
from expertlens_jax.analysis.structure.senses import KINDS, SAME_SENSE, SAME_WORD
from expertlens_jax.data.rows import each_row
from expertlens_jax.report.conclusions import Conclusion, Untestable, above, conclude_from, every, significant


def tell(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return a row per measure: its mean by kind of pair, and how many words are more alike by sense than by form."""
    kinds, differences = tables["senses"], _asked(tables["differences"])
    shown = kinds.assign(shown=[f"{r.overlap:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]" for r in each_row(kinds)])
    table = shown.pivot_table(
        index=["sentences", "measure"], columns="kind", values="shown", aggfunc="first", sort=False
    )
    table = table[[kind for kind in KINDS if kind in table]]
    shares = {
        (r.sentences, r.measure): f"{r.share:.2f} [{r.share_low:.2f}, {r.share_high:.2f}] p = {r.p_value:.2g}"
        for r in each_row(differences)
    }
    table["words more alike by sense"] = [shares.get(each, "") for each in table.index]
    return f"Mean over words, 95% intervals over them\n{table.to_string(na_rep='')}"


def _asked(differences: pd.DataFrame) -> pd.DataFrame:
    return differences[(differences["first"] == SAME_SENSE) & (differences["second"] == SAME_WORD)]


def conclude(tables: Mapping[str, pd.DataFrame], *, threshold: float) -> list[Conclusion]:
    """Return what words in two senses say of the claim.

    Testable with enough words for a p below 0.05, some of whose experts overlap.

    Args:
      tables: of `el.analysis.senses`: "senses" and "differences", after a column sentences, with measures as
        `experts_name` and the launcher call them.
      threshold: τ of the expert sets that the claim is about.
    """
    outcomes, told = [], []
    name = experts_name(threshold)
    differences = _asked(tables["differences"])
    for sentences, rows in differences.groupby("sentences", sort=False):
        kinds = tables["senses"]
        own = kinds[(kinds["sentences"] == sentences) & (kinds["measure"] == name)].set_index("kind")
        row = rows.set_index("measure").loc[name]
        if own["overlap"].max() == 0:
            outcomes.append(Untestable(f"{sentences}: no two concepts share an expert at τ = {threshold:g}"))
        else:
            what = f"{row['homographs']} words of {sentences}"
            larger = above(row["ci_low"], 0.0, f"{sentences}: the interval of the difference")
            outcomes.append(every([significant(row["p_value"], row["least_p"], what), larger]))
        numbers = ", ".join(
            f"{kind} {r['overlap']:.3f} ({r['ci_low']:.3f} to {r['ci_high']:.3f})" for kind, r in own.iterrows()
        )
        beside = "; ".join(f"{r.measure} {r.share:.2f}" for r in each_row(rows) if r.measure != name)
        told.append(
            f"{sentences}: {numbers}; {row['share']:.2f} ({row['share_low']:.2f} to {row['share_high']:.2f}) of "
            f"{row['homographs']} words are more alike by sense than by form (chance 0.5, p = {row['p_value']:.2g}; "
            f"{beside})"
        )
    first = tables["senses"]["sentences"].iloc[0]
    return [
        conclude_from(
            claim="Experts are of the concept rather than of the word.",
            found=f"Mean Jaccard overlap of expert sets at τ = {threshold:g}: {'. '.join(told)}. Held if another word "
            "in the same sense overlaps more than the same word in another sense, word by word (Wilcoxon's p < 0.05, "
            "and the interval of the difference above 0).",
            outcome=every(outcomes),
            figure=f"senses_{first}",
        )
    ]
