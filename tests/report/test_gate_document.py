"""Reading a report that may be anything, and finding reports in folders."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgeprune.errors import InputError
from edgeprune.report import load_schema, parse_budgets
from edgeprune.report.diff import diff_reports, list_diff_tables
from edgeprune.report.document import check_report, find_reports, read_report
from edgeprune.report.gate import hold_report
from edgeprune.report.gate_markdown import render_gate
from edgeprune.report.junit import render_junit
from tests.report.gate_sample import make_report
from tests.report.sample import make_document


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_report_is_read_from_its_file_or_its_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "report.json", make_report())
    assert read_report(file) == read_report(tmp_path) == json.loads(json.dumps(make_report()))


def test_the_sample_keeps_the_schema_of_reports() -> None:
    jsonschema.validate(make_report(), load_schema())


def test_reports_of_every_age_are_read() -> None:
    check_report(make_document(), "sample")  # two figures only, no firmware
    old = make_report()
    for name in ("fit", "device", "baseline"):
        del old[name]
    for name in ("correct", "test_sha256"):
        del old["variants"]["int8"][name]
    for layer in old["firmware"]["layers"]:
        del layer["constant_bytes"], layer["live_bytes"]
    check_report(old, "old")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "damaged, or no JSON"),
        ('{"schema_version": 1, "edge', "damaged, or no JSON (line 1"),
        ("[" * 100_000, "damaged, or no JSON"),
        ("[]", "this is no report of edgeprune"),
        ("{}", "this is no report of edgeprune"),
        ({"manifest_version": 1, "edgeprune_version": "0.1.0"}, "this is no report of edgeprune"),
        ({"schema_version": 2, "edgeprune_version": "9.0"}, "schema version 2, written by edgeprune 9.0; this"),
        (make_report() | {"metrics": 3}, "metrics is damaged"),
        (json.dumps(make_report()).replace("12000", "NaN", 1), "damaged, or no JSON"),
        (json.dumps(make_report()).replace("cortex", "\\ud800", 1), "damaged, or no JSON"),
    ],
)
def test_what_is_no_whole_report_is_one_clear_error(tmp_path: Path, content: Any, expected: str) -> None:
    file = write(tmp_path / "report.json", content)
    with pytest.raises(InputError) as error:
        read_report(file)
    assert expected in str(error.value)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", ["metrics", "variants", "layers", "firmware", "data", "parity", "exit_code"])
def test_a_missing_section_is_named(section: str) -> None:
    report = make_report()
    del report[section]
    with pytest.raises(InputError, match=rf"^there: {section} is missing\. Compile again"):
        check_report(report, "there")


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ({"value": "12"}, "metrics.flash.value is damaged"),
        ({"value": True}, "metrics.flash.value is damaged"),
        ({"method": "guessed"}, "metrics.flash.method is damaged"),
        ({"better": "higher"}, "metrics.flash says flash, bytes, higher; it must say flash, bytes, lower"),
        ({"unit": "count"}, "it must say flash, bytes, lower"),
        ({"method": None}, "a value without a method"),
        ({"value": None}, "a method without a value"),
    ],
)
def test_an_edited_figure_is_refused(metric: dict[str, Any], expected: str) -> None:
    report = make_report()
    report["metrics"]["flash"] |= metric
    with pytest.raises(InputError, match=expected):
        check_report(report, "there")


def test_an_unknown_figure_is_refused_with_the_nearest_name() -> None:
    report = make_report()
    report["metrics"]["flsh"] = report["metrics"].pop("flash")
    with pytest.raises(InputError, match=r"metrics\.flsh is no figure .* Is it flash\?"):
        check_report(report, "there")


def list_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document; of a list, its first item stands for all."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*place, key)
        yield from list_places(item, (*place, key))


def damage(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with one thing replaced, or taken out (`value` is Ellipsis)."""
    damaged: Any = copy.deepcopy(document)
    parent = damaged
    for key in place[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return damaged


@pytest.mark.parametrize(
    "value", [..., *(pytest.param(value, marks=pytest.mark.slow) for value in (None, "x", -1, []))]
)
def test_no_damage_gets_past_the_reader(value: Any) -> None:
    """What is damaged anywhere is either refused, or does not matter: nothing that reads reports falls over it."""
    missed = {"name": "flash", "limit": 1.0, "value": 2.0, "unit": "bytes", "state": "missed", "message": ""}
    whole = json.loads(json.dumps(make_report({"instructions": 10_700}, budgets=[missed])))
    other = make_report()
    refused = 0
    for place in list_places(whole):
        damaged = damage(whole, place, value)
        try:
            check_report(damaged, "there")
        except InputError:
            refused += 1
            continue
        for report, baseline in ((damaged, other), (other, damaged)):
            try:
                result = hold_report(report, parse_budgets("ram=1K"), baseline)
            except InputError:
                continue  # another target
            render_junit(result)
            render_gate(result)
            list_diff_tables(diff_reports(baseline, report))
    assert refused > 50


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_report(tmp_path / "nowhere.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="this is no text"):
        read_report(tmp_path / "binary.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"report\.json: cannot be read"):
        read_report(tmp_path / "empty")


def test_reports_are_found_at_any_depth_in_the_order_people_count(tmp_path: Path) -> None:
    for name in ("v10/report.json", "v2/report.json", "v2/again/report.json", "old/2026-01.json", ".git/report.json"):
        write(tmp_path / name, make_report())
    write(tmp_path / "v2/manifest.json", {"manifest_version": 1})
    write(tmp_path / "v3/report.json", "{")
    (tmp_path / "loop").symlink_to(tmp_path)
    reports, notes = find_reports(tmp_path)
    assert [report.label for report in reports] == ["old/2026-01", "v2", "v2/again", "v10"]
    assert len(notes) == 1
    assert "v3/report.json: damaged" in notes[0]


def test_a_report_in_the_folder_itself_has_its_name(tmp_path: Path) -> None:
    write(tmp_path / "releases" / "report.json", make_report())
    ((report,), _) = find_reports(tmp_path / "releases")
    assert report.label == "releases"
    assert report.modified == os.stat(report.path).st_mtime


def test_a_folder_without_reports_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no report below this folder"):
        find_reports(tmp_path)
    with pytest.raises(InputError, match="this is no folder"):
        find_reports(tmp_path / "nowhere")
    write(tmp_path / "report.json", "{")
    with pytest.raises(InputError, match=r"no report below this folder.*damaged"):
        find_reports(tmp_path)
