"""What each experiment concludes of tables that hold nothing, too little, no number, or enough; tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from experiments import (
    alignment,
    localisation,
    mixture,
    negatives,
    organisation,
    polysemanticity,
    scale,
    stability,
    training,
)
from expertlens_jax.analysis.conditions.equal_counts import COLUMNS, FEATURES, UNITS
from expertlens_jax.report.alignment_findings import shown_rows
from expertlens_jax.report.sparse_features_findings import conclude as conclude_sparse_features

DRAWN = {"threshold": 0.5, "permutations": 999}
NAN = float("nan")


def frames(tables):
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


def expect(conclusion, verdict, *reasons):
    assert conclusion.verdict == verdict, (conclusion.found, conclusion.reason)
    assert bool(conclusion.reason) == (verdict == "not testable")
    for reason in reasons:
        assert reason in conclusion.reason


def aligned(values, *, p=0.001, pairs=30, ratings="men", controls=("random_weights_0",)):
    """Rows of alignment.csv: the experts' correlation, random weights', and TF-IDF's."""
    named = {"jaccard": values[0], "tfidf": values[-1]}
    named |= {f"jaccard_{name}": value for name, value in zip(controls, values[1:-1], strict=True)}
    return [
        {"sentences": "facts", "measure": name, "ratings": ratings, "pairs": pairs, "spearman": value, "p_value": p}
        | {"threshold": NAN if name == "tfidf" else 0.5, "negatives_per_positive": NAN if name == "tfidf" else 2.5}
        | {"ci_low": value, "ci_high": value}
        for name, value in named.items()
    ]


@pytest.mark.parametrize(
    ("rows", "settings", "verdict", "reasons"),
    [
        (aligned((0.7, 0.1, 0.3)), {}, "held", ()),
        (aligned((0.7, 0.1, 0.8)), {}, "not held", ()),
        (aligned((0.7, 0.1, 0.3), p=0.2), {}, "not held", ()),
        (aligned((NAN, NAN, NAN), pairs=0), {}, "not testable", ("facts, men: no rated pairs, fewer than 10",)),
        (aligned((NAN, NAN, NAN), pairs=6), {}, "not testable", ("facts, men: 6 rated pairs, fewer than 10",)),
        (aligned((NAN, 0.1, 0.2)), {}, "not testable", ("30 rated pairs without a difference",)),
        (aligned((0.7, NAN, 0.3)), {}, "not testable", ("jaccard random weights 0 could not be computed",)),
        (aligned((0.7, NAN, 0.8)), {}, "not held", ()),
        (aligned((0.7, 0.3), controls=()), {}, "not testable", ("there are no random_weights to compare with",)),
        (
            aligned((0.7, 0.1, 0.3), p=0.1),
            {"permutations": 9},
            "not testable",
            ("9 permutations give a least p of 0.1",),
        ),
        (aligned((0.7, 0.1, 0.3)) + aligned((NAN,) * 3, pairs=3, ratings="rg"), {}, "held", ()),
    ],
)
def test_alignment(rows, settings, verdict, reasons):
    shown = shown_rows(pd.DataFrame(rows), [0.4, 0.5, 0.8], 2.5)
    (conclusion,) = alignment.conclude(shown, **DRAWN | settings)
    expect(conclusion, verdict, *reasons)
    assert "0 of 0" not in conclusion.found


def compared(kind, concepts=20, p=0.001, low=0.5, value=0.7):
    rows = [
        {"kind": kind, "first": "a", "second": "b", "threshold": 0.5, "concepts": concepts, "statistic": statistic}
        | {"value": value, "ci_low": low, "ci_high": 0.9, "p_value": p}
        for statistic in ("overlap_correlation", "jaccard_same", "jaccard_different", "retrieval")
    ]
    return rows


@pytest.mark.parametrize(
    ("rows", "arranged", "same", "reason"),
    [
        (compared("sentences") + compared("random weights", value=0.4), "held", "held", ""),
        (compared("sentences") + compared("random weights", value=0.6), "not held", "held", ""),
        (compared("sentences", value=0.4) + compared("random weights", value=0.3), "held", "not held", ""),
        (compared("sentences"), "not testable", "held", "there are no random_weights to compare with"),
        (compared("halves") + compared("random weights"), "not testable", "not testable", "no two sentence sets"),
        (
            *(compared("sentences", concepts=3, p=0.2) + compared("random weights", concepts=3, value=0.1),),
            *("not testable", "not testable", "999 permutations of 3 concepts"),
        ),
        (
            *(compared("sentences", p=NAN, low=NAN, value=NAN) + compared("random weights", value=0.1),),
            *("not testable", "not testable", "could not be computed"),
        ),
        (
            *(compared("sentences") + compared("random weights", value=NAN),),
            *("not testable", "held", "could not be computed"),
        ),
    ],
)
def test_stability(rows, arranged, same, reason):
    first, second = stability.conclude(pd.DataFrame(rows), **DRAWN)
    expect(first, arranged, *([reason] if arranged == "not testable" else []))
    expect(second, same, *([reason] if same == "not testable" else []))


