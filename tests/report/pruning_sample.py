"""A pruning section that has every part, as several methods together would fill it; its figures are made up."""

from __future__ import annotations

import math
from typing import Any


def make_pruning() -> dict[str, Any]:
    """All keys of the report's section `pruning`."""
    steps = [
        {
            "step": step,
            "parameters": 9880,
            "macs": 250_000,
            "weights_left": round(0.8**step, 4),
            "epochs": 6,
            "stopped_by": "incop-if" if step < 5 else "epochs",
            "validation_metric": round(0.97 - 0.0008 * step**1.5, 4),
            "within_limit": 0.97 - 0.0008 * step**1.5 >= 0.96,
            "pq_index": 0.31 + 0.02 * step,
            "r": 0.8,
            "phi": [round((0.4 + 0.05 * step) * math.exp(-0.5 * epoch) + 0.05, 4) for epoch in range(6)],
        }
        for step in range(1, 7)
    ]
    tried = [
        {
            "value": value,
            "validation_metric": metric,
            "parameters": parameters,
            "macs": 25 * parameters,
            "within_limit": metric >= 0.96,
            "trainings": 2,
        }
        for value, metric, parameters in (
            (1e-6, 0.972, 9800),
            (1e-5, 0.968, 7000),
            (3e-5, 0.961, 4100),
            (1e-4, 0.81, 900),
        )
    ]
    return {
        "method": "sap",
        "retrain": "none",
        "options": {"pq": "0.5,1", "epsilon": 0.1},
        "pinned": [],
        "not_shrunk": [],
        "trainings": [
            {
                "title": "sparse pretraining",
                "epochs": 1500,
                "best_epoch": 1498,
                "stopped_by": "epochs",
                "loss": 0.0123,
                "validation_metric": None,
                "seconds": 751.2,
            },
            {"title": "your own", "stopped_by": "your training function", "seconds": 3.0},
        ],
        "steps": steps,
        "ended_by": "accuracy limit",
        "masks": {
            "weights": 9000,
            "zeros": 6000,
            "layers": [
                {"layer": "conv", "weights": 8000, "zeros": 5900},
                {"layer": "fc", "weights": 1000, "zeros": 100},
            ],
            "removed_channels": 3,
            "untouched": [],
        },
        "transport": {"compressor": "xz -6e", "base_bytes": 11_000, "bytes": 6600, "plain_bytes": 23_144},
        "ranks": [
            {
                "layer": f"blocks.{index}.conv",
                "shape": [32, 32, 40],
                "full_rank": 40,
                "rank": rank,
                "form": "factors" if rank <= 17 else "dense",
                "macs_dense": 40_960,
                "macs_factors": 32 * rank * 72,
                "parameters_dense": 40_960,
                "parameters_factors": rank * (1024 + 40 + 1),
                "singular_values": [4.0, 2.0],
                "reason": "" if rank <= 17 else "factors would take more MACs",
            }
            for index, rank in enumerate((5, 12, 30))
        ]
        + [{"layer": "gru", "form": "dense", "reason": "GRU: only convolutions and linear layers are factored"}],
        "rank_history": [
            {"epoch": epoch, "parameters": 130_000 - 400 * epoch, "macs": 500_000 - 1500 * epoch, "ranks": [40, 40, 40]}
            for epoch in range(0, 200, 4)
        ],
        "search": {
            "option": "--sparsity-weight",
            "metric": "macro_f1",
            "drop": 0.01,
            "reference": 0.97,
            "tried": tried,
            "chosen": 3e-5,
            "trainings": 8,
        },
        "redundancy": {
            "samples": 67,
            "forms": {
                form: [
                    {
                        "tensor": tensor,
                        "layer": layer,
                        "channels": 32,
                        "active_channels": 12.09,
                        "effective_rank": 12.09 * score,
                        "efficiency": None if tensor == "relu_2" and form == "Pretrained" else score,
                        "samples": 67,
                        "silent_samples": 0,
                    }
                    for tensor, layer in (("relu", "norm"), ("relu_1", "block1.norm"), ("relu_2", "block2.norm"))
                ]
                for form, score in (("Base", 0.15), ("Pretrained", 0.35), ("Scratch-trained", 0.31))
            },
        },
        "heat_maps": [
            {
                "tensor": "relu_1",
                "layer": "block1.norm",
                "sample": 3,
                "sizes": {"Base": [64, 48], "Pretrained": [64, 48], "Scratch-trained": [11, 24]},
                "forms": {
                    "Base": make_heat_map(32, 1),
                    "Pretrained": make_heat_map(32, 3),
                    "Scratch-trained": make_heat_map(11, 1),
                },
            }
        ],
    }


def make_heat_map(channels: int, keep: int) -> list[list[float]]:
    """Bumps along 24 positions; only one channel in `keep` is not zero."""
    positions = range(24)
    bumps = [
        [max(0.0, math.sin(0.3 * channel + 0.4 * position)) for position in positions] for channel in range(channels)
    ]
    return [[round(value, 3) if channel % keep == 0 else 0.0 for value in row] for channel, row in enumerate(bumps)]
