"""The page in a real browser, from the file system: every view, τ, search, links, keys, dark, narrow, and axe-core.

Run by `make browser`, which installs what these tests need.
"""

import contextlib
import shutil

import numpy as np
import pytest
from explored_run import CONCEPTS, reproduced_run, run_of_names

import expertlens_jax as el

pytestmark = [pytest.mark.browser, pytest.mark.process]

VIEWS = {
    "": "lenslet-2m, facts",
    "concept/cat": "cat",
    "pair/cat/tiger": "cat and tiger",
    "map": "Map",
    "matrix": "Matrix",
    "search?q=tiger": "Search",
    "verdicts": "Verdicts",
}
BEST = "unit/{}/{}/{}"  # the best unit on cats, see the fixture `best`


@pytest.fixture(scope="module")
def best(shown):
    """The address of the best unit on cats: layer, site, channel."""
    position = int(shown.expertise["average_precision"].values[CONCEPTS.index("cat")].argmax())
    return shown.model.units.loc[position, ["layer", "site", "channel"]].tolist()


@pytest.fixture
def opened(chromium, shown):
    """Opens a view; at the test's end, the browser must have had nothing to complain of, and asked for local files."""
    with contextlib.ExitStack() as stack:
        said, asked = [], []

        def open_view(view="", **settings):
            context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}} | settings)
            stack.callback(context.close)
            page = context.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(link(shown, view))
            page.wait_for_selector("main h1")
            settle(page)
            return page

        yield open_view
        assert said == []
        assert [url for url in asked if not url.startswith(("file://", "data:"))] == []


def link(shown, view):
    return f"{(shown.site / 'index.html').as_uri()}#/{view}"


def settle(page):
    page.wait_for_function("!document.body.innerText.includes('Loading …')")


def heading(page):
    return page.inner_text("main h1").split("\n")[0].strip()


def move_tau(page, tau):
    """With the keys, as a reader does who has no mouse."""
    page.focus("#tau")
    while float(page.inner_text("output")) != tau:
        page.keyboard.press("ArrowRight" if float(page.inner_text("output")) < tau else "ArrowLeft")
    settle(page)


def rows(page, caption):
    table = page.locator(f'[role="region"][aria-label="{caption}"] tbody tr')
    return [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in table.all()]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens_by_its_link(opened, view):
    page = opened(view)
    assert heading(page).startswith(VIEWS[view])
    assert page.title().endswith("lenslet-2m, facts")


def test_links_lead_through_the_views_and_back_works(opened, best):
    page = opened()
    page.click("main a >> text=cat")
    page.wait_for_function("document.querySelector('h1').innerText.startsWith('cat')")
    unit = "L{} {} {}".format(*best)
    settle(page)
    page.click(f"main a >> text={unit}")
    page.wait_for_function(f"document.querySelector('h1').innerText === '{unit}'")
    settle(page)
    assert rows(page, "Concepts it serves")[0][0] == "cat"
    page.go_back()
    page.wait_for_function("document.querySelector('h1').innerText.startsWith('cat')")
    page.go_back()
    page.wait_for_function("document.querySelector('h1').innerText.startsWith('lenslet-2m')")


def test_tau_moves_everything(opened, shown):
    page = opened()
    for tau in (0.5, 0.7):
        move_tau(page, tau)
        counts = el.select_experts(shown.expertise, threshold=tau).sum("unit").to_series()
        shown_counts = {row[0]: int(row[2].replace(",", "")) for row in rows(page, "Concepts")}
        assert shown_counts == counts.to_dict()
    page.click("main a >> text=father")
    page.wait_for_function("document.querySelector('h1').innerText.startsWith('father')")
    settle(page)
    for tau in (0.7, 0.45):
        move_tau(page, tau)
        experts = el.select_experts(shown.expertise, threshold=tau)
        own = int(experts.sel(concept="father").sum())
        assert page.inner_text("main p strong") == f"{own}"
        by_place = page.locator(".places td button").all_inner_texts()
        assert sum(int(text.replace(",", "")) for text in by_place) == own
        listed = rows(page, "Experts")
        assert len(listed) == min(own, 20)
        overlap = el.jaccard(experts).sel(concept="father").to_series().drop("father")
        nearest = {row[0]: float(row[2]) for row in rows(page, "Nearest concepts")}
        assert nearest == {name: round(value, 3) for name, value in overlap.items()}