def test_a_single_sentence_set_is_told_as_such_and_nothing_else():
    for conclusion in stability.conclude(pd.DataFrame(compared("halves")), **DRAWN):
        expect(conclusion, "not testable")
        assert conclusion.reason == "there are no two sentence sets to compare"


def settled(concepts=(20, 20), ends=((100, 90, 110), (300, 250, 350))):
    return [
        {"sentences": "facts", "last_with": "stories", "threshold": threshold, "concepts": number, "step": step}
        | {"ci_low": low, "ci_high": high}
        for threshold, number, (step, low, high) in zip((0.4, 0.8), concepts, ends, strict=True)
    ]


def traced(values, p=0.001, ratings="men"):
    return [
        {"sentences": "facts", "step": step, "statistic": "alignment", "ratings": ratings, "threshold": 0.5}
        | {"value": value, "p_value": p, "note": "2 of the 9 rated pairs" if np.isnan(value) else ""}
        for step, value in zip((0, 512), values, strict=True)
    ]


@pytest.mark.parametrize(
    ("rows", "verdict", "reason"),
    [
        (settled(), "held", ""),
        (settled()[::-1], "held", ""),  # in whatever order the thresholds were given
        (settled(ends=((100, 90, 260), (300, 250, 350))), "not held", ""),
        (settled(concepts=(20, 1)), "not testable", "facts: one threshold has experts on 6 concepts or more"),
        (settled(concepts=(5, 2)), "not testable", "facts: no threshold has experts on 6 concepts or more"),
        (settled(ends=((100, 90, 110), (NAN, NAN, NAN))), "not testable", "one threshold has experts"),
        (settled(ends=((100, 90, 110), (300, NAN, NAN))), "not testable", "could not be computed"),
    ],
)
def test_when_experts_settle(rows, verdict, reason):
    settles, _ = training.conclude(pd.DataFrame(traced((0.1, 0.6))), pd.DataFrame(rows), **DRAWN)
    expect(settles, verdict, reason)


@pytest.mark.parametrize(
    ("values", "settings", "verdict", "reason"),
    [
        ((0.1, 0.6), {}, "held", ""),
        ((0.6, 0.1), {}, "not held", ""),
        ((NAN, NAN), {}, "not testable", "facts, men has a correlation at 0 checkpoints: 2 of the 9 rated pairs"),
        ((NAN, 0.6), {}, "not testable", "facts, men has a correlation at 1 checkpoint"),
        ((0.1, 0.6), {"permutations": 9}, "not testable", "9 permutations give a least p of 0.1"),
    ],
)
def test_alignment_through_training(values, settings, verdict, reason):
    _, grows = training.conclude(pd.DataFrame(traced(values)), pd.DataFrame(settled()), **DRAWN | settings)
    expect(grows, verdict, reason)


def test_training_without_ratings():
    rows = [row | {"statistic": "overlap"} for row in traced((0.1, 0.2))]
    _, grows = training.conclude(pd.DataFrame(rows), pd.DataFrame(settled()), **DRAWN)
    expect(grows, "not testable", "no ratings")


def sized(small, large, *, overlaps=((0.2, 0.02), (0.2, 0.1)), thresholds=(0.4, 0.8)):
    """scale.csv and fall.csv of two models: alignment, and overlap at two thresholds."""
    rows = []
    for model, size, value, overlap in zip(("s", "l"), (10, 20), (small, large), overlaps, strict=True):
        of_model = {"sentences": "facts", "model": model, "parameters": size, "ci_low": 0.0, "ci_high": 1.0}
        for threshold, each in zip(thresholds, overlap, strict=True):
            at = of_model | {"threshold": threshold}
            rows.append(at | {"statistic": "alignment", "ratings": "men", "value": value})
            rows.append(at | {"statistic": "overlap", "ratings": "", "value": each})
    return {"scale": rows, "fall": scale.measure_fall(pd.DataFrame(rows))}


