"""Where a figure got worse: the right layer first, new and vanished ones, kernels, and what no layer accounts for."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune.report.compare import LayerChange, Part, list_differences, trace_change
from edgeprune.report.diff import diff_reports, list_diff_tables
from edgeprune.report.gate import compare_with_baseline, describe_gate, describe_worst_layers
from edgeprune.report.gate_tables import list_baseline, list_baseline_differences, list_baseline_layers
from tests.report.gate_sample import LAYERS, change_layer, make_report


def test_a_regression_names_its_layer() -> None:
    report = make_report({"instructions": 10_700}, layers=change_layer("fc", instructions=2200))
    result = compare_with_baseline(report, make_report())
    assert result.outcome == "Worse than the baseline: instructions 10,000 → 10,700 (see layer fc)"
    assert describe_worst_layers(result, "instructions") == ["fc (fully_connected): 1,500 → 2,200 instructions, +700"]
    assert describe_worst_layers(result, "flash") == []


def test_layers_come_by_their_share_with_what_is_left_over() -> None:
    layers = [
        {**LAYERS[0], "instructions": 8500},
        {**LAYERS[1], "instructions": 1400},
        {"name": "extra", "kind": "pad", "kernel": "portable", "instructions": 900, "cycles": 1},
    ]
    changes = trace_change("instructions", make_report({"instructions": 11_310}, layers=layers), make_report())
    assert changes is not None
    assert [(layer.layer, layer.change, layer.remark) for layer in changes.layers] == [
        ("extra", 900, "new, kernel portable"),
        ("conv", 500, ""),
        ("fc", -100, ""),
    ]
    assert changes.rest == 1310 - 1300


def test_a_vanished_layer_and_another_kernel_are_said() -> None:
    layers = [{**LAYERS[0], "kernel": "portable", "instructions": 9000}]
    changes = trace_change("instructions", make_report(layers=layers), make_report())
    assert changes is not None
    assert [layer.remark for layer in changes.layers] == ["kernel patches → portable", "gone"]
    assert changes.layers[1] == LayerChange("fc", "fully_connected", 1500, None, "dot", "")


def test_a_layer_of_several_steps_counts_once() -> None:
    twice = [*LAYERS, {**LAYERS[1], "instructions": 10}]
    changes = trace_change("instructions", make_report(layers=twice), make_report())
    assert changes is not None
    assert [(layer.layer, layer.now) for layer in changes.layers] == [("fc", 1510)]


def test_flash_and_ram_show_their_parts() -> None:
    baseline = make_report()
    report = make_report({"flash": 12_600, "ram": 2300}, layers=change_layer("fc", constant_bytes=200, live_bytes=300))
    report["firmware"]["measured"] |= {"text": 10_500, "rodata": 2100, "peak_stack_bytes": 1152}
    flash, ram = trace_change("flash", report, baseline), trace_change("ram", report, baseline)
    assert flash is not None
    assert flash.parts == (Part("text", 10_000, 10_500), Part("rodata", 2000, 2100))
    assert (flash.layers[0].layer, flash.layers[0].change, flash.rest) == ("fc", 100, 500)
    assert ram is not None
    assert ram.parts == (Part("stack", 900, 1152),)
    assert not ram.is_sum
    assert ram.rest is None


def test_of_a_peak_the_layer_that_decides_comes_first() -> None:
    before = [{**LAYERS[0], "live_bytes": 400}, {**LAYERS[1], "live_bytes": 50}]
    now = [{**LAYERS[0], "live_bytes": 450}, {**LAYERS[1], "live_bytes": 300}]  # fc grew more, conv is the peak
    changes = trace_change("ram", make_report(layers=now), make_report(layers=before))
    assert changes is not None
    assert [layer.layer for layer in changes.layers] == ["conv", "fc"]


@pytest.mark.parametrize(
    ("name", "of", "layer", "change"),
    [
        ("macs", "macs", "conv", 500),
        ("parameters", "parameters", "conv", 7),
        ("model_bytes", "weight_bytes", "conv", 9),
        ("arena_bytes", "live_bytes", "conv", 8),
        ("cycles", "cycles", "conv", 100),
        ("latency", "cycles", "conv", 100),
    ],
)
def test_each_cost_is_split_by_its_own_figure(name: str, of: str, layer: str, change: int) -> None:
    report = make_report(layers=change_layer("conv", cycles=12_100))
    program = report["profiles"]["int8"]["layers"][0]
    program |= {"macs": 1000, "parameters": 57, "weight_bytes": 159, "live_bytes": 416}
    changes = trace_change(name, report, make_report())
    assert changes is not None
    assert (changes.of, changes.layers[0].layer, changes.layers[0].change) == (of, layer, change)


def test_an_older_report_without_profiles_falls_back_to_the_network() -> None:
    baseline, report = make_report(), make_report()
    baseline["profiles"] = {}
    report["layers"][1]["macs"] = 40
    changes = trace_change("macs", report, baseline)
    assert changes is not None
    assert [(layer.layer, layer.change) for layer in changes.layers] == [("fc", 8)]


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_scores_have_no_layers(name: str) -> None:
    assert trace_change(name, make_report(), make_report()) is None


def test_a_run_that_failed_has_no_layers_to_compare() -> None:
    unmeasured = make_report(layers=change_layer("fc", instructions=None))
    assert trace_change("instructions", unmeasured, make_report()) is None
    assert trace_change("instructions", make_report(firmware={"layers": []}), make_report()) is None


def test_what_was_done_differently_is_listed() -> None:
    report = make_report(
        settings={"seed": 1, "training": {"epochs": 5}, "output": "elsewhere", "budgets": [1]},
        tools={"torch": "2.14.0"},
        edgeprune_version="0.2.0",
    )
    report["firmware"]["measured"]["toolchain"] = "gcc 14"
    found = {(item.section, item.name): (item.before, item.now) for item in list_differences(report, make_report())}
    assert found == {
        ("settings", "seed"): ("0", "1"),
        ("settings", "training.epochs"): ("absent", "5"),
        ("firmware", "toolchain"): ("zig 0.17.1", "gcc 14"),
        ("version", "edgeprune"): ("0.1.0", "0.2.0"),
        ("version", "torch"): ("2.13.0", "2.14.0"),
    }


def make_worse_section() -> dict[str, Any]:
    layers = [{**LAYERS[0], "name": f"conv{index}", "instructions": 8000 + index} for index in range(13)]
    before = [{**layer, "instructions": 8000} for layer in layers]
    report = make_report({"instructions": 10_100}, layers=layers, settings={"seed": 1})
    return {"baseline": describe_gate(compare_with_baseline(report, make_report(layers=before)))}


def test_tables_show_the_first_layers_and_count_the_rest() -> None:
    document = make_worse_section()
    (table,) = list_baseline_layers(document)
    assert table.caption == "Where instructions moved"
    assert len(document["baseline"]["layers"][0]["layers"]) == 12  # conv0 is as it was
    assert table.rows[0] == ("conv12", "conv_2d", "8,000", "8,012", "+12")
    assert table.rows[10][0] == "and 2 more"
    assert table.rows[11] == ("outside of the layers", "", "", "", "+22")
    differences = list_baseline_differences(document)
    assert differences is not None
    assert differences.rows == (("settings", "seed", "0", "1"),)
    figures = list_baseline(document)
    assert figures is not None
    rows = {row[0]: row for row in figures.rows}
    assert rows["instructions"][:6] == ("instructions", "10,000", "10,100", "+100, +1.00 %", "none", "worse")


def test_a_report_without_a_baseline_has_no_such_tables() -> None:
    for document in (make_report(), {}):
        assert list_baseline(document) is None
        assert list_baseline_layers(document) == []
        assert list_baseline_differences(document) is None


def test_a_diff_judges_nothing_and_crosses_targets() -> None:
    left = make_report()
    right = make_report({"flash": 13_000, "ram": None}, layers=change_layer("fc", instructions=1, kernel="portable"))
    right["target"]["name"] = "cortex-m7"
    diff = diff_reports(left, right)
    figures, layers, differences = list_diff_tables(diff)
    assert figures is not None
    rows = {row[0]: row for row in figures.rows}
    assert rows["flash"] == ("flash", "12,000 B", "13,000 B", "+1,000 B, +8.33 %", "static")
    assert rows["ram"] == ("ram", "2,048 B", "none", "", "emulated_instructions → none")
    assert layers is not None
    assert layers.rows == (("fc", "1,500 → 1", "kernel dot → portable"),)
    assert differences is not None
    assert differences.rows == (("target", "name", "cortex-m4", "cortex-m7"),)
    assert diff["accuracy_test"]["p"] == 1.0


def test_a_diff_with_itself_is_empty() -> None:
    diff = diff_reports(make_report(), make_report())
    assert diff["layers"] == diff["differences"] == []
    assert all(metric["change"] == 0 for metric in diff["metrics"])
