"""Run the float program over calibration samples and note the range of every tensor."""

from __future__ import annotations

import numpy as np

from edgeprune.errors import InputError
from edgeprune.graph import Graph
from edgeprune.progress import SILENT, Progress
from edgeprune.quantize.observers import OBSERVERS, SummaryBuilder
from edgeprune.reference import run_graph

# Activations held at a time, all tensors together: 16 MB of float32 stays near the cache and fits any machine.
_ELEMENTS_AT_A_TIME = 1 << 22

# Beyond this, products of scales leave float32.
LARGEST_VALUE = 1e15


def calibrate(
    graph: Graph, samples_nhwc: np.ndarray, observer: str = "minmax", progress: Progress = SILENT
) -> dict[str, tuple[float, float]]:
    """The range (low, high) of every activation of a float32 program over calibration samples.

    samples_nhwc: float32 (N, ...), the program's input. observer: a key of `OBSERVERS`.
    Raises InputError for an empty or all-zero set, for NaN or infinity in the samples or in what a layer makes of them.
    """
    if observer not in OBSERVERS:
        raise InputError(f"observer is {observer!r}; allowed: {', '.join(OBSERVERS)}")
    _check_samples(graph, samples_nhwc)
    chosen = OBSERVERS[observer]
    # a pad with the lowest value goes to -infinity by intent; its range is its input's, with which it shares a scale
    padded = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.kind == "pad" and op.attrs["mode"] == "lowest"}
    names = [*graph.inputs, *(name for op in graph.ops for name in op.outputs if name not in padded)]
    builders = {name: SummaryBuilder(chosen.needs_counts) for name in names}
    elements = sum(graph.tensors[name].element_count for name in names)
    batch = max(1, _ELEMENTS_AT_A_TIME // max(elements, 1))
    with progress.step("calibrating", len(samples_nhwc)) as step:
        for start in range(0, len(samples_nhwc), batch):
            part = samples_nhwc[start : start + batch]
            with np.errstate(over="ignore", invalid="ignore"):  # reported below, by layer
                activations = run_graph(graph, part, keep="all")
            activations = {**activations, graph.inputs[0]: part}
            for name in names:
                builders[name].add(activations[name])
                if not abs(builders[name].minimum) < LARGEST_VALUE or not abs(builders[name].maximum) < LARGEST_VALUE:
                    raise InputError(_describe_overflow(graph, name))
            step.advance(len(part))
    ranges = {name: chosen.choose_range(builder.build()) for name, builder in builders.items()}
    for name, source in padded.items():
        ranges[name] = ranges[source]
    return ranges


def _check_samples(graph: Graph, samples: np.ndarray) -> None:
    if len(graph.inputs) != 1:
        raise InputError(f"{graph.name}: calibration takes programs with one input, found {len(graph.inputs)}")
    expected = graph.tensors[graph.inputs[0]].shape[1:]
    if len(samples) == 0:
        raise InputError("the calibration set is empty; give at least one sample of what the network will see")
    if tuple(samples.shape[1:]) != expected:
        raise InputError(
            f"calibration samples are {tuple(samples.shape[1:])} each (NHWC); the program takes {expected}"
        )
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).reshape(len(samples), -1).any(axis=1).sum())
        raise InputError(f"{count} of {len(samples)} calibration samples hold NaN or infinity; clean or drop them")
    if not samples.any():
        raise InputError("every calibration sample is all zeros: no range can be learned from it; give real samples")


def _describe_overflow(graph: Graph, name: str) -> str:
    producer = graph.producer(name)
    place = f"{producer.name} ({producer.kind})" if producer is not None else f"input {name}"
    return (
        f"{place}: its values reach NaN, infinity or more than {LARGEST_VALUE:g} on the calibration samples; "
        "int8 needs finite ones. Check the weights and whether the samples are normalised"
    )
