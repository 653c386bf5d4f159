"""The live page, and runs side by side, in a real browser: typed texts, steering as it streams, numbers as Python's."""

import contextlib
import re

import numpy as np
import pytest
from explored_run import run_of_names
from served import Served, live_run

import expertlens_jax as el

pytestmark = [pytest.mark.browser, pytest.mark.process]

SCREENS = {"wide": {"width": 1200, "height": 900}, "narrow": {"width": 360, "height": 740}}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    with Served(live_run(folder / "run"), folder / "page") as running:
        yield running


@pytest.fixture
def opened(chromium):
    """Opens an address; at the test's end the browser must have had nothing to complain of."""
    with contextlib.ExitStack() as stack:
        said = []

        def open_page(address, **settings):
            context = chromium.new_context(**{"viewport": SCREENS["wide"]} | settings)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(240_000)  # the first text of a length waits for a program to be compiled
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(address)
            page.wait_for_selector("main h1")
            return page

        yield open_page
        # The page asks again after the first, and shows what the second says.
        assert [each for each in said if "status of 429" not in each and "status of 400" not in each] == []


def test_a_typed_sentence_is_coloured_by_what_el_trace_reads(opened, served):
    page = opened(f"{served.address}#/live/cat")
    text = "A tiger isn't a house cat."
    page.fill("#typed", text)
    page.wait_for_selector(f'.typed .tokens:has-text("{text}")')
    row = served.expertise["average_precision"].sel(concept="cat").values
    best = np.argsort(-row, kind="stable")[:5]
    page.click("summary >> text=Numbers")
    cells = page.locator('[aria-label="Activations"] tbody tr')
    told = [[float(cell) for cell in line.locator("td").all_inner_texts()] for line in cells.all()]
    seen = el.trace(served.model, [text], served.model.units.iloc[best])
    values = seen.activations[0][seen.in_pool[0]]
    np.testing.assert_allclose(told, values, rtol=2e-3, atol=1e-6)  # of which four digits are shown
    for unit in (0, 1):
        page.select_option("#unit", str(unit))
        spans = page.locator(".typed .tokens span")
        titles = [float(each.get_attribute("title").rpartition(": ")[2]) for each in spans.all()]
        np.testing.assert_allclose(titles, values[:, unit], rtol=2e-3, atol=1e-6)
        strongest = spans.nth(int(np.abs(values[:, unit] - np.median(values[:, unit])).argmax()))
        assert re.search(r"--(above|below)", strongest.get_attribute("style"))
    page.select_option("#unit", "all")
    mean = [float(each.get_attribute("title").rpartition(": ")[2]) for each in spans.all()]
    middle = np.sort(values, axis=0)[len(values) // 2]
    np.testing.assert_allclose(mean, ((values - middle) / (values.max(0) - middle)).mean(1), rtol=2e-3, atol=1e-3)


def test_what_was_typed_and_asked_stays_when_another_concept_is_chosen(opened, served):
    page = opened(f"{served.address}#/live/cat")
    page.fill("#typed", "My own sentence.")
    page.fill("#prompt", "My own prompt")
    page.get_by_label("Seed").fill("7")
    before = page.locator("#unit option").first.inner_text()
    page.select_option("#concept", "dog")
    page.wait_for_selector("[aria-label=Steered] h3:has-text('Steered to dog')")
    assert page.input_value("#typed") == "My own sentence." and page.input_value("#prompt") == "My own prompt"
    assert page.get_by_label("Seed").input_value() == "7"
    page.wait_for_selector('.typed .tokens:has-text("My own sentence.")')
    assert page.locator("#unit option").first.inner_text() != before  # the dog's experts


def test_steering_streams_beside_the_unsteered_text(opened, served):
    page = opened(f"{served.address}#/live/dog")
    page.fill("#prompt", "They talked about the")
    for label, value in (("New tokens", "12"), ("Experts", "20"), ("Seed", "3")):
        page.get_by_label(label).fill(value)
    page.click("button >> text=Write")
    page.wait_for_selector("[role=status]:text-is('Done.')")
    steering = el.steer(served.expertise, "dog", top=20)
    settings = {"max_new_tokens": 12, "temperature": 0.8, "seed": 3, "on_token": lambda *token: None}
    for name, chosen in (("Unsteered", None), ("Steered", steering)):
        made = el.generate(served.model, "They talked about the", steering=chosen, **settings)
        assert page.locator(f"section[aria-label={name}] p").inner_text() == made.prompts[0] + made.texts[0], name
    page.focus("#strength")
    page.keyboard.press("Home")  # no strength: the slider writes anew
    page.wait_for_selector("h3:text-is('Steered to dog, strength 0')")
    page.wait_for_selector("[role=status]:text-is('Done.')")
    plain, steered = (page.locator(f"section[aria-label={name}] p").inner_text() for name in ("Unsteered", "Steered"))
    assert plain == steered


def test_steering_goes_by_a_unit_and_what_is_wrong_with_it_stands_beside_it(opened, served):
    page = opened(f"{served.address}#/live/dog")
    for label, value in (("New tokens", "12"), ("Experts", "300"), ("Seed", "3")):
        page.get_by_label(label).fill(value)
    page.get_by_label("Only where unit").fill("L0 mlp.up 417000")
    page.get_by_label("is above").fill("-0.5")
    page.click("button >> text=Write")
    said = page.locator("[aria-label=Condition] [role=alert]")
    said.wait_for()
    assert "mlp.up has the channels 0 to" in said.inner_text()
    assert page.get_by_label("Only where unit").get_attribute("aria-invalid") == "true"
    assert page.locator("#" + page.get_by_label("is above").get_attribute("aria-describedby")).count() == 1
    page.get_by_label("Only where unit").fill("L0 mlp.up 417")
    page.get_by_label("From layer").fill("1")
    page.click("button >> text=Write")
    page.wait_for_selector("h3:text-is('Steered to dog, strength 1, only where L0 mlp.up 417 > -0.5')")
    page.wait_for_selector("[role=status]:text-is('Done.')")
    assert said.count() == 0
    when = el.When(unit=(0, "mlp.up", 417), above=-0.5)
    steering = el.steer(served.expertise, "dog", top=300, layers=[1, 2, 3], when=when)
    made = el.generate(
        served.model, "They talked about the", max_new_tokens=12, temperature=0.8, seed=3, steering=steering
    )
    assert page.locator("section[aria-label=Steered] p").inner_text() == made.prompts[0] + made.texts[0]


def test_a_server_that_is_gone_is_told(chromium, served):
    page = chromium.new_page()
    page.set_default_timeout(240_000)
    page.goto(f"{served.address}#/live/cat")
    page.wait_for_selector(".typed .tokens")
    page.route("**/live/trace", lambda route: route.abort())
    page.fill("#typed", "Another text.")
    page.wait_for_selector("text=The server doesn't answer: was it ended?")
    page.unroute("**/live/trace")
    page.fill("#typed", "A cat.")
    page.wait_for_selector('.typed .tokens:has-text("A cat.")')
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_live_page_fits_and_can_be_used_by_all(opened, served, scheme):
    from axe_playwright_python.sync_playwright import Axe

    for size in SCREENS.values():
        page = opened(f"{served.address}#/live/cat", color_scheme=scheme, viewport=size, bypass_csp=True)
        page.wait_for_selector(".typed .tokens")
        page.get_by_label("Only where unit").fill("no unit")
        page.click("button >> text=Write")
        page.wait_for_selector("[aria-label=Condition] [role=alert]")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        found = Axe().run(page, options={"preload": False}).response["violations"]
        assert not [each for each in found if each["impact"] in ("serious", "critical")], found


def test_a_page_of_files_says_how_to_make_it_live(opened, served):
    page = opened(f"{(served.site / 'index.html').as_uri()}#/live/cat")
    assert "expertlens explore RUN --live serves it" in page.inner_text("main").replace("\n", " ")
    assert page.locator("nav a").all_inner_texts() == ["Concepts", "Map", "Matrix", "Verdicts", "Search"]


# Runs side by side.

NAMES = tuple(f"word{i}" for i in range(6))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    draws = np.random.default_rng(0)
    first, other = draws.beta(8, 5, (2, 6, 400)).astype(np.float32)
    run_of_names(folder / "first", NAMES, first, pooling="max")
    run_of_names(folder / "second", NAMES, np.where(np.arange(400) < 300, first, other), pooling="mean")
    with pytest.warns(el.ExpertLensWarning):
        page = el.explore(folder / "first", folder / "page", compare=[folder / "second"])
    return folder, f"{page.as_uri()}#/compare"


def test_runs_are_shown_side_by_side(opened, compared):
    folder, address = compared
    page = opened(address)
    page.wait_for_selector("main figure")
    page.focus("#tau")
    while page.inner_text("output") != "0.75":
        page.keyboard.press("ArrowRight")
    page.wait_for_selector("main p:has-text('At τ = 0.75')")
    expected = el.compare_runs(folder / "first", folder / "second", threshold=0.75, resamples=9, permutations=9)
    cells = page.locator('[aria-label="Concepts in both runs"] tbody tr')
    told = {
        cell[0]: [float(each.replace(",", "")) for each in cell[1:]]
        for cell in (line.locator("td").all_inner_texts() for line in cells.all())
    }
    columns = ["experts", "other_experts", "best_ap", "other_best_ap", "overlap", "chance"]
    for row in expected.table.to_dict("records"):
        np.testing.assert_allclose(told[row["concept"]], [row[name] for name in columns], atol=6e-4)
    text = page.inner_text("main")
    rho = expected.tables["agreement"]["spearman"].iloc[0]
    assert f"correlate by {rho:.2f} (Spearman)" in text and "first and second" in text
    assert page.locator('[aria-label="What differs"] tbody tr').all_inner_texts() == ["pooling\t'max'\t'mean'"]
    page.click("main td a >> text=word3")
    page.wait_for_selector("h1:has-text('word3')")
    page.select_option("header select", label="second: odd, odd")
    page.wait_for_selector("h1:has-text('word3')")
    page.go_back()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_comparison_fits_and_can_be_used_by_all(opened, compared, scheme):
    from axe_playwright_python.sync_playwright import Axe

    for size in SCREENS.values():
        page = opened(compared[1], color_scheme=scheme, viewport=size)
        page.wait_for_selector("main figure")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        found = Axe().run(page, options={"preload": False}).response["violations"]
        assert not [each for each in found if each["impact"] in ("serious", "critical")], found
