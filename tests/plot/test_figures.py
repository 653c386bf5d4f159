"""Figures say what their tables say: panels, points, labels, order; and the files are the same each time."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from expertlens_jax import plot
from expertlens_jax.errors import ExpertLensError


def texts(figure):
    """Every text in the figure that can be seen."""
    found = []
    for axes in figure.axes:
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        found += [t.get_text() for t in axes.texts]
        found += [t.get_text() for t in axes.get_xticklabels() + axes.get_yticklabels()]
    for legend in figure.legends:
        found += [t.get_text() for t in legend.get_texts()]
    return [text for text in found if text]


def sizes(figure):
    return [t.get_fontsize() for t in figure.findobj(lambda a: hasattr(a, "get_fontsize")) if t.get_text()]


# --- Alignment ----------------------------------------------------------------------------------------------


def alignment_tables():
    rng = np.random.default_rng(0)
    tables, results = [], []
    for sentences in ("facts", "stories"):
        for ratings, pairs in (("wordsim353", 29), ("simlex999", 72)):
            rating = rng.uniform(0, 10, pairs)
            table = pd.DataFrame({"rating": rating, "similarity": 0.02 * rating + 0.05 * rng.random(pairs)})
            table["word_1"], table["word_2"] = (
                [f"a{i}" for i in range(pairs)],
                [f"b{i}" for i in range(pairs)],
            )
            tables.append(table.assign(sentences=sentences, ratings=ratings))
            results.append([sentences, ratings, 0.71, 0.5, 0.84, pairs, ""])
    columns = ["sentences", "ratings", "spearman", "ci_low", "ci_high", "pairs", "note"]
    return pd.concat(tables), pd.DataFrame(results, columns=columns)


def test_alignment_has_a_panel_per_set_and_ratings_with_every_pair():
    tables, results = alignment_tables()
    figure = plot.alignment(tables, results)
    assert len(figure.axes) == 4
    for axes, (_, row) in zip(figure.axes, results.iterrows(), strict=True):
        (points,) = [line for line in axes.lines if line.get_gid() == "pairs"]
        here = tables[(tables["sentences"] == row["sentences"]) & (tables["ratings"] == row["ratings"])]
        np.testing.assert_array_equal(points.get_xdata(), here["rating"])
        np.testing.assert_array_equal(points.get_ydata(), here["similarity"])
        *names_shown, numbers = [t.get_text() for t in axes.texts]
        assert numbers == f"ρ = 0.71 [0.50, 0.84]\n{row['pairs']} pairs"
        names = set(here["word_1"] + ", " + here["word_2"])
        assert 1 <= len(names_shown) <= 4 and set(names_shown) <= names
    assert {"wordsim353", "simlex999", "facts", "stories", "Human rating"} <= set(texts(figure))
    assert figure.get_supylabel() == "Overlap"
    assert min(sizes(figure)) >= 7


def test_alignment_without_a_number_says_so():
    tables, results = alignment_tables()
    tables.loc[tables["sentences"] == "facts", "similarity"] = 0.0
    results.loc[0, ["spearman", "ci_low", "ci_high"]] = np.nan
    results.loc[1, "pairs"] = 0
    tables = tables[(tables["sentences"] != "facts") | (tables["ratings"] != "simlex999")]  # an empty panel
    figure = plot.alignment(tables, results)
    assert figure.axes[0].texts[-1].get_text() == "no correlation, 29 pairs"
    assert len(figure.axes[1].lines) == 0


def test_alignment_wants_one_result_per_panel():
    tables, results = alignment_tables()
    with pytest.raises(ExpertLensError, match="0 rows for sentences 'stories' and ratings 'simlex999'"):
        plot.alignment(tables, results.iloc[:3])
    with pytest.raises(ExpertLensError, match=r"lacks the columns \['ci_low'\]"):
        plot.alignment(tables, results.drop(columns="ci_low"))
    with pytest.raises(ExpertLensError, match="has no rows: there is nothing to draw"):
        plot.alignment(tables, results.iloc[:0])


def test_alignment_without_any_pair_still_says_so():
    tables, results = alignment_tables()
    figure = plot.alignment(tables.iloc[:0], results.assign(spearman=np.nan, pairs=0))
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["no correlation, 0 pairs"] * 4


def measures_table():
    rows = []
    for ratings, pairs in (("MEN", 252), ("wordsim353", 29)):
        for sentences in ("facts", "stories"):
            rows += [
                ["ExpertLens", "Jaccard, 0.5", sentences, ratings, 0.7, 0.6, 0.8, pairs],
                ["Controls", "Random weights", sentences, ratings, np.nan, np.nan, np.nan, pairs],
            ]
        rows.append(["Baselines", "Input embedding", "", ratings, 0.65, 0.5, 0.75, pairs])
    columns = ["group", "measure", "sentences", "ratings", "spearman", "ci_low", "ci_high", "pairs"]
    return pd.DataFrame(rows, columns=columns)


def test_measures_show_every_number_with_its_interval():
    table = measures_table()
    figure = plot.measures(table)
    assert len(figure.axes) == 2
    for axes, (_, rows) in zip(figure.axes, table.groupby("ratings", sort=False), strict=True):
        dots = sorted(line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o")
        assert dots == sorted(rows["spearman"].dropna())
        bars = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
        for low, high in rows[["ci_low", "ci_high"]].dropna().itertuples(index=False):
            assert (low, high) in bars
        assert [t.get_text() for t in axes.texts].count("none") == 2
    expected = {"ExpertLens", "Baselines", "Controls", "Jaccard, 0.5", "Input embedding", "Random weights"}
    expected |= {"facts", "stories", "no sentences needed", "MEN, 252 pairs", "wordsim353, 29 pairs"}
    assert expected <= set(texts(figure))
    assert min(sizes(figure)) >= 7


def test_measures_read_back_from_csv_are_the_same_figure(tmp_path):
    measures_table().to_csv(tmp_path / "alignment.csv", index=False)
    _, one, _ = plot.save_figure(plot.measures(measures_table()), tmp_path / "one")
    _, two, _ = plot.save_figure(plot.measures(pd.read_csv(tmp_path / "alignment.csv")), tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()


def test_a_figure_that_was_saved_is_laid_out_as_before(tmp_path):
    figure = plot.measures(measures_table())
    layout = figure.get_layout_engine()
    plot.save_figure(figure, tmp_path / "measures")
    assert figure.get_layout_engine() is layout is not None


# --- Base rates ---------------------------------------------------------------------------------------------


def base_rates_table():
    rows = []
    for sentences, ratings in itertools.product(("facts", "stories"), ("wordsim353", "simlex999")):
        for threshold, ratio in itertools.product((0.7, 0.3, 0.5), (10.0, 1.0, 2.5)):
            experts = 0 if (threshold, ratio) == (0.7, 10.0) else round(1000 * (1 - threshold) / ratio)
            rho = np.nan if not experts else threshold / ratio + 0.01 * len(ratings + sentences)
            rows.append([sentences, threshold, ratio, ratings, 29, experts, rho])
    columns = ["sentences", "threshold", "negatives_per_positive", "ratings", "pairs", "experts_median", "spearman"]
    return pd.DataFrame(rows, columns=columns)


def test_base_rates_have_a_cell_for_each_row_in_its_place():
    table = base_rates_table()
    figure = plot.base_rates(table, drawn=(0.5, 2.5))
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 4
    for axes, (sentences, ratings) in zip(
        panels, itertools.product(("facts", "stories"), ("wordsim353", "simlex999")), strict=True
    ):
        here = table[(table["sentences"] == sentences) & (table["ratings"] == ratings)]
        said = {}
        for text in axes.texts:
            x, y = text.get_position()
            said.setdefault((round(y), round(x)), []).append(text.get_text())
        values = np.asarray(axes.images[0].get_array().filled(np.nan))
        for row in here.itertuples():
            place = (0.3, 0.5, 0.7).index(row.threshold), (1.0, 2.5, 10.0).index(row.negatives_per_positive)
            shown = [] if np.isnan(row.spearman) else [f"{row.spearman:.2f}"]
            assert said[place] == [*shown, f"{row.experts_median:,}"]
            np.testing.assert_equal(values[place], row.spearman)
        hatched = [patch for patch in axes.patches if patch.get_hatch()]
        assert [patch.get_xy() for patch in hatched] == [(1.5, 1.5)]  # the highest threshold, the most negatives
        (frame,) = [patch for patch in axes.patches if not patch.get_hatch()]
        assert frame.get_xy() == (0.5, 0.5)
    assert {"wordsim353\n29 pairs", "0.3", "2.5\n29%", "10\n9%"} <= set(texts(figure))
    assert [panels[0].get_ylabel(), panels[2].get_ylabel()] == ["facts", "stories"]


def test_base_rates_cope_with_no_correlation_at_all_and_refuse_what_is_missing(tmp_path):
    table = base_rates_table().assign(spearman=np.nan)
    figure = plot.base_rates(table)
    assert all(len([p for p in axes.patches if p.get_hatch()]) == 9 for axes in figure.axes[:4])
    plot.save_figure(figure, tmp_path / "base_rates")
    with pytest.raises(ExpertLensError, match=r"lacks the columns \['experts_median'\]"):
        plot.base_rates(table.drop(columns="experts_median"))


# --- Overlap ------------------------------------------------------------------------------------------------


def overlap_of(domains, seed=0):
    """Random overlap, larger within a domain, of concepts in random order."""
    rng = np.random.default_rng(seed)
    domains = rng.permutation(domains)
    values = 0.05 * rng.random((len(domains),) * 2) + 0.1 * (domains[:, None] == domains)
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1)
    names = [f"c{i}" for i in range(len(domains))]
    coords = {"concept": names, "other": names, "domain": ("concept", domains)}
    return xr.DataArray(values, dims=("concept", "other"), coords=coords)


def test_the_order_keeps_domains_together_and_like_domains_beside_each_other():
    overlap = overlap_of(np.repeat(["a", "b", "c", "d"], 6))
    domain = overlap["domain"].to_numpy()
    for one, other in (("a", "c"), ("b", "d")):
        like = (domain[:, None] == one) & (domain == other)
        overlap.data[like | like.T] += 0.1
    order, domains, linkage = plot.order_concepts(overlap)
    assert sorted(order) == list(range(24))
    assert list(domain[order]) == list(np.repeat(domains, 6))
    assert {frozenset(domains[:2]), frozenset(domains[2:])} == {frozenset("ac"), frozenset("bd")}
    assert linkage.shape == (3, 4)


def test_without_domains_the_order_is_that_of_the_concepts():
    overlap = overlap_of(np.repeat(["a", "b", "c"], 5))
    groups = overlap["domain"].to_numpy()
    for bare in (overlap.drop_vars("domain"), overlap.assign_coords(domain=("concept", [""] * 15))):
        order, domains, linkage = plot.order_concepts(bare)
        assert (domains, linkage) == ([], None)
        assert np.sum(groups[order][1:] != groups[order][:-1]) == 2  # found again, from the overlap alone


def test_overlap_shows_the_ordered_matrix_and_names_its_domains():
    overlap = overlap_of(np.repeat([f"domain {i}" for i in range(16)], 11))
    figure = plot.overlap(overlap, quantity="Jaccard overlap")
    matrix, tree, bar = figure.axes
    order, domains, _ = plot.order_concepts(overlap)
    shown = matrix.images[0].get_array()
    off = ~np.eye(176, dtype=bool)
    np.testing.assert_array_equal(shown[off], overlap.data[np.ix_(order, order)][off])
    assert np.all(np.ma.getmaskarray(np.ma.masked_invalid(shown))[~off])  # the diagonal isn't data
    assert matrix.images[0].get_clim() == (0, np.percentile(overlap.data[off], 99))
    assert [t.get_text() for t in matrix.get_yticklabels()] == domains
    assert len(tree.lines) == 15
    assert "Jaccard overlap" in bar.get_ylabel() and "99th percentile" in bar.get_ylabel()
    assert min(sizes(figure)) >= 7


def test_the_trees_branches_meet_at_mean_overlaps():
    overlap = overlap_of(np.repeat(["a", "b"], 8))
    same = overlap["domain"].to_numpy()[:, None] == overlap["domain"].to_numpy()
    tree = plot.overlap(overlap).axes[1]
    (branch,) = tree.lines
    assert branch.get_ydata()[1] == pytest.approx(overlap.data[~same].mean(), abs=1e-12)
    np.testing.assert_allclose(branch.get_xdata(), [3.5, 3.5, 11.5, 11.5])  # the middles of the two domains


@pytest.mark.parametrize("domains", [[""] * 12, ["animal"] * 12, [""] * 80, ["a", "b"], ["", "", "a", "b", "c"]])
def test_overlap_copes_with_few_domains_or_none(domains, tmp_path):
    overlap = overlap_of(np.array(domains))
    figure = plot.overlap(overlap)
    names = set(overlap["concept"].to_numpy())
    if len(set(domains)) == 1:
        assert names <= set(texts(figure)) if len(domains) == 12 else not names & set(texts(figure))
    else:
        assert {domain or "(no domain)" for domain in domains} <= set(texts(figure))
    assert all(path.stat().length > 0 for path in plot.save_figure(figure, tmp_path / "overlap"))


def test_empty_expert_sets_can_be_shown(tmp_path):
    overlap = overlap_of(np.repeat(["a", "b", "c"], 4)) * 0
    plot.save_figure(plot.overlap(overlap), tmp_path / "zero")


def test_overlap_refuses_what_it_cannot_draw():
    overlap = overlap_of(np.repeat(["a", "b"], 4))
    overlap.data[1, 2] = np.nan
    with pytest.raises(ExpertLensError, match="overlap of 8 concepts can't be drawn"):
        plot.overlap(overlap)
    with pytest.raises(ExpertLensError, match="overlap of 1 concept can't be drawn"):
        plot.overlap(overlap_of(np.array(["a"])))


# --- Localisation -------------------------------------------------------------------------------------------


def localisation_of(layers, sites=("mlp.down", "mlp.up", "attn.out", "attn.q")):
    rng = np.random.default_rng(0)
    rows = [(layer, site, *rng.random(2) * [50, 0.03]) for layer in range(layers) for site in sites]
    return pd.DataFrame(rows, columns=["layer", "site", "experts_per_concept", "share"])


def test_localisation_shows_shares_and_totals():
    counts = localisation_of(6)
    figure = plot.localisation(counts)
    cells, by_layer, by_site, _ = figure.axes
    assert [t.get_text() for t in cells.get_yticklabels()] == ["attn.q", "attn.out", "mlp.up", "mlp.down"]
    share = counts.set_index(["site", "layer"])["share"]
    assert cells.images[0].get_array()[2, 3] == pytest.approx(100 * share["mlp.up", 3])
    assert len(cells.texts) == 24
    assert float(cells.texts[0].get_text()) == pytest.approx(100 * share["attn.q", 0], abs=0.05)
    totals = counts.groupby("layer")["experts_per_concept"].sum()
    np.testing.assert_allclose([bar.get_height() for bar in by_layer.patches], totals)
    assert sum(bar.get_width() for bar in by_site.patches) == pytest.approx(totals.sum())
    assert {"Layer", "Experts per\nconcept", "Share of the site's\nunits, %"} <= set(texts(figure))
    assert min(sizes(figure)) >= 7


def test_localisation_leaves_numbers_out_when_there_are_too_many():
    figure = plot.localisation(localisation_of(48, sites=("attn.q", "mlp.mystery")))
    assert len(figure.axes[0].texts) == 0
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["attn.q", "mlp.mystery"]


def test_localisation_leaves_missing_sites_grey():
    counts = localisation_of(3).iloc[1:]  # layer 0 has no mlp.down
    figure = plot.localisation(counts)
    assert np.isnan(np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)).sum() == 1
    assert len(figure.axes[0].texts) == 11


# --- Files --------------------------------------------------------------------------------------------------


# --- Training and significance --------------------------------------------------------------------------------


def test_training_shows_each_corpus_and_its_last_loss():
    training = pd.DataFrame({"tokens": [100, 200, 400], "loss": [9.0, 7.0, 6.0], "rate": [0.1, 0.2, 0.0]})
    evaluation = pd.DataFrame(
        {"tokens": [0, 0, 400, 400], "corpus": ["novels", "glosses"] * 2, "loss": [9.0, 9.1, 6.2, 5.25]}
    )
    figure = plot.training(training, evaluation)
    loss, rate = figure.axes
    assert loss.get_xscale() == "log"
    assert {text.get_text().strip() for text in loss.texts} == {"novels 6.20", "glosses 5.25"}
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), training[["tokens", "loss"]])
    np.testing.assert_array_equal(rate.lines[0].get_xydata(), training[["tokens", "rate"]])
    with pytest.raises(ExpertLensError, match="rate"):
        plot.training(training.drop(columns="rate"), evaluation)


def counts_table():
    rng = np.random.default_rng(0)
    rows = [
        {"concept": c, "threshold": t, "experts": e, "significant": e // 2, "familywise": e // 4, "held_out": t - 0.1}
        for c in range(9)
        for t, e in zip((0.3, 0.5, 0.7), rng.integers(4, 100, 3), strict=True)
    ]
    return pd.DataFrame(rows)


def test_significance_shows_medians_over_concepts():
    counts = counts_table()
    figure = plot.significance(counts)
    experts, held_out = figure.axes
    medians = counts.groupby("threshold").median(numeric_only=True)
    for line, column in zip(experts.lines, ["experts", "significant", "familywise"], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), medians[column])
    np.testing.assert_allclose(held_out.lines[0].get_ydata(), [0.2, 0.4, 0.6])
    assert [text.get_text() for text in experts.get_legend().get_texts()] == ["all", "q ≤ 0.05", "family-wise p ≤ 0.05"]


def test_significance_without_halves_or_permutations_has_one_panel():
    figure = plot.significance(counts_table()[["concept", "threshold", "experts"]])
    (axes,) = figure.axes
    assert len(axes.lines) == 1


@pytest.mark.long
def test_all_files_are_written_and_are_the_same_each_time(tmp_path):
    tables, results = alignment_tables()
    overlap = overlap_of(np.repeat(["a", "b", "c"], 5))
    for name, make in {
        "alignment": lambda: plot.alignment(tables, results),
        "measures": lambda: plot.measures(measures_table()),
        "overlap": lambda: plot.overlap(overlap),
        "localisation": lambda: plot.localisation(localisation_of(6)),
    }.items():
        figure = make()
        assert isinstance(figure, Figure)
        first = plot.save_figure(figure, tmp_path / "new" / name)
        assert [path.name for path in first] == [f"{name}.png", f"{name}.svg", f"{name}.pdf"]
        again = plot.save_figure(make(), tmp_path / "again" / name)
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
        svg = first[1].read_text()
        assert "<text" in svg and "<dc:date>" not in svg
    assert "domain" not in svg and "attn.out" in svg  # text as text, not outlines


def test_a_name_with_dots_keeps_them(tmp_path):
    png, svg, pdf = plot.save_figure(plot.localisation(localisation_of(2)), tmp_path / "tau0.5")
    assert (png.name, svg.name, pdf.name) == ("tau0.5.png", "tau0.5.svg", "tau0.5.pdf")


@pytest.mark.parametrize(("domains", "number"), [(1, 10), (2, 10), (3, 18), (16, 65), (16, 66)])
def test_an_overlap_names_its_concepts_beside_their_domains_while_they_can_be_read(domains, number):
    names = [f"domain {i % domains}" for i in range(number)]
    overlap = overlap_of(np.array(names))
    figure = plot.overlap(overlap)
    order = plot.order_concepts(overlap)[0]
    concepts = [str(overlap["concept"].to_numpy()[i]) for i in order]
    down = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert down == concepts if number <= 65 else not set(concepts) & set(texts(figure))
    assert {*names} <= set(texts(figure))


def test_a_notebook_shows_every_figure_without_pyplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    figure = plot.overlap(overlap_of(np.repeat(["a", "b"], 5)))
    assert isinstance(figure, Figure)
    png = figure._repr_png_()  # what IPython asks an object for
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    np.testing.assert_allclose((width, height), 110 * figure.get_size_inches(), atol=1)


def test_figures_go_by_short_names():
    for name in plot.__all__:
        function = getattr(plot, name)
        assert function.__module__.startswith("expertlens_jax.plot."), name
        assert name in (function.__name__, function.__name__.removeprefix("plot_"))
