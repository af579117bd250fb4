"""The report's page as text: self-contained, well-formed, every picture with its data, names escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgeprune.report import html as html_module
from edgeprune.report import load_schema
from edgeprune.report.figures import draw_figures
from edgeprune.report.html import render_html
from edgeprune.report.ladder import FAIL, PASS, REPORTED, UNCHECKED, climb_ladder, list_lockstep
from edgeprune.report.memory_figures import draw_memory_plan, list_memory_plan
from edgeprune.report.pictures import draw_picture
from edgeprune.report.plotting import make_figure
from edgeprune.report.summary import list_budget_bars, list_headlines, name_badge
from tests.report.page_sample import HOSTILE, make_long_document, make_page_document
from tests.report.sample import make_document

Make = Callable[[], dict[str, Any]]
DOCUMENTS: list[Make] = [make_page_document, make_long_document, make_document]
VOID = {"meta", "link", "br", "img", "hr", "input"}
SHAPES = {"path", "circle", "rect", "line"}
# attributes that make a browser load something
LOADING = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
PICTURES = {
    *("accuracy-against-macs", "accuracy-against-flash", "accuracy-against-ram", "accuracy-against-time"),
    *("layers-time", "layers-ram", "layers-flash", "layers-macs", "layers-parameters", "sqnr", "timings"),
    *("memory-plan", "memory-plan-base"),
}


class Reader(HTMLParser):
    """Ids, what is loaded, scripts, text of each figure; refuses tags that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.loaded: list[str] = []
        self.scripts = 0
        self.figures: dict[str, int] = {}
        self.scroll_boxes: list[dict[str, str | None]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag not in VOID and tag not in SHAPES:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag == "figure":
            self.figures[values["id"] or ""] = 0
        if tag in ("circle", "i", "rect", "img", "path") and self.figures:
            self.figures[next(reversed(self.figures))] += 1
        self.references += [(values.get(name) or "") for name in ("aria-labelledby",) if name in values]
        self.loaded += [values[name] or "" for name in LOADING & set(values)]
        self.scripts += tag == "script"
        if {"wide", "scrolls"} & set((values.get("class") or "").split()):
            self.scroll_boxes.append(values)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag not in SHAPES:  # some have a title inside
            assert self.open.pop() == tag, (tag, self.open)


@pytest.mark.parametrize("make", DOCUMENTS)
def test_the_sample_keeps_the_schema(make: Make) -> None:
    jsonschema.Draft202012Validator(load_schema()).validate(make())


@pytest.mark.parametrize("make", DOCUMENTS)
def test_the_page_is_well_formed_and_loads_nothing(make: Make) -> None:
    page = render_html(make())
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert set(reader.references) <= set(reader.ids)
    assert all(value.startswith(("#", "data:")) for value in reader.loaded)
    assert {value[1:] for value in reader.loaded if value.startswith("#")} <= set(reader.ids)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in page


def test_the_page_has_no_script_and_is_small() -> None:
    page = render_html(make_page_document())
    assert Reader(page).scripts == 0
    assert len(page) < 150_000


def test_every_picture_has_something_in_it() -> None:
    document = make_page_document()
    figures = Reader(render_html(document)).figures
    assert set(figures) >= PICTURES | set(draw_figures(document))
    assert all(figures.values()), figures


def test_what_scrolls_can_be_reached_and_has_a_name() -> None:
    boxes = Reader(render_html(make_long_document())).scroll_boxes
    assert len(boxes) > 5
    for box in boxes:
        assert box["tabindex"] == "0"
        assert box["role"] == "region"
        assert box["aria-label"]


def test_hostile_names_stay_text() -> None:
    page = render_html(make_page_document())
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert HOSTILE not in page


def test_a_figure_that_only_plotly_draws_brings_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    pie = make_figure([{"type": "pie", "values": [1, 2], "labels": ["</script>", "b"]}], "", "", height=200)
    assert draw_picture(pie) is None
    monkeypatch.setattr(html_module, "draw_figures", lambda document: {"sqnr": pie})
    monkeypatch.setattr(html_module, "load_plotly_script", lambda: "/* plotly */")
    page = render_html(make_document())
    assert "/* plotly */" in page
    assert 'id="sqnr-plot"' in page
    assert '"labels": ["\\u003c/script\\u003e"' in page


def test_colors_can_be_told_from_their_ground_in_both_themes() -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what must be seen in a picture."""
    style = Path(html_module.__file__).with_name("page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for theme in (light, dark):
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme))
        for name in ("text", "soft", "link", "good", "bad"):
            assert _contrast(colors[name], colors["page"]) >= 4.5, name
            assert _contrast(colors[name], colors["tint"]) >= 4.5, name
        assert _contrast(colors["good"], colors["good-tint"]) >= 4.5
        assert _contrast(colors["bad"], colors["bad-tint"]) >= 4.5
        for name in [name for name in colors if name.startswith("form-")] + ["before", "after"]:
            assert _contrast(colors[name], colors["page"]) >= 2.9, name  # drawn with a name beside it
        for name in [name for name in colors if name.startswith("memory-")]:
            assert _contrast(colors["text"], colors[name]) >= 4.5, name


def _contrast(one: str, other: str) -> float:
    bright, dark = sorted((_find_luminance(one), _find_luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _find_luminance(color: str) -> float:
    parts = [value / 255 for value in bytes.fromhex(color[1:])]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_headlines_say_before_after_and_how() -> None:
    headlines = {item.title: item for item in list_headlines(make_page_document())}
    accuracy, flash, latency = headlines["Accuracy"], headlines["Flash"], headlines["Latency"]
    assert (accuracy.value, accuracy.before, accuracy.change, accuracy.direction) == (
        *("95.50 %", "96.00 %", "−0.50 pp", "bad"),
    )
    assert (flash.value, flash.before, flash.change, flash.direction) == ("10,200 B", "12,500 B", "−18.4 %", "good")
    assert flash.method == "counted in an emulator"
    assert (latency.value, latency.method) == ("unknown", "needs the firmware build")  # a budget asks for it


def test_budgets_are_bars_against_their_limits() -> None:
    document = make_page_document()
    met, missed, unknown = list_budget_bars(document)
    assert name_badge(document) == "Fail: over budget"
    assert (met.state, met.limit_at, round(met.fill, 1)) == ("met", 100.0, 13.7)  # 9,000 of 65,536
    assert (missed.state, missed.fill, round(missed.limit_at, 1)) == ("missed", 100.0, 55.6)  # 50,000 of 90,000
    assert (unknown.state, unknown.value, unknown.fill) == ("unavailable", "unknown", 0.0)


def test_the_ladder_says_what_was_not_checked() -> None:
    rungs = {rung.form: rung for rung in climb_ladder(make_page_document())}
    assert list(rungs) == [
        *("ONNX float32", "TFLite float32", "int8 reference", "TFLite Micro", "LiteRT", "ONNX Runtime"),
        *("generated C in the emulator", "device"),
    ]
    assert {form: rung.state for form, rung in rungs.items()} == {
        "ONNX float32": UNCHECKED,
        "TFLite float32": REPORTED,
        "int8 reference": REPORTED,
        "TFLite Micro": PASS,
        "LiteRT": REPORTED,
        "ONNX Runtime": UNCHECKED,
        "generated C in the emulator": FAIL,
        "device": UNCHECKED,
    }
    assert rungs["ONNX Runtime"].reason == "not installed: pip install onnxruntime"
    assert rungs["int8 reference"].comparisons[0].difference == "−0.50 pp"


def test_no_check_is_lost_on_the_ladder() -> None:
    document = make_document()
    document["parity"]["checks"] = [
        {"name": name, "what": "", "difference": "", "limit": "0 LSB", "passed": True}
        for name in ("PyTorch and ONNX float32", "a new executor", "static executable in qemu-aarch64", "over ssh")
    ]
    rungs = climb_ladder(document)
    shown = [item.what for rung in rungs for item in rung.comparisons if item.limit == "0 LSB"]
    assert sorted(shown) == sorted(check["name"] for check in document["parity"]["checks"])
    assert rungs[-1].form == "a new executor"
    assert climb_ladder({**document, "parity": {}}) == ()


def test_operations_are_listed_by_executor() -> None:
    table = list_lockstep(make_document())
    assert table is not None
    assert table.head == ("operation", "kind", "TFLite Micro", "litert-reference")
    assert table.rows == (("conv", "conv_2d", "0", ""), ("elu", "elu", "", "not run"))


def test_the_memory_plan_is_drawn_to_scale() -> None:
    document = make_page_document()
    picture = draw_memory_plan(document)
    assert picture is not None
    boxes = re.findall(r'<svg x="([\d.]+)%" y="([\d.]+)" width="([\d.]+)%" height="([\d.]+)"><title>', picture.body)
    assert len(boxes) == len(document["firmware"]["memory_plan"]["buffers"])
    x, _y, width, height = map(float, boxes[0])  # conv/output, 960 bytes in three of four steps
    assert (x, width) == (0.0, 75.0)
    assert height == pytest.approx(320 * 960 / 2560, abs=0.1)  # the base's arena, 2,560 bytes, is the scale of both
    assert "streamed in 7 ticks" in picture.body
    assert picture.words.startswith("1,600 bytes in all for 5 buffers over 4 steps; fullest at conv, with 1,600 bytes")
    table = list_memory_plan(document)
    assert table is not None
    assert table.rows[0] == (
        *("conv/output = relu/output", "window of rows, streamed", "960", "0", f"steps 1 to 3 (conv to {HOSTILE})"),
    )


def test_reports_of_older_versions_are_drawn() -> None:
    document = make_page_document()
    for layer in document["firmware"]["layers"]:
        del layer["constant_bytes"], layer["live_bytes"]
    for key in ("memory_plan", "base"):
        del document["firmware"][key]
    for key in ("fit", "device", "baseline"):
        document.pop(key, None)
    figures = Reader(render_html(document)).figures
    assert "layers-time" in figures
    assert not {"memory-plan", "layers-ram", "layers-flash"} & set(figures)


def test_an_empty_report_is_a_page() -> None:
    """What is left of a compile that ended early: no form, no figure."""
    document = make_document("")
    empty: dict[str, Any] = {"variants": {}, "profiles": {}, "parity": {}, "metrics": {}, "timings": {}, "tools": {}}
    document.update(empty, layers=[], sqnr=[], latency=[], artifacts=[], notes=[], exit_code=1, outcome="fault")
    assert "Fail: parity or fault" in render_html(document)
