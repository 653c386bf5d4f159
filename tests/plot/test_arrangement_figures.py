"""Figures of where experts are, how concepts arrange, and what units serve: they say what their tables say."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from expertlens_jax import plot
from expertlens_jax.errors import ExpertLensError


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_fontsize")) if text.get_text()]


def sizes(figure):
    return [text.get_fontsize() for text in figure.findobj(lambda a: hasattr(a, "get_fontsize")) if text.get_text()]


def places(thresholds=(0.4, 0.6)):
    rows = []
    for threshold in thresholds:
        for domain in ("all", "animal"):
            for layer in (0, 1, 2, "all"):
                for site in ("mlp.up", "attn.q", "all"):
                    value = 1 + threshold * (layer if layer != "all" else 0)
                    rows.append([threshold, domain, layer, site, value, value - 0.1, value + 0.1])
    columns = ["threshold", "domain", "layer", "site", "enrichment", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def test_enrichment_has_a_panel_per_site_and_a_line_per_threshold(tmp_path):
    table = places()
    figure = plot.enrichment(table[table["domain"] == "all"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["attn.q", "mlp.up"]
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["τ = 0.6"], [1, 1.6, 2.2])
    assert min(sizes(figure)) >= 7
    table.to_csv(tmp_path / "places.csv", index=False)
    read = pd.read_csv(tmp_path / "places.csv")
    _, one, _ = plot.save_figure(figure, tmp_path / "one")
    _, two, _ = plot.save_figure(plot.enrichment(read[read["domain"] == "all"]), tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()


def test_enrichment_of_domains_marks_what_is_sure():
    table = places(thresholds=(0.4,))
    axes = plot.domain_enrichment(table).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array()[0], np.tile(np.log2([1, 1.4, 1.8]), 2))
    (dots,) = [line for line in axes.lines if line.get_marker() == "."]
    assert len(dots.get_xdata()) == 2 * 2 * 2  # the first layer's interval holds 1
    with pytest.raises(ExpertLensError, match="lacks the columns"):
        plot.domain_enrichment(table.drop(columns="ci_low"))


def overlap_of(number=6):
    rng = np.random.default_rng(0)
    values = rng.random((number, number)) / 3
    values = np.maximum(values, values.T)
    np.fill_diagonal(values, 1)
    names = [f"word{i}" for i in range(number)]
    coords = {"concept": names, "other": names, "domain": ("concept", ["a", "b"] * (number // 2))}
    return xr.DataArray(values, coords=coords, dims=("concept", "other"))


def test_the_tree_shows_every_concept_in_its_domain():
    figure = plot.tree(overlap_of())
    branches, cells, ticks = figure.axes[:3]
    assert len(branches.lines) == 5 and cells.images[0].get_array().shape == (6, 6)
    assert sum(len(each.get_segments()) for each in ticks.collections) == 6
    assert {"a", "b", *(f"word{i}" for i in range(6))} <= set(texts(figure))
    assert "word0" not in texts(plot.tree(overlap_of(62)))
    with pytest.raises(ExpertLensError, match="wanted two or more concepts"):
        plot.tree(overlap_of() * np.nan)


def test_the_map_names_concepts_where_there_is_room():
    points = np.random.default_rng(1).random((12, 2))
    table = pd.DataFrame({"concept": [f"word{i}" for i in range(12)], "domain": list("ab") * 6})
    table["x"], table["y"] = points.T
    figure = plot.map(table, title="A map")
    (axes,) = figure.axes
    assert len([text for text in axes.texts if text.get_text().startswith("word")]) >= 10
    assert sum(len(line.get_xdata()) for line in axes.lines) == 12 and "A map" in texts(figure)
    crowded = plot.map(table.assign(x=table["x"] * 1e-9, y=0.5))  # all in one place, at any scale
    assert crowded.axes[0].get_xlim()[0] == 0


def test_the_graph_draws_what_is_significant():
    rows = [["a", "a", 0.3, 3.0, 0.01], ["b", "b", 0.1, 1.0, 0.6], ["c", "c", 0.2, 2.0, 0.2]]
    rows += [["a", "b", 0.2, 2.0, 0.04], ["a", "c", 0.1, 1.0, 0.5], ["b", "c", 0.3, 3.0, 0.001]]
    table = pd.DataFrame(rows, columns=["domain_1", "domain_2", "overlap", "ratio", "q_value"])
    figure = plot.domain_graph(table)
    assert len(figure.axes[0].lines) == 2  # a-b and b-c
    assert {"a 3.0×", "b 1.0×", "c 2.0×"} <= set(texts(figure))


def test_matches_are_drawn_beside_experts():
    columns = ["sentences", "match", "measure", "experts", "matched", "difference", "ci_low", "ci_high"]
    rows = [["facts", "both", "ap", 0.6, 0.3, 0.3, 0.2, 0.4], ["facts", "both", "held_out_ap", *[np.nan] * 5]]
    figure = plot.matched(pd.DataFrame(rows, columns=columns))
    assert len(figure.axes) == 1  # other sentences weren't measured
    dots = sorted(line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o")[:2]
    assert dots == [0.3, 0.6]
