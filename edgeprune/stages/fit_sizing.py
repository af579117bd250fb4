"""What a network would take at other widths: predicted without a compiler, or built from weights not yet retrained.

A network's own program, cut to other widths (`narrowing`), says what the retrained one will take: its size hardly
depends on the values of weights. It does depend on the ranges of activations, which decide whether a layer can have the
quick kernel, so these are calibrated on all the samples that the compiled program is calibrated on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from torch import fx

from edgeprune.doctor import describe_rig
from edgeprune.errors import EdgepruneError
from edgeprune.graph import Graph
from edgeprune.lower import write_tflite
from edgeprune.prune import ChannelUnits, find_units, guard_units, prune_channels
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.report import to_plain
from edgeprune.stages.build import Exported, calibrate_network, choose_calibration_samples
from edgeprune.stages.narrowing import narrow_graph
from edgeprune.stages.prepare import Job
from edgeprune.stages.sizing import Sizing, export_float_graph, measure_sizing, predict_sizing
from edgeprune.target import describe_target

# a budget's name -> the figure of a Sizing; latency in microseconds
FIGURES: Mapping[str, str] = {
    "latency": "latency_us",
    "cycles": "cycles",
    "instructions": "instructions",
    "ram": "ram_bytes",
    "flash": "flash_bytes",
}

Figures = Mapping[str, float | None]


class WidthSizer:
    """Figures of one network at any widths.

    predictions: how many were made in this run.
    """

    def __init__(self, job: Job, module: fx.GraphModule, exported: Exported) -> None:
        self.job, self.module, self.exported = job, module, exported
        self.units: ChannelUnits = find_units(module, job.example)
        self.predictions = 0
        self._predicted: dict[frozenset[int], Figures] = {}

    @cached_property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        return calibrate_network(self.job, self.exported, self._samples)

    @cached_property
    def _samples(self) -> np.ndarray:
        return choose_calibration_samples(self.job)

    @cached_property
    def _anchor(self) -> Sizing:
        """The network as it is, built and run."""
        with self.job.progress.step("firmware to predict from") as step:
            sizing = build_sizing(self.job, self.cut(frozenset()))
            step.advance()
        return sizing

    def cut(self, removed: frozenset[int]) -> Graph:
        """The int8 program without these units."""
        removed = guard_units(self.units, removed)
        narrowed = narrow_graph(self.exported.graph, self.units, removed)
        if narrowed is not None:
            return quantize_graph(narrowed, self._ranges)
        pruned = prune_channels(self.module, self.job.example, removed).module
        graph = export_float_graph(pruned, self.job.model.input_shape)
        return quantize_graph(graph, calibrate(graph, self._samples, self.job.settings.observer))

    def predict(self, removed: frozenset[int]) -> Figures:
        """From generated code alone, a tenth of a second or several."""
        if removed not in self._predicted:
            sizing = predict_sizing(
                self.cut(removed), self.job.target, memory=self.job.settings.memory, anchor=self._anchor
            )
            self._predicted[removed] = list_figures(sizing)
            self.predictions += 1
        return self._predicted[removed]

    def measure(self, removed: frozenset[int]) -> Figures:
        """Built and run, with the weights that the network has now."""
        if not removed:
            return list_figures(self._anchor)
        return measure_program(self.job, self.cut(removed))

    def measure_whole(self) -> tuple[Figures, str]:
        """The network as it is, and why a figure is missing."""
        found = self.job.cache.reuse_json(
            "fit-base",
            {**describe_setting(self.job), "program": self.exported.model},
            lambda: {"figures": list_figures(self._anchor), "reason": self._anchor.reason},
        )
        return found["figures"], found["reason"]


def list_figures(sizing: Sizing) -> Figures:
    """A sizing's figures by the names of budgets."""
    return {name: getattr(sizing, figure) for name, figure in FIGURES.items()}


def build_sizing(job: Job, graph: Graph) -> Sizing:
    """Built and run on a training sample: the test set stays closed."""
    settings = job.settings
    samples: np.ndarray = job.data.x_train[:1]
    return measure_sizing(
        graph,
        job.target,
        samples,
        memory=settings.memory,
        toolchain=settings.toolchain,
        emulator=settings.emulator,
    )


def measure_program(job: Job, graph: Graph) -> Figures:
    """An int8 program's figures, built and run. Raises EdgepruneError where it could not be."""

    def make() -> Any:
        with job.progress.step("firmware of the widths") as step:
            sizing = build_sizing(job, graph)
            step.advance()
        if sizing.anchor is None:  # the base was built and run with the same tools
            raise EdgepruneError(f"--fit: a narrower network could not be built or run: {sizing.reason}")
        return list_figures(sizing)

    inputs = {**describe_setting(job), "program": write_tflite(graph), "names": [op.name for op in graph.ops]}
    found: Figures = job.cache.reuse_json("fit-sizing", inputs, make)
    return found


def describe_setting(job: Job) -> dict[str, Any]:
    """All but the program that decides a figure."""
    settings = job.settings
    return {
        "target": to_plain(describe_target(job.target)),
        "memory": settings.memory,
        **describe_rig(settings.toolchain, settings.emulator),
        "sample": job.data.x_train[:1],
        "normalization": asdict(job.normalization),
    }
