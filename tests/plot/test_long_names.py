"""Whatever sentence sets, ratings, concepts, domains and measures are called: no figure cuts a text off."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from test_room import draw

from expertlens_jax import plot
from expertlens_jax.plot.fitting import break_line, fit
from expertlens_jax.plot.style import styled

SETS = ("stories_that_i_wrote_myself_in_2026", "facts")
RATINGS = ("ratings_of_similarity_by_my_colleagues", "wordsim353")
DOMAINS = ("things that people keep at home", "animals of the northern hemisphere", "food")
KINDS = ("sentences", "fewer", "halves", "negatives", "models", "checkpoints")
MEASURE = "Cosine of average precision, weighted by its surprise"


def words(number):
    return [f"the great white shark of the north {i}" for i in range(number)]


def table(axes, **values):
    """A row for each combination of the axes' values."""
    rows = pd.DataFrame(list(itertools.product(*axes.values())), columns=list(axes))
    return rows.assign(**values)


def intervals(value=0.5):
    return {"value": value, "ci_low": value - 0.3, "ci_high": value + 0.3}


def necessity(*ablations):
    scores = ("average_precision", "a score of my own making, with a long name")
    units = (*scores, *(f"random, placed as by {score}" for score in scores))
    axes = {"units": units, "count": (1, 10, 1000), "measure": ("own", "others", "sufficiency"), "ablation": ablations}
    pair = {"first": scores[0], "second": scores[1], "measure": "shared", "chance": 0.01}
    return plot.necessity(table(axes, **intervals()), table({"count": (1, 10)}, **pair, **intervals()))


def learned_units():
    scores = ("average_precision", "a score of my own making, with a long name")
    return plot.learned_units(table({"score": scores}, shared=0.4, ci_low=0.2, ci_high=0.6, chance=0.1))


def typicality(members=6):
    rated = table({"category": DOMAINS, "concept": words(members)})
    draws = np.random.default_rng(0).random((2, len(rated)))
    results = pd.DataFrame({"scope": DOMAINS, "concepts": members, "spearman": 0.5})
    return plot.typicality(rated.assign(rating=draws[0], similarity=draws[1]), results, quantity=MEASURE)


def overlap_of(number, domains=DOMAINS):
    values = np.random.default_rng(0).random((number, number)) / 3
    names = words(number)
    coords = {"concept": names, "other": names}
    coords["domain"] = ("concept", [domains[i % len(domains)] for i in range(number)])
    return xr.DataArray((values + values.T) / 2, dims=("concept", "other"), coords=coords)


def alignment(number=30):
    pairs = table({"sentences": SETS, "ratings": RATINGS, "word_1": words(number)})
    draws = np.random.default_rng(0).random((2, len(pairs)))
    pairs = pairs.assign(word_2=pairs["word_1"].str[::-1], rating=draws[0], similarity=draws[1])
    results = table({"sentences": SETS, "ratings": RATINGS}, spearman=0.51, ci_low=0.2, ci_high=0.7, pairs=number)
    return plot.alignment(pairs, results.assign(note=""), quantity=MEASURE)


def base_rates():
    axes = {"sentences": SETS, "ratings": RATINGS, "threshold": (0.3, 0.5), "negatives_per_positive": (1, 2.5)}
    return plot.base_rates(table(axes, experts_median=1234.0, spearman=0.5, pairs=12))


def comparisons():
    numbers = {"ci_low": 0.1, "ci_high": 0.3, "p_holm": 0.01}
    axes = {"sentences": SETS, "ratings": RATINGS}
    compared = table(axes | {"baseline": (MEASURE, "tfidf")}, difference=0.2, **numbers)
    return plot.comparisons(
        compared, table(axes | {"control": (MEASURE, "tfidf")}, partial_spearman=0.2, spearman=0.5, **numbers)
    )


def places(domains=("all",)):
    axes = {"threshold": (0.4, 0.6), "domain": domains, "layer": (*range(4), "all")}
    return table(axes | {"site": ("mlp.up", "attn.q", "resid.pre", "all")}, enrichment=1.5, ci_low=1.2, ci_high=1.9)


def depth():
    axes = {"weights": ("trained", "random"), "block": ("attention", "mlp", "all"), "threshold": (0.3, 0.5)}
    numbers = {"ci_low": 0.3, "ci_high": 0.7, "bimodality_ci_low": 0.3, "bimodality_ci_high": 0.7}
    return plot.depth(table(axes, share=0.2, depth=0.5, even_depth=0.5, bimodality=0.4, **numbers))


