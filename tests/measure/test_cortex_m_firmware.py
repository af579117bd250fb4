"""`measure_firmware`: everything about a firmware in one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.measure.cortex_m import measure_firmware, qemu_runner
from edgeprune.target import load_target
from tests.measure.tiny_firmware import COPY_CYCLES_M4, LAYERS, SOURCES, compute, make_inputs, needs_qemu

INPUTS = make_inputs(20)


def test_a_board_has_a_latency() -> None:
    found = measure_firmware(SOURCES, load_target("nucleo-l4r5zi"), INPUTS, layers=LAYERS)
    assert found.run is not None
    assert np.array_equal(found.outputs, compute(INPUTS))
    assert found.layers[0].cycles == COPY_CYCLES_M4
    assert found.latency_ms == found.run.costs.cycles / 120_000  # type: ignore[operator]  # 120 MHz, in ms
    assert (found.method, found.cycle_error.status) == ("modelled_cycles", "validated")
    assert found.flash_bytes == found.sizes.text + found.sizes.rodata
    assert found.ram_bytes == 64 + 40 + 4 + found.run.peak_stack_bytes
    assert found.built.toolchain.startswith("zig")


def test_a_core_alone_has_none() -> None:
    found = measure_firmware(SOURCES, load_target("cortex-m4"), INPUTS)
    assert found.latency_ms is None
    assert found.cycles is not None


def test_the_same_counts_every_time() -> None:
    one, two = (measure_firmware(SOURCES, load_target("cortex-m4"), INPUTS, layers=LAYERS) for _ in range(2))
    assert one.run is not None
    assert two.run is not None
    assert one.run.costs == two.run.costs
    assert one.built == two.built


def test_without_qemu_sizes_of_an_m55_remain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    qemu_runner.find_qemu.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    found = measure_firmware(SOURCES, load_target("cortex-m55"), INPUTS)
    assert found.run is None
    assert found.unavailable.startswith("qemu-system-arm is not installed")
    assert (found.instructions, found.cycles, found.outputs, found.ram_bytes) == (None, None, None, None)
    assert found.flash_bytes > 50


@needs_qemu
def test_an_m55_runs_in_qemu() -> None:
    found = measure_firmware(SOURCES, load_target("cortex-m55"), INPUTS)
    assert np.array_equal(found.outputs, compute(INPUTS))
    assert found.instructions
    assert found.cycles is None
    assert found.latency_ms is None


def test_unknown_emulator() -> None:
    with pytest.raises(InputError, match="emulator 'renode' is not known; allowed: auto, unicorn, qemu"):
        measure_firmware(SOURCES, load_target("cortex-m4"), INPUTS, emulator="renode")
