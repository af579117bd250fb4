"""Tables and pictures of the pruning section: on a full section, on an empty one, and in a browser."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgeprune.report import load_schema, write_redundancy
from edgeprune.report.html import render_html
from edgeprune.report.markdown import render_markdown
from edgeprune.report.pruning_figures import draw_pruning_figures
from edgeprune.report.pruning_tables import (
    list_masks,
    list_pruning_tables,
    list_ranks,
    list_redundancy,
    list_search,
    list_steps,
    list_trainings,
    list_transport,
)
from tests.report.pruning_sample import make_pruning
from tests.report.sample import make_document

FIGURES = ["schedule", "information-flow", "search", "rank-history", "ranks", "efficiency", "heat-map-0"]

SCHEMA = jsonschema.Draft202012Validator(load_schema())  # `jsonschema.validate` would check the schema itself each time


def make_full_document() -> dict[str, Any]:
    return {**make_document(), "pruning": make_pruning()}


def test_a_full_section_keeps_the_schema() -> None:
    SCHEMA.validate(make_full_document())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("steps", 0, "weights_left"), 80.0),  # a percentage where a fraction belongs
        (("steps", 0, "within_limit"), "yes"),
        (("masks", "zeros"), -1),
        (("transport", "bytes"), 0.5),
        (("ranks", 0, "form"), "sparse"),
        (("search", "metric"), "f2"),
        (("search", "tried", 0, "within_limit"), None),
        (("redundancy", "forms", "Base", 0, "efficiency"), 1.5),
        (("redundancy", "figures"), {}),
        (("heat_maps", 0, "forms", "Base"), [[0.0] * 300]),
        (("rank_history", 0, "macs"), None),
    ],
)
def test_the_schema_refuses_a_wrong_figure(place: tuple[Any, ...], value: Any) -> None:
    document = make_full_document()
    section = document["pruning"]
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(document)


def test_a_method_without_history_shows_nothing() -> None:
    document = {**make_document(), "pruning": {"method": "none"}}
    assert list_pruning_tables(document) == []
    assert draw_pruning_figures(document) == {}
    assert "<h2>Pruning</h2>" not in render_html(document)


def test_steps_show_what_the_method_adds_to_them() -> None:
    table = list_steps(make_full_document())
    assert table is not None
    assert table.caption == "Steps of the schedule, ended by accuracy limit"
    assert table.head[3:6] == ("weights left", "pq index", "r")
    assert table.rows[0] == (*("1", "9,880", "250,000", "80.00 %", "0.33", "0.8", "6", "incop-if", "96.92 %", "yes"),)
    assert [table.head[column] for column in table.text_columns] == ["ended by", "within limit"]
    assert table.rows[-1][-1] == "no"


def test_masks_are_zeros_with_their_transport() -> None:
    document = make_full_document()
    masks, transport = list_masks(document), list_transport(document)
    assert masks is not None
    assert transport is not None
    assert masks.rows[-1] == ("all", "9,000", "6,000", "66.67 %")
    assert "3 channels that became all zero were removed for real" in masks.caption
    assert transport.rows == (
        ("compressed by xz -6e", "6,600"),
        ("the base, compressed", "11,000"),
        ("change", "-40.0 %"),  # 6600 / 11000
        ("unpacked, as the device holds it", "23,144"),
    )


def test_ranks_and_the_layers_that_have_none() -> None:
    table = list_ranks(make_full_document())
    assert table is not None
    assert table.rows[0][:6] == (
        *("blocks.0.conv", "32 x 32 x 40", "40 → 5", "factors", "40,960 / 5,325", "40,960 / 11,520"),
    )
    assert table.rows[-1][:4] == ("gru", "", "", "dense")


def test_a_search_says_what_was_chosen() -> None:
    document = make_full_document()
    table = list_search(document)
    assert table is not None
    assert (
        table.caption == "Search for the strongest --sparsity-weight at most 1 pp below 97.00 % macro-F1: 8 trainings"
    )
    assert [row[0] for row in table.rows] == ["1e-06", "1e-05", "3e-05 (chosen)", "0.0001"]
    document["pruning"]["search"]["chosen"] = None
    table = list_search(document)
    assert table is not None
    assert table.caption.endswith("; none is")


def test_trainings_and_redundancy_leave_unknown_figures_empty() -> None:
    document = make_full_document()
    trainings, redundancy = list_trainings(document), list_redundancy(document)
    assert trainings is not None
    assert redundancy is not None
    assert trainings.caption == "Trainings: 2, 12 min 34 s in all"
    assert trainings.rows[1] == ("your own", "", "", "your training function", "", "3.0 s")
    assert redundancy.rows[0] == ("norm", "Base", "32", "12.09", "1.81", "0.150")
    assert redundancy.rows[7] == ("block2.norm", "Pretrained", "32", "12.09", "4.23", "")


def test_figures_are_plain_json_and_have_their_place_in_the_page() -> None:
    document = make_full_document()
    figures = json.loads(json.dumps(draw_pruning_figures(document), allow_nan=False))
    assert list(figures) == FIGURES
    page = render_html(document)
    for name in FIGURES:
        assert f'id="{name}"' in page
        for trace in figures[name]["data"]:
            columns = [trace[key] for key in ("x", "y") if key in trace]
            assert len({len(column) for column in columns}) <= 1, name
    assert "5900" not in page[page.index("<pre") : page.index("</pre>")]  # what tables show is not shown again


def test_pictures_show_the_limit_the_epsilon_and_the_ends_of_steps() -> None:
    figures = draw_pruning_figures(make_full_document())
    limit = next(trace for trace in figures["search"]["data"] if trace["name"].startswith("limit"))
    assert limit["y"] == pytest.approx([96.0, 96.0])
    assert figures["search"]["layout"]["xaxis"]["type"] == "log"
    (star,) = [trace for trace in figures["search"]["data"] if trace["name"] == "chosen"]
    assert star["x"] == [3e-5]
    flow, epsilon = figures["information-flow"]["data"]
    assert epsilon["y"] == [0.1, 0.1]
    assert flow["x"][:9] == [1, 2, 3, 4, 5, 6, None, 7, 8]
    assert figures["schedule"]["data"][0]["marker"]["symbol"][-2:] == ["circle", "x"]


def test_heat_maps_share_one_scale_and_count_in_channels_of_the_model() -> None:
    heat_map = draw_pruning_figures(make_full_document())["heat-map-0"]
    base, pretrained, scratch = heat_map["data"]
    assert base["coloraxis"] == pretrained["coloraxis"] == scratch["coloraxis"]
    assert (base["y0"], base["dy"]) == (0.5, 2.0)  # two channels to a row, 0 and 1 in the first
    assert (scratch["y0"], scratch["dy"]) == (0.0, 1.0)
    assert heat_map["layout"]["coloraxis"]["cmin"] == 0.0
    assert math.isclose(heat_map["layout"]["coloraxis"]["cmax"], 1.0, abs_tol=0.01)  # the top of a sampled sine
    assert heat_map["layout"]["xaxis3"]["domain"][1] == pytest.approx(1.0)


def test_markdown_has_the_tables() -> None:
    text = render_markdown(make_full_document())
    for table in list_pruning_tables(make_full_document()):
        assert f"<summary>{html.escape(table.caption)}</summary>" in text


def make_redundancy_document() -> dict[str, Any]:
    pruning = make_pruning()
    return {
        "edgeprune_version": "0.1.0",
        "models": [{"form": "Base", "name": "<b>.pt", "sha256": "0" * 64}],
        "data": {"name": "Italy", "source": "Italy.npz", "sha256": "0" * 64, "samples": 67, "normalization": "none"},
        "redundancy": pruning["redundancy"],
        "heat_maps": pruning["heat_maps"],
        "heat_map_channels": 64,
        "heat_map_positions": 128,
        "notes": [],
    }


def test_the_page_of_an_analysis_repeats_to_the_byte(tmp_path: Path) -> None:
    page = write_redundancy(make_redundancy_document(), tmp_path)
    content = page.read_bytes()
    assert b"&lt;b&gt;.pt" in content
    assert content.count(b'class="figure"') == 2
    assert json.loads((tmp_path / "redundancy.json").read_text()) == make_redundancy_document()
    assert write_redundancy(make_redundancy_document(), tmp_path).read_bytes() == content
