"""Random networks out of everything that couples channels, for property tests of pruning.

Every value in a network is (batch, channels, *spatial). A step is drawn from STEPS; it takes values of the pool and
adds one or more new ones. What nobody used at the end is concatenated and classified, so that every step counts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_CHANNELS = 48
ACTIVATIONS = (F.relu, F.elu, F.leaky_relu, F.silu, F.hardswish, F.relu6, torch.tanh, F.gelu)


@dataclass(frozen=True)
class Value:
    """A value of the network: its number and its channels."""

    index: int
    channels: int


class RandomNetwork(nn.Module):
    """A network drawn from a seed: input (batch, 2, *spatial), output (batch, 3)."""

    def __init__(self, seed: int, step_names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.spatial = self.rng.choice([(12,), (12,), (4, 5)])
        self.layers = nn.ModuleDict()
        self.bare = nn.ParameterDict()
        self.steps: list[tuple[tuple[int, ...], Callable[..., Tensor]]] = []
        self.step_names: list[str] = []
        self.pool = [Value(0, 2)]
        self.used: set[int] = set()
        self.last_conv: list[tuple[str, int, int]] = []
        add_convolution(self, self.pool[0])
        for _ in range(self.rng.randint(5, 12)):
            name = self.rng.choice(step_names or list(STEPS))
            before = len(self.pool)
            STEPS[name](self, self.rng.choice(self.pool[1:][-4:]))
            if len(self.pool) > before:
                self.step_names.append(name)
        leaves = [value for value in self.pool[1:] if value.index not in self.used]
        self.leaves = [value.index for value in leaves]
        channels = sum(value.channels for value in leaves)
        self.flatten_head = self.rng.random() < 0.5
        self.head = nn.Linear(channels * self.size if self.flatten_head else channels, 3)

    @property
    def size(self) -> int:
        """Elements per channel."""
        return int(torch.Size(self.spatial).numel())

    @property
    def spatial_axes(self) -> list[int]:
        return list(range(2, 2 + len(self.spatial)))

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for inputs, function in self.steps:
            values.append(function(self, *[values[index] for index in inputs]))
        joined = torch.cat([values[index] for index in self.leaves], 1)
        return self.head(joined.flatten(1) if self.flatten_head else joined.mean(self.spatial_axes))

    # -- for the steps below

    def add(self, inputs: Sequence[Value], channels: int, function: Callable[..., Tensor]) -> Value:
        """A new value, function(network, *inputs). The network is an argument, for a deep copy shares functions."""
        value = Value(len(self.steps) + 1, channels)
        self.steps.append((tuple(source.index for source in inputs), function))
        self.used.update(source.index for source in inputs)
        self.pool.append(value)
        return value

    def add_layer(self, layer: nn.Module) -> str:
        name = f"{type(layer).__name__.lower()}_{len(self.layers)}"
        self.layers[name] = layer
        return name

    def make_conv(self, inputs: int, outputs: int, size: int = 3, **options: object) -> nn.Module:
        kind = nn.Conv1d if len(self.spatial) == 1 else nn.Conv2d
        return kind(inputs, outputs, size, padding="same", **options)  # type: ignore[arg-type]

    def find_others(self, value: Value) -> list[Value]:
        """Other values with as many channels."""
        return [other for other in self.pool[1:] if other.channels == value.channels and other.index != value.index]


def add_convolution(net: RandomNetwork, source: Value) -> None:
    outputs = net.rng.choice([1, 3, 4, 6, 8, 12])
    conv = net.make_conv(source.channels, outputs, net.rng.choice([1, 2, 3]), bias=net.rng.random() < 0.5)
    name = net.add_layer(conv)
    net.last_conv.append((name, source.channels, outputs))
    net.add([source], outputs, lambda net, x: net.layers[name](x))


def add_depthwise(net: RandomNetwork, source: Value) -> None:
    outputs = source.channels * net.rng.choice([1, 1, 2])
    name = net.add_layer(net.make_conv(source.channels, outputs, groups=source.channels))
    net.add([source], outputs, lambda net, x: net.layers[name](x))


def add_grouped(net: RandomNetwork, source: Value) -> None:
    groups = [count for count in (2, 3, 4) if source.channels % count == 0 and source.channels > count]
    if groups:
        name = net.add_layer(net.make_conv(source.channels, 2 * source.channels, groups=net.rng.choice(groups)))
        net.add([source], 2 * source.channels, lambda net, x: net.layers[name](x))


def add_shared(net: RandomNetwork, source: Value) -> None:
    fitting = [(name, outputs) for name, inputs, outputs in net.last_conv if inputs == source.channels]
    if fitting:
        name, outputs = net.rng.choice(fitting)
        net.add([source], outputs, lambda net, x: net.layers[name](x))


def add_frozen(net: RandomNetwork, source: Value) -> None:
    conv = net.make_conv(source.channels, 4)
    conv.requires_grad_(False)
    name = net.add_layer(conv)
    net.add([source], 4, lambda net, x: net.layers[name](x))


def add_norm_activation(net: RandomNetwork, source: Value) -> None:
    norm = (nn.BatchNorm1d if len(net.spatial) == 1 else nn.BatchNorm2d)(source.channels)
    name, activation = net.add_layer(norm), net.rng.choice(ACTIVATIONS)
    net.add([source], source.channels, lambda net, x: activation(net.layers[name](x)))


def add_prelu(net: RandomNetwork, source: Value) -> None:
    name = net.add_layer(nn.PReLU(source.channels))
    net.add([source], source.channels, lambda net, x: net.layers[name](x))


def add_group_norm(net: RandomNetwork, source: Value) -> None:
    groups = net.rng.choice([1, source.channels])
    name = net.add_layer(nn.GroupNorm(groups, source.channels))
    net.add([source], source.channels, lambda net, x: net.layers[name](x))


def add_layer_norm(net: RandomNetwork, source: Value) -> None:
    over_channels = net.rng.random() < 0.5
    name = net.add_layer(nn.LayerNorm(source.channels if over_channels else net.spatial[-1]))

    def normalize(net: RandomNetwork, x: Tensor) -> Tensor:
        return net.layers[name](x.transpose(1, -1)).transpose(1, -1) if over_channels else net.layers[name](x)

    net.add([source], source.channels, normalize)


def add_concatenation(net: RandomNetwork, source: Value) -> None:
    other = net.rng.choice(net.pool)
    if source.channels + other.channels <= MAX_CHANNELS:
        net.add([source, other], source.channels + other.channels, lambda net, x, y: torch.cat([x, y], 1))


def add_time_concatenation(net: RandomNetwork, source: Value) -> None:
    others = net.find_others(source)
    if others:
        half = net.spatial[0] // 2

        def join(net: RandomNetwork, x: Tensor, y: Tensor) -> Tensor:
            return torch.cat([x.narrow(2, 0, half), y.narrow(2, half, x.shape[2] - half)], 2)

        net.add([source, net.rng.choice(others)], source.channels, join)


def add_sum(net: RandomNetwork, source: Value) -> None:
    others = net.find_others(source)
    if others:
        net.add([source, net.rng.choice(others)], source.channels, lambda net, x, y: x + y)


def add_gate(net: RandomNetwork, source: Value) -> None:
    others = net.find_others(source)
    if others:
        net.add([source, net.rng.choice(others)], source.channels, lambda net, x, y: x * torch.sigmoid(y))


def add_stack(net: RandomNetwork, source: Value) -> None:
    others = net.find_others(source)
    if others:
        net.add([source, net.rng.choice(others)], source.channels, lambda net, x, y: torch.stack([x, y], 1).mean(1))


def add_chunks(net: RandomNetwork, source: Value) -> None:
    if source.channels > 2:
        first = -(-source.channels // 2)
        net.add([source], first, lambda net, x: x.chunk(2, 1)[0])
        net.add([source], source.channels - first, lambda net, x: x.chunk(2, 1)[1])


def add_split(net: RandomNetwork, source: Value) -> None:
    if source.channels > 3:
        first = net.rng.randint(1, source.channels - 1)
        sizes = [first, source.channels - first]
        for index, channels in enumerate(sizes):
            net.add([source], channels, lambda net, x, index=index: torch.split(x, sizes, 1)[index])


def add_slice(net: RandomNetwork, source: Value) -> None:
    if source.channels > 3:
        start, step = net.rng.randint(0, source.channels // 2), net.rng.choice([1, 1, 2])
        end = net.rng.choice([net.rng.randint(start + 2, source.channels), -1])
        channels = len(range(source.channels)[start:end:step])
        if channels:
            net.add([source], channels, lambda net, x: x[:, start:end:step])


def add_narrow(net: RandomNetwork, source: Value) -> None:
    if source.channels > 2:
        start = net.rng.randint(0, source.channels - 2)
        net.add([source], 2, lambda net, x: x.narrow(1, start, 2))


def add_picked_channel(net: RandomNetwork, source: Value) -> None:
    index = net.rng.randrange(-source.channels, source.channels)
    net.add([source], source.channels, lambda net, x: x * torch.sigmoid(x[:, index]).unsqueeze(1))


def add_padding(net: RandomNetwork, source: Value) -> None:
    before, after = net.rng.randint(0, 3), net.rng.randint(0, 3)
    amounts = [0] * (2 * len(net.spatial)) + [before, after]
    value = net.rng.choice([0.0, 0.5])
    net.add([source], source.channels + before + after, lambda net, x: F.pad(x, amounts, value=value))


def add_border(net: RandomNetwork, source: Value) -> None:
    mode = net.rng.choice(["constant", "reflect", "replicate"])
    rank = len(net.spatial)
    pool = F.avg_pool1d if rank == 1 else F.avg_pool2d
    net.add([source], source.channels, lambda net, x: pool(F.pad(x, [1, 1] * rank, mode=mode), 3, 1))


def add_shuffle(net: RandomNetwork, source: Value) -> None:
    groups = [count for count in (2, 3) if source.channels % count == 0 and source.channels > count]
    if groups:
        count, spatial, channels = net.rng.choice(groups), net.spatial, source.channels

        def shuffle(net: RandomNetwork, x: Tensor) -> Tensor:
            grouped = x.reshape(x.shape[0], count, channels // count, *spatial)
            return grouped.transpose(1, 2).reshape(-1, channels, *spatial)

        net.add([source], channels, shuffle)


def add_unflatten(net: RandomNetwork, source: Value) -> None:
    if source.channels % 2 == 0:
        half = source.channels // 2
        if net.rng.random() < 0.5:
            net.add([source], half, lambda net, x: x.unflatten(1, (2, half)).amax(1))
        else:
            net.add([source], source.channels, lambda net, x: x.unflatten(1, (half, 2)).flip(1).flatten(1, 2))


def add_repeat(net: RandomNetwork, source: Value) -> None:
    if source.channels * 2 <= MAX_CHANNELS:
        ones = [1] * len(net.spatial)
        if net.rng.random() < 0.5:
            net.add([source], 2 * source.channels, lambda net, x: x.repeat(1, 2, *ones))
        else:
            net.add([source], 2 * source.channels, lambda net, x: torch.cat([x, x.flip(1)], 1))


def add_squeeze_excite(net: RandomNetwork, source: Value) -> None:
    reduce, expand = net.add_layer(nn.Linear(source.channels, 4)), net.add_layer(nn.Linear(4, source.channels))

    def excite(net: RandomNetwork, x: Tensor) -> Tensor:
        weights = torch.sigmoid(net.layers[expand](F.relu(net.layers[reduce](x.mean(net.spatial_axes)))))
        return x * weights.reshape(*weights.shape, *[1] * len(net.spatial))

    net.add([source], source.channels, excite)


def add_spatial_attention(net: RandomNetwork, source: Value) -> None:
    if net.rng.random() < 0.5:
        name = net.add_layer(net.make_conv(source.channels, 1))
        net.add([source], source.channels, lambda net, x: x * torch.sigmoid(net.layers[name](x)))
    else:  # reduces over channels
        net.add([source], source.channels, lambda net, x: x * torch.sigmoid(x.mean(1, keepdim=True)))


def add_linear(net: RandomNetwork, source: Value) -> None:
    name = net.add_layer(nn.Linear(source.channels, 6))
    net.add([source], 6, lambda net, x: net.layers[name](x.transpose(1, -1)).transpose(1, -1))


def add_linear_over_time(net: RandomNetwork, source: Value) -> None:
    name = net.add_layer(nn.Linear(net.spatial[-1], net.spatial[-1]))
    net.add([source], source.channels, lambda net, x: net.layers[name](x))


def add_flatten_linear(net: RandomNetwork, source: Value) -> None:
    name, spatial = net.add_layer(nn.Linear(source.channels * net.size, 5)), net.spatial

    def project(net: RandomNetwork, x: Tensor) -> Tensor:
        return net.layers[name](x.flatten(1)).reshape(x.shape[0], 5, *[1] * len(spatial)).expand(-1, -1, *spatial)

    net.add([source], 5, project)


def add_recurrent(net: RandomNetwork, source: Value) -> None:
    if len(net.spatial) == 1:
        two_ways = net.rng.random() < 0.5
        kind = net.rng.choice([nn.GRU, nn.LSTM])
        layer = kind(source.channels, 5, net.rng.choice([1, 2]), batch_first=True, bidirectional=two_ways)
        name = net.add_layer(layer)
        net.add([source], 10 if two_ways else 5, lambda net, x: net.layers[name](x.transpose(1, 2))[0].transpose(1, 2))


def add_pool(net: RandomNetwork, source: Value) -> None:
    pool = F.max_pool1d if len(net.spatial) == 1 else F.max_pool2d
    net.add([source], source.channels, lambda net, x: pool(x, 3, 1, 1))


def add_scale(net: RandomNetwork, source: Value) -> None:
    ones = (1,) * len(net.spatial)
    shape = net.rng.choice([(source.channels, *ones), (1,), (source.channels, *net.spatial), net.spatial])
    name = f"scale_{len(net.bare)}"
    net.bare[name] = nn.Parameter(torch.rand(shape) + 0.5)
    net.add([source], source.channels, lambda net, x: x * net.bare[name])


def add_transposed(net: RandomNetwork, source: Value) -> None:
    kind = nn.ConvTranspose1d if len(net.spatial) == 1 else nn.ConvTranspose2d
    name = net.add_layer(kind(source.channels, 5, 3, padding=1))
    net.add([source], 5, lambda net, x: net.layers[name](x))


def add_squeeze(net: RandomNetwork, source: Value) -> None:
    ones = [1] * len(net.spatial)
    name = net.add_layer(nn.Linear(source.channels, 4))
    spatial = net.spatial

    def project(net: RandomNetwork, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool1d(x, 1) if len(spatial) == 1 else F.adaptive_avg_pool2d(x, 1)
        return (
            net.layers[name](pooled.squeeze(tuple(range(2, 2 + len(spatial)))))
            .reshape(-1, 4, *ones)
            .expand(-1, 4, *spatial)
        )

    net.add([source], 4, project)


def add_odd(net: RandomNetwork, source: Value) -> None:
    """Operations that mix channels, or that the engine does not know."""
    odd = net.rng.choice(
        [
            lambda x: torch.softmax(x, 1),
            lambda x: torch.softmax(x, -1),
            lambda x: torch.cumsum(x, 1),
            lambda x: torch.cumsum(x, -1),
            lambda x: torch.roll(x, 1, 1),
            lambda x: torch.roll(x, 1, -1),
            lambda x: torch.flip(x, [1]),
            lambda x: x / (x.std(-1, keepdim=True) + 1),
            lambda x: x - x.amax(1, keepdim=True),
            lambda x: torch.stack(x.unbind(1)[::-1], 1),
            lambda x: torch.einsum("bcd,ce->bed", x.flatten(2), torch.eye(x.shape[1], dtype=x.dtype)).reshape(x.shape),
            lambda x: (
                x.flatten(2).transpose(1, 2).matmul(x.flatten(2)).mean((1, 2)).reshape(-1, *[1] * (x.dim() - 1)) + x
            ),
            lambda x: x[:, list(reversed(range(x.shape[1])))],
            lambda x: torch.where(x > 0, x, 0.1 * x) + torch.zeros_like(x),
            lambda x: F.instance_norm(x),
            lambda x: x.reshape(-1, *x.shape[2:]).cumsum(-1).reshape(x.shape),
        ]
    )
    net.add([source], source.channels, lambda net, x: odd(x))


Step = Callable[[RandomNetwork, Value], None]

STEPS: dict[str, Step] = {
    "convolution": add_convolution,
    "another convolution": add_convolution,  # twice: what follows a convolution is what matters
    "depthwise": add_depthwise,
    "grouped": add_grouped,
    "shared": add_shared,
    "frozen": add_frozen,
    "norm, activation": add_norm_activation,
    "another norm": add_norm_activation,
    "prelu": add_prelu,
    "group norm": add_group_norm,
    "layer norm": add_layer_norm,
    "concatenation": add_concatenation,
    "another concatenation": add_concatenation,
    "concatenation in time": add_time_concatenation,
    "sum": add_sum,
    "another sum": add_sum,
    "gate": add_gate,
    "stack": add_stack,
    "chunks": add_chunks,
    "split": add_split,
    "slice": add_slice,
    "narrow": add_narrow,
    "picked channel": add_picked_channel,
    "padding": add_padding,
    "border": add_border,
    "shuffle": add_shuffle,
    "unflatten": add_unflatten,
    "repeat": add_repeat,
    "squeeze-excite": add_squeeze_excite,
    "spatial attention": add_spatial_attention,
    "linear": add_linear,
    "linear over time": add_linear_over_time,
    "flatten, linear": add_flatten_linear,
    "recurrent": add_recurrent,
    "pool": add_pool,
    "scale": add_scale,
    "transposed": add_transposed,
    "squeeze": add_squeeze,
    "odd": add_odd,
}
