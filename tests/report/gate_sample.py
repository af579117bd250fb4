"""Reports to compare: the small document of `sample`, with firmware, all figures and the answers on 40 test samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.report import METRIC_KINDS
from edgeprune.report.mcnemar import pack_correct
from tests.report.sample import SHA, make_document

SAMPLES = 40
FIGURES: Mapping[str, tuple[float, str]] = {
    "model_bytes": (9000, "static"),
    "arena_bytes": (408, "static"),
    "parameters": (84, "static"),
    "macs": (532, "static"),
    "flops": (1064, "static"),
    "accuracy": (75.0, "host"),
    "macro_f1": (74.0, "host"),
    "accuracy_drop": (0.5, "host"),
    "macro_f1_drop": (0.5, "host"),
    "flash": (12_000, "static"),
    "ram": (2048, "emulated_instructions"),
    "instructions": (10_000, "emulated_instructions"),
    "cycles": (15_000, "modelled_cycles"),
    "latency": (1000.0, "modelled_cycles"),
}
LAYERS = (
    {"name": "conv", "kind": "conv_2d", "kernel": "patches", "instructions": 8000, "cycles": 12_000},
    {"name": "fc", "kind": "fully_connected", "kernel": "dot", "instructions": 1500, "cycles": 2500},
)
SIZES = {"constant_bytes": 100, "live_bytes": 400, "macs": 250}


def make_report(
    figures: Mapping[str, float | None] | None = None,
    methods: Mapping[str, str] | None = None,
    correct: np.ndarray | None = None,
    layers: Sequence[Mapping[str, Any]] = LAYERS,
    **sections: Any,
) -> dict[str, Any]:
    """A whole report. figures, methods: those that differ from FIGURES; sections: laid over the document's own."""
    document = copy.deepcopy(make_document(budgets=""))
    right = np.arange(SAMPLES) < 30 if correct is None else correct
    values = {name: value for name, (value, _) in FIGURES.items()} | {"accuracy": 100 * float(np.mean(right))}
    values |= figures or {}
    chosen = {name: method for name, (_, method) in FIGURES.items()} | dict(methods or {})
    document["metrics"] = {
        name: {
            "name": name,
            "value": values[name],
            "unit": METRIC_KINDS[name].unit,
            "method": None if values[name] is None else chosen[name],
            "reason": "no emulator" if values[name] is None else "",
            "better": METRIC_KINDS[name].better,
        }
        for name in FIGURES
    }
    document["variants"]["int8"] |= {
        "accuracy": float(np.mean(right)),
        "test_samples": len(right),
        "correct": pack_correct(right),
        "test_sha256": SHA,
    }
    document["firmware"] = {
        "mode": "auto",
        "arena_bytes": 1000,
        "layers": [{**SIZES, **layer} for layer in layers],
        "measured": {
            "core": "cortex-m4",
            "toolchain": "zig 0.17.1",
            "flags": ["-Os"],
            "emulator": "unicorn 2.1.4",
            "text": 10_000,
            "rodata": 2000,
            "data": 0,
            "bss": 0,
            "peak_stack_bytes": 900,
            "input_bytes": 100,
            "output_bytes": 48,
            "flash_bytes": 12_000,
            "ram_bytes": 2048,
            "instructions": 10_000,
            "cycles": 15_000,
            "samples": SAMPLES,
            "different": 0,
            "cycle_model": {"status": "validated", "note": "by a board"},
        },
    }
    for name, section in sections.items():
        document[name] = {**document[name], **section} if isinstance(section, Mapping) else section
    return document


def change_layer(name: str, **changes: Any) -> list[dict[str, Any]]:
    """LAYERS with one of them changed."""
    return [{**layer, **(changes if layer["name"] == name else {})} for layer in LAYERS]
