#!/usr/bin/env python3
"""Firmware of every .tflite in a folder, beside TensorFlow Lite for Microcontrollers and published board results.

    python tools/bench_cortex_m.py --models DIR [--core m4|m7|m33|m55|m3|m0plus] [--memory auto|arena|streaming]
                                   [--toolchain zig|gcc] [--layers] [--json FILE]

Each model is compiled with edgeprune's default flags, built, and run in an emulator on two random inputs (seed 0),
whose outputs are compared with the tflite-micro interpreter (the PyPI package), or with edgeprune's reference where it
is not installed; the table says which. Instructions are counted exactly; cycles are modelled.

The rows to compare with stand in tools/cortex_m_anchors.json: TFLM + CMSIS-NN by name of the model, measured by us as
the file's note says, and the best published MLPerf Tiny result of a Cortex-M4 board. A board's cycles hold what the
model leaves out, so modelled cycles are multiplied by the model's known optimism (1.10 on conv nets, 1.25 on dense
ones) before they are held against a board's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.codegen import Firmware, generate_firmware
from edgeprune.executors import MICRO_AVAILABLE, MicroExecutor
from edgeprune.graph import Graph
from edgeprune.lower import read_tflite
from edgeprune.measure.cortex_m import FirmwareMeasurement, measure_firmware
from edgeprune.reference import run_graph
from edgeprune.target import load_target

ANCHORS = Path(__file__).with_name("cortex_m_anchors.json")
CORES = ("m4", "m7", "m33", "m55", "m3", "m0plus")
# how the boards' table names the models
BOARD_NAMES = {"ic_resnet8": "ic", "kws_dscnn": "kws", "vww_mbv1": "vww", "ad_ae": "ad"}
CONVOLUTIONS = ("conv_2d", "depthwise_conv_2d")


def main() -> None:
    """Measure all models of a folder and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of .tflite files")
    parser.add_argument("--core", choices=CORES, default="m4")
    parser.add_argument("--memory", choices=("auto", "arena", "streaming"), default="auto")
    parser.add_argument("--toolchain", choices=("zig", "gcc"), default="zig")
    parser.add_argument("--emulator", choices=("auto", "unicorn", "qemu"), default="auto")
    parser.add_argument("--layers", action="store_true", help="a table of layers for each model")
    parser.add_argument("--json", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    files = sorted(arguments.models.glob("*.tflite"))
    if not files:
        sys.exit(f"{arguments.models}: no .tflite files there")
    anchors = json.loads(ANCHORS.read_text(encoding="utf-8"))
    rows = []
    for path in files:
        row, layers = measure_model(path, arguments)
        rows.append({**row, **compare(row, anchors)})
        print(".", end="", file=sys.stderr, flush=True)
        if arguments.layers:
            print(f"\n### {path.stem}\n\n{format_layers(layers)}")
    print(file=sys.stderr)
    print(format_rows(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure_model(path: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row, and its layers."""
    graph = read_tflite(path.read_bytes())
    target = load_target(f"cortex-{arguments.core}")
    firmware = generate_firmware(graph, target, memory=arguments.memory)
    generator = np.random.default_rng(0)
    shape = graph.tensors[graph.inputs[0]].shape
    samples = generator.integers(-128, 128, (2, *shape[1:])).astype(np.int8)
    measured = measure_firmware(
        firmware.compiled_files,
        target,
        samples,
        layers=[layer.function for layer in firmware.layers],
        toolchain=arguments.toolchain,
        emulator=arguments.emulator,
    )
    if measured.run is None:
        sys.exit(f"{path.name}: {measured.unavailable}")
    row = {
        "model": path.stem,
        "core": target.core,
        "memory": arguments.memory,
        "streams": next(choice.streams for choice in firmware.choices if choice.mode == arguments.memory),
        "macs": sum(layer.macs for layer in firmware.layers),
        "instructions": measured.instructions,
        "modelled_cycles": measured.cycles,
        "flash_bytes": measured.flash_bytes,
        "text_bytes": measured.sizes.text,
        "ram_bytes": measured.ram_bytes,
        "arena_bytes": firmware.arena_bytes,
        "stack_bytes": measured.run.peak_stack_bytes,
        "max_lsb": find_worst_difference(path, graph, samples, measured),
        "compared_with": "tflite-micro" if MICRO_AVAILABLE else "edgeprune's reference",
        "toolchain": measured.built.toolchain,
        "emulator": measured.run.emulator,
        "is_convolutional": any(layer.kind in CONVOLUTIONS for layer in firmware.layers),
    }
    return row, list_layers(firmware, measured)


def find_worst_difference(path: Path, graph: Graph, samples: np.ndarray, measured: FirmwareMeasurement) -> int:
    """The largest difference in LSB between the firmware and the interpreter (or our reference)."""
    if MICRO_AVAILABLE:
        outputs = MicroExecutor(path.read_bytes()).run(samples)
    else:
        results = run_graph(graph, samples)
        outputs = tuple(results[name] for name in graph.outputs)
    expected = np.concatenate([output.reshape(len(samples), -1) for output in outputs], axis=1)
    assert measured.outputs is not None  # checked above
    return int(np.abs(measured.outputs.astype(int) - expected.astype(int)).max())


def list_layers(firmware: Firmware, measured: FirmwareMeasurement) -> list[dict[str, Any]]:
    """Layers in order of execution with what they cost."""
    costs = {cost.name: cost for cost in measured.layers}
    return [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "kernel": layer.kernel,
            "macs": layer.macs,
            "instructions": costs[layer.function].instructions,
            "cycles": costs[layer.function].cycles,
            "estimated_cycles": layer.estimated_cycles,
        }
        for layer in firmware.layers
    ]


def compare(row: Mapping[str, Any], anchors: Mapping[str, Any]) -> dict[str, Any]:
    """The same model by others: ratios below 1 are in our favour; None where nobody's figure is known."""
    own = [entry for entry in anchors["rows"] if (entry["model"], entry["core"]) == (row["model"], row["core"])]
    peer = next((entry for entry in own if entry["kernels"] == "tflm+cmsis-nn"), None)
    constants = anchors["constant_bytes"].get(row["model"])
    found: dict[str, Any] = dict.fromkeys(
        (
            "instructions_ratio",
            "ram_ratio",
            "flash_beyond_bytes",
            "flash_beyond_ratio",
            "board_megacycles",
            "peer_instructions",
            "peer_arena_bytes",
            "peer_flash_bytes",
            "board_ratio",
        )
    )
    if peer is not None:
        found["peer_instructions"], found["peer_arena_bytes"] = peer["instructions"], peer["arena_bytes"]
        found["peer_flash_bytes"] = peer["flash_bytes_runtime"] + peer["model_bytes"]
        found["instructions_ratio"] = row["instructions"] / peer["instructions"]
        found["ram_ratio"] = row["ram_bytes"] / peer["arena_bytes"]
    if peer is not None and constants is not None:
        theirs = found["peer_flash_bytes"] - constants
        found["flash_beyond_bytes"] = row["flash_bytes"] - constants
        found["flash_beyond_ratio"] = found["flash_beyond_bytes"] / theirs
    board = BOARD_NAMES.get(row["model"])
    if board is not None and row["core"] == "cortex-m4":
        correction = anchors["cycle_model_validation"]["correction"]
        factor = correction["conv" if row["is_convolutional"] else "fully_connected"]
        found["board_megacycles"] = min(entry[board] for entry in anchors["boards"]["rows"])
        found["board_ratio"] = factor * row["modelled_cycles"] / 1e6 / found["board_megacycles"]
    return found


def format_rows(rows: list[dict[str, Any]]) -> str:
    """The table of models."""
    head = (
        *(
            "model",
            "memory",
            "MACs",
            "instructions",
            "per MAC",
            "Mcycles (modelled)",
            "flash",
            "beyond constants",
            "RAM",
        ),
        *("LSB", "instr. vs TFLM", "RAM vs TFLM arena", "flash beyond vs TFLM", "cycles x1.10/1.25 vs best board"),
        *("TFLM: instructions", "arena", "flash", "best board, Mcycles"),
    )
    lines = []
    for row in rows:
        cycles = row["modelled_cycles"]
        lines.append(
            (
                row["model"],
                f"{row['memory']}{' (streams)' if row['streams'] else ''}",
                f"{row['macs']:,}",
                f"{row['instructions']:,}",
                f"{row['instructions'] / row['macs']:.3f}" if row["macs"] else "",
                "" if cycles is None else f"{cycles / 1e6:.3f}",
                f"{row['flash_bytes']:,}",
                "" if row["flash_beyond_bytes"] is None else f"{row['flash_beyond_bytes']:,}",
                f"{row['ram_bytes']:,}",
                f"{row['max_lsb']}",
                *(
                    "" if row[name] is None else f"{row[name]:.3f}"
                    for name in ("instructions_ratio", "ram_ratio", "flash_beyond_ratio", "board_ratio")
                ),
                *(
                    "" if row[name] is None else f"{row[name]:,}"
                    for name in ("peer_instructions", "peer_arena_bytes", "peer_flash_bytes", "board_megacycles")
                ),
            )
        )
    first = rows[0]
    note = f"{first['core']}, {first['toolchain']}, {first['emulator']}; LSB against {first['compared_with']}"
    return f"{note}\n\n{format_table(head, lines)}"


def format_layers(layers: list[dict[str, Any]]) -> str:
    """The table of a model's layers."""
    head = ("layer", "kind", "kernel", "MACs", "instructions", "instr/MAC", "cycles", "cycles/MAC", "estimate/cycles")
    lines = []
    for row in layers:
        macs, cycles = row["macs"], row["cycles"]
        lines.append(
            (
                row["layer"][-40:],
                row["kind"],
                row["kernel"],
                f"{macs:,}",
                f"{row['instructions']:,}",
                f"{row['instructions'] / macs:.3f}" if macs else "",
                "" if cycles is None else f"{cycles:,}",
                f"{cycles / macs:.3f}" if macs and cycles is not None else "",
                f"{row['estimated_cycles'] / cycles:.2f}" if cycles else "",
            )
        )
    return format_table(head, lines)


def format_table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    rows = [head, tuple("---" for _ in head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
