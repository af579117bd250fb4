"""The arena over time: what the plan says is what the generated C does."""

from __future__ import annotations

import functools
import itertools
import re

import pytest

from edgeprune.codegen.firmware import Firmware, generate_firmware
from edgeprune.codegen.memory import align
from edgeprune.codegen.memory_plan import PlannedBuffer, describe_memory
from edgeprune.codegen.program import make_program
from edgeprune.codegen.schedule import PACES, Scheduler
from edgeprune.codegen.upright import stand_up
from edgeprune.target import load_target
from tests.codegen.harness import make_int8_network

CASES = [("resnet", "arena"), ("resnet", "streaming"), ("fcn", "arena"), ("fcn", "streaming")]
ADDRESS = re.compile(r"\bmemory \+ (\d+)")


@functools.cache
def _make_firmware(name: str, memory: str) -> Firmware:
    return generate_firmware(make_int8_network(name), load_target("cortex-m4"), memory=memory)


def _is_alive(buffer: PlannedBuffer, step: int) -> bool:
    return buffer.first <= step <= buffer.last


@pytest.mark.parametrize(("name", "memory"), CASES)
def test_buffers_alive_together_do_not_overlap_and_lie_in_the_arena(name: str, memory: str) -> None:
    plan = _make_firmware(name, memory).memory_plan
    hosts = [item for item in plan.buffers if not item.inside]
    for one, other in itertools.combinations(hosts, 2):
        if any(_is_alive(one, step) and _is_alive(other, step) for step in range(len(plan.steps))):
            assert one.offset + one.bytes <= other.offset or other.offset + other.bytes <= one.offset, (one, other)
    assert max(align(item.offset + item.bytes) for item in hosts) == plan.bytes


@pytest.mark.parametrize(("name", "memory"), CASES)
def test_live_bytes_are_those_of_the_buffers(name: str, memory: str) -> None:
    firmware = _make_firmware(name, memory)
    plan = firmware.memory_plan
    for step, live in enumerate(plan.live_bytes):
        assert live == sum(align(item.bytes) for item in plan.buffers if _is_alive(item, step) and not item.inside)
    assert plan.live_bytes == tuple(layer.live_bytes for layer in firmware.layers)
    assert plan.steps == tuple(layer.name for layer in firmware.layers)
    assert plan.bytes == firmware.arena_bytes >= max(plan.live_bytes)


@pytest.mark.parametrize(("name", "memory"), CASES)
def test_every_address_of_the_c_code_lies_in_a_buffer_of_the_plan(name: str, memory: str) -> None:
    firmware = _make_firmware(name, memory)
    plan = firmware.memory_plan
    addresses = {int(text) for text in ADDRESS.findall(firmware.files["model.c"])}
    assert addresses
    for address in addresses:
        assert any(item.offset <= address < item.offset + item.bytes for item in plan.buffers), address
    assert {item.offset for item in plan.buffers} - {0} <= addresses


def test_whole_maps_have_no_windows() -> None:
    plan = _make_firmware("resnet", "arena").memory_plan
    assert plan.streamed == ()
    assert {item.kind for item in plan.buffers} == {"whole", "scratch", "state"}


def test_a_streamed_run_shows_its_windows() -> None:
    plan = _make_firmware("resnet", "streaming").memory_plan
    (run,) = plan.streamed
    windows = [item for item in plan.buffers if item.kind == "window"]
    assert run.ticks > 1
    assert windows
    assert all(run.first <= item.first <= item.last <= run.last for item in windows)
    assert {item.name for item in plan.buffers if item.kind == "scratch"} <= set(plan.steps)


def test_a_window_inside_another_adds_no_bytes() -> None:
    scheduler = Scheduler(make_program(stand_up(make_int8_network("lite"))), load_target("cortex-m4"))
    segments = [scheduler.plan(0, 5, pace) for pace in PACES]
    segment = next(item for item in segments if item and any(window.inside for window in item.windows.values()))
    plan = describe_memory(scheduler.build([segment]))
    (inner,) = [item for item in plan.buffers if item.inside]
    (host,) = [item for item in plan.buffers if item.name == inner.inside and item.kind == "window"]
    assert inner.offset == host.offset
    assert inner.bytes <= host.bytes


def test_constants_of_the_layers_add_up() -> None:
    firmware = _make_firmware("fcn", "arena")
    assert sum(layer.constant_bytes for layer in firmware.layers) == firmware.constant_bytes
    assert all(layer.constant_bytes > 0 for layer in firmware.layers if layer.macs)
