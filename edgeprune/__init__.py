"""edgeprune: from a trained PyTorch CNN and its dataset to pruned, quantized, verified and measured edge artifacts.

    load -> prune (+ retrain) -> export -> quantize -> lower -> codegen -> measure -> report

Rooms, in the order the program passes through them (a room imports the foundation and rooms to its left only):

- `load`      model files and datasets, told by content, safely; PyTorch models end as a raised `fx.GraphModule`
- `prune`     the channel engine, criteria, DSP, training and retraining
- `export`    PyTorch -> simplified ONNX -> our `Graph` (NHWC)
- `quantize`  observers, calibration, one set of quantization parameters, QDQ ONNX
- `lower`     what a target supports, and the TFLite writer and reader
- `codegen`   the int8 program as C firmware for Cortex-M: kernels, memory plan, row streaming
- `measure`   MACs, parameters, bytes; latency; firmware built, emulated and counted; ARM Linux programs, devices
              over ssh; each figure with the method it was got by
- `report`    tables, report.json, report.md, report.html, budgets, baselines and gates, history, manifest

Foundation: `graph`, `ops`, `reference` (what each op means), `fixedpoint`, `executors`, `parity`, `metrics`, `target`,
`config`, `artifacts`, `cache` (results by content), `disk`, `progress`, `errors`. `pipeline` is the compiler
on one screen, `stages` its steps; `cli` and the files beside it are the command line; `models` the reference networks.

The public API below is imported on first use, so that `import edgeprune` is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "CompileSettings": "edgeprune.settings",
    "Normalization": "edgeprune.artifacts",
    "compile_model": "edgeprune.pipeline",
    "load_dataset": "edgeprune.load",
    "load_model": "edgeprune.load",
    "plan_model": "edgeprune.stages.plan",
    "save_model": "edgeprune.load",
}

__all__ = [
    "CompileSettings",
    "Normalization",
    "__version__",
    "compile_model",
    "load_dataset",
    "load_model",
    "plan_model",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
