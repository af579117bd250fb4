"""Report documents for the page: one with everything in it, with hostile names, and one with a hundred steps."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from edgeprune.report import Metric, check_budgets, parse_budgets
from tests.report.pruning_sample import make_pruning
from tests.report.sample import make_document

HOSTILE = '"><script>alert(1)</script>'


def make_layer(name: str, cycles: int, constant_bytes: int, live_bytes: int) -> dict[str, Any]:
    """A layer of a firmware."""
    return {
        "name": name,
        "function": f"layer_{name}",
        "kind": "conv_2d",
        "kernel": "convolution, packed pairs",
        "macs": cycles,
        "estimated_cycles": cycles,
        "constant_bytes": constant_bytes,
        "live_bytes": live_bytes,
        "instructions": cycles - cycles // 4,
        "cycles": cycles,
    }


def make_firmware(layers: list[dict[str, Any]], plan: dict[str, Any]) -> dict[str, Any]:
    """A firmware's section; its measured figures follow from the layers."""
    cycles = sum(layer["cycles"] for layer in layers)
    return {
        "mode": "auto",
        "streams": bool(plan["streamed"]),
        "arena_bytes": plan["bytes"],
        "constant_bytes": sum(layer["constant_bytes"] for layer in layers),
        "choices": [{"mode": "arena", "arena_bytes": plan["bytes"], "cycles": cycles, "streams": False}],
        "dead_channels": {},
        "layers": layers,
        "memory_plan": plan,
        "measured": {
            "core": "cortex-m4",
            "toolchain": "zig 0.17.1",
            "flags": ["-O2"],
            "emulator": "unicorn 2.1.4",
            "samples": 16,
            "different": 0,
            "flash_bytes": 9000 + sum(layer["constant_bytes"] for layer in layers),
            "text": 9000,
            "rodata": 100,
            "data": 0,
            "bss": 0,
            "ram_bytes": plan["bytes"] + 500,
            "peak_stack_bytes": 400,
            "input_bytes": 96,
            "output_bytes": 4,
            "instructions": cycles - cycles // 4,
            "cycles": cycles,
            "cycle_model": {"status": "validated", "note": "5 to 12 % too short"},
            "latency_ms": cycles / 120_000,
        },
        "reason": "",
    }


def make_plan(steps: list[str], sizes: list[int]) -> dict[str, Any]:
    """A chain: each step's output lives until the next step has read it; odd ones lie above even ones."""
    top = max(sizes[::2])
    buffers = [
        {
            "name": f"{name}/output",
            "offset": top * (index % 2),
            "bytes": size,
            "first": index,
            "last": min(index + 1, len(steps) - 1),
            "kind": "whole",
            "holds": [],
            "inside": "",
        }
        for index, (name, size) in enumerate(zip(steps, sizes, strict=True))
    ]
    total = max(item["offset"] + item["bytes"] for item in buffers)
    live = [
        sum(item["bytes"] for item in buffers if item["first"] <= step <= item["last"]) for step in range(len(steps))
    ]
    return {"bytes": total, "steps": steps, "live_bytes": live, "buffers": buffers, "streamed": []}


def make_streamed_plan() -> dict[str, Any]:
    """Four steps, the first three streamed, with a window inside of another, scratch and state."""
    part = {"kind": "window", "holds": [], "inside": ""}
    return {
        "bytes": 1600,
        "steps": ["conv", "relu", HOSTILE, "fc"],
        "live_bytes": [1600, 1280, 1296, 16],
        "buffers": [
            {"name": "conv/output", "offset": 0, "bytes": 960, "first": 0, "last": 2, **part, "holds": ["relu/output"]},
            {"name": HOSTILE, "offset": 0, "bytes": 480, "first": 0, "last": 2, **part, "inside": "conv/output"},
            {"name": "conv", "offset": 960, "bytes": 640, "first": 0, "last": 0, **part, "kind": "scratch"},
            {"name": "relu", "offset": 960, "bytes": 320, "first": 1, "last": 2, **part, "kind": "state"},
            {"name": "mean/output", "offset": 1280, "bytes": 16, "first": 2, "last": 3, **part, "kind": "whole"},
        ],
        "streamed": [{"first": 0, "last": 2, "ticks": 7}],
    }


def make_page_document(budgets: str = "model_bytes=64K,macs=50K,latency=20ms") -> dict[str, Any]:
    """A report with every section that the page knows, not within its budgets; names of layers are hostile."""
    document = make_document("")
    base_steps = ["conv", "relu", HOSTILE, "wide", "fc"]
    base = make_firmware(
        [make_layer(name, 40_000 - 7000 * index, 900 - 100 * index, 2560) for index, name in enumerate(base_steps)],
        make_plan(base_steps, [1280, 1280, 1024, 256, 16]),
    )
    names = ["conv", "relu", HOSTILE, "fc"]
    firmware = make_firmware(
        [make_layer(name, 20_000 - 4000 * index, 450 - 100 * index, 1600) for index, name in enumerate(names)],
        make_streamed_plan(),
    )
    document["firmware"] = {**firmware, "base": base}
    document["pruning"] = {**document["pruning"], **make_pruning()}
    document["variants"]["onnx_float32"] = {**copy.deepcopy(document["variants"]["base"]), "label": "ONNX float32"}
    document["variants"]["tflite_float32"] = {**copy.deepcopy(document["variants"]["base"]), "label": "TFLite float32"}
    for name, value in (("flash", 10_200.0), ("ram", 2100.0), ("instructions", 42_000.0), ("macs", 90_000.0)):
        kind = {"flash": "bytes", "ram": "bytes"}.get(name, "count")
        document["metrics"][name] = {
            "name": name,
            "value": value,
            "method": "emulated_instructions",
            "reason": "",
            "unit": kind,
            "better": "lower",
        }
    document["metrics"]["accuracy"] = {
        "name": "accuracy",
        "value": 95.5,
        "method": "host",
        "reason": "",
        "unit": "percent",
        "better": "higher",
    }
    metrics = {
        name: Metric(name, item["value"], item["method"], item["reason"]) for name, item in document["metrics"].items()
    }
    document["budgets"] = [dataclasses.asdict(item) for item in check_budgets(parse_budgets(budgets), metrics)]
    document["parity"]["checks"] += [
        {
            "name": "litert-xnnpack, end to end",
            "what": "256 test samples",
            "difference": f"1 LSB ({HOSTILE})",
            "limit": "reported",
            "passed": True,
        },
        {
            "name": "firmware on an emulated cortex-m4 (unicorn 2.1.4)",
            "what": "16 test samples",
            "difference": "3 output values differ",
            "limit": "0 LSB",
            "passed": False,
        },
    ]
    document["parity"]["unavailable"] = [{"executor": "onnxruntime", "remedy": "pip install onnxruntime"}]
    document.update(exit_code=3, outcome="Built and verified, but not within budget: macs: 90,000, over 50,000")
    return document


def make_long_document() -> dict[str, Any]:
    """A report of a firmware with a hundred steps with long names."""
    document = make_document("model_bytes=64K")
    steps = [f"stage{index // 10}.block{index % 10}.depthwise_convolution" for index in range(100)]
    sizes = [4096 - 37 * (index % 50) for index in range(100)]
    layers = [make_layer(name, 1000 + 10 * index, 64, sizes[index]) for index, name in enumerate(steps)]
    document["firmware"] = make_firmware(layers, make_plan(steps, sizes))
    return document
