"""Firmware run in tests: on the host through gcc (portable kernels), on an emulated core through zig and Unicorn."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from edgeprune.codegen.emit import LAYER_PREFIX
from edgeprune.codegen.firmware import Firmware, assemble_files
from edgeprune.codegen.folder import FolderContent, render_folder
from edgeprune.codegen.kernel import Kernel, Lowered
from edgeprune.codegen.kernels import KERNELS
from edgeprune.codegen.program import make_program
from edgeprune.codegen.schedule import Schedule, Scheduler
from edgeprune.codegen.upright import stand_up
from edgeprune.graph import Graph
from edgeprune.measure.cortex_m import EmulatedRun, build_elf, run_unicorn
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.reference import run_graph
from edgeprune.target import Target
from tests.lower.handmade import NETWORKS
from tests.random_graphs import make_inputs

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-unused-const-variable")


def make_int8_network(name: str) -> Graph:
    """A network of handmade.py with random weights, quantized on random samples."""
    graph = NETWORKS[name]()
    shape = graph.tensors["input"].shape
    samples = np.random.default_rng(0).normal(size=(16, *shape[1:])).astype(np.float32)
    return quantize_graph(graph, calibrate(graph, samples))


def join_inputs(graph: Graph, inputs: Mapping[str, np.ndarray] | np.ndarray) -> np.ndarray:
    """(n, bytes): the inputs of each sample side by side, as the firmware takes them."""
    if isinstance(inputs, np.ndarray):
        inputs = {graph.inputs[0]: inputs}
    return np.concatenate([inputs[name].reshape(len(inputs[name]), -1) for name in graph.inputs], axis=1)


def expect_outputs(graph: Graph, inputs: Mapping[str, np.ndarray] | np.ndarray) -> np.ndarray:
    """(n, bytes): what the reference computes, as the firmware gives it."""
    results = run_graph(graph, inputs)
    names = dict.fromkeys(graph.outputs)
    return np.concatenate([results[name].reshape(len(results[name]), -1) for name in names], axis=1)


@dataclass(frozen=True)
class HostCompiler:
    """gcc with sanitizers. Runtime files are compiled once and kept in `folder`."""

    folder: Path
    flags: tuple[str, ...] = (*WARNINGS, "-O1", "-g0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

    def compile(self, source: Path, folder: Path) -> Path:
        """The object file of a C file; `folder` is where its headers are."""
        target = folder / f"{source.stem}.o"
        if not target.exists():
            command = ["gcc", *self.flags, "-I", str(folder), "-c", str(source), "-o", str(target)]
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stderr
        return target

    def run(self, firmware: Firmware, inputs: np.ndarray) -> np.ndarray:
        """(n, output bytes) for (n, input bytes), with AddressSanitizer and UBSan watching; kernels must be portable.

        Each buffer is an allocation of its exact size, so that a byte beside it is an error.
        """
        own = self.folder / f"model{len(list(self.folder.iterdir()))}"
        own.mkdir()
        runtime = self.folder / "runtime"
        runtime.mkdir(exist_ok=True)
        objects = []
        for name, text in firmware.files.items():
            shared = name.startswith("ep")
            path = (runtime if shared else own) / name
            if not path.exists():
                path.write_text(text)
        for name in firmware.files:  # model.h of each program is its own; the kernels don't include it
            if name.endswith(".h") and name.startswith("ep"):
                (own / name).write_text(firmware.files[name])
        (own / "host.c").write_text((Path(__file__).parent / "host.c").read_text())
        for name in (*firmware.sources, "model_normalize.c", "model_selftest.c", "host.c"):
            where = runtime if name.startswith("ep") else own
            objects.append(str(self.compile(where / name, where)))
        program = own / "program"
        linked = subprocess.run(["gcc", *self.flags, *objects, "-o", str(program)], capture_output=True, check=False)
        assert linked.returncode == 0, linked.stderr.decode()
        samples = np.ascontiguousarray(inputs, np.int8)
        done = subprocess.run([str(program)], input=samples.tobytes(), capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[:4000]
        return np.frombuffer(done.stdout, np.int8).reshape(len(samples), firmware.output_bytes)


@dataclass(frozen=True, eq=False)
class LayerRun:
    """A program of few ops run on an emulated core, and what the reference says."""

    lowered: tuple[Lowered, ...]
    expected: np.ndarray
    run: EmulatedRun
    schedule: Schedule

    @property
    def worst_difference(self) -> int:
        """In LSB."""
        return int(np.abs(self.run.outputs.astype(int) - self.expected).max(initial=0))


def run_layer(
    graph: Graph,
    target: Target,
    *,
    kernel: Kernel | None = None,
    pace: int | None = None,
    samples: int = 2,
    seed: int = 0,
    toolchain: str = "zig",
) -> LayerRun:
    """Run a small int8 program (NHWC, series with time on the columns as ever) on an emulated core.

    kernel: the one to use for the ops that it fits; None for the choice by cost.
    pace: stream the whole program, so many rows of the last op at a time; None for whole maps.
    """
    program = make_program(stand_up(graph))
    kinds = {op.kind for op in program.graph.ops}
    only = {} if kernel is None else {kind: (kernel, *_list_portable(kind)) for kind in kinds}
    with mock.patch.dict(KERNELS, only):  # type: ignore[arg-type]  # a dict, though its users see a Mapping
        scheduler = Scheduler(program, target)
        segment = None if pace is None else scheduler.plan(0, len(program.steps) - 1, pace)
        assert pace is None or segment is not None, "this program cannot be streamed as a whole"
        schedule = scheduler.build([segment] if segment is not None else [])
    files = assemble_files(schedule, "")
    content = FolderContent(target, graph, (), schedule.arena.byte_count, None, (), None)
    files["model.h"] = render_folder(content, "")["model.h"]
    inputs = make_inputs(graph, seed, samples)
    for values in inputs.values():  # the extremes, which random values seldom are
        values[0] = np.where(np.random.default_rng(seed).random(values[0].shape) < 0.5, -128, 127)
    layers = [LAYER_PREFIX + step.name for step in program.steps]
    built = build_elf(files, target, toolchain=toolchain)
    run = run_unicorn(built, target, join_inputs(graph, inputs), layers=layers)
    return LayerRun(tuple(schedule.lowered.values()), expect_outputs(graph, inputs), run, schedule)


def _list_portable(kind: str) -> list[Kernel]:
    """The kernels that run everywhere: what the kernel under test does not fit is left to them."""
    return [kernel for kernel in KERNELS.get(kind, ()) if type(kernel).__name__.startswith("Portable")]
