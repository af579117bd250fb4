"""What the compiled model costs, each figure with the method it was got by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from edgeprune.graph import Graph
from edgeprune.measure import LayerMacs, LayerProfile, Profile, count_macs, measure_host_latency, profile_graph
from edgeprune.measure.host import name_cpu
from edgeprune.report import METRIC_KINDS, CompileRecord, LayerRow, Metric
from edgeprune.stages.build import Programs
from edgeprune.stages.device import DeviceResult
from edgeprune.stages.firmware import FirmwareResult
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel

# what a figure of the device itself waits for, by family of targets
NEEDS: Mapping[str, str] = {"cortex-a": "needs a run on the device (--device ssh://user@host)"}
LINUX_LACKS = "under Linux no figure is the model's alone; the programs' sizes are in their table"


def measure_latencies(
    job: Job, programs: Programs, firmware: FirmwareResult | None, device: DeviceResult | None
) -> Sequence[Mapping[str, Any]]:
    """Times on the device, or modelled, or why there are none; and on this host, of ONNX Runtime and LiteRT."""
    files = {
        "ONNX Runtime float32": programs.float32_onnx,
        "ONNX Runtime int8": programs.int8_onnx,
        "LiteRT float32": programs.float32_tflite,
        "LiteRT int8": programs.int8_tflite,
    }
    rows: list[dict[str, Any]] = []
    if firmware is not None:
        rows.append(_describe_modelled_latency(job, firmware))
    elif device is not None and device.latency_us is not None:
        rows += [dict(row) for row in device.latency]
    elif job.target.family in NEEDS:
        rows.append({"name": job.target.name, "method": "unavailable", "reason": _explain_missing(job, device)})
    made = {name: content for name, content in files.items() if content is not None}
    with job.progress.step("latency on this host", total=len(made)) as step:
        for name, content in made.items():
            inputs = {"name": name, "model": content, "sample": job.data.x_test[0], "cpu": name_cpu()}
            rows.append(job.cache.reuse_json("host-latency", inputs, partial(_time_on_host, name, content, job)))
            step.advance()
    return rows


def _explain_missing(job: Job, device: DeviceResult | None) -> str:
    """Why there is no figure of the device's own."""
    return NEEDS[job.target.family] if device is None else device.reason


def _time_on_host(name: str, content: bytes, job: Job) -> dict[str, Any]:
    latency = measure_host_latency(name, content, job.data.x_test[0])
    return {**dataclasses.asdict(latency), "reason": f"{latency.runtime}, {latency.threads} thread"}


def _describe_modelled_latency(job: Job, firmware: FirmwareResult) -> dict[str, Any]:
    metric, measured = _device_metrics(job, firmware)["latency"], firmware.measured
    if metric.value is None or measured is None:
        return {"name": job.target.name, "method": "unavailable", "reason": metric.reason}
    clock = f"{measured['cycles']:,} cycles at {(job.target.clock_hz or 0) / 1e6:g} MHz"
    model = "cycle model {status}: {note}".format(**measured["cycle_model"])
    return {
        "name": job.target.name,
        "method": metric.method,
        "n": 1,
        **dict.fromkeys(("p50_us", "min_us"), metric.value),
        "reason": f"{clock}, no flash wait states, not measured on silicon; {model}",
    }


def compare_layers(job: Job, pruned: PrunedModel, programs: Programs) -> Sequence[LayerRow]:
    """Every layer with weights, before and after, by the names it has in the user's model."""
    if pruned.module is None:
        layers: dict[str, LayerMacs | LayerProfile] = {
            layer.name: layer
            for layer in profile_graph(programs.float_graph or programs.int8_graph).layers
            if layer.parameters
        }
        return [_compare(layer, layer) for layer in layers.values()]
    base = {layer.name: layer for layer in count_macs(pruned.variants["base"][1], job.model.input_shape).layers}
    final = {layer.name: layer for layer in count_macs(pruned.module, job.model.input_shape).layers}
    names = [*base, *(name for name in final if name not in base)]
    return [_compare(base.get(name), final.get(name)) for name in names]


def describe_profiles(base_graph: Graph | None, programs: Programs) -> Mapping[str, Mapping[str, Any]]:
    """The base in float32, where there is one, and the compiled program in int8, operation by operation."""
    return {
        name: _describe_profile(profile_graph(graph))
        for name, graph in (("base", base_graph), ("int8", programs.int8_graph))
        if graph is not None
    }


def _describe_profile(profile: Profile) -> Mapping[str, Any]:
    layers = [{**dataclasses.asdict(layer), "flops": layer.flops} for layer in profile.layers]
    return {**dataclasses.asdict(profile), "flops": profile.flops, "layers": layers}


