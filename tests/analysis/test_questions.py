"""`el.analysis`: each question gives a table, what it says, and figures; the numbers are those of single analyses."""

import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.conditions.settling import trace_overlap
from expertlens_jax.analysis.conditions.stability import compare_conditions
from expertlens_jax.analysis.structure.localisation import locate_experts
from expertlens_jax.analysis.structure.recovery import recover_domains
from expertlens_jax.errors import ExpertLensError, SelectionError

pytestmark = pytest.mark.compiled_quickly

FEW = {"permutations": 99, "seed": 3}
NO_QUESTIONS = {"Result", "from_rsatoolbox", "to_rsatoolbox"}


@pytest.fixture(scope="module")
def tables():
    """Tables of 12 concepts in 3 domains; units of a domain are good at its concepts, more or less."""
    rng = np.random.default_rng(0)
    domains = np.repeat(["animal", "food", "vehicle"], 4)
    units = np.arange(240)
    kind = units % 4  # the fourth kind is nobody's
    of_domain = np.array([0, 1, 2]).repeat(4)[:, None] == kind
    coords = {
        "concept": [f"{domain}{i}" for i, domain in enumerate(domains)],
        "domain": ("concept", domains),
        "unit": units,
        "layer": ("unit", units // 60),
        "site": ("unit", np.where(units // 30 % 2, "mlp.up", "attn.q")),
        "channel": ("unit", units % 30),
    }
    found = {}
    for name in ("facts", "stories"):
        signal = 0.2 + 0.4 * of_domain + rng.uniform(0, 0.35, (12, 240))
        arrays = {"average_precision": signal, "positive_median": signal, "negative_mean": rng.random((12, 240))}
        arrays = {key: (("concept", "unit"), value.astype(np.float32)) for key, value in arrays.items()}
        found[name] = xr.Dataset(arrays, coords, {"model": "made-up"})
    return found


@pytest.fixture(scope="module")
def ratings(tables):
    names = [str(name) for name in tables["facts"]["concept"].values]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]]
    scores = [8.0 if a[:3] == b[:3] else 1.0 + i / 100 for i, (a, b) in enumerate(pairs)]
    return el.Ratings("mine", tuple(pairs), tuple(scores))


def of_mixture(table):
    """The table, as if it were a mixture's of three experts a layer: layer 0 and 2 have mlp.up, layer 1 the router."""
    layer, site, channel = (table[name].values for name in ("layer", "site", "channel"))
    site = np.where(site == "mlp.up", "mlp.up", np.where((layer % 2 == 1) & (channel < 3), "mlp.router", "attn.q"))
    expert = np.select([site == "mlp.up", site == "mlp.router"], [channel // 10, channel], -1)
    return table.assign_coords(site=("unit", site), expert=("unit", expert))


def detected():
    """Experts that count a word's letters, beside noise, on sentences that hold it."""
    facts, stories = (el.load_concepts(name).subset(("cat", "bread")) for name in ("facts", "stories"))

    def read(sentences, readings):
        noise = np.random.default_rng(0).normal(size=(len(sentences), 20)).astype(np.float32)
        noise[:, 0] += 4 * np.array(["cat" in each.lower() for each in sentences])
        noise[:, 1] += 4 * np.array(["bread" in each.lower() for each in sentences])
        return dict.fromkeys(readings, noise)

    detectors = ("best_expert", "top_experts", "bag_of_words")
    return el.analysis.detection(read, facts, stories, detectors=detectors, positives=(5, 40), resamples=50)


def needed():
    """Units that a packaged model may need for three words, found in two sentences each, tried on another; and those
    that learned steering changes."""
    words, model = ("cat", "bread", "rain"), el.load_model("lenslet-2m")
    trained = el.load_concepts(
        {word: [f"I saw the {word} here.", f"It is a {word} now."] for word in words}, minimum_sentences=2
    )
    tried = el.load_concepts({word: [f"There was the {word} again."] for word in words}, minimum_sentences=1)
    table = el.measure_expertise(el.record_responses(model, trained.sentences, sites="mlp.up"), trained)
    table = el.attribute(model, trained, expertise=table)
    necessity = el.analysis.necessity(model, table, tried, counts=(5,), resamples=50)
    learning = el.Learning(objective="distribution", sparsity=0.5, steps=2, sentences=2, most_tokens=8)
    return necessity, el.analysis.learned_units(model, table, trained, words[:2], learning=learning, resamples=50)


def typical(tables):
    """How typical each concept is of one category, the first the most."""
    names = tuple(tables["facts"]["concept"].values.tolist())
    ratings = el.Typicality("made up", names, ("thing",) * len(names), np.linspace(7, 1, len(names)))
    return el.analysis.typicality(tables["facts"], ratings, threshold=0.7, resamples=50, **FEW)


def inherited(tables):
    """Domains whose words stand among the concepts: the first of each."""
    facts = tables["facts"]
    names = [domain if i % 4 == 0 else f"{domain}{i}" for i, domain in enumerate(facts["domain"].values)]
    return el.analysis.hierarchy(facts.assign_coords(concept=names), threshold=0.7, resamples=50)


@pytest.fixture(scope="module")
def results(tables, ratings):
    facts = tables["facts"]
    noise = xr.DataArray(
        (rng := np.random.default_rng(1).random((12, 12))) + rng.T,
        dims=("concept", "other"),
        coords={"concept": facts["concept"].values, "other": facts["concept"].values},
    )
    names, domains = (tuple(facts[name].values.astype(str)) for name in ("concept", "domain"))
    first_of = {domain: domains.index(domain) for domain in domains}
    words = tuple("bank" if i in first_of.values() else name for i, name in enumerate(names))
    senses = el.ConceptDataset(
        *("made up", tuple(f"{name}." for name in names), names, domains),
        *(np.eye(12, dtype=bool), np.ones(12, bool)),
        words=words,
    )
    necessity, learned_units = needed()
    return {
        "alignment": el.analysis.alignment(facts, ratings, threshold=0.7, **FEW),
        "baselines": el.analysis.baselines(
            facts, {"noise": noise, "set two": tables["stories"]}, ratings, threshold=0.7
        ),
        "controls": el.analysis.controls(facts, {"noise": noise}, [ratings], threshold=0.7),
        "stability": el.analysis.stability(tables, threshold=0.7, resamples=50, **FEW),
        "organisation": el.analysis.organisation(facts, threshold=0.7, **FEW),
        "hierarchy": inherited(tables),
        "senses": el.analysis.senses(facts, senses, {"noise": noise}, threshold=0.7, resamples=50),
        "localisation": el.analysis.localisation(facts, thresholds=(0.7, 0.8), resamples=50),
        "mixture": el.analysis.mixture(of_mixture(facts), threshold=0.7),
        "polysemanticity": el.analysis.polysemanticity(facts, threshold=0.7, draws=10, resamples=50, **FEW),
        "settling": el.analysis.settling(
            {64: facts, 0: tables["stories"]}, ratings, thresholds=(0.7, 0.8), resamples=50, **FEW
        ),
        "detection": detected(),
        "necessity": necessity,
        "learned units": learned_units,
        "typicality": typical(tables),
        "matched controls": el.analysis.matched_controls(facts, threshold=0.7, resamples=50),
    }


@pytest.mark.long
def test_every_question_gives_a_table_a_summary_and_figures(results):
    assert {name.replace(" ", "_") for name in results} == {*el.analysis.__all__} - NO_QUESTIONS
    for name, result in results.items():
        assert isinstance(result, el.analysis.Result) and result.question == name
        assert isinstance(result.table, pd.DataFrame) and len(result.table)
        assert result.summary() and all(line.endswith(".") for line in result.summary().splitlines())
        assert "chance" in result.summary(), name  # no number stands without what chance would give
        for figure in result.figures:
            assert result.plot(figure)._repr_png_().startswith(b"\x89PNG"), (name, figure)
        assert result.plot().axes


def test_a_result_reads_well_in_a_terminal_and_a_notebook(results):
    for result in results.values():
        shown = repr(result)
        assert shown.startswith(result.question) and max(map(len, shown.splitlines())) <= 120
        assert len(shown.splitlines()) < 60
        html = result._repr_html_()
        assert "<table" in html and html.count("<p>") - html.count("<p><i>") == len(result.sentences)
    assert "... 240 rows" not in repr(results["alignment"])
    assert f"... {len(results['localisation'].table)} rows: .table" in repr(results["localisation"])
    assert ".tables['pairs']" in repr(results["alignment"]) and ".plot('map')" in repr(results["organisation"])


def test_html_shows_names_as_they_are_written():
    result = el.analysis.Result("q", pd.DataFrame({"a<b": ["<i>"]}), ("1 < 2 & more",))
    assert "1 &lt; 2 &amp; more" in result._repr_html_() and "<i>" not in result._repr_html_()


def test_a_result_can_be_kept(results):
    for result in results.values():
        again = pickle.loads(pickle.dumps(result))
        pd.testing.assert_frame_equal(again.table, result.table)
        assert again.plot().axes


def test_the_numbers_are_those_of_the_single_analyses(results, tables, ratings):
    experts = {name: el.select_experts(table, threshold=0.7) for name, table in tables.items()}
    overlap = el.jaccard(experts["facts"])
    aligned = el.align(overlap, ratings, **FEW)
    row = results["alignment"].table.iloc[0]
    assert (row["spearman"], row["ci_low"], row["p_value"]) == (aligned.spearman, aligned.ci_low, aligned.p_value)
    assert (
        results["alignment"]
        .sentences[0]
        .startswith(f"mine: Spearman's correlation with people's ratings is {row['spearman']:.3g} [")
    )
    other = el.jaccard(experts["stories"])
    compared = el.compare_alignments(overlap, {"set two": other}, ratings)
    found = results["baselines"].table.set_index("baseline").loc["set two"]
    assert (found["difference"], found["ci_low"]) == (compared["difference"][0], compared["ci_low"][0])
    expected = compare_conditions(experts["facts"], experts["stories"], resamples=50, **FEW)
    pd.testing.assert_frame_equal(results["stability"].table[expected.columns], expected)
    pd.testing.assert_frame_equal(results["organisation"].table, recover_domains(overlap, **FEW))
    steps = {0: tables["stories"], 64: tables["facts"]}
    overlap, settled = trace_overlap(steps, tables["facts"], (0.7, 0.8), resamples=50, seed=FEW["seed"])
    pd.testing.assert_frame_equal(results["settling"].table, settled)
    found = results["settling"].tables["steps"].query("statistic == 'final_overlap'")
    pd.testing.assert_frame_equal(found[overlap.columns].reset_index(drop=True), overlap)
    found = results["settling"].tables["steps"].query("statistic == 'alignment' and step == 64 and threshold == 0.7")
    assert found["value"].tolist() == [aligned.spearman]
    located = locate_experts(experts["facts"], resamples=50)
    here = results["localisation"].table.query("threshold == 0.7")
    pd.testing.assert_frame_equal(here[located.columns], located)


def test_the_experts_of_a_mixture_that_hold_a_concept_are_counted(results, tables):
    table = of_mixture(tables["facts"])
    found = results["mixture"].table
    first = str(table["concept"].values[0])
    for sign in ("up", "both"):
        if sign == "both":
            table["average_precision_down"] = 1 - table["average_precision"]
            found = el.analysis.mixture(table, threshold=0.7, sign=sign).table
        scores = el.score_units(table, sign=sign).sel(concept=first).values
        within = (table["site"] == "mlp.up").values
        for row in found.query("concept == @first").itertuples():
            there = within & (table["layer"] == row.layer).values & (table["expert"] == row.expert).values
            chosen = scores >= np.float32(0.7)
            assert (row.units, row.experts) == (there.sum(), (there & chosen).sum())
            even = there.sum() / within.sum()
            expected = (there & chosen).sum() / (within & chosen).sum() / even
            np.testing.assert_allclose((row.share, row.enrichment), (row.experts / row.units, expected))
            router = scores[
                (
                    (table["site"] == "mlp.router") & (table["layer"] == row.layer) & (table["expert"] == row.expert)
                ).values
            ]
            np.testing.assert_array_equal([row.router], router if router.size else [np.nan])
    assert found["router"].notna().any() and found["experts"].any()


def test_domains_that_are_there_are_found(results):
    assert results["organisation"].table.set_index("statistic").loc["ari", "value"] == 1
    assert results["polysemanticity"].table["domains"].iloc[0] < results["polysemanticity"].table["null_low"].iloc[0]


def test_a_hierarchy_is_that_of_the_single_analyses(results, tables):
    found = results["hierarchy"]
    assert set(found.tables["inclusion"]["pair"]) == {"own word", "two members", "another domain's word"}
    own = found.tables["inclusion"].query("pair == 'own word'").groupby("domain")["a_in_b"].mean().mean()
    assert found.table.set_index(["statistic", "pair"]).loc[("a_in_b", "own word"), "mean"] == pytest.approx(own)
    with pytest.raises(SelectionError, match="has its own word and two members or more"):
        el.analysis.hierarchy(tables["facts"], threshold=0.7)


def test_an_organisation_has_the_maps_the_graph_and_the_tokens_that_it_is_asked_for(tables, results):
    whole = results["organisation"]
    asked = {"maps": ("tsne", "mds"), "graph_domains": 2, "graph_members": 3, "graph_edges": 1}
    found = el.analysis.organisation(
        tables["facts"], threshold=0.7, tokens=[[i // 2, 7 + i] for i in range(12)], **asked, **FEW
    )
    assert found.tables["map"]["method"].drop_duplicates().tolist() == ["tsne", "mds"]
    same = found.tables["map"].query("method == 'mds'").reset_index(drop=True)
    pd.testing.assert_frame_equal(same, whole.tables["map"])
    drawn = {*found.tables["graph"]["concept_1"], *found.tables["graph"]["concept_2"]}
    assert drawn <= {"animal0", "animal1", "animal2", "food4", "food5", "food6"} and len(drawn) > 3
    assert found.tables["spelling"]["pairs"].sum() == 66 and found.tables["spelling"]["pairs"][0] == 6
    assert "spelling" not in whole.tables and {"map", "map_mds"} <= {*found.figures}
    pd.testing.assert_frame_equal(found.table, whole.table)
    with pytest.raises(SelectionError, match="a map by 'umap' was given; wanted one of mds, tsne"):
        el.analysis.organisation(tables["facts"], threshold=0.7, maps=("umap",), **FEW)


def test_a_table_read_from_zarr_is_organised_as_one_in_memory(tables, results, tmp_path):
    facts = tables["facts"]
    text = {"concept": facts["concept"].values.astype(object), "domain": facts["domain"].astype(object)}
    facts.assign_coords(text).drop_vars("site").to_zarr(str(tmp_path / "t.zarr"), consolidated=False)
    with xr.open_zarr(str(tmp_path / "t.zarr"), consolidated=False, chunks=None) as stored:
        result = el.analysis.organisation(stored, threshold=0.7, **FEW)
    pd.testing.assert_frame_equal(result.table, results["organisation"].table)


def test_a_similarity_or_sets_can_be_given_in_place_of_a_table(tables, ratings):
    facts = tables["facts"]
    experts = el.select_experts(facts, threshold=0.7)
    tables_of = [
        el.analysis.alignment(x, ratings, **FEW, **at).table
        for x, at in ((facts, {"threshold": 0.7}), (experts, {}), (el.jaccard(experts), {}))
    ]
    pd.testing.assert_frame_equal(tables_of[0], tables_of[1])
    pd.testing.assert_frame_equal(tables_of[0], tables_of[2])
    by_cosine = el.analysis.alignment(facts, ratings, method="cosine", **FEW).table["spearman"][0]
    assert by_cosine == el.align(el.cosine(facts), ratings, **FEW).spearman


@pytest.mark.parametrize("sign", ["up", "down"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda t, r, **by: el.analysis.alignment(t, r, threshold=0.7, **FEW, **by),
        lambda t, r, **by: el.analysis.baselines(t, {"same": t}, r, threshold=0.7, **by),
        lambda t, r, **by: el.analysis.controls(t, {"other": el.cosine(t.roll(unit=1))}, r, threshold=0.7, **by),
        lambda t, r, **by: el.analysis.stability(
            {"a": t, "b": t.roll(unit=9)}, threshold=0.7, resamples=20, **FEW, **by
        ),
        lambda t, r, **by: el.analysis.organisation(t, threshold=0.7, **FEW, **by),
        lambda t, r, **by: el.analysis.localisation(t, thresholds=(0.7, 0.8), resamples=20, **by),
        lambda t, r, **by: el.analysis.polysemanticity(t, threshold=0.7, draws=5, resamples=20, **FEW, **by),
    ],
    ids=("alignment", "baselines", "controls", "stability", "organisation", "localisation", "polysemanticity"),
)
def test_experts_are_selected_by_any_score(tables, ratings, ask, sign):
    precision = tables["facts"]["average_precision"]
    plain = tables["facts"].assign(auroc=precision.roll(unit=7))
    scored = plain.assign(auroc=precision if sign == "up" else 1 - precision)
    if sign == "down":  # 1 - (1 - x) isn't x in float32
        plain = plain.assign(average_precision=1 - scored["auroc"])
        scored = scored.assign(average_precision=plain["average_precision"])
    pd.testing.assert_frame_equal(ask(scored, ratings, by="auroc", sign=sign).table, ask(plain, ratings).table)
    other = scored.assign(auroc=scored["auroc"].roll(concept=1, roll_coords=False))
    assert not ask(other, ratings, by="auroc", sign=sign).table.equals(ask(plain, ratings).table)


def test_ratings_that_share_no_pairs_say_so_and_are_drawn(tables):
    result = el.analysis.alignment(
        tables["facts"], el.Ratings("other", (("sun", "moon"),), (3.0,)), threshold=0.7, **FEW
    )
    assert "there is no correlation: 0 of the 1 rated pairs" in result.summary()
    assert np.isnan(result.table["spearman"][0]) and result.plot().axes


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda t, r: el.analysis.alignment(t, r), "neither a threshold nor top"),
        (lambda t, r: el.analysis.alignment(t, [], threshold=0.7), "no ratings were given"),
        (lambda t, r: el.analysis.alignment(t, r, method="jacard", threshold=0.7), "Choose from: jaccard"),
        (lambda t, r: el.analysis.alignment(el.cosine(t), r, threshold=0.7), "compared already, and threshold=0.7"),
        (lambda t, r: el.analysis.baselines(t, {}, r, threshold=0.7), "wanted a dict of names and similarities"),
        (lambda t, r: el.analysis.stability({"facts": t}, threshold=0.7), "stability was given 1 table"),
        (lambda t, r: el.analysis.stability(t, threshold=0.7), "wanted a dict of two or more"),
        (
            lambda t, r: el.analysis.organisation(t.drop_vars("domain"), threshold=0.7),
            "wanted a domain for each concept",
        ),
        (lambda t, r: el.analysis.localisation(t, thresholds=()), "was given no threshold"),
        (lambda t, r: el.analysis.settling({0: t, 9: t}, thresholds=()), "settling was given no threshold"),
        (lambda t, r: el.analysis.settling({9: t}), "settling was given 1 table; wanted a dict of two or more"),
        (lambda t, r: el.analysis.settling({0: t, 9: t.isel(unit=slice(9))}), "aren't the same. Measure all"),
        (lambda t, r: el.analysis.localisation(t, thresholds=7), "a number from 0 to 1"),
        (
            lambda t, r: el.analysis.mixture(t),
            "of made-up, has no column expert: it is of no mixture of experts, or was",
        ),
        (lambda t, r: el.analysis.mixture(of_mixture(t).isel(unit=range(30))), "of attn.q, .* one or more of mlp.gate"),
        (lambda t, r: el.analysis.mixture(of_mixture(t), threshold=7), "threshold=7"),
        (lambda t, r: el.analysis.matched_controls(t, threshold=1.0), "no concept has an expert at threshold=1"),
        (
            lambda t, r: el.analysis.localisation(t).plot("tree"),
            "Unknown figure 'tree' of localisation. Choose from: enr",
        ),
    ],
)
def test_a_question_that_cannot_be_asked_says_why(tables, ratings, ask, message):
    with pytest.raises((SelectionError, ExpertLensError), match=message):
        ask(tables["facts"], ratings)


def test_a_threshold_without_experts_is_said(tables):
    assert "At τ = 1 no concept has experts" in el.analysis.localisation(tables["facts"], thresholds=1.0).summary()
    assert "At τ = 1 no concept has experts" in el.analysis.mixture(of_mixture(tables["facts"]), threshold=1).summary()
