"""Random ONNX nets of everything the reader knows, wired so that folding the wrong thing shows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx

from tests.export.onnx_nets import OnnxNet


@dataclass
class Draft:
    """A net under construction: the current value, its channels and positions, and older values to come back to."""

    net: OnnxNet
    choose: random.Random
    current: str
    channels: int
    sizes: tuple[int, ...]
    seen: list[tuple[str, int, tuple[int, ...]]] = field(default_factory=list)

    def move_to(self, name: str, channels: int | None = None, sizes: tuple[int, ...] | None = None) -> None:
        self.seen.append((self.current, self.channels, self.sizes))
        self.current = name
        self.channels = self.channels if channels is None else channels
        self.sizes = self.sizes if sizes is None else sizes

    def per_axis(self, value: int) -> list[int]:
        return [value] * len(self.sizes)


def make_random_net(seed: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A model with a free batch, and the shape of one sample."""
    choose = random.Random(seed)
    rank = choose.choice([1, 1, 2])
    channels = choose.choice([1, 2, 4, 6])
    sizes = (choose.choice([1, 5, 12, 31]),) if rank == 1 else (choose.choice([6, 9]), choose.choice([5, 8]))
    net = OnnxNet((channels, *sizes), seed=seed, opset=choose.choice([13, 17, 18, 20]))
    draft = Draft(net, choose, net.x, channels, sizes)
    for _ in range(choose.randint(2, 8)):
        choose.choice(STEPS)(draft)
    outputs = [choose.choice(HEADS)(draft)]
    if draft.seen and choose.random() < 0.3:
        draft.current, draft.channels, draft.sizes = choose.choice(draft.seen)
        outputs.append(choose.choice(HEADS)(draft))
    return net.model(*dict.fromkeys(outputs)), (channels, *sizes)