def _compare(before: LayerMacs | LayerProfile | None, after: LayerMacs | LayerProfile | None) -> LayerRow:
    known = after or before
    assert known is not None  # a name comes from one of the two

    def count(layer: LayerMacs | LayerProfile | None, figure: str) -> int | None:
        return None if layer is None else getattr(layer, figure)

    return LayerRow(
        name=known.name,
        kind=known.kind,
        base_macs=count(before, "macs"),
        base_parameters=count(before, "parameters"),
        base_channels=count(before, "output_channels"),
        macs=count(after, "macs"),
        parameters=count(after, "parameters"),
        channels=count(after, "output_channels"),
    )


def collect_metrics(
    job: Job, record: CompileRecord, firmware: FirmwareResult | None, device: DeviceResult | None
) -> dict[str, Metric]:
    """The figures that budgets and gates speak of; None with the reason where one cannot be had."""
    int8, base = record.variants["int8"], record.variants.get("base")
    metrics = {
        "model_bytes": Metric("model_bytes", int8.file_bytes, "static"),
        "arena_bytes": Metric("arena_bytes", int8.peak_activation_bytes, "static"),
        "parameters": Metric("parameters", int8.parameters, "static"),
        "macs": Metric("macs", int8.macs, "static"),
        "flops": Metric("flops", int8.flops, "static"),
    }
    for name, value, before in (
        ("accuracy", int8.accuracy, None if base is None else base.accuracy),
        ("macro_f1", int8.macro_f1, None if base is None else base.macro_f1),
    ):
        # scores come from running the integer program on this machine
        metrics[name] = _score_metric(name, value, "the model is no classifier of this data's classes")
        drop = None if value is None or before is None else before - value
        metrics[f"{name}_drop"] = _score_metric(f"{name}_drop", drop, "there is no PyTorch model to compare with")
    if firmware is not None:
        metrics |= _device_metrics(job, firmware)
    else:
        metrics |= _host_metrics(job, record)
        metrics["latency"] = _latency_metric(job, record, device)
    if set(metrics) != set(METRIC_KINDS):
        raise AssertionError(f"figures without a value: {set(METRIC_KINDS) ^ set(metrics)}")
    return metrics


def _host_metrics(job: Job, record: CompileRecord) -> dict[str, Metric]:
    """Figures of a microcontroller on a target that is none; instructions of the 64-bit program for ARM Linux."""
    reason = LINUX_LACKS if job.target.family in NEEDS else "the host has no such figure"
    metrics = {name: Metric(name, None, None, reason) for name in ("flash", "ram", "instructions", "cycles")}
    counted = record.device.get("linux", {}).get("counted")
    if counted is not None:
        metrics["instructions"] = Metric("instructions", counted["instructions"], counted["method"])
    return metrics


def _device_metrics(job: Job, firmware: FirmwareResult) -> dict[str, Metric]:
    """What the firmware takes: sizes from the linked file, the rest from the emulated run."""
    measured = firmware.measured or {}
    milliseconds = measured.get("latency_ms")
    reasons = dict.fromkeys(("flash", "ram", "instructions", "cycles", "latency"), firmware.section["reason"])
    if firmware.is_run:
        reasons["cycles"] = f"there is no cycle model for {measured['core']}"
        reasons["latency"] = (
            reasons["cycles"]
            if measured["cycles"] is None
            else f"{job.target.name} states no clock; name a board of `edgeprune targets`, or a .toml with clock_hz"
        )
    figures: Mapping[str, tuple[float | None, str]] = {
        "flash": (measured.get("flash_bytes"), "static"),
        "ram": (measured.get("ram_bytes"), "emulated_instructions"),
        "instructions": (measured.get("instructions"), "emulated_instructions"),
        "cycles": (measured.get("cycles"), "modelled_cycles"),
        "latency": (None if milliseconds is None else 1000 * milliseconds, "modelled_cycles"),
    }
    return {
        name: Metric(name, value, method) if value is not None else Metric(name, None, None, reasons[name])
        for name, (value, method) in figures.items()
    }


def _score_metric(name: str, fraction: float | None, reason: str) -> Metric:
    if fraction is None:
        return Metric(name, None, None, reason)
    return Metric(name, round(100 * fraction, 6), "host")


def _latency_metric(job: Job, record: CompileRecord, device: DeviceResult | None) -> Metric:
    """On a device: the static program's median. On the host: LiteRT's int8 median; it is no other device's."""
    if device is not None and device.latency_us is not None:
        return Metric("latency", device.latency_us, "device")
    if job.target.family in NEEDS:
        return Metric("latency", None, None, _explain_missing(job, device))
    row = next(row for row in record.latency if row["name"] == "LiteRT int8")
    return Metric("latency", row["p50_us"], "host")