@pytest.mark.parametrize(
    ("tables", "grows", "falls", "reasons"),
    [
        (sized(0.3, 0.5), "held", "held", ()),
        (sized(0.5, 0.3, overlaps=((0.2, 0.1), (0.2, 0.02))), "not held", "not held", ()),
        (sized(NAN, NAN), "not testable", "held", ("s and l have no correlation with men (facts)",)),
        (sized(0.3, NAN), "not testable", "held", ("l have no correlation with men (facts)",)),
        (
            sized(0.3, 0.5, overlaps=((0.2, 0.0), (0.1, 0.0))),
            "held",
            "not testable",
            ("any overlap left at the highest",),
        ),
        (sized(0.3, 0.5, overlaps=((0.0, 0.0), (0.2, 0.1))), "held", "not testable", ("no overlap at all",)),
        (
            sized(0.3, 0.5, overlaps=((0.2,), (0.1,)), thresholds=(0.4,)),
            "held",
            "not testable",
            ("one threshold only",),
        ),
    ],
)
def test_scale(tables, grows, falls, reasons):
    tables = frames(tables)
    first, second = scale.conclude(tables["scale"], tables["fall"])
    expect(first, grows, *(reasons if grows == "not testable" else ()))
    expect(second, falls, *(reasons if falls == "not testable" else ()))


def deep(change_high=-0.1, concepts=(20, 20), layers=4, weights="trained", block="mlp", depths=(0.5, 0.2)):
    return [
        {"sentences": "facts", "weights": weights, "block": block, "threshold": threshold, "concepts": number}
        | {"depth": depth, "layers": layers, "change": -0.3, "change_ci_low": -0.4, "change_ci_high": change_high}
        for threshold, number, depth in zip((0.4, 0.8), concepts, depths, strict=True)
    ]


@pytest.mark.parametrize(
    ("rows", "verdict", "reason"),
    [
        (deep(), "held", ""),
        (deep(change_high=0.1), "not held", ""),
        (deep(concepts=(20, 3)), "not testable", "facts: one threshold has experts in MLPs on 6 concepts or more"),
        (deep(depths=(NAN, NAN)), "not testable", "facts: no threshold has experts in MLPs"),
        (deep(layers=1), "not testable", "the model has one layer"),
        (deep(block="attn"), "not testable", "facts: no unit of an MLP was looked at"),
        (deep(change_high=NAN), "not testable", "the interval of a change could not be computed"),
        (deep() + deep(change_high=0.3, weights="random_weights_0"), "held", ""),
    ],
)
def test_localisation(rows, verdict, reason):
    (conclusion,) = localisation.conclude(pd.DataFrame(rows))
    expect(conclusion, verdict, reason)


def spread(low=1.5, lead=(0.8, 0.5), concepts=20, random=0.3, kinds=("same concept", "other domains")):
    """Rows of together.csv: pairs on one concept, and on two; of random weights too, with a lead of their own."""
    rows = []
    for weights, (value, lead_low) in {"trained": lead, "random_weights_0": (random, 0.1)}.items():
        of = {"sentences": "facts", "weights": weights, "layer": "all", "times_chance": 2.0, "ci_low": low}
        of |= {"concepts": concepts, "lead": value, "lead_ci_low": lead_low, "lead_ci_high": 1.0}
        rows += [of | {"pair": pair} for pair in kinds if random is not None or weights == "trained"]
    return rows


def routed(lead=(0.05, 0.02), concepts=20, random=0.01):
    of = {"sentences": "facts", "concepts": concepts, "own": 0.5, "layer": 0.45, "lead_ci_high": 0.1}
    rows = [of | {"weights": "trained", "lead": lead[0], "lead_ci_low": lead[1]}]
    return rows + [of | {"weights": "random_weights_0", "lead": random, "lead_ci_low": 0.0}] * (random is not None)


