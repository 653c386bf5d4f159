"""Room for every word: no text leaves its figure, no tick label runs into the next, none is there twice."""

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

from expertlens_jax import plot
from expertlens_jax.plot.style import styled


def tick_labels(axis):
    """The labels that an axis draws, and all that it has made: those beyond its ends are never drawn."""
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    low, high = sorted(axis.get_view_interval())
    reach = 1e-9 * (high - low)
    drawn = [tick.label1 for tick in axis.get_major_ticks() if low - reach <= tick.get_loc() <= high + reach]
    drawn = [label for label in drawn if label.get_visible() and label.get_text()]
    return drawn, [label for tick in ticks for label in (tick.label1, tick.label2)]


def draw(figure):
    """Every text of a drawn figure that is there to see, and where it lies in pixels: (text, box)."""
    with styled():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    renderer = canvas.get_renderer()
    axes = [axis for each in figure.axes if each.axison for axis in (each.xaxis, each.yaxis)]
    labels = [tick_labels(axis) for axis in (axis for each in figure.axes for axis in (each.xaxis, each.yaxis))]
    ticks = {id(label) for _, made in labels for label in made}
    texts = figure.findobj(lambda each: hasattr(each, "get_text") and each.get_visible() and each.get_text())
    texts = [text for text in texts if id(text) not in ticks]
    of_axes = [[(label.get_text(), label.get_window_extent(renderer)) for label in tick_labels(a)[0]] for a in axes]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts], of_axes


def expect_room(figure):
    """No text is cut off, and no two tick labels of an axis touch."""
    texts, of_axes = draw(figure)
    for text, box in (*texts, *itertools.chain(*of_axes)):
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1, text
    for labels in of_axes:
        for (one, box), (other, next_to) in itertools.combinations(labels, 2):
            assert not box.overlaps(next_to), (one, other)


@pytest.mark.parametrize("ratios", [(2.5,), (2.5, 10), (1, 2.5, 5, 10, 25)])
@pytest.mark.parametrize("thresholds", [(0.5,), (0.4, 0.5, 0.6), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)])
@pytest.mark.parametrize(
    ("sets", "ratings"), [(("facts",), ("men",)), (("facts", "stories"), ("wordsim353", "simlex999"))]
)
def test_base_rates_have_room_for_their_labels(ratios, thresholds, sets, ratings):
    rows = [
        {"sentences": s, "ratings": r, "threshold": t, "negatives_per_positive": n, "experts_median": 1234.0}
        | {"spearman": 0.5, "pairs": 1}
        for s, r, t, n in itertools.product(sets, ratings, thresholds, ratios)
    ]
    figure = plot.base_rates(pd.DataFrame(rows))
    expect_room(figure)
    assert "1 pair" in figure.axes[0].get_title(loc="left") and "1 pairs" not in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("number", [4, 12, 60])
@pytest.mark.parametrize("domains", [2, 16])
def test_a_map_has_room_for_its_title_and_domains(number, domains):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"concept": [f"word{i}" for i in range(number)], "x": rng.random(number)})
    table = table.assign(y=rng.random(number), domain=[f"domain{i % domains}" for i in range(number)])
    title = "stories_of_mine: multidimensional scaling (stress 0.36, trustworthiness 0.71)"
    figure = plot.map(table, title=title)
    expect_room(figure)
    texts, _ = draw(figure)
    ((shown, above),) = [each for each in texts if "stress" in each[0]]
    below = [box for text, box in texts if text.startswith(("domain", "word"))]
    assert " ".join(shown.split()) == title
    assert max(box.y1 for box in below) < above.y0


@pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0, 30.0])
def test_what_was_steered_away_has_room_for_its_ticks(scale):
    words = {"concept": "cat", "spared": "dog"}
    away = pd.DataFrame(
        [
            words | {"method": m, "sparing": by, "word": w, "change": -0.7 * scale, "ci_low": -2 * scale}
            for m in ("zero", "aura")
            for by in (False, True)
            for w in ("cat", "dog")
        ]
    ).assign(ci_high=0.5 * scale)
    moved = pd.DataFrame({"of": ["car", "dog", "cat"], "kept": [0.9, 0.8, 0.1], "x": [0, 1, 2], "y": [0, 1, 0]})
    moved = moved.assign(**words, x_after=moved["x"] + [0, 0, 1], y_after=moved["y"])
    expect_room(plot.steered_away(away, moved))


@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_few_pairs_are_named_once_each(number):
    pairs = pd.DataFrame({"word_1": [f"a{i}" for i in range(number)], "word_2": "b", "rating": range(number)})
    pairs = pairs.assign(sentences="facts", ratings="men", similarity=[0.1 * i for i in range(number)])
    results = pd.DataFrame({"sentences": ["facts"], "ratings": "men", "spearman": np.nan, "ci_low": np.nan})
    figure = plot.alignment(pairs, results.assign(ci_high=np.nan, pairs=number, note="few"))
    named = [text.get_text() for text in figure.axes[0].texts if ", b" in text.get_text()]
    assert len(named) == len(set(named)) > 0
    expect_room(figure)


def test_ratings_without_a_comparison_say_so():
    compared = pd.DataFrame({"sentences": "facts", "ratings": ["men", "rg65"], "baseline": "tfidf", "p_holm": 0.01})
    compared = compared.assign(difference=[0.2, np.nan], ci_low=[0.1, np.nan], ci_high=[0.3, np.nan])
    partialled = pd.DataFrame({"sentences": "facts", "ratings": ["men", "rg65"], "control": "tfidf", "spearman": 0.5})
    partialled = partialled.assign(partial_spearman=[0.2, np.nan], ci_low=[0.1, np.nan], ci_high=[0.3, np.nan])
    figure = plot.comparisons(compared, partialled)
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert said == [[], ["no correlation\nto compare"]] * 2
    expect_room(figure)


@pytest.mark.parametrize(("number", "domains"), [(4, 2), (10, 10), (18, 3), (40, 20), (65, 16), (80, 16)])
def test_an_overlap_has_room_for_concepts_and_domains(number, domains):
    values = np.random.default_rng(0).random((number, number))
    names = [f"concept of mine {i}" for i in range(number)]
    coords = {"concept": names, "other": names, "domain": ("concept", [f"domain {i % domains}" for i in range(number)])}
    figure = plot.overlap(xr.DataArray((values + values.T) / 2, dims=("concept", "other"), coords=coords))
    texts, of_axes = draw(figure)
    for text, box in (*texts, *itertools.chain(*of_axes)):
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1, text
    for (one, box), (other, next_to) in itertools.pairwise(of_axes[1]):  # those down the side; the others are tilted
        assert not box.overlaps(next_to), (one, other)
