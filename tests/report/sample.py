"""A small but complete report document, made through the real record types."""

from __future__ import annotations

from typing import Any

from edgeprune.report import (
    Artifact,
    CompileRecord,
    LayerRow,
    Metric,
    Variant,
    check_budgets,
    parse_budgets,
    to_json,
)

SHA = "0123456789abcdef" * 4


def make_document(budgets: str = "model_bytes=64K,latency=20ms") -> dict[str, Any]:
    """A report as a compile of a small net would leave it."""
    record = CompileRecord(
        model={"name": "model", "format": "torch.export", "sha256": SHA, "input_shape": (1, 24), "notes": ()},
        data={
            "name": "ItalyPowerDemand",
            "source": "ItalyPowerDemand.npz",
            "sha256": SHA,
            "samples": {"train": 54, "validation": 13, "test": 1029},
            "class_names": ("1", "2"),
            "normalization": {"kind": "per_series", "mean": (), "std": ()},
        },
        target={"name": "cortex-m4", "family": "cortex-m"},
        settings={"seed": 0},
        pruning={
            "method": "l1",
            "ratio": 0.5,
            "pinned": [{"layer": "head", "reason": "model output | </script><b>"}],
            "not_shrunk": [],
        },
        variants={
            "base": Variant(
                "Base",
                "torch",
                "PyTorch",
                9880,
                250_000,
                39_520,
                9442,
                438,
                accuracy=0.96,
                macro_f1=0.959,
                confusion_matrix=((500, 13), (28, 488)),
                test_samples=1029,
            ),
            "int8": Variant(
                "int8",
                "tflite",
                "TFLite Micro",
                4000,
                90_000,
                4300,
                file_bytes=9000,
                accuracy=0.955,
                macro_f1=0.954,
                confusion_matrix=((499, 14), (32, 484)),
                test_samples=1029,
            ),
        },
        layers=(
            LayerRow("conv", "conv_2d", 1000, 100, 32, 500, 50, 16),
            LayerRow("fc", "fully_connected", 64, 66, 2, 32, 34, 2),
        ),
        profiles={
            "int8": {
                "macs": 532,
                "flops": 1064,
                "parameters": 84,
                "weight_bytes": 200,
                "peak_activation_bytes": 408,
                "peak_layer": "conv",
                "layers": [
                    {
                        "name": "conv",
                        "kind": "conv_2d",
                        "output_shape": [1, 1, 24, 16],
                        "macs": 500,
                        "flops": 1000,
                        "parameters": 50,
                        "weight_bytes": 150,
                        "live_bytes": 408,
                    }
                ],
            }
        },
        parity={
            "passed": True,
            "lockstep": [
                {"layer": "conv", "kind": "conv_2d", "executor": "TFLite Micro", "max_lsb": 0},
                {"layer": "elu", "kind": "elu", "executor": "litert-reference", "max_lsb": None},  # not run
            ],
            "checks": [
                {
                    "name": "TFLite Micro",
                    "what": "each op on 32 samples",
                    "difference": "0 LSB",
                    "limit": "0 LSB",
                    "passed": True,
                }
            ],
        },
        sqnr=[{"layer": "conv", "kind": "conv_2d", "sqnr_db": 31.5}, {"layer": "pad", "kind": "pad", "sqnr_db": None}],
        latency=[
            {
                "name": "LiteRT int8",
                "method": "host",
                "n": 100,
                "p50_us": 12.0,
                "p90_us": 15.0,
                "min_us": 11.0,
                "reason": "",
            },
            {"name": "cortex-m4", "method": "unavailable", "reason": "needs the firmware build"},
        ],
        metrics={
            "model_bytes": Metric("model_bytes", 9000, "static"),
            "latency": Metric("latency", None, None, "needs the firmware build"),
        },
        artifacts=[Artifact("model_int8.tflite", "int8 TFLite", 9000, SHA)],
        tools={"torch": "2.13.0"},
        timings={"export": 1.5},
        notes=["a note with <angle> brackets"],
        outcome="ok",
    )
    record.budgets = check_budgets(parse_budgets(budgets), record.metrics)
    return to_json(record, "0.1.0")