def lines():
    axes = {"sentences": SETS, "statistic": ("experts", "alignment"), "ratings": ("", *RATINGS)}
    rows = table(axes | {"threshold": (0.4, 0.6), "step": (0, 16, 143000)}, chance=0.1, **intervals())
    rows = rows[(rows["statistic"] == "alignment") == (rows["ratings"] != "")]
    note = "Steps of a model of 12 billion parameters, with a note about them that is rather long for one figure."
    return plot.lines(
        rows, "step", "Training step, of the schedule that is described above", ("experts", "alignment"), note=note
    )


def measures():
    axes = {"group": ("ExpertLens", "Controls"), "measure": (MEASURE, "Jaccard"), "sentences": SETS, "ratings": RATINGS}
    return plot.measures(table(axes, spearman=0.5, ci_low=0.2, ci_high=0.7, pairs=12, ceiling=0.84))


def map_of(number):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"concept": words(number), "x": rng.random(number), "y": rng.random(number)})
    rows["domain"] = [DOMAINS[i % 3] for i in range(number)]
    return plot.map(rows, title=f"{SETS[0]}: multidimensional scaling (stress 0.36, trustworthiness 0.71)")


def domain_graph():
    pairs = list(itertools.combinations_with_replacement(DOMAINS, 2))
    rows = pd.DataFrame(pairs, columns=["domain_1", "domain_2"])
    return plot.domain_graph(rows.assign(overlap=0.3, ratio=2.5, q_value=0.01))


def matched():
    axes = {"sentences": SETS, "match": ("concept", "others", "both")}
    axes["measure"] = ("ap", "held_out_ap", "other_sentences_ap")
    return plot.matched(table(axes, experts=0.6, matched=0.3, difference=0.3, ci_low=0.2, ci_high=0.4))


def runs():
    runs = {"run": f"runs/{MEASURE}", "other": (f"runs/of another model, {MEASURE}", "runs/seed 1")}
    axes = {"sentences": SETS, "run": (runs["run"],), "other": runs["other"]}
    draws = np.random.default_rng(0)
    concepts = table(axes | {"concept": words(12)}, overlap=0.4, chance=0.01)
    for name, most in (("experts", 5000), ("other_experts", 5000), ("best_ap", 1), ("other_best_ap", 1)):
        concepts[name] = most * draws.random(len(concepts))
    pairs = table(axes | {"concept_1": words(12)})
    pairs = pairs.assign(overlap=draws.random(len(pairs)), other_overlap=draws.random(len(pairs)))
    agreement = table(axes, spearman=0.5, ci_low=0.1, ci_high=0.7)
    alignment = table(axes | {"ratings": RATINGS}, spearman=0.5, other_spearman=0.2)
    return plot.runs(concepts, pairs, agreement, alignment, threshold=0.5)


def together(sets=SETS, routers=True):
    axes = {"sentences": sets, "weights": ("trained", "random_weights_0")}
    pairs = ("same concept", "same domain", "other domains")
    rows = table(axes | {"layer": range(48), "pair": pairs}, times_chance=12.5, ci_low=11.0, ci_high=14.0)
    leads = table(axes, lead=0.05, lead_ci_low=0.01, lead_ci_high=0.09)
    return plot.together(rows, leads if routers else None)


def services():
    nulls = {"null_low": 10.0, "null_high": 30.0}
    spread = table(
        {"sentences": SETS, "served": ("concepts", "domains"), "number": range(1, 6)}, units=100, null_mean=20.0
    )
    gathering = table({"sentences": SETS, "concepts": range(1, 6)}, units=100, domains=2.0, null_low=2.0, null_high=3.0)
    return plot.services(spread.assign(**nulls), gathering)


def shared():
    pairs = ("same domain", "different domains")
    axes = {"sentences": SETS, "pair": pairs, "experts": ("shared", "unshared")}
    distributions = table(axes | {"average_precision": (0.5, 0.6, 0.7)}, share=0.3)
    numbers = {"ks_median": 0.2, "small_p": 0.1, "difference": 0.01, "ci_low": 0.0, "ci_high": 0.02}
    return plot.shared(distributions, table({"sentences": SETS, "pair": pairs}, pairs=1234, **numbers))


def recovery():
    names = ("ari", "nmi", "purity", "neighbours", "silhouette", "cophenetic")
    axes = {"sentences": SETS, "measure": (MEASURE, "Jaccard"), "statistic": (*names, "neighbour_accuracy")}
    numbers = {"value": 0.5, "null_low": 0.1, "null_high": 0.2, "domains": 16, "clusters": 16}
    return plot.recovery(table(axes, **numbers))


