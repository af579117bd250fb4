"""Random int8 networks in the shapes that real ones have: series and images, blocks of ops, a head.

Convolutions with dilations, strides and groups, inception blocks (concat), residuals, splits and slices, squeeze and
excitation, pads, pools, reshape chains, several outputs; maps from one pixel to a thousand steps, channels between the
unroll widths. The arithmetic is random_ops'. `make_random_network(seed)` is one; all its results can be asked of TFLite
Micro, or of `parity.find_missing_kernels` why not.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from edgeprune.codegen.schedule import Scheduler
from edgeprune.codegen.streaming import Segment
from edgeprune.graph import Graph, Op, Tensor, remove_unused_tensors
from edgeprune.ops import OPS, window_output_size
from tests.codegen.random_ops import OpMaker

LENGTHS = (1, 2, 3, 7, 31, 32, 33, 100, 1000)
SIDES = (1, 2, 3, 5, 8, 9, 12, 17, 24)
CHANNELS = (1, 2, 3, 4, 5, 8, 13, 16, 19, 32, 33)
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "hard_swish", "logistic", "tanh", "elu", "quantize")
MOST_MACS = 300_000  # of a network: it is run a dozen times


def make_random_network(seed: int) -> Graph:
    """A verified int8 program; one or several inputs and outputs."""
    rng = np.random.default_rng(seed)
    network = _Network(OpMaker(rng), is_series=bool(rng.random() < 0.5))
    x = network.add_stem()
    for _ in range(int(rng.integers(1, 6))):
        x = network.add_block(x)
    outputs = [network.add_head(x)]
    if rng.random() < 0.3:
        outputs.append(network.add_head(network.pick_map()))
    for _ in range(int(rng.choice((0, 0, 0, 0, 1, 3)))):  # whatever is inside, views and their sources too
        op = network.maker.ops[int(rng.integers(len(network.maker.ops)))]
        outputs.append(network.maker.tensors[op.outputs[0]])
    outputs = [output for output in dict.fromkeys(outputs) if output.name not in network.maker.inputs]
    graph = network.maker.finish(f"network_{seed}", outputs)
    return _drop_unread(graph)


def _drop_unread(graph: Graph) -> Graph:
    wanted = set(graph.outputs)
    ops: list[Op] = []
    for op in reversed(graph.ops):
        if op.outputs[0] in wanted:
            wanted.update(op.inputs)
            ops.insert(0, op)
    inputs = tuple(name for name in graph.inputs if name in wanted)
    return remove_unused_tensors(replace(graph, ops=tuple(ops), inputs=inputs))


def draw_segments(scheduler: Scheduler, seed: int) -> list[Segment]:
    """Runs of a program's steps to stream, wherever it can be done: far more than a memory mode would choose."""
    rng = np.random.default_rng(seed)
    count, at = len(scheduler.program.steps), int(rng.integers(0, 2))
    segments = []
    while at < count:
        last = min(at + int(rng.integers(0, 9)), count - 1)
        found = None
        while found is None and last >= at:
            pace, slack = int(rng.choice((1, 1, 2, 3, 5, 8))), int(rng.choice((0, 0, 100, 5000)))
            found = scheduler.plan(at, last, pace, slack)
            last -= 1
        if found is not None:
            segments.append(found)
        at = at + 1 if found is None else found.last + 1
    return segments