@pytest.mark.parametrize(
    ("together", "router", "divided", "knows", "reason"),
    [
        (spread(), routed(), "held", "held", ""),
        (spread(low=0.9), routed(lead=(0.05, -0.01)), "not held", "not held", ""),
        (spread(lead=(0.8, -0.1)), routed(random=0.06), "not held", "not held", ""),
        (spread(random=0.9), routed(), "not held", "held", ""),
        (
            spread(random=None),
            routed(random=None),
            *("not testable",) * 2,
            "there are no random_weights to compare with",
        ),
        (spread(concepts=5), routed(concepts=5), *("not testable",) * 2, "facts: 5 concepts give a least p of 0.062"),
        (spread(kinds=("same concept",)), routed(), "not testable", "held", "facts: no concept has two domains"),
        (spread(concepts=0), routed(concepts=0), *("not testable",) * 2, "facts: no concept has"),
        (spread(lead=(NAN, NAN)), routed(lead=(NAN, NAN)), *("not testable",) * 2, "could not be computed"),
    ],
)
def test_mixture(together, router, divided, knows, reason):
    tables = {"together": pd.DataFrame(together), "router": pd.DataFrame(router)}
    first, second = mixture.conclude(tables, threshold=0.5)
    expect(first, divided, *([reason] if divided == "not testable" else []))
    expect(second, knows, *([reason] if knows == "not testable" else []))
    assert "facts, trained: same concept 2.00" in first.found


def recovered(values=(0.9, 0.3), p=0.001, least_p=0.001, random=True):
    names = ("experts, τ = 0.5", *(["random weights 0, τ = 0.5"] if random else []), "TF-IDF of the sentences")
    rows = {"sentences": "facts", "statistic": "knn_accuracy", "null_mean": 0.2, "p_value": p, "least_p": least_p}
    rows |= {"concepts": 8, "domains": 2}
    return [rows | {"measure": name, "value": v} for name, v in zip(names, [*values, 0.5][: len(names)], strict=True)]


def lifted(domains=8, low=0.5, kinds=("two members", "another domain's word")):
    rows = {"sentences": "facts", "statistic": "lift", "mean": 2.0, "domains": domains}
    own = rows | {"pair": "own word", "difference_ci_low": NAN}
    return [own, *(rows | {"pair": kind, "difference_ci_low": low} for kind in kinds)]


@pytest.mark.parametrize(
    ("recovery", "hierarchy", "domains", "words", "reason"),
    [
        (recovered(), lifted(), "held", "held", ""),
        (recovered(values=(0.3, 0.9)), lifted(low=-0.1), "not held", "not held", ""),
        (
            recovered(p=0.4, least_p=1 / 3),
            lifted(),
            "not testable",
            "held",
            "8 concepts in 2 domains give a least p of 0.33",
        ),
        (recovered(random=False), lifted(), "not testable", "held", "there are no random_weights to compare with"),
        (recovered(values=(0.9, NAN)), lifted(), "not testable", "held", "could not be computed"),
        (recovered(), lifted(domains=4), "held", "not testable", "4 domains give a least p of 0.12"),
        (recovered(), lifted(kinds=("two members",)), "held", "not testable", "one domain's word, and no other"),
        (recovered(), lifted(low=NAN), "held", "not testable", "the lift over two members could not be computed"),
    ],
)
def test_organisation(recovery, hierarchy, domains, words, reason):
    first, second = organisation.conclude(pd.DataFrame(recovery), pd.DataFrame(hierarchy), **DRAWN)
    expect(first, domains, *([reason] if domains == "not testable" else []))
    expect(second, words, *([reason] if words == "not testable" else []))


def served(domains=1.2, least_p=0.001):
    row = {"sentences": "facts", "concepts": 0, "units": 9, "domains": domains, "null_mean": 1.7, "null_low": 1.5}
    return {
        "services": [{"sentences": "facts", "unit": 0}],
        "gathering": [row | {"null_high": 1.9, "least_p": least_p}],
    }


def shared(small_p=0.05, pairs=20, units=9, kind="same domain"):
    rows = {"sentences": "facts", "pair": kind, "shared": units, "unshared": units}
    summary = {"sentences": "facts", "pair": kind, "pairs": pairs, "small_p": small_p}
    return {
        "shared": [rows] * pairs,
        "shared_summary": [summary | {"ap_shared": 0.6, "ap_unshared": 0.6}],
    }


EMPTY = {
    "gathering": pd.DataFrame(
        columns=["sentences", "concepts", "domains", "null_low", "null_mean", "null_high", "least_p"]
    ),
    "shared": pd.DataFrame(columns=["sentences", "pair", "shared", "unshared"]),
    "shared_summary": pd.DataFrame(columns=["sentences", "pair", "pairs", "small_p", "ap_shared", "ap_unshared"]),
}


