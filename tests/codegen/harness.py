"""Firmware run in tests: on the host through gcc (portable kernels), on an emulated core through zig and Unicorn."""

from __future__ import annotations

import ctypes
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
from edgeprune.reference import run_graph
from edgeprune.target import Target
from tests.random_graphs import make_inputs

GUARD = 64  # bytes around each buffer that must stay as they were
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-unused-const-variable")


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


def build_library(firmware: Firmware, folder: Path) -> ctypes.CDLL:
    """The firmware (portable kernels) as a library of this machine, built with gcc and all warnings as errors."""
    for name, text in firmware.files.items():
        (folder / name).write_text(text)
    library = folder / "libmodel.so"
    sources = [*firmware.sources, "model_normalize.c", "model_selftest.c"]
    command = ["gcc", *WARNINGS, "-O1", "-fPIC", "-shared", "-o", str(library), *sources]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return ctypes.CDLL(str(library))


def run_library(firmware: Firmware, library: ctypes.CDLL, samples: np.ndarray) -> np.ndarray:
    """(n, output bytes) for (n, input bytes); arena, input and output stand between guard bytes, which are checked."""
    outputs = []
    arena = _Guarded(firmware.arena_bytes)
    for sample in np.ascontiguousarray(samples, np.int8):
        source, target = _Guarded(firmware.input_bytes), _Guarded(firmware.output_bytes)
        source.content[:] = sample
        status = library.edgeprune_model_run(
            ctypes.c_void_p(source.address), ctypes.c_void_p(target.address), ctypes.c_void_p(arena.address)
        )
        assert status == 0
        assert np.array_equal(source.content, sample), "the input was written to"
        for buffer in (source, target, arena):
            buffer.check()
        outputs.append(target.content.copy())
    return np.stack(outputs)


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

    kernel: the one to use for the ops that it fits; None for the choice by cost. pace: stream the whole program, so many
    rows of the last op at a time; None for whole maps.
    """
    program = make_program(stand_up(graph))
    kinds = {op.kind for op in program.graph.ops}
    only = {} if kernel is None else {kind: (kernel, *KERNELS.get(kind, ())[-1:]) for kind in kinds}
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


class _Guarded:
    """Memory with a pattern before and after; 16-byte aligned content."""

    def __init__(self, byte_count: int) -> None:
        self.memory = np.full(byte_count + 2 * GUARD + 16, 0x5A, np.int8)
        start = GUARD + (-(self.memory.ctypes.data + GUARD)) % 16
        self.content = self.memory[start : start + byte_count]
        self.content[:] = 0x33
        self.address = self.memory.ctypes.data + start
        self.around = np.ones(len(self.memory), bool)
        self.around[start : start + byte_count] = False

    def check(self) -> None:
        """Raise where a byte outside the content has changed."""
        assert (self.memory[self.around] == 0x5A).all(), "a byte beside a buffer was written"