class _Network:
    def __init__(self, maker: OpMaker, *, is_series: bool) -> None:
        self.maker, self.rng, self.is_series = maker, maker.rng, is_series
        self.maps: list[Tensor] = []

    def pick_map(self) -> Tensor:
        """An earlier map."""
        return self.maps[int(self.rng.integers(len(self.maps)))]

    def add_stem(self) -> Tensor:
        if self.is_series:
            shape = (1, 1, int(self.rng.choice(LENGTHS)), int(self.rng.choice((1, 1, 2, 3, 5, 13))))
        elif self.rng.random() < 0.15:
            shape = (1, int(self.rng.integers(1, 5)), int(self.rng.choice((40, 77, 130))), int(self.rng.choice((1, 3))))
        else:
            shape = (1, int(self.rng.choice(SIDES)), int(self.rng.choice(SIDES)), int(self.rng.choice((1, 3, 3, 4, 8))))
        x = self.maker.add_input(shape)
        if self.rng.random() < 0.08:
            y = self.maker.add_input(shape)
            x = self.maker.add_binary("sub", x, y)
        self.maps.append(x)
        return x

    def add_block(self, x: Tensor) -> Tensor:
        """One of the blocks below; what it answers is a map again."""
        blocks = [
            *(self._add_conv, self._add_conv, self._add_separable, self._add_inception, self._add_residual),
            *(self._add_split, self._add_pool, self._add_padded, self._add_activation, self._add_excitation),
            *(self._add_grouped, self._add_crop, self._add_chain, self._add_joined, self._add_odd),
        ]
        x = blocks[int(self.rng.integers(len(blocks)))](x)
        self.maps.append(x)
        return x

    # -- sizes

    def _draw_filters(self, x: Tensor, taps: int, *, divisor: int = 1) -> int:
        """Filters that what is left of the MACs can pay."""
        left = MOST_MACS - self._count_macs()
        each = x.element_count * taps // divisor
        fitting = [count for count in CHANNELS if count * each <= left / 3]
        return int(self.rng.choice(fitting)) if fitting else 1

    def _count_macs(self) -> int:
        tensors = self.maker.tensors
        return sum(
            OPS[op.kind].count_macs(op.attrs, [tensors[name].shape for name in op.inputs], tensors[op.outputs[0]].shape)
            for op in self.maker.ops
        )

    def _draw_kernel(self, x: Tensor) -> tuple[int, int]:
        if self.is_series:
            lengths = (1, 2, 3, 3, 5, 7, 8, 10, 20, 40)
            return 1, int(self.rng.choice([length for length in lengths if length <= 2 * x.shape[2] + 1]))
        kernels = ((1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (3, 1), (1, 7), (2, 2), (4, 3), (7, 7))
        return kernels[int(self.rng.integers(len(kernels)))]

    def _draw_stride(self) -> tuple[int, int]:
        step = int(self.rng.choice((1, 1, 1, 2, 2, 3)))
        if self.is_series:
            return 1, step
        return (step, step) if self.rng.random() < 0.8 else (step, 1)

    def _draw_dilation(self, kernel: tuple[int, int]) -> tuple[int, int]:
        step = int(self.rng.choice((1, 1, 2, 4, 8)))
        return step if kernel[0] > 1 else 1, step if kernel[1] > 1 else 1

    def _draw_padding(self, x: Tensor, kernel: tuple[int, int], dilation: tuple[int, int]) -> str:
        fits = all(
            window_output_size(x.shape[1 + axis], kernel[axis], 1, dilation[axis], "valid") > 0 for axis in (0, 1)
        )
        return "valid" if fits and self.rng.random() < 0.35 else "same"

    # -- blocks

    def _add_conv(self, x: Tensor) -> Tensor:
        kernel = self._draw_kernel(x)
        if self.rng.random() < 0.3:
            dilation = self._draw_dilation(kernel)
            stride = (1, 1)
        else:
            dilation, stride = (1, 1), self._draw_stride()
        padding = self._draw_padding(x, kernel, dilation)
        filters = self._draw_filters(x, int(np.prod(kernel)))
        return self.maker.add_conv(x, filters, kernel, stride=stride, dilation=dilation, padding=padding)

    def _add_separable(self, x: Tensor) -> Tensor:
        kernel = self._draw_kernel(x)
        multiplier = int(self.rng.choice((1, 1, 1, 2, 3))) if x.shape[3] < 16 else 1
        dilation = self._draw_dilation(kernel) if self.rng.random() < 0.3 else (1, 1)
        stride = self._draw_stride() if dilation == (1, 1) else (1, 1)
        padding = self._draw_padding(x, kernel, dilation)
        y = self.maker.add_depthwise(
            x, kernel, multiplier=multiplier, stride=stride, dilation=dilation, padding=padding
        )
        self.maps.append(y)
        return self.maker.add_conv(y, self._draw_filters(y, 1)) if self.rng.random() < 0.7 else y

    def _add_inception(self, x: Tensor) -> Tensor:
        quant = self.maker.draw_quant(0.05)
        parts = []
        for _ in range(int(self.rng.integers(2, 5))):
            kernel = self._draw_kernel(x)
            if self.rng.random() < 0.25:
                pooled = self.maker.add_pool(x, "max_pool_2d", kernel, (1, 1))
                parts.append(self.maker.add_conv(pooled, self._draw_filters(x, 1), quant=quant))
            elif self.rng.random() < 0.2:
                parts.append(self.maker.add_depthwise(x, kernel, dilation=self._draw_dilation(kernel), quant=quant))
            else:
                filters = self._draw_filters(x, int(np.prod(kernel)))
                parts.append(self.maker.add_conv(x, filters, kernel, dilation=self._draw_dilation(kernel), quant=quant))
        return self.maker.add_concat(parts)

    def _add_residual(self, x: Tensor) -> Tensor:
        kernel = self._draw_kernel(x)
        filters = x.shape[3] if self.rng.random() < 0.5 else self._draw_filters(x, int(np.prod(kernel)))
        if filters * x.element_count * np.prod(kernel) > MOST_MACS:
            filters = 1
        y = self.maker.add_conv(x, filters, kernel)
        if self.rng.random() < 0.5:
            y = self.maker.add_depthwise(y, self._draw_kernel(y))
        shortcut = x if filters == x.shape[3] else self.maker.add_conv(x, filters)
        pair = [y, shortcut] if self.rng.random() < 0.5 else [shortcut, y]
        return self.maker.add_binary(str(self.rng.choice(("add", "add", "add", "sub", "mul"))), *pair)

    def _add_split(self, x: Tensor) -> Tensor:
        """Parts of the channels go their own ways and come together again."""
        channels = x.shape[3]
        if channels < 2:
            return self._add_conv(x)
        cuts = sorted({0, int(self.rng.integers(1, channels)), int(self.rng.integers(1, channels)), channels})
        parts = []
        for begin, end in itertools.pairwise(cuts):
            part = self.maker.add_slice(x, 3, begin, end)
            way = self.rng.random()
            if way < 0.3:
                kernel = self._draw_kernel(part)
                part = self.maker.add_conv(part, self._draw_filters(part, int(np.prod(kernel))), kernel, quant=x.quant)
            elif way < 0.5:
                part = self.maker.add_depthwise(part, self._draw_kernel(part), quant=x.quant)
            elif way < 0.6:
                part = self.maker.add_pool(part, "average_pool_2d", self._draw_kernel(part), (1, 1))
            elif way < 0.7:
                part = self.maker.add_unary("relu", part, x.quant)
            parts.append(part)
        order = self.rng.permutation(len(parts))
        return self.maker.add_concat([parts[index] for index in order])

    def _add_pool(self, x: Tensor) -> Tensor:
        kernel = self._draw_kernel(x)
        kind = str(self.rng.choice(("max_pool_2d", "average_pool_2d")))
        padding = self._draw_padding(x, kernel, (1, 1))
        return self.maker.add_pool(x, kind, kernel, self._draw_stride(), padding)

    def _add_padded(self, x: Tensor) -> Tensor:
        kernel = self._draw_kernel(x)
        pads = [(int(self.rng.integers(0, 4)), int(self.rng.integers(0, 4))) for _ in range(2)]
        x = self.maker.add_pad(x, (0, 0) if self.is_series else pads[0], pads[1])
        fits = kernel[0] <= x.shape[1] and kernel[1] <= x.shape[2]
        filters = self._draw_filters(x, int(np.prod(kernel)))
        return self.maker.add_conv(x, filters, kernel, stride=self._draw_stride(), padding="valid" if fits else "same")

    def _add_activation(self, x: Tensor) -> Tensor:
        if self.rng.random() < 0.15:
            return self.maker.add_prelu(x)
        return self.maker.add_unary(str(self.rng.choice(ACTIVATIONS)), x)

    def _add_excitation(self, x: Tensor) -> Tensor:
        squeezed = self.maker.add_mean(x, keep_dims=True)
        narrow = self.maker.add_conv(squeezed, int(self.rng.integers(1, 5)))
        factors = self.maker.add_unary("logistic", self.maker.add_conv(narrow, x.shape[3]))
        return self.maker.add_binary("mul", x, factors)

    def _add_grouped(self, x: Tensor) -> Tensor:
        groups = [count for count in range(2, x.shape[3] + 1) if x.shape[3] % count == 0]
        if not groups:
            return self._add_conv(x)
        count, kernel = int(self.rng.choice(groups)), self._draw_kernel(x)
        filters = count * int(self.rng.integers(1, 4))
        if filters * x.element_count * np.prod(kernel) // count > MOST_MACS / 2:
            return self._add_conv(x)
        return self.maker.add_conv(x, filters, kernel, groups=count, padding=self._draw_padding(x, kernel, (1, 1)))

    def _add_crop(self, x: Tensor) -> Tensor:
        """A slice of lines or steps, now and then every second one."""
        axis = 2 if self.is_series or self.rng.random() < 0.5 else 1
        begin = int(self.rng.integers(0, x.shape[axis]))
        end = int(self.rng.integers(begin + 1, x.shape[axis] + 1))
        return self.maker.add_slice(x, axis, begin, end, int(self.rng.choice((1, 1, 1, 2))))

    def _add_chain(self, x: Tensor) -> Tensor:
        """There and back again, with something between."""
        flat = self.maker.add_reshape(x, (1, x.element_count))
        if self.rng.random() < 0.5:
            flat = self.maker.add_unary("relu", flat)
        steps, channels = x.element_count // x.shape[3], x.shape[3]
        if self.rng.random() < 0.3 and steps % 2 == 0:
            steps, channels = steps // 2, 2 * channels
        shape = (1, 1, steps, channels) if self.is_series or self.rng.random() < 0.3 else (*x.shape[:3], x.shape[3])
        if np.prod(shape) != x.element_count:
            shape = x.shape
        return self.maker.add_reshape(flat, shape)

    def _add_joined(self, x: Tensor) -> Tensor:
        """A concat along lines or steps, or with an earlier map."""
        axis = 2 if self.is_series or self.rng.random() < 0.5 else 1
        fitting = [item for item in self.maps if item.shape == x.shape and item is not x]
        if fitting and self.rng.random() < 0.6:
            other = self.maker.add_unary("quantize", fitting[int(self.rng.integers(len(fitting)))], x.quant)
            return self.maker.add_concat([x, other], int(self.rng.choice((3, axis))))
        other = self.maker.add_depthwise(x, self._draw_kernel(x), quant=x.quant)
        return self.maker.add_concat([other, x] if self.rng.random() < 0.5 else [x, other], axis)

    def _add_odd(self, x: Tensor) -> Tensor:
        """A transpose, a softmax in the middle, arithmetic with constants."""
        way = self.rng.random()
        if way < 0.25:
            perm = (0, 1, 3, 2) if self.is_series else (0, 2, 1, 3)
            return self.maker.add_op("transpose", [x], {"perm": perm}, x.quant)
        if way < 0.4:
            return self.maker.add_unary("softmax", x)
        small = [(1, 1, 1, 1), (1, 1, 1, x.shape[3]), (x.shape[3],), x.shape][int(self.rng.integers(4))]
        pair = [x, self.maker.add_operand(small, 0.02)]
        if self.rng.random() < 0.3:
            pair.reverse()
        return self.maker.add_binary(str(self.rng.choice(("add", "sub", "mul"))), *pair)

    def add_head(self, x: Tensor) -> Tensor:
        """Global pooling and a dense layer, a dense layer over all, or little."""
        way = self.rng.random()
        if way < 0.3:
            x = self.maker.add_mean(x, keep_dims=bool(self.rng.random() < 0.4))
        elif way < 0.5:
            x = self.maker.add_pool(x, "average_pool_2d", (x.shape[1], x.shape[2]), (1, 1), "valid")
        elif way < 0.6:
            return self.maker.add_mean(x, (1, 2))
        elif way < 0.7:
            return self.maker.add_unary("relu", x)
        if len(x.shape) > 2 and self.rng.random() < 0.5:
            x = self.maker.add_reshape(x, (1, x.element_count))
        if x.element_count > 20_000:
            return self.maker.add_mean(x, (1, 2)) if len(x.shape) == 4 else x
        y = self.maker.add_dense(x, int(self.rng.integers(1, 11)))
        if self.rng.random() < 0.3:
            y = self.maker.add_dense(y, int(self.rng.choice(CHANNELS)))
        return self.maker.add_unary("softmax", y) if self.rng.random() < 0.4 else y
