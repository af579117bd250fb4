"""Firmware run in tests: on the host through gcc (portable kernels), on an emulated core through zig and Unicorn."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeprune.codegen.firmware import Firmware
from edgeprune.graph import Graph
from edgeprune.reference import run_graph

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