def test_a_shared_link_opens_the_same(opened, chromium, shown):
    page = opened("pair/father/brother")
    move_tau(page, 0.6)
    address = page.url
    assert "tau=0.6" in address
    again = opened()
    again.goto("about:blank")
    again.goto(address)
    again.wait_for_selector("main h1")
    settle(again)
    assert again.inner_text("main") == page.inner_text("main")
    experts = el.select_experts(shown.expertise, threshold=0.6).sel(concept=["father", "brother"]).values
    both, either = int(experts.all(0).sum()), int(experts.any(0).sum())
    assert f"They share {both} of {either} experts at τ = 0.6" in again.inner_text("main")


def test_search_finds_concepts_units_and_sentences(opened, best, shown):
    page = opened()
    page.keyboard.press("/")
    page.keyboard.type("tiger")
    page.keyboard.press("Enter")
    page.wait_for_selector("main mark")
    assert page.locator("main section").nth(0).locator("a").all_inner_texts() == ["tiger"]
    holding = [each for each in shown.concepts.sentences if "tiger" in each.lower()]
    assert page.locator("ul.sentences li").count() == min(50, len(holding))
    page.fill("#asked", "l{} {} {}".format(*best))
    page.click("main section a >> text={}".format("L{} {} {}".format(*best)))
    page.wait_for_function("document.querySelector('h1').innerText === '{}'".format("L{} {} {}".format(*best)))
    page.fill("#find", "nothing like it")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('main .faint').length >= 3")
    assert "q=nothing" in page.url


def test_tokens_are_coloured_by_what_el_trace_reads(opened, shown, best):
    page = opened("concept/cat")
    first = page.locator("ol.sentences li").first.locator(".tokens span")
    sentence = "".join(page.locator("ol.sentences li").first.locator(".tokens span").all_text_contents())
    seen = el.trace(shown.model, [sentence], tuple(best))
    values = seen.activations[0][seen.in_pool[0], 0]
    told = [float(each.get_attribute("title").rpartition(": ")[2]) for each in first.all()]
    step = (values.max() - values.min()) / 100
    assert len(told) == len(values) and abs(values - told).max() < max(step, 0.05)
    strong = first.nth(int(values.argmax())).get_attribute("style")
    assert "--above" in strong


def test_the_unit_tells_how_to_hook_it(opened, shown, best):
    page = opened("unit/{}/{}/{}".format(*best))
    row = shown.model.units[(shown.model.units[["layer", "site", "channel"]] == best).all(axis=1)].iloc[0]
    code = page.locator("pre").first.inner_text()
    assert f'get_submodule("{row["hf_module"]}")' in code and f"[..., {row['hf_channel']}]" in code
    compile(code, "hook", "exec")
    page.locator(".code button").first.click()
    page.wait_for_function("document.querySelector('.code [role=status]').innerText !== ''")


def test_places_filter_the_experts(opened):
    page = opened("concept/cat")
    page.check("text=also those below τ")
    page.locator(".places td button").first.click()
    layers = {row[1] for row in rows(page, "Experts")}
    assert layers <= {"0"}
    page.select_option("label:has-text('Layer') select", "")
    page.click("th button >> text=AUROC")
    values = [float(row[-1]) for row in rows(page, "Experts")]
    assert values == sorted(values, reverse=True)


def test_the_map_zooms_and_leads_on(opened):
    page = opened("map")
    svg = page.locator("svg.zoomed").first
    whole = svg.get_attribute("viewBox")
    page.click("button[aria-label='Zoom in'] >> nth=0")
    assert svg.get_attribute("viewBox") != whole
    svg.focus()
    page.keyboard.press("0")
    assert svg.get_attribute("viewBox") == whole
    svg.hover()
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"document.querySelector('svg.zoomed').getAttribute('viewBox') !== '{whole}'")
    page.keyboard.press("0")
    assert page.locator("svg.zoomed >> nth=1").locator("a").count() == len(CONCEPTS)  # the tree
    svg.locator("a[aria-label^='dog']").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('h1').innerText.startsWith('dog')")


