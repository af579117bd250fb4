"""The gate's answer as JUnit XML, which GitLab, Jenkins and others show beside a merge request.

One test case for each parity check, budget and figure: a failure for what is worse, missed or not equal, an error for
what cannot be judged, a skip for what was not compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from edgeprune.report.gate import GateResult, describe_worst_layers
from edgeprune.report.verdict import NOT_COMPARED, REFUSED, WORSE

# Characters that XML 1.0 has no way to write, not even escaped (section 2.2: Char)
_NOT_XML = re.compile("[^\\t\\n\\r\\u0020-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


@dataclass(frozen=True)
class _Case:
    """outcome: 'passed', 'failure', 'error' or 'skipped'; text: what a person reads, shown for passed ones too."""

    group: str
    name: str
    outcome: str
    message: str
    text: str = ""


def render_junit(result: GateResult) -> bytes:
    """The result as a JUnit XML file."""
    cases = list(_list_cases(result))
    name = _clean(f"edgeprune: {result.model} for {result.target}")
    counts = {
        "tests": str(len(cases)),
        **{
            plural: str(sum(case.outcome == outcome for case in cases))
            for plural, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
        },
    }
    root = ElementTree.Element("testsuites", {"name": "edgeprune", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **counts})
    for case in cases:
        attributes = {"classname": f"edgeprune.{case.group}", "name": _clean(case.name), "time": "0"}
        element = ElementTree.SubElement(suite, "testcase", attributes)
        if case.outcome == "passed":
            ElementTree.SubElement(element, "system-out").text = _clean(case.message)
        else:
            child = ElementTree.SubElement(element, case.outcome, {"message": _clean(case.message)})
            child.text = _clean(case.text or case.message)
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _list_cases(result: GateResult) -> Iterator[_Case]:
    for name in (*result.checked_parity, *_not_in(result.failed_parity, result.checked_parity)):
        failed = name in result.failed_parity
        message = "outputs differ by more than the limit" if failed else "within its limit"
        yield _Case("parity", name, "failure" if failed else "passed", message)
    outcomes = {"met": "passed", "missed": "failure", "unavailable": "error"}
    for budget in result.budgets:
        yield _Case("budget", budget.name, outcomes[budget.state], budget.message)
    verdicts = {WORSE: "failure", REFUSED: "error", NOT_COMPARED: "skipped"}
    for metric in result.metrics:
        text = "\n".join((metric.describe(), *describe_worst_layers(result, metric.name)))
        yield _Case("baseline", metric.name, verdicts.get(metric.verdict, "passed"), metric.describe(), text)


def _not_in(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return [name for name in names if name not in others]


def _clean(text: str) -> str:
    """The text without what XML cannot hold: names come from models, which may hold anything."""
    return _NOT_XML.sub("\ufffd", text)
