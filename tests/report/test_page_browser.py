"""The report's page in a real browser: one headless Chromium for all; screenshots stay in build/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.report.html import render_html, render_redundancy
from edgeprune.report.plotting import make_figure
from tests.report.browser import Page, find_chromium, open_browser
from tests.report.page_sample import make_long_document, make_page_document
from tests.report.test_pruning import make_redundancy_document

BUILD = Path(__file__).parents[2] / "build"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740, "is_phone": True}

# Boxes of what a figure shows that have no size, or lie outside of the figure; by figure.
UNDRAWN = """
[...document.querySelectorAll('figure')].filter(figure => {
  const marks = [...figure.querySelectorAll('svg circle, svg rect, svg path, .bar i, img')];
  return !marks.some(mark => { const box = mark.getBoundingClientRect(); return box.width * box.height > 0; })
      || [...figure.querySelectorAll('img')].some(image => !image.naturalWidth);
}).map(figure => figure.id)
"""
# What sticks out of the window to the right, but for what lies in a box that scrolls
TOO_WIDE = """
[...document.querySelectorAll('body *')].filter(element => !element.closest('.wide, pre, .unseen, .skip')
  && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(element => element.outerHTML.slice(0, 120))
"""
FOCUSABLE = "a[href], summary, [tabindex='0']"
LIST_FOCUSABLE = f"""
[...document.querySelectorAll("{FOCUSABLE}")].filter(element => element.checkVisibility())
  .map(element => element.outerHTML)
"""
FOCUSED = """
(() => { const style = getComputedStyle(document.activeElement);
  return [document.activeElement.outerHTML, style.outlineStyle, parseFloat(style.outlineWidth)]; })()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find_chromium()
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with open_browser(program, tmp_path_factory.mktemp("chromium") / "profile") as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("page"), render_html(make_page_document()))


def _write(folder: Path, text: str) -> Path:
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [("light", DESKTOP), ("dark", {**DESKTOP, "scheme": "dark"}), ("phone", PHONE)],
)
def test_all_pictures_are_drawn_without_an_error(
    browser: Page, report: Path, name: str, options: dict[str, Any]
) -> None:
    browser.open(report, **options)
    browser.save_screenshot(BUILD / f"report-{name}.png")
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.resolve().as_uri()]
    assert browser.evaluate("document.querySelectorAll('figure').length") >= 20
    assert browser.evaluate(UNDRAWN) == []
    assert browser.evaluate("document.scripts.length") == 0  # hostile names are no elements
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 29)" if name == "dark" else "rgb(255, 255, 255)")


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_sticks_out_on_a_narrow_screen(browser: Page, report: Path, width: int) -> None:
    browser.open(report, width=width, height=740, is_phone=True)
    browser.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(TOO_WIDE) == []


def test_a_hundred_steps_scroll_in_their_own_box(browser: Page, tmp_path: Path) -> None:
    browser.open(_write(tmp_path, render_html(make_long_document())), **PHONE)
    assert browser.errors == []
    assert browser.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert browser.evaluate("document.querySelector('#memory-plan .wide').scrollWidth") == 2200  # 22 pixels a step
    assert browser.evaluate(UNDRAWN) == []
    clipped = "[...document.querySelectorAll('#memory-plan text.step')].filter(text => {"
    clipped += "const box = text.getBoundingClientRect(), frame = text.closest('.wide').getBoundingClientRect();"
    clipped += "return box.bottom > frame.bottom || box.top < frame.top; }).length"
    assert browser.evaluate(clipped) == 0


def test_the_keyboard_reaches_everything_in_order(browser: Page, report: Path) -> None:
    browser.open(report, **DESKTOP)
    expected = browser.evaluate(LIST_FOCUSABLE)
    assert len(expected) > 30
    for number, element in enumerate(expected):
        browser.press_tab()
        focused, style, width = browser.evaluate(FOCUSED)
        assert focused == element, number
        assert style != "none", element  # the focus can be seen
        assert width >= 2, element


def test_the_skip_link_and_folded_parts_work_by_keyboard(browser: Page, report: Path) -> None:
    browser.open(report, **DESKTOP)
    browser.press_tab()
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press_key("Enter", 13)
    assert browser.evaluate("location.hash") == "#content"
    browser.evaluate("document.querySelector('summary').focus()")
    browser.press_key("Enter", 13)
    assert browser.evaluate("document.querySelector('details').open") is True
    assert browser.evaluate("document.querySelector('details table').getBoundingClientRect().height") > 0


def test_every_part_has_a_name_for_a_screen_reader(browser: Page, report: Path) -> None:
    browser.open(report, **DESKTOP)
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"image", "region", "figure", "list", "navigation", "table", "img"}
    named = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in roles - {"list"}]
    assert len(named) > 40
    assert [node["role"] for node in named if not node.get("name", {}).get("value")] == []


def test_the_page_of_an_analysis_is_drawn(browser: Page, tmp_path: Path) -> None:
    browser.open(_write(tmp_path, render_redundancy(make_redundancy_document())), **PHONE)
    assert browser.errors == []
    assert browser.evaluate("document.querySelectorAll('figure').length") == 2
    assert browser.evaluate(UNDRAWN) == []
    assert browser.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.slow
def test_plotly_draws_what_nothing_else_does(browser: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pie = make_figure([{"type": "pie", "values": [1, 2], "labels": ["</script>", "b"]}], "", "", height=200)
    monkeypatch.setattr("edgeprune.report.html.draw_figures", lambda document: {"sqnr": pie})
    browser.open(_write(tmp_path, render_html(make_long_document())), **PHONE)
    assert browser.errors == []
    assert browser.evaluate("document.querySelectorAll('#sqnr-plot svg.main-svg').length") > 0
    assert browser.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