def test_the_matrix_tells_its_cells_to_mouse_and_keys(opened, shown):
    page = opened("matrix")
    page.hover("canvas", position={"x": 40, "y": 12})
    told = page.inner_text(".told")
    first, second = (page.locator(".told strong").nth(i).inner_text() for i in (0, 1))
    jaccard = float(el.jaccard(el.select_experts(shown.expertise, threshold=0.5)).sel(concept=first, other=second))
    assert f"overlap {jaccard:.3f}" in told
    page.focus("canvas")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.inner_text(".told") != told
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('h1').innerText.includes(' and ')")
    page.go_back()
    page.wait_for_selector("canvas")
    page.check("text=by domain")
    page.click("canvas", position={"x": 12, "y": 12})
    page.wait_for_function("location.hash.startsWith('#/concept/')")


@pytest.mark.parametrize("view", ["concept/nothing", "pair/cat/nothing", "unit/9/mlp.up/3", "unit/0/sae/3", "nonsense"])
def test_a_link_to_what_is_not_there_says_so(opened, view):
    page = opened(view)
    text = page.inner_text("main")
    assert any(told in text for told in ("No such", "doesn't show that unit"))
    page.click("main a")
    page.wait_for_function(f"!location.hash.includes('{view}')")


@pytest.mark.every_case("scheme")
@pytest.mark.parametrize("view", [*VIEWS, BEST])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(opened, scheme, view, best):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(view.format(*best), color_scheme=scheme)
    found = Axe().run(page, options={"preload": False}).response["violations"]  # which fetches the style sheets
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not serious, [(each["id"], each["nodes"][0]["html"]) for each in serious]


