"""Pictures without a script: axes, bars, points and heat maps show the values that they were given."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from itertools import pairwise
from typing import Any

import pytest

from edgeprune.report.axis import choose_axis
from edgeprune.report.pictures import draw_picture
from edgeprune.report.plotting import AFTER_COLOR, make_figure
from edgeprune.report.png import list_palette, write_heat_map

BAR = re.compile(r"--from:([\d.]+)%;--size:([\d.]+)%;--color:([^\"]+)\"></i></span><b>.*?</span>(.*?)</b>")
DISC = re.compile(r'<circle cx="([\d.]+)%" cy="([\d.]+)" r="([\d.]+)"')
PATH = re.compile(r' d="(M[^"]*)" style')


@pytest.mark.parametrize(
    ("values", "options", "low", "high", "labels"),
    [
        ([0, 236_536], {}, 0, 250_000, ["0", "50k", "100k", "150k", "200k", "250k"]),
        ([95.5, 96.1], {}, 95.4, 96.2, ["95.4", "95.6", "95.8", "96.0", "96.2"]),
        ([3.56], {"rangemode": "tozero"}, 0, 4, ["0", "1", "2", "3", "4"]),
        ([5, 5], {}, 4.4, 5.6, ["4.4", "4.6", "4.8", "5.0", "5.2", "5.4", "5.6"]),
        ([-3, 2], {}, -3, 2, ["−3", "−2", "−1", "0", "1", "2"]),
        ([1, 6], {"dtick": 1}, 1, 6, ["1", "2", "3", "4", "5", "6"]),
        ([0, 3], {"range": [0, 1600]}, 0, 1600, ["0", "500", "1,000", "1,500"]),
        ([2_500_000, 10_000_000], {}, 2e6, 1e7, ["2M", "4M", "6M", "8M", "10M"]),
        ([], {}, -0.6, 0.6, ["−0.6", "−0.4", "−0.2", "0.0", "0.2", "0.4", "0.6"]),
    ],
)
def test_axes_have_round_ticks(
    values: list[float], options: dict[str, Any], low: float, high: float, labels: list[str]
) -> None:
    axis = choose_axis(values, options)
    assert (axis.low, axis.high) == pytest.approx((low, high))
    assert [label for _, label in axis.ticks] == labels
    assert all(-1e-9 <= axis.place(value) <= 1 + 1e-9 for value, _ in axis.ticks)


def test_logarithmic_and_named_axes() -> None:
    axis = choose_axis([1e-6, 1e-4], {"type": "log"})
    assert [label for _, label in axis.ticks] == ["10⁻⁶", "10⁻⁵", "10⁻⁴"]
    assert axis.place(1e-5) == pytest.approx(0.5)
    assert not choose_axis([0, 10], {"type": "log"}).is_log  # has no logarithm
    names = choose_axis(["v1", "v2", "v2"], {})
    assert (names.names, names.place("v1"), names.place("v2")) == (("v1", "v2"), 0.25, 0.75)


@pytest.mark.parametrize("is_lying", [False, True])
def test_bars_have_the_lengths_of_their_values(is_lying: bool) -> None:
    names, values = ["a", "b", "c"], [30, -10, None]
    trace = {"type": "bar", "marker": {"color": AFTER_COLOR}, "x": names, "y": values}
    if is_lying:
        trace.update(x=values, y=names, orientation="h")
    picture = draw_picture(make_figure([trace], "", "", height=100))
    assert picture is not None
    assert BAR.findall(picture.body) == [
        ("25.00", "75.00", "var(--after)", "30"),  # zero is a quarter from the left: 10 of 40
        ("0.00", "25.00", "var(--after)", "−10"),
    ]
    assert picture.body.count("<li>") == 3
    assert not picture.scrolls


def test_points_and_lines_lie_where_their_values_are() -> None:
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "<run>",
        "x": [0, 5, None, 10],
        "y": [0, 10, None, 5],
        "marker": {"size": 10},
    }
    picture = draw_picture(make_figure([trace], "x", "y", height=100))
    assert picture is not None
    assert DISC.findall(picture.body) == [
        ("0.00", "240.0", "5.0"),
        ("50.00", "0.0", "5.0"),
        ("100.00", "120.0", "5.0"),
    ]
    assert PATH.findall(picture.body) == ["M0.0 240.0L500.0 0.0M1000.0 120.0"]  # a gap where a value is missing
    assert "&lt;run&gt;: 5, 10" in picture.body
    assert 'aria-label="&lt;run&gt;: 3 points, from 0 at 0 to 5 at 10"' in picture.body


def test_steps_signs_and_two_panels() -> None:
    traces = [
        {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "line": {"shape": "hv", "dash": "dot"}},
        {"type": "scatter", "mode": "markers", "x": [0], "y": [3], "yaxis": "y2", "marker": {"symbol": ["star"]}},
    ]
    figure = make_figure(traces, "x", "above", height=100)
    figure["layout"]["yaxis2"] = {"title": {"text": "below"}}
    picture = draw_picture(figure)
    assert picture is not None
    assert PATH.findall(picture.body)[0] == "M0.0 180.0H1000.0V0.0"
    assert 'class="dash"' in picture.body
    assert picture.body.count('class="sign"') == 1
    assert re.findall(r'"axis-title[^>]*>([^<]*)<', picture.body) == ["above", "", "below", "x"]


def test_a_heat_map_is_an_image_of_its_values() -> None:
    content = write_heat_map([[0.0, 1.0, 2.0], [4.0, 3.0, 9.0]], 0.0, 4.0)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks = {}
    at = 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (3, 2, 8, 3, 0, 0, 0)
    assert chunks[b"PLTE"] == bytes(value for color in list_palette() for value in color)
    assert zlib.decompress(chunks[b"IDAT"]) == bytes([0, 0, 64, 128, 0, 255, 191, 255])  # 9 is above the scale


def test_the_palette_rises_in_lightness() -> None:
    palette = list_palette()
    assert len(palette) == 256
    lightness = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in palette]
    assert all(after >= before - 1 for before, after in pairwise(lightness))
    assert (palette[0], palette[255]) == ((0x44, 0x01, 0x54), (0xFD, 0xE7, 0x25))


def test_heat_maps_name_channels_and_positions_of_the_model() -> None:
    trace = {"type": "heatmap", "name": "Base", "z": [[0.0, 1.0]], "dx": 3, "dy": 2}
    figure = make_figure([trace], "", "", height=100)
    figure["layout"]["coloraxis"] = {"cmin": 0.0, "cmax": 1.0}
    picture = draw_picture(figure)
    assert picture is not None
    assert "channels 0 to 1 downwards, positions 0 to 5" in picture.body
    found = re.search(r"base64,([^\"]+)\"", picture.body)
    assert found is not None
    assert base64.b64decode(found.group(1)) == write_heat_map([[0.0, 1.0]], 0.0, 1.0)


def test_a_mixture_of_traces_is_left_to_plotly() -> None:
    bars = {"type": "bar", "x": ["a"], "y": [1]}
    points = {"type": "scatter", "x": [1], "y": [1]}
    assert draw_picture(make_figure([bars, points], "", "", height=100)) is None
