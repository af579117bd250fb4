"""report: everything that one compile found, written for programs (report.json), reviews (report.md) and eyes
(report.html), with the manifest of the files and the budgets a release is held against.

`write_report` is the room's verb; the document's shape is `schema.json`, its tables are in `tables`, its pictures in
`figures`. `budget` knows what each figure is called, its unit, and which way is better.

Once reports are written: `document` reads them, `gate` holds one against budgets and an earlier one (`verdict`,
`mcnemar`, `tolerance`, `compare`), `junit`, `annotations` and `gate_markdown` tell CI, `diff` and `history` are read.
"""

from edgeprune.report.budget import (
    METRIC_KINDS,
    Budget,
    BudgetResult,
    Metric,
    check_budgets,
    exit_code_of,
    parse_budgets,
)
from edgeprune.report.record import Artifact, CompileRecord, LayerRow, Variant, to_json, to_plain
from edgeprune.report.write import load_schema, write_manifest, write_redundancy, write_report

__all__ = [
    "METRIC_KINDS",
    "Artifact",
    "Budget",
    "BudgetResult",
    "CompileRecord",
    "LayerRow",
    "Metric",
    "Variant",
    "check_budgets",
    "exit_code_of",
    "load_schema",
    "parse_budgets",
    "to_json",
    "to_plain",
    "write_manifest",
    "write_redundancy",
    "write_report",
]