@pytest.mark.parametrize("view", [*VIEWS, BEST])
def test_narrow_screens_do_not_scroll_sideways(opened, view, best):
    page = opened(view.format(*best), viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_theme_turns(opened):
    page, pictures = opened("matrix", color_scheme="light"), []
    for button, paper in (("Dark", "rgb(20, 22, 26)"), ("Light", "rgb(255, 255, 255)")):
        page.click(f"header button >> text={button}")
        page.wait_for_function(f"getComputedStyle(document.body).backgroundColor === '{paper}'")
        pictures.append(page.locator("canvas").screenshot())
    assert pictures[0] != pictures[1]  # the matrix follows


def test_it_prints_without_its_controls(opened):
    page = opened("concept/cat")
    page.emulate_media(media="print")
    assert not page.is_visible("header") and page.is_visible("ol.sentences")
    assert page.pdf()[:5] == b"%PDF-"


def test_a_chunk_that_is_missing_is_told(chromium, shown, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(shown.site, site)
    (site / "data" / "t0" / "concepts" / "1.js").unlink()
    page = chromium.new_page()
    page.goto(f"{(site / 'index.html').as_uri()}#/concept/cat")
    page.wait_for_selector("[role=alert]")
    assert "data/t0/concepts/1.js isn't there. Copy the whole folder" in page.inner_text("main")
    page.close()


def test_verdicts_lead_to_figures_and_report(chromium, shown, tmp_path):
    run = reproduced_run(shown, tmp_path)
    with pytest.warns(el.ExpertLensWarning):
        el.explore(run, tmp_path / "out", experts=5, tokens=False)
    page = chromium.new_page()
    page.goto(f"{(tmp_path / 'out' / 'index.html').as_uri()}#/verdicts")
    page.wait_for_selector("article.claim")
    assert page.inner_text("article h2") == "✓ held Alike <b>"  # as text, whatever is in it
    assert "waiting" in page.inner_text("main ul") and "steering" in page.inner_text("main ul")
    page.click("summary >> text=Figure: alignment")
    assert page.get_attribute("article img", "src") == "figures/alignment/alignment.svg"
    assert page.get_attribute("article p a", "href") == "report.html#alignment"
    assert rows(page, "Alignment with people's ratings")[0][1] == "jaccard"
    page.click("summary >> text=Numbers: 2 tables")
    assert page.get_attribute("article li a >> nth=1", "href") == "numbers/alignment/pairs.csv"
    page.click("article p a >> text=alignment")  # the report's section, and from there back
    page.wait_for_selector("h2#alignment")
    assert page.url.endswith("report.html#alignment")
    page.click(".links >> text=its verdicts and numbers")
    page.wait_for_selector("h1:has-text('Verdicts of alignment')")
    assert page.locator("article").count() == 1
    page.click("nav a >> text=Concepts")
    page.wait_for_selector("section.note")
    assert "The run isn't done: steering didn't run yet" in page.inner_text("section.note")
    page.close()


def test_concepts_may_be_called_anything(chromium, tmp_path):
    names = ["a/b?c#d%&=", "ice cream", "<b>bold</b>", "猫", "q\"uo'te", "%2F", "..", "__proto__"]
    with pytest.warns(el.ExpertLensWarning, match="the run knows them as 'odd' only"):
        site = el.explore(run_of_names(tmp_path / "run", names))
    page, said = chromium.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in names:
        page.goto("about:blank")
        page.goto(f"file://{site}")
        page.wait_for_selector("main td a")
        page.get_by_role("link", name=name, exact=True).click()
        page.wait_for_function("name => document.querySelector('h1').innerText.trim() === name", arg=name)
        page.reload()  # by its link alone
        page.wait_for_function("name => document.querySelector('h1').innerText.trim() === name", arg=name)
        page.click("[aria-label='Nearest concepts'] tbody td:nth-child(3) a >> nth=0")
        page.wait_for_function("name => document.querySelector('h1').innerText.startsWith(name + ' and ')", arg=name)
    page.goto(page.url.partition("#")[0] + "#/unit/0/attn.head/3")
    page.wait_for_function("document.querySelector('h1').innerText === 'L0 attn.head 3'")
    settle(page)
    assert "No module of Hugging Face's model has it" in page.inner_text("main")
    page.close()
    assert said == []


def test_units_of_a_mixture_name_their_expert_and_are_filtered_by_it(chromium, tmp_path):
    experts = np.arange(400) % 200 // 50 - 1  # -1 of those that are none's
    with pytest.warns(el.ExpertLensWarning):
        site = el.explore(run_of_names(tmp_path / "run", ["cat", "dog"], experts=experts), experts=40)
    page = chromium.new_page()
    page.goto(f"file://{site}#/concept/cat")
    page.check("text=also those below τ")
    every = [row[3] for row in rows(page, "Experts")]
    assert set(every) == {"", "0", "1", "2"}
    page.select_option("label:has-text('expert') select", "1")
    units = rows(page, "Experts")
    assert len(units) >= every.count("1") and {row[3] for row in units} == {"1"}
    layer, site_name, channel = units[-1][0].split()
    assert experts[int(channel)] == 1
    page.select_option("label:has-text('Layer') select", layer[1:])
    assert rows(page, "Experts") == [row for row in units if row[1] == layer[1:]]
    page.click(f"main a >> text={units[-1][0]}")
    page.wait_for_function("unit => document.querySelector('h1').innerText === unit", arg=units[-1][0])
    page.wait_for_selector("main h2")
    assert f"of {site_name} in layer {layer[1:]}, of the mixture's expert 1. It is" in page.inner_text("main")
    page.close()


def test_one_concept_alone_is_shown(chromium, tmp_path):
    with pytest.warns(el.ExpertLensWarning):
        site = el.explore(run_of_names(tmp_path / "run", ["alone"]))
    page = chromium.new_page()
    for view, told in (
        ("matrix", "One concept alone has no overlaps"),
        ("map", "this table has 1"),
        ("", "1 concept,"),
    ):
        page.goto(f"file://{site}#/{view}")
        page.reload()
        page.wait_for_selector("main h1")
        assert told in page.inner_text("main")
    page.close()
