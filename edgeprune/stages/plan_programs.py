"""What a plan sizes: the model's int8 program as it is and, where it can be pruned, narrower ones. Nothing trains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edgeprune.artifacts import Dataset, LoadedModel, ModelInfo
from edgeprune.cache import Cache, Files, pack_array, pack_json, unpack_array, unpack_json
from edgeprune.config import Config, load_config_beside
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.export import read_onnx
from edgeprune.file_kinds import is_tflite_file
from edgeprune.graph import Graph
from edgeprune.layout import arrange_samples, sample_shape_of
from edgeprune.load import load_dataset, load_model, look_for_dataset, read_model_file
from edgeprune.lower import legalize, read_int8_program, read_tflite, write_tflite
from edgeprune.measure import profile_graph
from edgeprune.parity import count_affordable_samples
from edgeprune.progress import Progress
from edgeprune.prune import L1Norm, find_units, guard_units, prune_channels, select_lowest
from edgeprune.stages.narrowing import narrow_graph
from edgeprune.stages.prepare import check_fit, choose_normalization
from edgeprune.stages.prepare_program import draw_samples
from edgeprune.stages.sizing import export_float_graph, quantize_float_graph

WIDTHS = (100, 75, 50, 25)  # percent of the channels
# to calibrate on: ranges decide which kernels may be used, so as many as a compile takes, within a second or so
SAMPLES = 512
CALIBRATION_MACS = 500_000_000
RANDOM_SAMPLES = 8
_META = "plan.json"


@dataclass(frozen=True)
class StaticFigures:
    """Of one int8 program, the same on every target. arena_bytes: by the plainest executor, as in a report."""

    parameters: int
    macs: int
    model_bytes: int
    arena_bytes: int


@dataclass(frozen=True, eq=False)
class PlanPrograms:
    """programs: width in percent -> int8 program; figures: of each. samples: (N, C, ...) as they go into the network.

    is_random: whether the samples are no data. is_network: whether there is something to prune.
    """

    name: str
    format: str
    sha256: str
    input_shape: tuple[int, ...]
    programs: Mapping[int, Graph]
    figures: Mapping[int, StaticFigures]
    samples: np.ndarray
    source: str
    normalization: str
    is_random: bool
    is_network: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PlanSource:
    """Where the model and its samples come from: the options of the command line of these names."""

    model: Path
    data: str | None = None
    normalization: str | None = None
    factory: str | None = None
    allow_pickle: tuple[str, ...] = ()
    config: Path | None = None


def make_programs(source: PlanSource, cache: Cache, progress: Progress) -> PlanPrograms:
    """Read the model and make its programs, or find them where the same were made before.

    Raises InputError for what cannot be read or does not fit together, UnsupportedModelError for a network that cannot
    be exported.
    """
    content = read_model_file(source.model)
    config = load_config_beside(source.model, source.config)
    raw = _find_data(source, config)
    if source.factory is not None:  # code of the user's, which no key knows
        return _unpack(_make_files(source, content, raw, progress))
    inputs: dict[str, Any] = {
        "model": content,
        "name": source.model.stem,
        "samples": None if raw is None else raw.x_train,
        "source": None if raw is None else raw.source,
        "normalization": source.normalization,
        "allow_pickle": list(source.allow_pickle),
    }
    return _unpack(cache.reuse("plan-programs", inputs, lambda: _make_files(source, content, raw, progress)))


def _find_data(source: PlanSource, config: Config) -> Dataset | None:
    spec = look_for_dataset(source.model, source.data, config)
    return None if spec is None else load_dataset(spec)


def _make_files(source: PlanSource, content: bytes, raw: Dataset | None, progress: Progress) -> dict[str, bytes]:
    if is_tflite_file(source.model):
        made = _read_finished(source, content, raw)
    else:
        made = _make_from_network(source, raw, progress)
    return _pack(made)


@dataclass(frozen=True, eq=False)
class _Made:
    """Before it is packed; samples: normalised."""

    model: LoadedModel
    programs: Mapping[int, Graph]
    samples: np.ndarray
    source: str
    normalization: str
    is_random: bool
    notes: list[str]


def _make_from_network(source: PlanSource, raw: Dataset | None, progress: Progress) -> _Made:
    if raw is None and source.normalization == "per_channel":
        raise InputError("--normalization per_channel is fitted on data; give the data with --data, or leave it out")
    with progress.step("reading the model"):
        model = load_model(
            source.model,
            factory=source.factory,
            allow_pickle=source.allow_pickle,
            input_shape=None if raw is None else raw.sample_shape,
        )
    notes = [*(() if raw is None else raw.notes), *model.notes]
    samples, kind = _choose_samples(model, raw, source.normalization, notes)
    graphs = _make_graphs(model, notes, progress)
    programs = {}
    with progress.step("quantizing", total=len(graphs)) as step:
        for width, graph in graphs.items():
            count = count_affordable_samples(graph, len(samples), CALIBRATION_MACS)
            programs[width] = quantize_float_graph(graph, _spread(samples, count))
            step.advance()
    return _Made(model, programs, samples[:1], _name_source(raw), kind, raw is None, notes)


def _spread(samples: np.ndarray, count: int) -> np.ndarray:
    """So many of the samples, evenly over all of them: datasets come sorted by class."""
    return samples[np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)]


def _name_source(raw: Dataset | None) -> str:
    return "random samples" if raw is None else raw.source


def _choose_samples(
    model: LoadedModel, raw: Dataset | None, wanted: str | None, notes: list[str]
) -> tuple[np.ndarray, str]:
    """Training samples, or random ones, as they go into the network; and the kind of normalization."""
    if raw is None:
        notes.append(
            "no data was given: sized on random samples, so that the ranges of activations, and channels that never "
            "answer, are unknown; give the training data with --data"
        )
        samples = np.random.default_rng(0).standard_normal((RANDOM_SAMPLES, *model.input_shape)).astype(np.float32)
        return samples, "none"
    normalization = choose_normalization(wanted, model, raw, notes)
    data = raw.normalized(normalization)
    check_fit(model, data)
    return _spread(data.x_train, SAMPLES), normalization.kind


def _make_graphs(model: LoadedModel, notes: list[str], progress: Progress) -> dict[int, Graph]:
    """The float program at each width that can be had."""
    if model.module is None:
        notes.append(
            f"{model.name} is an ONNX file, which can be deployed but not pruned: sized as it is. Give the PyTorch "
            "model (edgeprune.save_model) to see smaller widths"
        )
        content = onnx.load_model_from_string(model.onnx_bytes or b"")
        return {100: legalize(read_onnx(content, input_shape=model.input_shape))}
    with progress.step("exporting the model"):
        whole = export_float_graph(model.module, model.input_shape)
    return {100: whole, **_narrow(model, whole, notes, progress)}


def _narrow(model: LoadedModel, whole: Graph, notes: list[str], progress: Progress) -> dict[int, Graph]:
    """The widths below the whole one, each by the filters of smallest L1 norm in every layer, without training."""
    assert model.module is not None
    example = torch.zeros(2, *model.input_shape)
    units = find_units(model.module, example)
    scores = L1Norm().score_units(model.module, units)
    graphs: dict[int, Graph] = {}
    kept: list[int] = []  # widths that are no narrower than the one before
    before: frozenset[int] = frozenset()
    with progress.step("smaller widths", total=len(WIDTHS) - 1) as step:
        for width in WIDTHS[1:]:
            removed = guard_units(units, select_lowest(units, scores, 1 - width / 100))
            if removed == before:
                kept.append(width)
            else:
                narrow = narrow_graph(whole, units, removed)
                graphs[width] = narrow or _export_pruned(model, example, removed)
            before = removed
            step.advance()
    if kept:
        reasons = "; ".join(f"layer {name}: {reason}" for name, reason in units.pinned[:3])
        what = "nothing can be pruned" if not graphs else "nothing more can be pruned"
        notes.append(f"{what} at {', '.join(map(str, kept))} % of the channels{f' ({reasons})' if reasons else ''}")
    return graphs


def _export_pruned(model: LoadedModel, example: torch.Tensor, removed: frozenset[int]) -> Graph:
    """The long way, for networks that move their channels about."""
    assert model.module is not None
    return export_float_graph(prune_channels(model.module, example, removed).module, model.input_shape)


def _read_finished(source: PlanSource, content: bytes, raw: Dataset | None) -> _Made:
    """A full-int8 .tflite, which is what it is."""
    try:
        program = read_int8_program(content)
    except (InputError, UnsupportedModelError) as error:
        raise type(error)(f"{source.model.name}: {error}") from error
    tensor = program.graph.tensors[program.graph.inputs[0]]
    assert tensor.quant is not None  # read_int8_program
    shape = sample_shape_of(tensor.shape)
    sha256 = hashlib.sha256(content).hexdigest()
    model = LoadedModel(source.model.stem, "tflite", sha256, shape, None, None, ModelInfo())
    notes = [
        *program.notes,
        f"{source.model.name} is a finished int8 program: sized as it is. Give the PyTorch model it was made from to "
        "see smaller widths",
    ]
    if raw is None:
        notes.append("no data was given: run on random inputs, on which instructions depend by a few in a thousand")
        samples, kind = draw_samples(tensor.shape, tensor.quant, 0).x_train[:1], "none"
    else:
        normalization = choose_normalization(source.normalization, model, raw, notes)
        samples, kind = raw.normalized(normalization).x_train[:1], normalization.kind
        arrange_samples(samples, tensor.shape)  # raises where they don't fit
    return _Made(model, {100: program.graph}, samples, _name_source(raw), kind, raw is None, notes)


def _pack(made: _Made) -> dict[str, bytes]:
    meta = {
        "name": made.model.name,
        "format": made.model.format,
        "sha256": made.model.sha256,
        "input_shape": list(made.model.input_shape),
        "widths": list(made.programs),
        "source": made.source,
        "normalization": made.normalization,
        "is_random": made.is_random,
        "is_network": made.model.module is not None,
        "notes": made.notes,
    }
    programs = {f"{width}.tflite": write_tflite(graph) for width, graph in made.programs.items()}
    return {_META: pack_json(meta), "samples.npy": pack_array(made.samples), **programs}


def _unpack(files: Files) -> PlanPrograms:
    meta = unpack_json(files[_META])
    programs = {width: read_tflite(files[f"{width}.tflite"]) for width in meta["widths"]}
    return PlanPrograms(
        name=meta["name"],
        format=meta["format"],
        sha256=meta["sha256"],
        input_shape=tuple(meta["input_shape"]),
        programs=programs,
        figures={width: _measure_static(graph, files[f"{width}.tflite"]) for width, graph in programs.items()},
        samples=unpack_array(files["samples.npy"]),
        source=meta["source"],
        normalization=meta["normalization"],
        is_random=meta["is_random"],
        is_network=meta["is_network"],
        notes=tuple(meta["notes"]),
    )


def _measure_static(graph: Graph, content: bytes) -> StaticFigures:
    profile = profile_graph(graph)
    return StaticFigures(profile.parameters, profile.macs, len(content), profile.peak_activation_bytes)
