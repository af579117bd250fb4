"""The gate's answer for machines that show it: JUnit XML, GitHub annotations, Markdown."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report import parse_budgets
from edgeprune.report.annotations import list_annotations
from edgeprune.report.gate import GateResult, compare_with_baseline, hold_report
from edgeprune.report.gate_markdown import render_gate
from edgeprune.report.junit import render_junit
from edgeprune.report.markdown import render_markdown
from edgeprune.report.tolerance import parse_tolerances
from tests.report.gate_sample import LAYERS, change_layer, make_report

NASTY = "a<b>&\"'\x00\x1b\ud800\uffff]]>|::error::%0A\n,:$x$</details>"


def make_result(name: str = "fc") -> GateResult:
    """One of everything: worse, refused, within tolerance, better, not compared, budgets met, missed, unavailable."""
    layers = [*LAYERS[:1], {**LAYERS[1], "name": name, "instructions": 2200}]
    report = make_report({"instructions": 10_700, "ram": None, "flash": 12_010, "macs": 500}, layers=layers)
    before = make_report(layers=[*LAYERS[:1], {**LAYERS[1], "name": name}])
    report["model"]["name"] = before["model"]["name"] = name
    budgets = parse_budgets("model_bytes=64K,parameters=1,ram=1K")
    return hold_report(report, budgets, before, parse_tolerances("flash=1%"))


def test_junit_has_a_case_for_each_check_with_its_outcome() -> None:
    suites = ElementTree.fromstring(render_junit(make_result()))
    suite = suites[0]
    found = {
        (case.get("classname"), case.get("name")): next((child.tag for child in case if child.tag != "system-out"), "")
        for case in suite
    }
    assert len(found) == len(suite)  # names are unique: viewers merge those that are not
    assert found["edgeprune.parity", "TFLite Micro"] == ""
    assert found["edgeprune.budget", "model_bytes"] == ""
    assert found["edgeprune.budget", "parameters"] == "failure"
    assert found["edgeprune.budget", "ram"] == "error"
    assert found["edgeprune.baseline", "instructions"] == "failure"
    assert found["edgeprune.baseline", "ram"] == "error"
    assert found["edgeprune.baseline", "flash"] == ""
    assert found["edgeprune.baseline", "macs"] == ""
    assert found["edgeprune.baseline", "macro_f1"] == "skipped"
    counted = Counter(found.values())
    for element in (suites, suite):
        assert element.get("tests") == str(len(found))
        assert element.get("failures") == str(counted["failure"])
        assert element.get("errors") == str(counted["error"])
        assert element.get("skipped") == str(counted["skipped"])


def test_a_failure_says_what_moved_and_where() -> None:
    suite = ElementTree.fromstring(render_junit(make_result()))[0]
    failure = next(case for case in suite if case.get("name") == "instructions").find("failure")
    assert failure is not None
    assert failure.get("message") == "instructions: worse, 10,000 → 10,700 (+700, +7.00 %), tolerance none"
    assert (failure.text or "").splitlines()[1] == "fc (fully_connected): 1,500 → 2,200 instructions, +700"


def test_a_failed_parity_check_is_a_failure() -> None:
    report = make_report()
    report["parity"]["passed"] = report["parity"]["checks"][0]["passed"] = False
    suite = ElementTree.fromstring(render_junit(hold_report(report, parse_budgets("flash=1M"))))[0]
    assert next((case.get("name"), case[0].tag) for case in suite) == ("TFLite Micro", "failure")


@given(st.text())
def test_junit_is_well_formed_whatever_a_layer_is_called(name: str) -> None:
    ElementTree.fromstring(render_junit(make_result(name)))


def test_names_that_xml_cannot_hold_are_replaced() -> None:
    content = render_junit(make_result(NASTY)).decode()
    suite = ElementTree.fromstring(content)[0]
    assert suite.get("name") == f"edgeprune: {NASTY} for cortex-m4".translate(
        {0: "\ufffd", 0x1B: "\ufffd", 0xD800: "\ufffd", 0xFFFF: "\ufffd"}
    )


def test_annotations_name_figure_and_layer() -> None:
    lines = list_annotations(make_result())
    assert lines == [
        "::error title=edgeprune%3A budget parameters missed::parameters: 84, over 1",
        "::error title=edgeprune%3A budget ram unavailable::ram: a limit of 1,024 B was asked for, but the figure is "
        "unavailable: no emulator",
        "::notice title=edgeprune%3A flash%3A within tolerance::flash: within tolerance, 12,000 B → 12,010 B "
        "(+10 B, +0.08 %25), tolerance 1 %25",
        "::error title=edgeprune%3A ram%3A refused::ram: refused: the baseline has it, this report has none: no "
        "emulator",
        "::error title=edgeprune%3A instructions%3A worse::instructions: worse, 10,000 → 10,700 (+700, +7.00 %25), "
        "tolerance none%0Afc (fully_connected): 1,500 → 2,200 instructions, +700",
    ]


@given(st.text())
def test_no_name_can_begin_a_command_of_its_own(name: str) -> None:
    for line in list_annotations(make_result(f"\r\n::warning::{name}")):
        assert "\n" not in line
        assert "\r" not in line
        assert re.match(r"::(error|notice|warning) title=[^:,]*::", line)


def test_a_report_without_faults_has_no_annotations() -> None:
    assert list_annotations(hold_report(make_report(), (), make_report())) == []


def check_tables(text: str) -> None:
    for block in re.split(r"\n\n+", text):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) <= 1
    assert text.count("<details>") == text.count("</details>") == text.count("\n\n</details>")


@pytest.mark.parametrize("name", ["fc", NASTY])
def test_markdown_puts_what_counts_on_top_and_folds_the_rest(name: str) -> None:
    text = render_gate(make_result(name))
    check_tables(text)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Budgets", "## Against the baseline"]
    assert "FAILED (exit code 6)" in text.split("## ")[0]
    assert text.index("## Against") < text.index("<details><summary>Where instructions moved")


def test_a_pull_request_reads_outcome_budgets_and_baseline_first() -> None:
    report = make_report({"instructions": 10_700}, layers=change_layer("fc", instructions=2200))
    from edgeprune.report.gate import add_baseline

    text = render_markdown(add_baseline(report, compare_with_baseline(report, make_report())))
    check_tables(text)
    lines = [line for line in text.splitlines() if line]
    assert "instructions 10,000 → 10,700 (see layer fc)" in lines[1]
    assert next(line for line in lines if line.startswith("## ")) == "## Against the baseline"
    for folded in ("Layers, before → after", "Layers of the firmware", "Where instructions moved"):
        assert f"<details><summary>{folded}" in text
