#!/usr/bin/env python3
"""How long a compile takes without its trainings: each stage on a reference net, best and median of several runs.

    python tools/bench_compile.py [--arch lite] [--data calibration_data/ItalyPowerDemand.npz] [--runs 5]

The network has random weights and is deployed as it is (--method none); "emission" is what follows the ONNX export: the
float32 TFLite file, calibration on the training samples, quantization, the int8 TFLite and QDQ ONNX files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import torch

from edgeprune.artifacts import Normalization
from edgeprune.export import export_onnx, read_onnx
from edgeprune.layout import to_nhwc
from edgeprune.load import load_dataset, raise_module, save_model
from edgeprune.lower import legalize, write_tflite
from edgeprune.models import ARCHITECTURES, build_model
from edgeprune.pipeline import compile_model
from edgeprune.quantize import calibrate, quantize_graph, write_qdq_onnx
from edgeprune.settings import CompileSettings


def time_runs(name: str, runs: list[float]) -> None:
    """Print one row."""
    print(f"| {name} | {min(runs):.2f} | {median(runs):.2f} | {runs[0]:.2f} |")


def main() -> None:
    """Measure and print a table in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=list(ARCHITECTURES), default="lite")
    parser.add_argument("--data", default="calibration_data/ItalyPowerDemand.npz")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Using padding='same'", category=UserWarning)
    data = load_dataset(arguments.data).normalized(Normalization("per_series"))
    torch.manual_seed(0)
    network = build_model(arguments.arch, in_channels=data.sample_shape[0], classes=len(data.class_names))
    module = raise_module(network.eval(), torch.from_numpy(data.x_train[:2]))
    exports, emissions, compiles = [], [], []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        model = export_onnx(module, data.sample_shape)
        exports.append(time.perf_counter() - start)
        start = time.perf_counter()
        graph = legalize(read_onnx(model))
        write_tflite(graph)
        int8_graph = quantize_graph(graph, calibrate(graph, to_nhwc(data.x_train)))
        write_tflite(int8_graph)
        write_qdq_onnx(int8_graph, data.sample_shape)
        emissions.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        save_model(module, torch.from_numpy(data.x_train[:2]), path, normalization=Normalization("per_series"))
        for _ in range(arguments.runs):
            start = time.perf_counter()
            compile_model(CompileSettings(path, data=arguments.data, method="none", output=Path(folder) / "out"))
            compiles.append(time.perf_counter() - start)
    print(
        f"{arguments.arch} on {data.name}, {len(data.x_train)} training and {len(data.x_test)} test samples; seconds\n"
    )
    print("| stage | best | median | first run |\n|---|---|---|---|")
    time_runs("ONNX export", exports)
    time_runs("emission", emissions)
    time_runs("whole compile without training", compiles)


if __name__ == "__main__":
    main()
