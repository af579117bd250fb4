"""Random single layers around the unroll widths of the fast kernels, many of them as branches of one program.

A layer stands in a frame: it reads the program's input, or what an op before it wrote (a window of rows, when rows are
streamed), or some channels of a wider map; it writes a map of its own or a part of a concat. `make_layer` makes it from
its seed alone, so that one that fails can be made again; `run_layers` builds and runs a program of many.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np

from edgeprune.codegen.firmware import assemble_files
from edgeprune.codegen.folder import FolderContent, render_folder
from edgeprune.codegen.kernel import Call, Lowered
from edgeprune.codegen.kernels import KERNELS, lower_call
from edgeprune.codegen.program import Program, make_program
from edgeprune.codegen.schedule import Schedule, Scheduler
from edgeprune.codegen.streaming import Segment, check_segment
from edgeprune.codegen.upright import stand_up
from edgeprune.errors import EdgepruneError
from edgeprune.graph import Graph, Tensor, verify_graph
from edgeprune.measure.cortex_m import build_elf, run_qemu, run_unicorn
from edgeprune.measure.cortex_m.unicorn_runner import CPU_MODELS
from edgeprune.ops import window_output_size
from edgeprune.target import Target
from tests.codegen.harness import expect_outputs, join_inputs
from tests.codegen.random_ops import OpMaker
from tests.random_graphs import make_inputs

CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 19, 24, 31, 32, 33, 40, 64)
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 25, 31, 32, 33, 48, 63, 100)
SIDES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16, 17)
PACES = (1, 1, 2, 3, 4, 5, 8)
COMMON = ("conv", "conv", "conv", "pointwise", "depthwise", "depthwise", "dense", "binary", "pool")
RARE = ("mean", "unary", "constant", "scaled", "prelu", "softmax", "move", "move")
UNARY = ("relu", "relu6", "leaky_relu", "hard_swish", "logistic", "tanh", "elu", "quantize")
MOST_MACS = 60_000


@dataclass(frozen=True)
class LayerSeed:
    """What a layer is made from. A program holds series only, or images only: it stands up as a whole."""

    seed: int
    is_series: bool


@dataclass(frozen=True)
class LayerResult:
    """One layer of a run. kernel: of the layer that was drawn, or of the last op. worst: the largest difference in LSB.

    is_streamed: whether it was computed some rows at a time.
    """

    seed: LayerSeed
    description: str
    kernel: str
    compared: int
    differing: int
    worst: int
    is_streamed: bool


@dataclass(frozen=True, eq=False)
class _Branch:
    seed: LayerSeed
    maker: OpMaker
    output: Tensor
    layer: str  # the name of the op that was drawn

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(op.name for op in self.maker.ops)


def make_layer(seed: LayerSeed) -> _Branch:
    """The ops of one layer in its frame."""
    rng = np.random.default_rng(seed.seed)
    maker = OpMaker(rng, f"s{seed.seed}_")
    kind = str(rng.choice(COMMON if rng.random() < 0.85 else RARE))
    output = _Layer(maker, seed.is_series).add(kind)
    layer = maker.ops[-1].name
    if len(output.shape) == 4 and rng.random() < 0.2:
        other = maker.add_input((*output.shape[:3], int(rng.integers(1, 6))))
        other = maker.add_unary("quantize", other, output.quant)
        output = maker.add_concat([output, other] if rng.random() < 0.5 else [other, output])
    return _Branch(seed, maker, output, layer)


class _Layer:
    def __init__(self, maker: OpMaker, is_series: bool) -> None:
        self.maker, self.rng, self.is_series = maker, maker.rng, is_series

    def add(self, kind: str) -> Tensor:
        return getattr(self, f"_add_{kind}")()

    def _draw_shape(self) -> tuple[int, ...]:
        channels = int(self.rng.choice(CHANNELS))
        if self.is_series:
            return 1, 1, int(self.rng.choice(LENGTHS)), channels
        style = self.rng.random()
        if style < 0.1:
            return 1, int(self.rng.choice(LENGTHS)), 1, channels  # one column, as series standing up
        if style < 0.15:
            return 1, int(self.rng.integers(1, 4)), int(self.rng.choice(LENGTHS)), channels  # wide
        return 1, int(self.rng.choice(SIDES)), int(self.rng.choice(SIDES)), channels

    def _add_source(self, shape: tuple[int, ...]) -> Tensor:
        """A map of this shape, in one of the frames."""
        maker, frame = self.maker, self.rng.random()
        if frame < 0.45:
            return maker.add_input(shape)
        if frame < 0.75:
            x = maker.add_input(shape)
            return maker.add_unary("quantize", x, x.quant)
        before, after = (int(value) for value in self.rng.integers(0, 5, 2))
        x = maker.add_input((*shape[:3], before + shape[3] + after))
        if frame < 0.9:
            x = maker.add_unary("quantize", x, x.quant)
        return maker.add_slice(x, 3, before, before + shape[3]) if before or after else x

    def _draw_window(self, shape: tuple[int, ...], largest: int = 7) -> dict[str, tuple[int, int]]:
        """kernel, stride and dilation that fit the map."""
        kernel, dilation, stride = [], [], []
        for size in shape[1:3]:
            most = largest if size > 3 or self.rng.random() < 0.5 else size
            length = int(self.rng.integers(1, most + 1)) if size > 1 or self.rng.random() < 0.1 else 1
            if self.is_series and size > 40 and self.rng.random() < 0.3:
                length = int(self.rng.integers(8, 41))
            step = int(self.rng.choice((2, 3, 4, 7))) if length > 1 and self.rng.random() < 0.2 else 1
            kernel.append(length)
            dilation.append(step)
            stride.append(int(self.rng.choice((1, 1, 1, 2, 2, 3))) if step == 1 and size > 1 else 1)
        if self.rng.random() < 0.5 and not self.is_series:
            kernel[1], stride[1] = min(kernel[0], largest), stride[0]
        if max(dilation) > 1:
            stride = [1, 1]
        return {
            "kernel": (kernel[0], kernel[1]),
            "stride": (stride[0], stride[1]),
            "dilation": (dilation[0], dilation[1]),
        }

    def _draw_padding(self, shape: tuple[int, ...], window: dict[str, tuple[int, int]]) -> str:
        sizes = [
            window_output_size(
                shape[1 + axis], window["kernel"][axis], window["stride"][axis], window["dilation"][axis], "valid"
            )
            for axis in (0, 1)
        ]
        return "valid" if min(sizes) > 0 and self.rng.random() < 0.4 else "same"

    def _add_conv(self) -> Tensor:
        while True:
            shape = self._draw_shape()
            window = self._draw_window(shape)
            filters = int(self.rng.choice(CHANNELS))
            groups = 1
            if self.rng.random() < 0.15:
                groups = int(self.rng.choice([count for count in range(1, shape[3] + 1) if shape[3] % count == 0]))
                filters = groups * int(self.rng.integers(1, 7))
            pixels = np.prod(shape[:3]) / np.prod(window["stride"])
            if pixels * filters * np.prod(window["kernel"]) * shape[3] / groups <= MOST_MACS:
                break
        padding = self._draw_padding(shape, window)
        return self.maker.add_conv(self._add_source(shape), filters, **window, padding=padding, groups=groups)

    def _add_pointwise(self) -> Tensor:
        while True:
            shape, filters = self._draw_shape(), int(self.rng.choice(CHANNELS))
            if np.prod(shape) * filters <= MOST_MACS:
                break
        strides = [int(self.rng.choice((1, 1, 1, 2))) if size > 1 else 1 for size in shape[1:3]]
        return self.maker.add_conv(self._add_source(shape), filters, stride=(strides[0], strides[1]))

    def _add_depthwise(self) -> Tensor:
        while True:
            shape = self._draw_shape()
            window = self._draw_window(shape)
            multiplier = int(self.rng.choice((1, 1, 1, 1, 2, 3, 5, 8, 16)))
            if np.prod(shape) * multiplier * np.prod(window["kernel"]) <= MOST_MACS:
                break
        padding = self._draw_padding(shape, window)
        return self.maker.add_depthwise(self._add_source(shape), multiplier=multiplier, **window, padding=padding)

    def _add_dense(self) -> Tensor:
        features = int(self.rng.choice((*CHANNELS, 100, 127, 128, 129, 500, 641)))
        units = int(self.rng.choice([*CHANNELS, 65, 127, 128]))
        units = max(1, min(units, MOST_MACS // features))
        x = self.maker.add_input((1, features))
        return self.maker.add_dense(x, units)

    def _add_binary(self) -> Tensor:
        shape = self._draw_shape()
        kind = str(self.rng.choice(("add", "add", "sub", "mul")))
        a = self._add_source(shape)
        b = a if self.rng.random() < 0.1 else self._add_source(shape)
        return self.maker.add_binary(kind, a, b)

    def _add_constant(self) -> Tensor:
        """An operand that is constant: one value, one per channel, or a whole map."""
        shape = self._draw_shape()
        small = [(1, 1, 1, 1), (1, 1, 1, shape[3]), shape][int(self.rng.integers(3))]
        a, b = self._add_source(shape), self.maker.add_operand(small, 0.02)
        if self.rng.random() < 0.3:
            a, b = b, a
        return self.maker.add_binary(str(self.rng.choice(("add", "sub", "mul"))), a, b)

    def _add_scaled(self) -> Tensor:
        """A map times (plus, minus) one value per channel that is computed."""
        shape = self._draw_shape()
        a, b = self._add_source(shape), self.maker.add_input((1, 1, 1, shape[3]))
        if self.rng.random() < 0.3:
            a, b = b, a
        return self.maker.add_binary(str(self.rng.choice(("add", "sub", "mul"))), a, b)

    def _add_pool(self) -> Tensor:
        shape = self._draw_shape()
        window = self._draw_window(shape, 5)
        del window["dilation"]
        if self.rng.random() < 0.15:
            window["kernel"] = shape[1], shape[2]
        padding = self._draw_padding(shape, {**window, "dilation": (1, 1)})
        kind = str(self.rng.choice(("max_pool_2d", "average_pool_2d")))
        return self.maker.add_pool(self._add_source(shape), kind, **window, padding=padding)

    def _add_mean(self) -> Tensor:
        axes = ((1, 2), (1, 2), (1, 2), (1,), (2,), (3,))[int(self.rng.integers(6))]
        keep = self.rng.random() < 0.5 or axes == (3,)  # a mean over channels without them cannot stand up
        return self.maker.add_mean(self._add_source(self._draw_shape()), axes, keep_dims=bool(keep))

    def _add_unary(self) -> Tensor:
        return self.maker.add_unary(str(self.rng.choice(UNARY)), self._add_source(self._draw_shape()))

    def _add_prelu(self) -> Tensor:
        return self.maker.add_prelu(self._add_source(self._draw_shape()))

    def _add_softmax(self) -> Tensor:
        return self.maker.add_unary("softmax", self._add_source(self._draw_shape()))

    def _add_move(self) -> Tensor:
        """pad, a slice with steps, concat with copies, reshape, transpose."""
        maker, rng = self.maker, self.rng
        shape = self._draw_shape()
        kind = int(rng.integers(5))
        x = self._add_source(shape)
        if kind == 0:
            pads = [(int(rng.integers(0, 4)), int(rng.integers(0, 4))) if size > 1 else (0, 0) for size in shape[1:3]]
            return maker.add_pad(x, pads[0], pads[1])
        if kind == 1:
            axis = int(rng.integers(1, 4))
            begin = int(rng.integers(0, shape[axis]))
            return maker.add_slice(x, axis, begin, shape[axis], int(rng.integers(1, 4)))
        if kind == 2:
            return maker.add_concat([x, x, x], 2 if self.is_series else int(rng.integers(1, 4)))
        if kind == 3:
            return maker.add_reshape(x, (1, x.element_count))
        return maker.add_op("transpose", [x], {"perm": (0, 1, 3, 2) if self.is_series else (0, 2, 1, 3)}, x.quant)


def join_branches(branches: Sequence[_Branch]) -> Graph:
    """The program of all branches."""
    tensors = {name: tensor for branch in branches for name, tensor in branch.maker.tensors.items()}
    ops = tuple(op for branch in branches for op in branch.maker.ops)
    inputs = tuple(name for branch in branches for name in branch.maker.inputs)
    graph = Graph("layers", tensors, ops, inputs, tuple(branch.output.name for branch in branches))
    verify_graph(graph)
    return graph


def run_layers(
    seeds: Sequence[LayerSeed],
    target: Target,
    *,
    streams: bool,
    any_kernel: bool = False,
    toolchain: str = "zig",
    samples: int = 2,
) -> list[LayerResult]:
    """Build and run one program of these layers on an emulated core, and hold it against the reference.

    streams: compute a few rows at a time what can be. any_kernel: take any of the kernels that fit, by the layer's
    name, instead of the cheapest. Raises EdgepruneError where the program leaves its memory.
    """
    branches = [make_layer(seed) for seed in seeds]
    graph = join_branches(branches)
    program = make_program(stand_up(graph))
    choose = _lower_with_any if any_kernel else lower_call
    with mock.patch("edgeprune.codegen.schedule.lower_call", choose):
        scheduler = Scheduler(program, target)
        segments = _plan_segments(scheduler, branches) if streams else []
        schedule = scheduler.build(segments)
    for segment in segments:
        check_segment(program, schedule.shared, segment)
    files = assemble_files(schedule, "")
    content = FolderContent(target, graph, (), schedule.arena.byte_count, None, (), None)
    files["model.h"] = render_folder(content, "")["model.h"]
    inputs = make_inputs(graph, seeds[0].seed, samples)
    for number, values in enumerate(inputs.values()):  # the extremes, which random values seldom are
        values[0] = np.where(np.random.default_rng(number).random(values[0].shape) < 0.5, -128, 127)
    built = build_elf(files, target, toolchain=toolchain)
    if target.core in CPU_MODELS:
        found = run_unicorn(built, target, join_inputs(graph, inputs), counted=1).outputs
    else:
        found = run_qemu(built, target, join_inputs(graph, inputs)).outputs
    expected = expect_outputs(graph, inputs)
    return _collect(branches, schedule, segments, found, expected)


def _plan_segments(scheduler: Scheduler, branches: Sequence[_Branch]) -> list[Segment]:
    segments = []
    for branch in branches:
        numbers = _find_steps(scheduler.program, branch)
        pace = PACES[branch.seed.seed % len(PACES)]
        segment = scheduler.plan(numbers[0], numbers[-1], pace) if numbers else None
        if segment is not None:
            segments.append(segment)
    return segments


def _find_steps(program: Program, branch: _Branch) -> list[int]:
    names = set(branch.names)
    return [number for number, step in enumerate(program.steps) if step.op.name in names]


def _lower_with_any(call: Call, *, portable: bool = False) -> Lowered:
    """Half of the calls by the cheapest kernel, the others by any that fits, by the name of the call."""
    choice = zlib.crc32(call.name.encode())
    fitting = [lowered for kernel in KERNELS.get(call.op.kind, ()) if (lowered := kernel.lower(call)) is not None]
    if portable or choice % 2 or not fitting:
        return lower_call(call, portable=portable)
    return fitting[choice // 2 % len(fitting)]


def _collect(
    branches: Sequence[_Branch],
    schedule: Schedule,
    segments: Sequence[Segment],
    found: np.ndarray,
    expected: np.ndarray,
) -> list[LayerResult]:
    results, first = [], 0
    streamed = {number for segment in segments for number in range(segment.first, segment.last + 1)}
    for branch in branches:
        part = slice(first, first + branch.output.element_count)
        first = part.stop
        difference = np.abs(found[:, part].astype(int) - expected[:, part])
        numbers = _find_steps(schedule.program, branch)
        steps = [schedule.program.steps[number] for number in numbers]
        kernels = [schedule.lowered[step.name].kernel for step in steps if step.op.name == branch.layer]
        results.append(
            LayerResult(
                seed=branch.seed,
                description=describe_layer(branch),
                kernel=kernels[0] if kernels else "view",
                compared=difference.size,
                differing=int((difference > 0).sum()),
                worst=int(difference.max(initial=0)),
                is_streamed=bool(streamed & set(numbers)),
            )
        )
    assert first == found.shape[1]
    return results


def describe_layer(branch: _Branch) -> str:
    """The branch as text: its ops with shapes and attributes."""
    lines = []
    for op in branch.maker.ops:
        shapes = " ".join(str(branch.maker.tensors[name].shape) for name in op.inputs)
        lines.append(f"{op.kind} {shapes} -> {branch.maker.tensors[op.outputs[0]].shape} {dict(op.attrs)}")
    return "; ".join(lines)


def isolate(
    seeds: Sequence[LayerSeed], target: Target, *, streams: bool, any_kernel: bool, toolchain: str
) -> list[tuple[LayerSeed, str]]:
    """The layers that fail in a program of their own, with what went wrong; for a program that cannot run at all."""
    failures = []
    for seed in seeds:
        try:
            run_layers([seed], target, streams=streams, any_kernel=any_kernel, toolchain=toolchain)
        except (EdgepruneError, AssertionError) as error:
            failures.append((seed, f"{error}; {describe_layer(make_layer(seed))}"))
    return failures


__all__ = ["LayerResult", "LayerSeed", "describe_layer", "isolate", "join_branches", "make_layer", "run_layers"]
