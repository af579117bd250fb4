"""What the report and the firmware's own README say of a firmware."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgeprune.codegen import Firmware, MeasuredSizes
from edgeprune.measure.cortex_m import FirmwareMeasurement


def describe_firmware(
    firmware: Firmware, measurement: FirmwareMeasurement | None, reason: str, different: int
) -> Mapping[str, Any]:
    """The report's section. measurement: None where nothing could be built, without a run where nothing could be run.

    reason: why. different: how many output values are not the reference's.
    """
    costs = {} if measurement is None else {cost.name: cost for cost in measurement.layers}
    layers = []
    for layer in firmware.layers:
        cost = costs.get(layer.function)
        layers.append(
            {
                **dataclasses.asdict(layer),
                "instructions": None if cost is None else cost.instructions,
                "cycles": None if cost is None else cost.cycles,
            }
        )
    return {
        "mode": firmware.mode,
        "streams": next(choice.streams for choice in firmware.choices if choice.mode == firmware.mode),
        "arena_bytes": firmware.arena_bytes,
        "constant_bytes": firmware.constant_bytes,
        "choices": [dataclasses.asdict(choice) for choice in firmware.choices],
        "dead_channels": dict(firmware.dead_channels),
        "layers": layers,
        "memory_plan": dataclasses.asdict(firmware.memory_plan),
        "measured": None if measurement is None else _describe_measurement(measurement, different),
        "reason": reason,
    }


def _describe_measurement(measurement: FirmwareMeasurement, different: int) -> Mapping[str, Any]:
    """Figures of the built firmware; those of a run are None where there was none."""
    sizes, run, error = measurement.sizes, measurement.run, measurement.cycle_error
    return {
        "core": measurement.core,
        "toolchain": measurement.built.toolchain,
        "flags": list(measurement.built.flags),
        "emulator": None if run is None else run.emulator,
        "samples": 0 if measurement.outputs is None else len(measurement.outputs),
        "different": different,
        "flash_bytes": measurement.flash_bytes,
        "text": sizes.text,
        "rodata": sizes.rodata,
        "data": sizes.data,
        "bss": sizes.bss,
        "ram_bytes": measurement.ram_bytes,
        "peak_stack_bytes": None if run is None else run.peak_stack_bytes,
        "input_bytes": measurement.buffers.input,
        "output_bytes": measurement.buffers.output,
        "instructions": measurement.instructions,
        "cycles": measurement.cycles,
        "cycle_model": {"status": error.status, "note": error.note},
        "latency_ms": measurement.latency_ms,
    }


def describe_for_readme(firmware: Firmware, measurement: FirmwareMeasurement) -> MeasuredSizes:
    """The same figures for the README in the firmware's folder; the firmware has been run."""
    assert measurement.run is not None
    sizes = measurement.sizes
    rows: list[tuple[str, str]] = [
        ("flash", f"{measurement.flash_bytes:,} bytes"),
        ("RAM", f"{measurement.ram_bytes:,} bytes"),
        ("of it arena", f"{firmware.arena_bytes:,} bytes"),
        ("of it peak stack", f"{measurement.run.peak_stack_bytes:,} bytes"),
        ("instructions of one inference", f"{measurement.instructions:,}"),
    ]
    if measurement.cycles is not None:
        rows.append(("modelled cycles", f"{measurement.cycles:,} ({measurement.cycle_error.status})"))
    method = (
        f"Built with {measurement.built.toolchain}, counted in {measurement.run.emulator} on "
        f"{len(measurement.run.outputs)} inputs. Nothing here was measured on silicon."
    )
    sections = ", ".join(f"{name} {getattr(sizes, name):,}" for name in ("text", "rodata", "data"))
    return MeasuredSizes(method, tuple(rows), sections)