def hierarchy():
    pairs = ("own word", "another domain's word")
    summary = table({"sentences": SETS, "statistic": ("a_in_b", "b_in_a", "lift"), "pair": pairs}, mean=0.5)
    sharing = table({"sentences": SETS, "members": (1, 2, 5, 10)}, units=100, own=0.5, others=0.2)
    summary = summary.assign(ci_low=0.4, ci_high=0.6)
    return plot.hierarchy(summary, sharing.assign(own_ci_low=0.4, own_ci_high=0.6))


def significance():
    rows = table({"concept": words(3), "threshold": (0.3, 0.5)}, experts=123456.0, significant=12345.0)
    return plot.significance(rows.assign(familywise=1234.0, held_out=0.4))


def agreement():
    rows = table(
        {"kind": KINDS, "threshold": (0.4, 0.5)},
        first=f"{SETS[0]}, a model with a long name",
        second=f"{SETS[1]}, another model with a long name",
        count=40,
    )
    statistics = ("overlap_correlation", "jaccard_same", "jaccard_different", "retrieval")
    rows = rows.merge(pd.DataFrame({"statistic": statistics}), how="cross")
    return rows.assign(chance=0.05, **intervals())


def fewer():
    rows = agreement()
    few = pd.concat([rows[rows["kind"] == "fewer"].assign(count=count) for count in (5, 10, 20)])
    return plot.fewer(pd.concat([few, rows[rows["kind"] == "sentences"]]))


def curves():
    measures = ("word_log_prob", "mention", "expert_response", "surprise", "held_out_surprise", "distinct_2")
    plain = table({"measure": measures}, arm="unsteered", method="none", count=0, strength=0.0, value=0.5, change=0.0)
    axes = {"measure": measures, "arm": ("experts", "random", "matched", "another_concept"), "count": (5, 20, 500)}
    steered = table(axes | {"method": ("set_median", "linear_ot"), "strength": (0.5, 1.0)}, value=0.7, change=0.2)
    rows = pd.concat([plain, steered], ignore_index=True)
    for prefix, column in (("", "value"), ("change_", "change")):
        rows[f"{prefix}ci_low"], rows[f"{prefix}ci_high"] = rows[column] - 0.1, rows[column] + 0.1
    return rows


def steering_choice():
    methods = ("set_median", "set_p90", "mean_shift", "linear_ot", "aura_ap", "zero")
    rows = table({"method": methods, "top": (20, 20_000), "strength": (0.5, 1.0)}, chance=0.02)
    rows = rows.assign(share=np.linspace(0, 0.6, len(rows)), perplexity=np.geomspace(0.8, 40, len(rows)))
    rows = rows.assign(ci_low=0.0, ci_high=rows["share"] + 0.2, chosen=rows.index == len(rows) - 1)
    return plot.steering_choice(rows, most_perplexity=1.5)


def steered_away():
    cat, dog, car = words(3)
    named = {"concept": cat, "spared": dog}
    away = table({"method": ("set_median", "aura"), "sparing": (False, True), "word": (cat, dog)}, change=-0.7, **named)
    moved = pd.DataFrame({"of": [car, dog, cat], "kept": [0.9, 0.8, 0.1], "x": [0, 1, 2], "y": [0, 1, 0]})
    moved = moved.assign(**named, x_after=moved["x"] + [0, 0, 1], y_after=moved["y"])
    return plot.steered_away(away.assign(ci_low=-0.9, ci_high=0.1), moved)


def training():
    losses = pd.DataFrame({"tokens": [100, 200, 400_000_000], "loss": [9.0, 7.0, 6.0], "rate": [0.1, 0.2, 0.0]})
    corpora = ("novels of the nineteenth century, cleaned", "glosses")
    return plot.training(losses, table({"tokens": (0, 400_000_000), "corpus": corpora}, loss=6.2))


def detected():
    axes = {"train": SETS, "test": SETS[::-1], "positives": (5, 40), "label_noise": (0.0, 0.25)}
    axes |= {
        "detector": ("top_experts", "bag_of_words", "a detector of mine that knows all"),
        "reads": ("units", "stream"),
    }
    axes |= {"measure": ("average_precision", "auroc", "f1"), "negatives_per_positive": (1.0, 10.0, 100.0)}
    return table(axes, chance=0.2, **intervals())


