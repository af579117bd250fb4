"""From an int8 program to a folder of C: what generate_firmware puts together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np

from edgeprune import __version__
from edgeprune.artifacts import Normalization
from edgeprune.codegen.dead_channels import remove_dead_channels
from edgeprune.codegen.emit import LAYER_PREFIX, emit_model_c
from edgeprune.codegen.folder import FolderContent, render_folder
from edgeprune.codegen.memory import count_alive_bytes
from edgeprune.codegen.memory_plan import MemoryPlan, describe_memory
from edgeprune.codegen.program import INPUT, OUTPUT, make_program
from edgeprune.codegen.schedule import MEMORY_MODES, Schedule, Scheduler, make_schedule
from edgeprune.codegen.upright import stand_up
from edgeprune.graph import Graph, count_op_macs
from edgeprune.target import Target

_INCLUDE = re.compile(r'^\s*#include "([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Layer:
    """A layer of the firmware: its name in the model, the C function that is its own, its op kind and kernel.

    estimated_cycles: what its kernel was chosen by. constant_bytes: its weights and tables; layers with equal ones
    share them. live_bytes: of the arena, alive while it runs.
    """

    name: str
    function: str
    kind: str
    kernel: str
    macs: int
    estimated_cycles: int
    constant_bytes: int = 0
    live_bytes: int = 0


@dataclass(frozen=True)
class MemoryChoice:
    """A memory mode as it would come out: arena bytes and modelled cycles (to compare by, not measured)."""

    mode: str
    arena_bytes: int
    cycles: int
    streams: bool


@dataclass(frozen=True, eq=False)
class Firmware:
    """C firmware of one model for one target.

    files: name in the folder -> text. sources: the names that are compiled into the model (.c and .S).
    graph: the program that was compiled, upright, dead channels removed; its arithmetic is that of the given one.
    layers: in order of execution. arena_bytes: what the caller gives. mode: the memory mode asked for.
    choices: what the modes would cost, for the report. dead_channels: output channels removed, by layer.
    constant_bytes: weights and tables of the layers. content: what the files around model.c were made from.
    memory_plan: the arena over time.
    """

    files: Mapping[str, str]
    sources: tuple[str, ...]
    graph: Graph
    layers: tuple[Layer, ...]
    arena_bytes: int
    input_bytes: int
    output_bytes: int
    mode: str
    choices: tuple[MemoryChoice, ...]
    dead_channels: Mapping[str, int]
    constant_bytes: int
    content: FolderContent
    memory_plan: MemoryPlan

    @property
    def compiled_files(self) -> dict[str, str]:
        """The files that the model itself is compiled from, headers too: no self-test, example or normalization."""
        return {name: text for name, text in self.files.items() if name in self.sources or name.endswith(".h")}


@dataclass(frozen=True)
class Estimate:
    """What a firmware would cost, by the model that its kernels are chosen by. layers: as in Firmware."""

    layers: tuple[Layer, ...]
    arena_bytes: int
    cycles: int


def estimate_firmware(graph: Graph, target: Target, memory: str = "arena") -> Estimate:
    """The costs of `generate_firmware` without the text; with memory "arena", which searches nothing, in little time.

    Raises UnsupportedModelError as generate_firmware does.
    """
    program = make_program(stand_up(remove_dead_channels(graph)[0]))
    schedule = make_schedule(Scheduler(program, target), memory)
    return Estimate(_list_layers(schedule), schedule.arena.byte_count, schedule.cycles)


def generate_firmware(
    graph: Graph,
    target: Target,
    *,
    memory: str = "auto",
    portable: bool = False,
    normalization: Normalization | None = None,
    class_names: tuple[str, ...] = (),
    golden_inputs: np.ndarray | None = None,
) -> Firmware:
    """C firmware of an int8 program.

    graph: int8 in and out, NHWC. memory: one of MEMORY_MODES. portable: C99 kernels only.
    normalization: what the model expects to be done to raw values; `edgeprune_model_normalize` does it.
    golden_inputs: (n, H, W, C) int8 samples that the self-test runs, expected outputs by the reference.

    Raises UnsupportedModelError where an op has no kernel or the program is not int8 throughout.
    """
    assert memory in MEMORY_MODES  # the settings have been checked
    lean, dead = remove_dead_channels(graph)
    program = make_program(stand_up(lean))
    scheduler = Scheduler(program, target, portable=portable)
    schedules = {mode: make_schedule(scheduler, mode) for mode in dict.fromkeys(("arena", "streaming", memory))}
    schedule = schedules[memory]
    notice = f"/* Made by edgeprune {__version__} for {target.name}. SPDX-License-Identifier: 0BSD */\n"
    files = assemble_files(schedule, notice)
    sources = tuple(name for name in files if name.endswith((".c", ".S")))
    content = FolderContent(
        target, graph, sources, schedule.arena.byte_count, normalization, class_names, golden_inputs
    )
    files |= render_folder(content, notice)
    return Firmware(
        files,
        sources,
        program.graph,
        _list_layers(schedule),
        schedule.arena.byte_count,
        program.buffer_bytes[INPUT],
        program.buffer_bytes[OUTPUT],
        memory,
        tuple(
            MemoryChoice(mode, item.arena.byte_count, item.cycles, item.is_streaming)
            for mode, item in schedules.items()
        ),
        {item.layer: item.removed_outputs for item in dead if item.removed_outputs},
        sum(item.constant_bytes for item in schedule.lowered.values()),
        content,
        describe_memory(schedule),
    )


def assemble_files(schedule: Schedule, notice: str) -> dict[str, str]:
    """model.c with the runtime files and generated functions that it needs. notice: the comment at its head."""
    files = {"model.c": emit_model_c(schedule, notice), **_collect_runtime(schedule)}
    assembly = _emit_assembly(schedule)
    return {**files, "model_kernels.S": assembly} if assembly else files


def _collect_runtime(schedule: Schedule) -> dict[str, str]:
    """The runtime files that the lowered ops name, with all that they include."""
    wanted = [source for item in schedule.lowered.values() for source in item.sources]
    wanted += ["ep.h", *(["ep_stream.c"] if schedule.is_streaming else [])]
    files: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name not in files:
            files[name] = read_runtime(name)
            wanted += _INCLUDE.findall(files[name])
            if name.endswith(".c"):
                wanted.append(name.removesuffix(".c") + ".h")
    return {name: files[name] for name in sorted(files)}


def read_runtime(name: str) -> str:
    """The text of a file of runtime/."""
    return resources.files("edgeprune.codegen").joinpath("runtime", name).read_text("utf-8")


def _emit_assembly(schedule: Schedule) -> str:
    """The generated functions, each once."""
    texts: dict[str, str] = {}
    for item in schedule.lowered.values():
        for assembly in item.assembly:
            assert texts.setdefault(assembly.name, assembly.text) == assembly.text, assembly.name
    head = "/* Generated kernels. SPDX-License-Identifier: 0BSD */\n"
    return head + "\n".join(texts[name] for name in sorted(texts)) if texts else ""


def _list_layers(schedule: Schedule) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            step.op.name,
            LAYER_PREFIX + step.name,
            step.op.kind,
            schedule.lowered[step.name].kernel,
            count_op_macs(schedule.program.graph, step.op),
            schedule.lowered[step.name].cycles,
            schedule.lowered[step.name].constant_bytes,
            count_alive_bytes(schedule.buffers, number),
        )
        for number, step in enumerate(schedule.program.steps)
    )
