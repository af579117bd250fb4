"""How redundant the channels of feature maps are: equation 6 and Figure 13 of the DSP paper (arXiv 2602.12744).

For one sample and one feature map F (C, T), positions of images flattened:
- a channel is active if its mean over positions exceeds the mean over all channels of that map;
- the effective rank is the smallest number of singular values of the active channels' rows that explain 95 % of the
  variance: sum of their squares >= 0.95 of the sum of all squares;
- the efficiency score (6) is effective rank / active channels: 1 where no active channel repeats others.
Each is averaged over samples.

Ours, where the paper is open: the rows are taken as they are, not centred, since the paper speaks of the singular
values of the map itself. A map whose channels all have the same mean (an all-zero one, a single channel) has no active
channel: it counts as 0 active channels and rank 0, and is left out of the average efficiency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgeprune.errors import UnsupportedModelError
from edgeprune.prune.observed import ACTIVATIONS, ObservedTensor, find_observed_tensors
from edgeprune.prune.program_views import view_nodes
from edgeprune.prune.units import find_units

EXPLAINED_VARIANCE = 0.95
# Sums in float64 end in rounding noise of about 1e-13: equal means, and a share of exactly 95 %, must not turn on it.
ROUNDING = 1e-9
MOST_SAMPLES = 128
CHUNK_SAMPLES = 32
# A heat map is for eyes, and stands in report.json as text: neighbours are averaged above this.
HEAT_MAP_CHANNELS, HEAT_MAP_POSITIONS = 64, 128
HEAT_MAPS = 4
HEAT_MAP_FORMS = 2  # Figure 13: base and sparse-trained


@dataclass(frozen=True)
class Redundancy:
    """Figures of one observed tensor, means over samples.

    tensor: its node. layer: path of the layers it comes from. channels: C. active_channels, effective_rank: of all
    samples. efficiency: of the samples with an active channel, None without any. silent_samples: the others.
    """

    tensor: str
    layer: str
    channels: int
    active_channels: float
    effective_rank: float
    efficiency: float | None
    samples: int
    silent_samples: int


def describe_redundancy(
    forms: Mapping[str, fx.GraphModule], x_train: np.ndarray, *, most_samples: int = MOST_SAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Redundancy and heat maps of several forms of one model, for the report.

    forms: label -> raised program in eval mode. x_train: float32 (N, C, ...), of which at most `most_samples`, drawn by
    the seed, are looked at. Gives `redundancy`: {"samples", "forms": {label: [row of Redundancy]}}, and `heat_maps`:
    [{"tensor", "layer", "sample", "sizes": {label: [channels, positions]}, "forms": {label: [[value by position] by
    channel]}}], of at most HEAT_MAPS tensors and the first HEAT_MAP_FORMS forms; `sizes` are those before neighbours
    were averaged.
    """
    chosen = draw_samples(len(x_train), most_samples, seed)
    example = torch.from_numpy(np.resize(x_train, (2, *x_train.shape[1:]))).float()
    rows: dict[str, list[dict[str, Any]]] = {}
    shown: dict[str, dict[str, Any]] = {}
    for label, module in forms.items():
        tensors = find_observed_tensors(module, find_units(module, example))
        figures = measure_redundancy(module, tensors, x_train[chosen])
        rows[label] = [asdict(figure) for figure in figures]
        if len(rows) > HEAT_MAP_FORMS:
            continue
        picked = [t for t in tensors if t.node in shown] if shown else pick_evenly(tensors, HEAT_MAPS)
        layers = {figure.tensor: figure.layer for figure in figures}
        for tensor, (size, values) in zip(picked, draw_heat_maps(module, picked, x_train[chosen[0]]), strict=True):
            about = {"tensor": tensor.node, "layer": layers[tensor.node], "sample": int(chosen[0])}
            heat_map = shown.setdefault(tensor.node, {**about, "sizes": {}, "forms": {}})
            heat_map["sizes"][label], heat_map["forms"][label] = size, values
    return {"redundancy": {"samples": len(chosen), "forms": rows}, "heat_maps": list(shown.values())}


