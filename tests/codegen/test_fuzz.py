"""Random whole networks through all executors, and random layers: equal to the reference to the bit, every one.

The numpy reference, the tflite-micro interpreter, the portable C on this machine under AddressSanitizer and UBSan, and
the fast kernels on an emulated core (by zig; now and then by gcc, or on another core), in random memory modes.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.codegen import MEMORY_MODES, generate_firmware
from edgeprune.codegen.firmware import assemble_files
from edgeprune.codegen.folder import FolderContent, render_folder
from edgeprune.codegen.program import make_program
from edgeprune.codegen.schedule import Scheduler
from edgeprune.codegen.streaming import check_segment
from edgeprune.codegen.upright import stand_up
from edgeprune.executors import MICRO_AVAILABLE, MicroExecutor
from edgeprune.graph import Graph
from edgeprune.lower import write_tflite
from edgeprune.measure.cortex_m import build_elf, run_unicorn
from edgeprune.parity import MICRO, find_missing_kernels
from edgeprune.target import load_target
from tests.codegen.harness import HostCompiler, expect_outputs, join_inputs
from tests.codegen.random_layers import LayerSeed, run_layers
from tests.codegen.random_networks import draw_segments, make_random_network
from tests.random_graphs import make_inputs, make_random_graph

OTHER_CORES = ("cortex-m0plus", "cortex-m3", "cortex-m7", "cortex-m33")
SAMPLES = 3


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> HostCompiler:
    return HostCompiler(tmp_path_factory.mktemp("host"))


def make_network(seed: int) -> Graph:
    """Mostly networks as real ones are; every fourth a program of any ops in any order."""
    if seed % 4 == 3:
        return make_random_graph(seed, op_count=12)
    return make_random_network(seed)


def make_samples(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Random values; the first sample holds the extremes only."""
    inputs = make_inputs(graph, seed, SAMPLES)
    for number, values in enumerate(inputs.values()):
        values[0] = np.where(np.random.default_rng(number).random(values[0].shape) < 0.5, -128, 127)
    return inputs


def run_micro(graph: Graph, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """(n, bytes): what TFLite Micro computes."""
    outputs = MicroExecutor(write_tflite(graph)).run(*(inputs[name] for name in graph.inputs))
    results = dict(zip(graph.outputs, outputs, strict=True))
    return np.concatenate([values.reshape(len(values), -1) for values in results.values()], axis=1)


def run_emulated(graph: Graph, inputs: np.ndarray, core: str, mode: str, toolchain: str) -> np.ndarray:
    """(n, bytes): the fast kernels on an emulated core; guards around each buffer are checked."""
    target = load_target(core)
    firmware = generate_firmware(graph, target, memory=mode)
    built = build_elf(firmware.compiled_files, target, toolchain=toolchain)
    return run_unicorn(built, target, inputs, counted=1).outputs


def run_segments(graph: Graph, inputs: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """(n, bytes): streamed wherever drawn segments say; what they are."""
    target = load_target("cortex-m4")
    scheduler = Scheduler(make_program(stand_up(graph)), target)
    segments = draw_segments(scheduler, seed)
    schedule = scheduler.build(segments)
    for segment in segments:
        check_segment(schedule.program, schedule.shared, segment)
    files = assemble_files(schedule, "")
    content = FolderContent(target, graph, (), schedule.arena.byte_count, None, (), None)
    files["model.h"] = render_folder(content, "")["model.h"]
    described = ", ".join(f"{item.first}-{item.last} at {item.pace}" for item in segments)
    return run_unicorn(build_elf(files, target), target, inputs, counted=1).outputs, described


def check_everywhere(graph: Graph, seed: int, compiler: HostCompiler) -> None:
    """All executors give the same bytes; the message names the first that does not."""
    inputs = make_samples(graph, seed)
    joined, expected = join_inputs(graph, inputs), expect_outputs(graph, inputs)
    if MICRO_AVAILABLE and not find_missing_kernels(graph, MICRO):
        assert np.array_equal(run_micro(graph, inputs), expected), "TFLite Micro"
    modes = np.random.default_rng(seed).permutation(MEMORY_MODES)
    portable = generate_firmware(graph, load_target("cortex-m4"), memory=modes[0], portable=True)
    assert np.array_equal(compiler.run(portable, joined), expected), f"portable C, {modes[0]}"
    runs = [("cortex-m4", modes[1], "gcc" if seed % 10 == 0 else "zig")]
    if seed % 5 == 1:
        runs.append((OTHER_CORES[seed // 5 % len(OTHER_CORES)], modes[2], "zig"))
    for core, mode, toolchain in runs:
        assert np.array_equal(run_emulated(graph, joined, core, mode, toolchain), expected), (core, mode, toolchain)


def check_segments(seed: int) -> None:
    """A network streamed in drawn segments gives the reference's bytes."""
    graph = make_network(seed)
    inputs = make_samples(graph, seed)
    outputs, segments = run_segments(graph, join_inputs(graph, inputs), seed)
    assert np.array_equal(outputs, expect_outputs(graph, inputs)), segments


@pytest.mark.parametrize("seed", [3, 4, 5, 8, 10])
def test_some_networks(seed: int, compiler: HostCompiler) -> None:
    check_everywhere(make_network(seed), seed, compiler)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 300, 20))
def test_networks(first: int, compiler: HostCompiler) -> None:
    failures = []
    for seed in range(first, first + 20):
        try:
            check_everywhere(make_network(seed), seed, compiler)
        except Exception as error:  # noqa: BLE001  # each network counts; all that fail are told
            failures.append((seed, str(error)[:600]))
    assert not failures


def test_some_segments() -> None:
    for seed in (301, 304):
        check_segments(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(400, 600, 20))
def test_segments(first: int) -> None:
    failures = []
    for seed in range(first, first + 20):
        try:
            check_segments(seed)
        except Exception as error:  # noqa: BLE001  # as above
            failures.append((seed, str(error)[:600]))
    assert not failures


@pytest.mark.slow
@pytest.mark.parametrize("first", range(50_000, 50_500, 100))
def test_layers(first: int) -> None:
    for seed in range(first, first + 100, 25):
        layers = [LayerSeed(number, first % 200 == 0) for number in range(seed, seed + 25)]
        for streams in (False, True):
            results = run_layers(layers, load_target("cortex-m4"), streams=streams)
            assert [result for result in results if result.differing] == []