@pytest.mark.parametrize(
    ("tables", "along", "alike", "reason"),
    [
        (served() | shared(), "held", "held", ""),
        (served(domains=1.6) | shared(small_p=0.3), "not held", "not held", ""),
        (served(least_p=0.1) | shared(), "not testable", "held", "of the concepts' domains give a least p of 0.1"),
        (served() | shared(small_p=0.0, pairs=2), "held", "not testable", "2 pairs have experts enough to differ"),
        (served() | shared(small_p=0.0, units=2), "held", "not testable", "0 pairs have experts enough to differ"),
        (served() | EMPTY, "not testable", "not testable", "facts: no"),
    ],
)
def test_polysemanticity(tables, along, alike, reason):
    first, second = polysemanticity.conclude(frames(tables), **DRAWN)
    expect(first, along, *([reason] if along == "not testable" else []))
    expect(second, alike, *([reason] if alike == "not testable" else []))


def fallen(first=(0.3, 0.25, 0.35), last=(0.1, 0.05, 0.15), concepts=20):
    return [
        {
            "sentences": "facts",
            "negatives_per_positive": ratio,
            "concepts": concepts,
            "statistic": "overlap",
            "top": NAN,
        }
        | {"threshold": 0.8, "value": value, "ci_low": low, "ci_high": high}
        for ratio, (value, low, high) in ((1.0, first), (10.0, last))
    ]


@pytest.mark.parametrize(
    ("rows", "verdict", "reason"),
    [
        (fallen(), "held", ""),
        (fallen(last=(0.28, 0.2, 0.3)), "not held", ""),
        (fallen(first=(0, 0, 0), last=(0, 0, 0)), "not testable", "facts: no two concepts share an expert at τ = 0.8"),
        (fallen(concepts=4), "not testable", "facts: 4 concepts give a least p of 0.12"),
        (fallen(first=(NAN, NAN, NAN)), "not testable", "could not be computed"),
    ],
)
def test_negatives(rows, verdict, reason):
    (conclusion,) = negatives.conclude(pd.DataFrame(rows))
    expect(conclusion, verdict, reason)


def beside(statistics=("alignment", "detection", "stability"), lead=0.1, gain=0.1, concepts=20, note="", twins=True):
    """Rows of sparse_features.csv: the units' lead over the features, and the features' over their twins."""
    numbers = {"units": 50, "silent": 0, "concepts": concepts, "pairs": 30, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6}
    leads = {"units_lead": lead, "units_lead_low": lead - 0.05, "units_lead_high": lead + 0.05}
    gains = {"features_lead": gain, "features_lead_low": gain - 0.05, "features_lead_high": gain + 0.05}
    rows = []
    for source in (FEATURES, UNITS, *(("frozen decoder",) if twins else ())):
        for statistic in statistics:
            of = {"ratings": "men", "selection": "τ = 0.5"} if statistic == "alignment" else {"ratings": ""}
            row = {"source": source, "statistic": statistic, "sentences": "facts", "note": note, **numbers, **of}
            rows.append(row | (leads if source == FEATURES else gains if source != UNITS else {}))
            rows.append(row | {"selection": "top 20"} | {"units_lead_low": -9.0, "features_lead_low": -9.0})
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.mark.parametrize(
    ("table", "verdicts", "reason"),
    [
        (beside(), ("held",) * 4, ""),
        (beside(lead=0.04), ("not held",) * 3 + ("held",), ""),
        (beside(gain=-0.3), ("held",) * 3 + ("not held",), ""),
        (beside(concepts=4), ("not testable",) * 4, "4 concepts give a least p of 0.12"),
        (
            beside(statistics=("alignment",)),
            ("held", "not testable", "not testable", "held"),
            "there are no two sentence",
        ),
        (beside(note="3 rated pairs"), ("not testable",) * 4, "SAE features, alignment, facts, men: 3 rated pairs"),
        (beside(lead=NAN, twins=False), ("not testable",) * 3, "the lead of SAE features, alignment, facts, men could"),
    ],
)
def test_sparse_features(table, verdicts, reason):
    quality = {"source": FEATURES, "layer": 2, "site": "resid", "explained_variance": 0.9, "l0": 32.0}
    autoencoders = pd.DataFrame([quality | {"dead_share": 0.01, "loss_recovered": NAN}])
    for given in (autoencoders, pd.DataFrame()):
        found = conclude_sparse_features(table, given)
        assert tuple(each.verdict for each in found) == verdicts
        reasons = " ".join(each.reason for each in found)
        assert reason in reasons
    assert "90.0% of the variance explained by 32.0 features" in conclude_sparse_features(table, autoencoders)[0].found