def draw_samples(count: int, most: int, seed: int) -> np.ndarray:
    """Indices of at most `most` of `count` samples, ascending; all of them where they are as few."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def measure_redundancy(
    module: fx.GraphModule, tensors: Sequence[ObservedTensor], x: np.ndarray
) -> tuple[Redundancy, ...]:
    """Active channels, effective rank and efficiency of each observed tensor over samples x (N, C, ...).

    Raises UnsupportedModelError for values that are not finite.
    """
    if not tensors:
        return ()
    active: list[list[Tensor]] = [[] for _ in tensors]
    ranks: list[list[Tensor]] = [[] for _ in tensors]
    for start in range(0, len(x), CHUNK_SAMPLES):
        maps = run_view(module, tensors, x[start : start + CHUNK_SAMPLES])
        for index, feature_map in enumerate(maps):
            if not feature_map.isfinite().all():
                name = name_layers(module, tensors[index].node)
                raise UnsupportedModelError(
                    f"the feature map behind {name} holds values that are not finite, so it has no singular values; "
                    "check that the training did not diverge, and that the data is normalised as in training"
                )
            is_active = find_active_channels(feature_map)
            active[index].append(is_active.sum(dim=1))
            ranks[index].append(compute_effective_ranks(feature_map, is_active))
    rows = []
    for tensor, counts, found in zip(tensors, active, ranks, strict=True):
        active_channels, effective_ranks = torch.cat(counts).double(), torch.cat(found).double()
        has_active = active_channels > 0
        scores = effective_ranks[has_active] / active_channels[has_active]
        rows.append(
            Redundancy(
                tensor.node,
                name_layers(module, tensor.node),
                len(tensor.units),
                float(active_channels.mean()),
                float(effective_ranks.mean()),
                float(scores.mean()) if len(scores) else None,
                len(has_active),
                int((~has_active).sum()),
            )
        )
    return tuple(rows)


def find_active_channels(feature_map: Tensor) -> Tensor:
    """Which channels of maps (N, C, ...) are active: bool (N, C)."""
    means = feature_map.flatten(2).double().mean(dim=2)
    overall = means.mean(dim=1, keepdim=True)
    return means - overall > ROUNDING * means.abs().amax(dim=1, keepdim=True)


def compute_effective_ranks(feature_map: Tensor, active: Tensor) -> Tensor:
    """Effective rank of the active channels of maps (N, C, ...), int64 (N,); active: bool (N, C).

    The squares of the singular values are the eigenvalues of F F^T, or of F^T F where positions are fewer: the smaller
    of the two is decomposed, for all samples at once. Channels that are not active are rows of zeros, which add
    singular values of zero only; as many as all samples can spare are left out.
    """
    rows = feature_map.flatten(2).double() * active[:, :, None]
    most = max(1, int(active.sum(dim=1).max()))
    first = active.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    rows = rows.gather(1, first[:, :, None].expand(-1, -1, rows.shape[2]))
    gram = rows @ rows.mT if rows.shape[1] <= rows.shape[2] else rows.mT @ rows
    squares = torch.linalg.eigvalsh(gram).flip(1).clamp(min=0)
    explained = squares.cumsum(dim=1)
    total = explained[:, -1:]
    too_few = explained < EXPLAINED_VARIANCE * total * (1 - ROUNDING)
    return torch.where(total[:, 0] > 0, too_few.sum(dim=1) + 1, 0)


def draw_heat_maps(
    module: fx.GraphModule, tensors: Sequence[ObservedTensor], sample: np.ndarray
) -> list[tuple[list[int], list[list[float]]]]:
    """([channels, positions], values by channel and position) of one sample (C, ...) for each tensor.

    Where there are more than HEAT_MAP_CHANNELS or HEAT_MAP_POSITIONS, values are means of neighbours.
    """
    maps = run_view(module, tensors, sample[None]) if tensors else ()
    pictures = []
    for feature_map in maps:
        full = feature_map[0].flatten(1).double().numpy()
        values = average_neighbours(average_neighbours(full, HEAT_MAP_CHANNELS, 0), HEAT_MAP_POSITIONS, 1)
        pictures.append((list(full.shape), [[float(f"{value:.3g}") for value in row] for row in values]))
    return pictures


def average_neighbours(values: np.ndarray, most: int, axis: int) -> np.ndarray:
    """At most `most` entries along an axis, each the mean of as many neighbours as the next one, give or take one."""
    size = values.shape[axis]
    if size <= most:
        return values
    starts = np.arange(most) * size // most
    sums = np.add.reduceat(values, starts, axis=axis)
    widths = np.diff(np.append(starts, size))
    return sums / np.expand_dims(widths, 1 - axis)


def pick_evenly(tensors: Sequence[ObservedTensor], most: int) -> list[ObservedTensor]:
    """At most `most` of the tensors, from the first to the last."""
    indices = np.unique(np.linspace(0, len(tensors) - 1, min(most, len(tensors))).round().astype(int))
    return [tensors[index] for index in indices]


def run_view(module: fx.GraphModule, tensors: Sequence[ObservedTensor], x: np.ndarray) -> tuple[Tensor, ...]:
    """The observed tensors for samples x, on the CPU; the layers' modes are put back."""
    modes = [(layer, layer.training) for layer in module.modules()]
    view = view_nodes(module, [tensor.node for tensor in tensors]).eval()
    parameter = next(module.parameters(), torch.empty(0))
    try:
        with torch.inference_mode():
            return tuple(
                output.cpu() for output in view(torch.from_numpy(x).to(device=parameter.device, dtype=parameter.dtype))
            )
    finally:
        for layer, mode in modes:
            layer.training = mode


def name_layers(module: fx.GraphModule, node: str) -> str:
    """Paths of the nearest layers that a tensor comes from, such as "blocks.2.norm + shortcuts.0"; else its own name.

    Behind an addition, a branch that ends in an activation right after a layer counts with that layer; one that ends in
    the activation of an earlier sum is the earlier sum's, and is left out.
    """
    start = next(candidate for candidate in module.graph.nodes if candidate.name == node)
    names: dict[str, None] = {}
    seen, waiting = set(), list(start.all_input_nodes)
    while waiting:
        found = waiting.pop(0)
        if found in seen:
            continue
        seen.add(found)
        inputs = found.all_input_nodes
        if found.op == "call_module":
            names[str(found.target)] = None
        elif found.target not in ACTIVATIONS or [node.op for node in inputs] == ["call_module"]:
            waiting += inputs
    return " + ".join(names) or node
