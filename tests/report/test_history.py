"""The figures of many reports: lines that belong together, the page, the picture."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.report.history import (
    collect_history,
    list_figures,
    list_history,
    list_lines,
    render_history,
    write_history,
)
from tests.report.gate_sample import make_report

PLOTS = importlib.util.find_spec("matplotlib") is not None


def write_report(folder: Path, label: str, **changes: Any) -> None:
    (folder / label).mkdir(parents=True)
    (folder / label / "report.json").write_text(json.dumps(make_report(**changes)))


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """Three releases, two targets, and a time that was modelled first and measured later."""
    folder = tmp_path / "releases"
    write_report(folder, "1.2", figures={"latency": 2000.0})
    write_report(folder, "1.10", figures={"latency": 1500.0}, methods={"latency": "device"})
    write_report(folder, "1.9", figures={"latency": None})
    write_report(folder, "1.9-m7", figures={"latency": 500.0}, target={"name": "cortex-m7"})
    return folder


def test_lines_keep_models_targets_and_methods_apart(releases: Path) -> None:
    history = collect_history(releases)
    assert [point.label for point in history.points] == ["1.2", "1.9", "1.9-m7", "1.10"]
    lines = {(line.series, line.method): (line.labels, line.values) for line in list_lines(history, "latency")}
    assert lines == {
        ("model for cortex-m4", "modelled_cycles"): (("1.2",), (2.0,)),
        ("model for cortex-m4", "device"): (("1.10",), (1.5,)),
        ("model for cortex-m7", "modelled_cycles"): (("1.9-m7",), (0.5,)),
    }
    assert [len(line.values) for line in list_lines(history, "flash")] == [3, 1]
    assert list_lines(history, "flash")[0].values[0] == 12_000 / 1024
    assert list_figures(history)["latency"][0] == "latency, ms"


def test_the_order_is_by_name_or_by_time(releases: Path) -> None:
    for age, label in enumerate(("1.10", "1.9", "1.2", "1.9-m7")):
        os.utime(releases / label / "report.json", (1000 + age, 1000 + age))
    assert [point.label for point in collect_history(releases, "time").points] == ["1.10", "1.9", "1.2", "1.9-m7"]
    with pytest.raises(InputError, match="--order is 'size'; allowed: name, time"):
        collect_history(releases, "size")


def test_the_table_has_every_report(releases: Path) -> None:
    table = list_history(collect_history(releases))
    assert [row[0] for row in table.rows] == ["1.2", "1.9", "1.9-m7", "1.10"]
    assert table.rows[0][table.head.index("latency")] == "2.000 ms"
    assert table.rows[1][table.head.index("latency")] == ""


def test_the_page_works_offline_and_names_cannot_leave_their_place(tmp_path: Path) -> None:
    nasty = "</script><b>x"
    write_report(tmp_path, "a b & $c$", model={"name": nasty})
    page = render_history(collect_history(tmp_path))
    assert nasty not in page
    markup = page[: page.index("<script>")]
    assert "http" not in markup
    assert "src=" not in markup
    found = re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    figures = json.loads(found.group(1))
    for name in figures:
        assert f'<div id="{name}"' in page
    assert figures["flash"]["layout"]["xaxis"]["categoryarray"] == ["a b &amp; $c$"]
    assert figures["flash"]["data"][0]["name"] == "&lt;/script&gt;&lt;b&gt;x for cortex-m4 (static)"


def test_the_page_repeats_to_the_byte(releases: Path) -> None:
    assert render_history(collect_history(releases)) == render_history(collect_history(releases))


def test_page_and_picture_are_written(releases: Path, tmp_path: Path) -> None:
    if not PLOTS:
        pytest.skip("matplotlib is not installed")
    from PIL import Image

    written, notes = write_history(collect_history(releases), tmp_path / "new" / "history.html")
    assert [path.name for path in written] == ["history.html", "history.png"]
    assert notes == []
    with Image.open(written[1]) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 600
    # the first line's colour, #56b4e9: the lines are drawn
    assert (np.abs(pixels.astype(int) - (0x56, 0xB4, 0xE9)).max(axis=-1) < 8).sum() > 100


def test_without_matplotlib_there_is_a_page_and_a_note(
    releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find_spec(name, *rest)
    )
    written, (note,) = write_history(collect_history(releases), tmp_path / "history.html")
    assert [path.name for path in written] == ["history.html"]
    assert "pip install 'edgeprune[plots]'" in note


def test_the_page_must_be_html(releases: Path) -> None:
    with pytest.raises(InputError, match=r"name a \.html file"):
        write_history(collect_history(releases), releases / "history.png")


def test_one_report_is_a_history_too(tmp_path: Path) -> None:
    write_report(tmp_path, "only")
    assert len(collect_history(tmp_path).points) == 1
    assert "only" in render_history(collect_history(tmp_path))
