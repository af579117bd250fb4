"""What one compile leaves behind, as plain data: the shape of report.json.

`CompileRecord` is filled by the pipeline; `to_json` turns it into the document that `schema.json` describes. Tables,
page and gates read that document only, so that a report can be drawn again from the file alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeprune.report.budget import METRIC_KINDS, BudgetResult, Metric

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Variant:
    """One form of the model: what it costs and how well it does on the test set.

    label: the name in the paper's table or a plain one ('Base', 'Scratch-trained', 'int8').
    form: 'torch', 'onnx' or 'tflite'. executor: what computed the outputs.
    parameters: weights and biases of this form; trainable and frozen parameters are of the PyTorch form.
    macs, flops: of one inference; flops = 2 x macs, of convolution and fully connected layers.
    weight_bytes: of weights and biases as stored. peak_activation_bytes: by live ranges, where the form has a graph.
    correct: which test samples it got right, by `mcnemar.pack_correct`. test_sha256: of those samples and their labels.
    """

    label: str
    form: str
    executor: str
    parameters: int
    macs: int
    weight_bytes: int
    trainable_parameters: int | None = None
    frozen_parameters: int | None = None
    peak_activation_bytes: int | None = None
    file_bytes: int | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    confusion_matrix: Sequence[Sequence[int]] | None = None
    test_samples: int = 0
    note: str = ""
    correct: str | None = None
    test_sha256: str | None = None

    @property
    def flops(self) -> int:
        return 2 * self.macs


@dataclass(frozen=True)
class LayerRow:
    """A layer before and after: None where it does not exist on that side."""

    name: str
    kind: str
    base_macs: int | None
    base_parameters: int | None
    base_channels: int | None
    macs: int | None
    parameters: int | None
    channels: int | None


@dataclass(frozen=True)
class Artifact:
    """A file that was written; `path` is relative to the output folder."""

    path: str
    kind: str
    bytes: int
    sha256: str


@dataclass
class CompileRecord:
    """All that is known of one compile so far; sections stay empty until their stage has run.

    fit: the search of a model that fits its budgets. device: what a device over ssh, or its emulator, answered.
    baseline: the comparison with an earlier report.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    pruning: Mapping[str, Any] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    layers: Sequence[LayerRow] = ()
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    sqnr: Sequence[Mapping[str, Any]] = ()
    latency: Sequence[Mapping[str, Any]] = ()
    firmware: Mapping[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    budgets: Sequence[BudgetResult] = ()
    fit: Mapping[str, Any] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    tools: Mapping[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    exit_code: int = 0
    outcome: str = ""


def to_json(record: CompileRecord, version: str) -> dict[str, Any]:
    """The record as the JSON document of `schema.json`."""
    variants = {name: {**to_plain(variant), "flops": variant.flops} for name, variant in record.variants.items()}
    metrics = {
        name: {**to_plain(metric), "unit": METRIC_KINDS[name].unit, "better": METRIC_KINDS[name].better}
        for name, metric in record.metrics.items()
    }
    fields = {item.name: to_plain(getattr(record, item.name)) for item in dataclasses.fields(record)}
    return {
        "schema_version": SCHEMA_VERSION,
        "edgeprune_version": version,
        **fields,
        "variants": variants,
        "metrics": metrics,
    }


def to_plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples as JSON's own types; raises TypeError for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [to_plain(item) for item in items]
    if value is None or isinstance(value, (bool, int, float, str)):
        # JSON has no infinity: a perfect SQNR or an unbounded figure is written as null
        return None if isinstance(value, float) and not np.isfinite(value) else value
    raise TypeError(f"{type(value).__name__} has no place in a report")