def audit():
    rows = {
        "severity": ("high", "medium", "low"),
        "problem": ("another concept's word", "template"),
        "concept": words(9),
    }
    return plot.audit(table(rows, sentence="It rained."), dict.fromkeys(words(9), 3), title=SETS[0])


def concept_graph(number=12):
    places = pd.DataFrame({"concept": words(number), "domain": [DOMAINS[i * 3 // number] for i in range(number)]})
    edges = pd.DataFrame({"concept_1": words(number)[1:], "concept_2": words(number)[:-1], "overlap": 0.3})
    edges = edges.assign(same_domain=True, same_beginning=[i % 3 == 0 for i in range(number - 1)])
    edges.loc[3, "same_domain"] = False
    within = table({"statistic": ("edges",), "edges": ("all", "other beginnings")}, value=0.98, null_mean=0.3)
    return plot.concept_graph(edges, places, within.assign(null_low=0.2, null_high=0.4, p_value=0.001))


def grid():
    sizes = {"positives": (5, 10, 20), "negatives": (100, 400, 12800)}
    statistics = ("overlap_correlation", "jaccard_same", "retrieval")
    return plot.grid(table(sizes | {"statistic": statistics}, **intervals()))


def senses():
    measures = (MEASURE, f"{MEASURE}, between halves of the sentences", "embeddings of the sentences, layer 11")
    kinds = ("same word, same sense", "other word, same sense", "same word, other sense", "neither")
    asked = {"measure": measures, "first": (kinds[1],), "second": (kinds[2],)}
    each = table({"measure": measures, "kind": kinds, "homograph": words(5)}, overlap=0.2)
    shares = table(asked, share=0.9, share_low=0.8, share_high=1.0)
    return plot.senses(table({"measure": measures, "kind": kinds}, overlap=0.2, ci_low=0.1, ci_high=0.3), shares, each)


def sparse_features():
    numbers = {"subsets_low": 0.4, "subsets_high": 0.6, "chance": 0.1, "units": 12345}
    sources = ("SAE features", "units, as many", "frozen decoder of the seventh layer, drawn again", "random weights")
    of_sets = {"source": sources, "statistic": ("alignment",), "sentences": SETS, "ratings": RATINGS}
    of_both = {"source": sources, "statistic": ("detection", "stability"), "sentences": (" / ".join(SETS),)}
    parts = [table(of_sets, selection="τ = 0.5"), table(of_both, selection="best", ratings="")]
    return plot.sparse_features(pd.concat(parts).assign(**intervals(), **numbers))


CASES = {
    "alignment": alignment,
    "audit": audit,
    "base_rates": base_rates,
    "comparisons": comparisons,
    "concept_graph": concept_graph,
    "concept_graph, many": lambda: concept_graph(70),
    "depth": depth,
    "detection": lambda: plot.detection(detected()),
    "detection_examples": lambda: plot.detection_examples(detected()),
    "domain_enrichment": lambda: plot.domain_enrichment(places(("all", *DOMAINS)).query("threshold == 0.4")),
    "domain_graph": domain_graph,
    "enrichment": lambda: plot.enrichment(places()),
    "fewer": fewer,
    "grid": grid,
    "hierarchy": hierarchy,
    "learned_units": learned_units,
    "lines": lines,
    "localisation": lambda: plot.localisation(
        table({"layer": range(24), "site": ("attn.q", "mlp.up", "resid.pre")}, experts_per_concept=12345.0, share=0.5)
    ),
    "map": lambda: map_of(12),
    "map, crowded": lambda: map_of(60),
    "matched": matched,
    "measures": measures,
    "mixture": lambda: plot.mixture(
        table({"concept": DOMAINS, "layer": range(6), "expert": range(12)}, units=12345, experts=1234)
    ),
    "mixture, many": lambda: plot.mixture(
        table({"concept": DOMAINS[:1], "layer": range(48), "expert": range(128)}, units=12345, experts=1234)
    ),
    "necessity": lambda: necessity("zero"),
    "necessity, two ablations": lambda: necessity("zero", "median"),
    "overlap": lambda: plot.overlap(overlap_of(12), quantity=MEASURE),
    "overlap, many": lambda: plot.overlap(overlap_of(80, [f"{DOMAINS[i % 3]} {i}" for i in range(16)])),
    "overlap, one domain": lambda: plot.overlap(overlap_of(5, DOMAINS[:1])),
    "overlap, no domains": lambda: plot.overlap(overlap_of(9, ("",)), quantity=MEASURE),
    "overlap, two concepts": lambda: plot.overlap(overlap_of(2), quantity=MEASURE),
    "recovery": recovery,
    "runs": runs,
    "senses": senses,
    "services": services,
    "shared": shared,
    "significance": significance,
    "sparse_features": sparse_features,
    "stability": lambda: plot.stability(agreement().query("threshold == 0.4")),
    "stability_thresholds": lambda: plot.stability_thresholds(agreement()),
    "steered_away": steered_away,
    "steering": lambda: plot.steering(curves()),
    "steering_choice": steering_choice,
    "steering_cost": lambda: plot.steering_cost(curves()),
    "together": together,
    "together, one set": lambda: together(SETS[:1], routers=False),
    "training": training,
    "tree": lambda: plot.tree(overlap_of(12), quantity=MEASURE),
    "tree, many": lambda: plot.tree(overlap_of(80), quantity=MEASURE),
    "typicality": typicality,
    "typicality, one each": lambda: typicality(1),
    "tree, two concepts": lambda: plot.tree(overlap_of(2), quantity=MEASURE),
}


def test_every_figure_is_among_them():
    assert {name.partition(",")[0] for name in CASES} == {*plot.__all__} - {"save_figure", "order_concepts"}


def headings(figure):
    """Titles and labels of panels and of the figure, and where they lie."""
    with styled():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    renderer = canvas.get_renderer()
    found = [each for each in figure.get_children() if isinstance(each, Text)]
    for axes in figure.axes:
        found += [each for each in axes.get_children() if isinstance(each, Text) and each not in axes.texts]
        found += [axes.xaxis.label, axes.yaxis.label] if axes.axison else []
    return [(each.get_text(), each.get_window_extent(renderer)) for each in found if each.get_text().strip()]


@pytest.mark.parametrize("name", CASES)
def test_no_text_is_cut_off_however_long_names_are(name):
    figure = CASES[name]()
    texts, of_axes = draw(figure)
    assert texts or of_axes
    for text, box in (*texts, *itertools.chain(*of_axes)):
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1, text
    for (one, box), (other, next_to) in itertools.combinations(headings(figure), 2):
        assert not box.overlaps(next_to), (one, other)


@pytest.mark.parametrize("name", ["alignment", "lines", "overlap", "tree", "map"])
def test_files_of_any_kind_and_resolution_have_room(name):
    for dpi in (72, 110, 200, 300):
        figure = CASES[name]()
        figure.set_dpi(dpi)
        texts, of_axes = draw(figure)
        for text, box in (*texts, *itertools.chain(*of_axes)):
            inside = box.padded(-0.015 * dpi)  # letters are rounded to pixels, by up to so much in all
            assert inside.x0 > 0 and inside.y0 > 0 and inside.x1 < figure.bbox.x1 and inside.y1 < figure.bbox.y1, text


@pytest.mark.long
def test_an_svg_names_a_font_for_every_machine(tmp_path):
    _, svg, pdf = plot.save_figure(CASES["lines"](), tmp_path / "lines")
    styles = set(re.findall(r"font[^;\"]*: ?[^;\"]*sans[^;\"]*", svg.read_text(), re.IGNORECASE))
    assert styles and all(re.search(r"'DejaVu Sans'.*, sans-serif$", style) for style in styles), styles
    assert pdf.read_bytes().startswith(b"%PDF")


@pytest.mark.long
def test_a_figure_saved_by_hand_is_in_the_same_style(tmp_path):
    figure = CASES["lines"]()
    figure.savefig(tmp_path / "own.svg")
    assert "<text" in (tmp_path / "own.svg").read_text() and "sans-serif" in (tmp_path / "own.svg").read_text()
    figure.savefig(tmp_path / "own.pdf")
    assert b"/FontFile2" in (tmp_path / "own.pdf").read_bytes()  # TrueType: text stays text


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab _-/,"), max_size=40), st.integers(1, 30))
def test_a_line_is_broken_where_it_may_be_and_no_letter_is_lost(line, letters):
    parts = break_line(line, letters)
    assert "".join("".join(parts).split()) == "".join(line.split())
    for part in parts:
        assert len(part) <= letters or not re.search(r"[\s_\-/,][^\s_\-/,]", part.strip())


def test_names_that_fit_are_left_as_they_are():
    figure = plot.localisation(table({"layer": (0, 1), "site": ("mlp.up",)}, experts_per_concept=1.0, share=0.5))
    size = figure.get_size_inches().copy()
    fit(figure)
    np.testing.assert_array_equal(figure.get_size_inches(), size)