def add_conv(draft: Draft) -> None:
    choose, kernel, dilation = draft.choose, draft.choose.choice([1, 2, 3, 4]), draft.choose.choice([1, 1, 2])
    before, after = choose.choice([(0, 0), (1, 1), (1, 2), (0, 2), (3, 0)])
    stride = choose.choice([1, 1, 2, 3])
    span = (kernel - 1) * dilation + 1
    if min(draft.sizes) + before + after < span:
        return
    group = choose.choice([1, 1, 2, draft.channels])
    if draft.channels % group:
        return
    filters = group * choose.choice([1, 2, 3])
    name = draft.net.conv(
        draft.current,
        draft.channels,
        filters,
        draft.per_axis(kernel),
        group=group,
        strides=draft.per_axis(stride),
        dilations=draft.per_axis(dilation),
        pads=[*draft.per_axis(before), *draft.per_axis(after)],
    )
    sizes = tuple((size + before + after - span) // stride + 1 for size in draft.sizes)
    draft.move_to(name, filters, sizes)


def add_batchnorm(draft: Draft) -> None:
    draft.move_to(draft.net.batchnorm(draft.current, draft.channels))


def add_clamp(draft: Draft) -> None:
    net = draft.net
    if draft.choose.random() < 0.6:
        draft.move_to(net.add("Relu", draft.current))
    else:
        low, high = draft.choose.choice([(0.0, 6.0), (-1.0, 1.0), (0.0, 2.0), (-0.5, 0.5)])
        draft.move_to(net.add("Clip", draft.current, net.store(low), net.store(high)))


def add_curve(draft: Draft) -> None:
    net, x = draft.net, draft.current
    kind = draft.choose.choice(
        ["Sigmoid", "Tanh", "Elu", "LeakyRelu", "HardSigmoid", "silu", "hard_swish", "PRelu", "HardSwish"]
    )
    if kind == "silu":
        draft.move_to(net.add("Mul", x, net.add("Sigmoid", x)))
    elif kind == "hard_swish":
        gate = net.add("Clip", net.add("Add", x, net.store(3.0)), net.store(0.0), net.store(6.0))
        draft.move_to(net.add("Div", net.add("Mul", x, gate), net.store(6.0)))
    elif kind == "PRelu":
        slopes = net.draw(draft.channels, *draft.per_axis(1), low=0.0)
        draft.move_to(net.add("PRelu", x, slopes))
    elif kind != "HardSwish" or net.opset >= 14:
        draft.move_to(net.add(kind, x))


def add_constant(draft: Draft) -> None:
    net, kind = draft.net, draft.choose.choice(["Add", "Sub", "Mul", "Div"])
    shapes = [(), (draft.channels, *draft.per_axis(1)), draft.sizes, (1, draft.channels, *draft.sizes)]
    constant = net.draw(*draft.choose.choice(shapes), low=0.5, high=1.5)
    operands = [draft.current, constant]
    if kind in ("Add", "Mul", "Sub") and draft.choose.random() < 0.4:
        operands.reverse()
    draft.move_to(net.add(kind, *operands))


def add_residual(draft: Draft) -> None:
    """With an older value of the same shape, or with itself."""
    fitting = [name for name, channels, sizes in draft.seen if (channels, sizes) == (draft.channels, draft.sizes)]
    other = draft.choose.choice([*fitting, draft.current])
    kind = draft.choose.choice(["Add", "Add", "Sub", "Mul"])
    draft.move_to(draft.net.add(kind, draft.current, other))


def add_branches(draft: Draft) -> None:
    """Concat of convolutions, the value itself, a pool; then perhaps BatchNorm and ReLU."""
    net, choose = draft.net, draft.choose
    parts, channels = [], 0
    for _ in range(choose.randint(2, 4)):
        kind = choose.choice(["conv", "conv", "self", "pool", "relu"])
        if kind == "conv":
            parts.append(net.conv(draft.current, draft.channels, 3, draft.per_axis(1)))
            channels += 3
            continue
        if kind == "self":
            parts.append(draft.current)
        elif kind == "pool":
            pads = draft.per_axis(1) * 2
            parts.append(net.add("MaxPool", draft.current, kernel_shape=draft.per_axis(3), pads=pads))
        else:
            parts.append(net.add("Relu", draft.current))
        channels += draft.channels
    draft.move_to(net.add("Concat", *parts, axis=1), channels)
    if choose.random() < 0.5:
        draft.move_to(net.batchnorm(draft.current, channels))
    if choose.random() < 0.5:
        draft.move_to(net.add("Relu", draft.current))


def add_pool(draft: Draft) -> None:
    choose, kernel, stride = draft.choose, draft.choose.choice([2, 3]), draft.choose.choice([1, 2])
    before, after = choose.choice([(0, 0), (1, 1), (0, 1), (1, 0)])
    if min(draft.sizes) + before + after < kernel:
        return
    pads = [*draft.per_axis(before), *draft.per_axis(after)]
    kind = choose.choice(["MaxPool", "AveragePool"])
    extra = {"count_include_pad": choose.choice([0, 1])} if kind == "AveragePool" else {}
    name = draft.net.add(
        kind, draft.current, kernel_shape=draft.per_axis(kernel), strides=draft.per_axis(stride), pads=pads, **extra
    )
    draft.move_to(name, None, tuple((size + before + after - kernel) // stride + 1 for size in draft.sizes))


def add_slice(draft: Draft) -> None:
    net, choose = draft.net, draft.choose
    axis = choose.randint(1, 1 + len(draft.sizes))
    size = (draft.channels, *draft.sizes)[axis - 1]
    begin = choose.randint(0, size - 1)
    step = choose.choice([1, 2])
    ints = [net.store([value]) for value in (begin, size, axis, step)]
    count = len(range(begin, size, step))
    shape = [draft.channels, *draft.sizes]
    shape[axis - 1] = count
    draft.move_to(net.add("Slice", draft.current, *ints), shape[0], tuple(shape[1:]))


def add_pad(draft: Draft) -> None:
    net, choose = draft.net, draft.choose
    sides = [[choose.choice([0, 0, 1, 2]) for _ in range(1 + len(draft.sizes))] for _ in range(2)]
    name = net.add("Pad", draft.current, net.store([0, *sides[0], 0, *sides[1]]))
    shape = [
        size + sum(pair) for size, pair in zip((draft.channels, *draft.sizes), zip(*sides, strict=True), strict=True)
    ]
    draft.move_to(name, shape[0], tuple(shape[1:]))


def add_shuffle(draft: Draft) -> None:
    groups = draft.choose.choice([2, 3])
    if draft.channels % groups:
        return
    net = draft.net
    split = net.add("Reshape", draft.current, net.store([0, groups, draft.channels // groups, *draft.sizes]))
    swapped = net.add("Transpose", split, perm=[0, 2, 1, *range(3, 3 + len(draft.sizes))])
    draft.move_to(net.add("Reshape", swapped, net.store([0, draft.channels, *draft.sizes])))


def add_excite(draft: Draft) -> None:
    """Squeeze-and-excitation with fully connected layers."""
    net, channels = draft.net, draft.channels
    squeezed = net.add("Flatten", net.add("GlobalAveragePool", draft.current), axis=1)
    hidden = net.add("Relu", net.add("Gemm", squeezed, net.draw(3, channels), net.draw(3), transB=1))
    gate = net.add("Sigmoid", net.add("MatMul", hidden, net.draw(3, channels)))
    lifted = net.add("Unsqueeze", gate, net.store([2 + axis for axis in range(len(draft.sizes))]))
    draft.move_to(net.add("Mul", draft.current, lifted))


def add_linear_over_positions(draft: Draft) -> None:
    """nn.Linear on the channels-last view of a series, and back."""
    if len(draft.sizes) != 1:
        return
    net = draft.net
    last = net.add("Transpose", draft.current, perm=[0, 2, 1])
    mapped = net.add("Add", net.add("MatMul", last, net.draw(draft.channels, 5)), net.draw(5))
    if draft.choose.random() < 0.5:
        mapped = net.add("Relu", mapped)
    draft.move_to(net.add("Transpose", mapped, perm=[0, 2, 1]), 5)


def end_with_mean(draft: Draft) -> str:
    net = draft.net
    squeezed = net.add("Flatten", net.add("GlobalAveragePool", draft.current), axis=1)
    if draft.choose.random() < 0.3:
        squeezed = net.batchnorm(squeezed, draft.channels)
    return net.add("Gemm", squeezed, net.draw(draft.channels, 4), net.draw(4), alpha=0.5)


def end_flat(draft: Draft) -> str:
    net, count = draft.net, draft.channels
    for size in draft.sizes:
        count *= size
    flat = net.add("Reshape", draft.current, net.store([0, -1]))
    if draft.choose.random() < 0.3:
        flat = net.add("Relu", flat)
    return net.add("Add", net.add("MatMul", flat, net.draw(count, 3)), net.draw(3))


def end_with_softmax(draft: Draft) -> str:
    return draft.net.add("Softmax", end_with_mean(draft), axis=-1)


def end_bare(draft: Draft) -> str:
    return draft.net.add("Flatten", draft.current, axis=1)


STEPS: list[Callable[[Draft], None]] = [
    add_conv,
    add_conv,
    add_conv,
    add_batchnorm,
    add_batchnorm,
    add_clamp,
    add_clamp,
    add_curve,
    add_constant,
    add_residual,
    add_branches,
    add_branches,
    add_pool,
    add_slice,
    add_pad,
    add_shuffle,
    add_excite,
    add_linear_over_positions,
]
HEADS: list[Callable[[Draft], str]] = [end_with_mean, end_flat, end_with_softmax, end_bare]
