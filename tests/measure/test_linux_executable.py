"""Static Linux programs: the same bytes everywhere, the reference's results in QEMU, and clear faults."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from edgeprune.codegen import Firmware, generate_firmware
from edgeprune.errors import EdgepruneError, InputError, MeasurementUnavailableError
from edgeprune.graph import Graph
from edgeprune.measure.cortex_m import read_elf
from edgeprune.measure.linux import (
    ARM_ARCHITECTURES,
    Executable,
    build_executable,
    choose_core,
    count_instructions,
    find_qemu_user,
    has_same_code,
    measure_executable,
    qemu_user,
    run_in_qemu,
)
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.target import load_target
from tests.codegen.harness import expect_outputs, join_inputs, make_int8_network
from tests.codegen.random_networks import make_random_network
from tests.lower.handmade import _Network
from tests.random_graphs import make_inputs

QEMU = {"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}
EACH = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(shutil.which(QEMU[name]) is None, reason=f"{QEMU[name]} is not installed"),
    )
    for name in ARM_ARCHITECTURES
]
RUNTIME = Path(__file__).parents[2] / "edgeprune/codegen/runtime"
INPUT_BYTES, OUTPUT_BYTES = 12, 3
SOURCES = {
    "model.h": f"""#include <stdint.h>
#define EDGEPRUNE_MODEL_INPUT_BYTES {INPUT_BYTES}
#define EDGEPRUNE_MODEL_OUTPUT_BYTES {OUTPUT_BYTES}
#define EDGEPRUNE_MODEL_ARENA(name) int8_t name[64] __attribute__((aligned(16)))
int edgeprune_model_run(const int8_t *input, int8_t *output, void *arena);
""",
    "model.c": """#include "model.h"
int edgeprune_model_run(const int8_t *input, int8_t *output, void *arena)
{
    if (((uintptr_t)arena & 15) != 0) {
        return 1;
    }
    for (int i = 0; i < 3; i++) {
        output[i] = (int8_t)(input[i] ^ input[11 - i]);
    }
    return input[0] == 99;
}
""",
}


def compute(inputs: np.ndarray) -> np.ndarray:
    """What the model above answers."""
    return inputs[:, :3] ^ inputs[:, :8:-1]


def make_values(count: int) -> np.ndarray:
    values = np.random.default_rng(3).integers(-128, 128, (count, INPUT_BYTES)).astype(np.int8)
    values[values == 99] = 0
    return values


@pytest.fixture(scope="module")
def build() -> Callable[[str], Executable]:
    """The model above as a program; one build for each architecture."""
    built: dict[str, Executable] = {}

    def build_once(architecture: str) -> Executable:
        if architecture not in built:
            built[architecture] = build_executable(SOURCES, architecture)
        return built[architecture]

    return build_once


@pytest.fixture
def bench(build: Callable[[str], Executable], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call the 64-bit program by hand."""
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is not installed")
    (tmp_path / "bench").write_bytes(build("aarch64").content)
    (tmp_path / "bench").chmod(0o700)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["qemu-aarch64", "./bench", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    return call


def check_network(graph: Graph, firmware: Firmware, architecture: str, core: str, samples: int = 3) -> None:
    """Build it for a core, run it, and compare with the reference to the bit."""
    inputs = make_inputs(graph, 1, samples)
    for values in inputs.values():
        values[0] = np.where(np.random.default_rng(1).random(values[0].shape) < 0.5, -128, 127)
    executable = build_executable(firmware.compiled_files, architecture, target=load_target(core))
    outputs = run_in_qemu(executable, join_inputs(graph, inputs))
    assert np.array_equal(outputs, expect_outputs(graph, inputs))


# the program


@pytest.mark.parametrize("architecture", ARM_ARCHITECTURES)
def test_the_same_sources_give_the_same_bytes_in_any_folder(
    architecture: str, build: Callable[[str], Executable], tmp_path: Path
) -> None:
    first = build_executable(SOURCES, architecture, work=tmp_path / "one")
    second = build_executable(SOURCES, architecture, work=tmp_path / "a" / "much longer" / "name")
    assert first == second == build(architecture)
    for word in (str(tmp_path).encode(), b"/tmp/", b"/home", b"/root", b"site-packages", b"bench.c"):
        assert word not in first.content


@pytest.mark.parametrize(("architecture", "machine", "bits"), [("aarch64", "EM_AARCH64", 64), ("armv7", "EM_ARM", 32)])
def test_it_needs_nothing_on_the_device(
    architecture: str, machine: str, bits: int, build: Callable[[str], Executable]
) -> None:
    executable = build(architecture)
    file = ELFFile(io.BytesIO(executable.content))
    assert (file["e_type"], file["e_machine"], file.elfclass) == ("ET_EXEC", machine, bits)
    assert not {segment["p_type"] for segment in file.iter_segments()} & {"PT_INTERP", "PT_DYNAMIC"}
    assert not {".symtab", ".debug_info"} & {section.name for section in file.iter_sections()}
    assert executable.toolchain.startswith("zig 0.")
    sizes = measure_executable(executable.content)
    assert sizes.file == len(executable.content) < 60_000
    assert 64 < sizes.ram_bytes < 8_000  # the arena, standard output's buffer and little else: no allocator
    assert sizes.text > 1_000


@pytest.mark.parametrize("architecture", EACH)
def test_outputs_come_back_in_order(architecture: str, build: Callable[[str], Executable]) -> None:
    values = make_values(300)
    assert np.array_equal(run_in_qemu(build(architecture), values), compute(values))


def test_a_source_must_be_a_plain_c_file() -> None:
    with pytest.raises(EdgepruneError, match=r"'../model.c': a plain name of a \.c or \.h file is expected"):
        build_executable({"../model.c": ""}, "aarch64")
    with pytest.raises(EdgepruneError, match=r"'model_kernels.S'"):
        build_executable({**SOURCES, "model_kernels.S": ""}, "aarch64")
    with pytest.raises(InputError, match="'mips' is not known; allowed: aarch64, armv7"):
        build_executable(SOURCES, "mips")


def test_refused_sources_say_where() -> None:
    broken = SOURCES["model.c"].replace("return input", "int unused; return input")
    with pytest.raises(EdgepruneError, match=r"zig refuses the sources:\n(.|\n)*model\.c:10:.*unused"):
        build_executable({**SOURCES, "model.c": broken}, "aarch64")


# bench.c's protocol


def test_times_are_one_line_of_json(bench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    values = make_values(5)
    values.tofile(tmp_path / "in")
    done = bench("in", "out", "--warmup", "3", "--runs", "7")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert list(told) == ["samples", "warmup", "ns"]
    assert (told["samples"], told["warmup"], len(told["ns"])) == (5, 3, 7)
    assert all(isinstance(time, int) and time > 0 for time in told["ns"])
    assert np.array_equal(np.fromfile(tmp_path / "out", np.int8).reshape(5, OUTPUT_BYTES), compute(values))
    (tmp_path / "out").write_bytes(b"x" * 1000)  # an older, longer file is replaced
    assert json.loads(bench("--runs", "0", "in", "out").stdout) == {"samples": 5, "warmup": 0, "ns": []}
    assert (tmp_path / "out").stat().st_size == 5 * OUTPUT_BYTES
    told = json.loads(bench("in", "out").stdout)
    assert (told["warmup"], len(told["ns"])) == (20, 200)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "two files are expected"),
        (("in",), "two files are expected"),
        (("in", "out", "more"), "more: one word too many"),
        (("in", "out", "--fast"), "--fast is not known; allowed: --warmup W, --runs N"),
        (("in", "out", "--runs"), "--runs: a number is missing behind it"),
        (("in", "out", "--runs", ""), "--runs : a whole number from 0"),
        (("in", "out", "--runs", "-1"), "--runs -1: a whole number from 0"),
        (("in", "out", "--runs", "5x"), "--runs 5x: a whole number"),
        (("in", "out", "--warmup", "99999999999999999999"), "--warmup 99999999999999999999: a whole number from 0"),
        (("missing", "out"), "missing: No such file or directory"),
        ((".", "out"), ".: a plain file of samples is expected"),
        (("empty", "out"), "empty: it is empty; at least one sample of 12 bytes"),
        (("odd", "out"), "odd: 13 bytes are not a whole number of samples of 12 bytes"),
        (("in", "no/out"), "no/out: No such file or directory"),
        (("in", "/dev/full"), "/dev/full: No space left on device"),
        (("failing", "out"), "the model failed on sample 1"),
    ],
)
def test_faults_are_one_line_and_exit_code_2(
    words: tuple[str, ...], message: str, bench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    values = make_values(2)
    values.tofile(tmp_path / "in")
    values[1, 0] = 99  # see the model
    values.tofile(tmp_path / "failing")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "odd").write_bytes(b"x" * 13)
    done = bench(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bench: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# QEMU


def test_faults_in_qemu_say_what_happened(build: Callable[[str], Executable]) -> None:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is not installed")
    program = build("aarch64")
    with pytest.raises(
        EdgepruneError, match=r"aarch64 ended with exit code 2 \(bench: inputs: 11 bytes are not a whole"
    ):
        run_in_qemu(program, np.zeros((1, 11), np.int8))
    with pytest.raises(
        EdgepruneError, match=r"inputs are float64 of shape \(1, 12\); int8 samples \(n, bytes\) are expected"
    ):
        run_in_qemu(program, np.zeros((1, 12)))
    with pytest.raises(EdgepruneError, match=r"int8 samples"):
        run_in_qemu(program, np.zeros((0, 12), np.int8))
    with pytest.raises(MeasurementUnavailableError, match=r"qemu-aarch64 did not end within 1e-06 s"):
        run_in_qemu(program, make_values(1), timeout_seconds=1e-6)


def test_an_instruction_that_the_core_lacks_is_named() -> None:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is not installed")
    sdot = SOURCES["model.c"].replace("return input", '__asm__(".inst 0x4e829420"); return input')  # sdot v0, v1, v2
    newer = build_executable({**SOURCES, "model.c": sdot}, "aarch64", target=load_target("cortex-a76"))
    assert newer.requires == ("asimddp",)
    values = make_values(1)
    assert np.array_equal(run_in_qemu(newer, values), compute(values))
    older = build_executable({**SOURCES, "model.c": sdot}, "aarch64", target=load_target("cortex-a72"))
    assert older.requires == ()
    assert choose_core(older) == "cortex-a53"
    with pytest.raises(EdgepruneError, match=r"aarch64 was ended by SIGILL, an instruction that the core lacks"):
        run_in_qemu(older, values)


def test_missing_qemu_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MeasurementUnavailableError, match=r"qemu-arm is not installed .*: apt install qemu-user"
    ) as caught:
        find_qemu_user("armv7")
    assert caught.value.exit_code == 6


def test_nothing_steers_qemu_from_outside(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[str], Executable], tmp_path: Path
) -> None:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is not installed")
    monkeypatch.setenv("QEMU_STRACE", "1")
    monkeypatch.setenv("QEMU_CPU", "no-such-core")
    monkeypatch.setattr(qemu_user.tempfile, "tempdir", str(tmp_path))
    values = make_values(2)
    assert np.array_equal(run_in_qemu(build("aarch64"), values), compute(values))
    assert not list(tmp_path.iterdir())


# instructions


def count_in_qemu(executable: Executable, sample: np.ndarray, folder: Path) -> int:
    """What QEMU executes from the entry of the model to its return, an instruction at a time."""
    (folder / "bench").write_bytes(executable.content)
    (folder / "bench").chmod(0o700)
    sample.tofile(folder / "in")
    command = ["qemu-aarch64", "-singlestep", "-d", "exec,nochain", "-D", "log", "./bench", "in", "out", "--runs", "0"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    functions = {function.name: function for function in read_elf(executable.content).functions}
    entry = functions["edgeprune_model_run"].address
    callers = [functions[name] for name in ("main", "write_outputs", "infer") if name in functions]
    count = 0
    with (folder / "log").open() as log:
        for line in log:
            address = int(line.split("/")[1], 16) if line.startswith("Trace") else 0
            if count == 0 and address != entry:
                continue
            if any(caller.address <= address < caller.address + caller.size for caller in callers):
                break
            count += 1
    return count


@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is not installed")
def test_instructions_are_those_that_qemu_executes(build: Callable[[str], Executable], tmp_path: Path) -> None:
    named = build_executable(SOURCES, "aarch64", keep_symbols=True)
    assert has_same_code(named.content, build("aarch64").content)
    values = make_values(1)
    count = count_instructions(named, values)
    assert np.array_equal(count.outputs, compute(values)[0])
    assert count.total == count_in_qemu(named, values, tmp_path)
    assert 5 < count.total < 100


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is not installed")
@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
def test_instructions_of_a_network_are_those_that_qemu_executes(core: str, tmp_path: Path) -> None:
    graph = make_int8_network("fcn")
    firmware = generate_firmware(graph, load_target(core), portable=True)
    shipped = build_executable(firmware.compiled_files, "aarch64", target=load_target(core))
    named = build_executable(firmware.compiled_files, "aarch64", target=load_target(core), keep_symbols=True)
    assert has_same_code(shipped.content, named.content)
    sample = make_inputs(graph, 1, 1)[graph.inputs[0]]
    layers = [layer.function for layer in firmware.layers]
    count = count_instructions(named, sample, layers)
    assert np.array_equal(count.outputs, expect_outputs(graph, sample)[0])
    assert list(count.layers) == layers
    assert sum(count.layers.values()) <= count.total
    assert count.total == count_in_qemu(named, sample, tmp_path)


def test_a_program_that_reads_beyond_its_memory_is_named() -> None:
    wild = SOURCES["model.c"].replace("input[0] == 99", "input[1 << 28] == 99")
    named = build_executable({**SOURCES, "model.c": wild}, "aarch64", keep_symbols=True)
    with pytest.raises(EdgepruneError, match="the program failed in the emulator: Invalid memory read"):
        count_instructions(named, make_values(1))
    assert not has_same_code(named.content, build_executable(SOURCES, "aarch64").content)


# generated models


def count_sdot(executable: Executable) -> int:
    """How many SDOT by element the program's code holds: Arm DDI 0487, C7.2 (Q, L, M, Rm, H, Rn and Rd are free)."""
    text = ELFFile(io.BytesIO(executable.content)).get_section_by_name(".text").data()
    words = np.frombuffer(text, "<u4")
    return int(((words & 0xBFC0F400) == 0x0F80E000).sum())


def test_sdot_is_taken_where_the_core_has_it() -> None:
    parts = (RUNTIME / name for name in ("ep_dense.c", "ep_output.c", "ep_fixed_point.c"))
    used = {path.name: path.read_text() for path in (*RUNTIME.glob("ep*.h"), *parts)}
    kept = SOURCES["model.c"].replace("return 1;", "ep_compute_dense(arena, input, 1, 1, 1, output);")
    sources = {**used, "model.h": SOURCES["model.h"], "model.c": '#include "ep_dense.h"\n' + kept}
    newer = build_executable(sources, "aarch64", target=load_target("cortex-a76"))
    assert (count_sdot(newer) > 0, newer.requires) == (True, ("asimddp",))
    older = build_executable(sources, "aarch64", target=load_target("cortex-a53"))
    assert (count_sdot(older), older.requires) == (0, ())


@pytest.mark.parametrize(
    ("architecture", "core"), [("aarch64", "cortex-a53"), ("aarch64", "cortex-a72"), ("armv7", "cortex-a76")]
)
def test_a_program_that_needs_nothing_is_the_same_for_every_core(
    architecture: str, core: str, build: Callable[[str], Executable]
) -> None:
    assert build_executable(SOURCES, architecture, target=load_target(core)) == build(architecture)


@pytest.mark.parametrize("architecture", EACH)
def test_a_network_is_the_reference_to_the_bit(architecture: str) -> None:
    graph = make_int8_network("lite")
    firmware = generate_firmware(graph, load_target("cortex-a76"), portable=True)
    check_network(graph, firmware, architecture, "cortex-a76")


def make_odd_network(length: int, channels: int) -> Graph:
    """Odd channels, taps and widths, over a series of any length."""
    net = _Network((1, 1, length, channels))
    value = net.conv("input", 13, (1, 9), "relu", stride=3)
    value = net.depthwise(net.conv(value, 11, (1, 1), "relu"), 5, 2)
    graph = net.finish(net.conv(value, 7, (1, 4)), 3, "odd")
    samples = np.random.default_rng(0).normal(size=(8, 1, length, channels)).astype(np.float32)
    return quantize_graph(graph, calibrate(graph, samples))


@pytest.mark.parametrize(
    ("length", "channels", "architecture", "core"),
    [
        pytest.param(1, 3, "armv7", "cortex-a53", marks=EACH[1].marks),
        pytest.param(10_000, 1, "aarch64", "cortex-a53", marks=EACH[0].marks),
        pytest.param(31, 17, "aarch64", "cortex-a76", marks=[*EACH[0].marks, pytest.mark.slow]),
        pytest.param(10_000, 5, "armv7", "cortex-a53", marks=[*EACH[1].marks, pytest.mark.slow]),
        pytest.param(1, 1, "aarch64", "cortex-a76", marks=[*EACH[0].marks, pytest.mark.slow]),
    ],
)
def test_odd_networks_of_any_length(length: int, channels: int, architecture: str, core: str) -> None:
    graph = make_odd_network(length, channels)
    check_network(graph, generate_firmware(graph, load_target(core), portable=True), architecture, core)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", EACH)
@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
@pytest.mark.parametrize("memory", ["arena", "streaming"])
@pytest.mark.parametrize("name", ["inception", "fcn", "resnet"])
def test_networks_are_the_reference_to_the_bit(name: str, memory: str, core: str, architecture: str) -> None:
    graph = make_int8_network(name)
    firmware = generate_firmware(graph, load_target(core), portable=True, memory=memory)
    check_network(graph, firmware, architecture, core)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_random_networks_are_the_reference_to_the_bit(seed: int) -> None:
    for name in ARM_ARCHITECTURES:
        if shutil.which(QEMU[name]) is None:
            pytest.skip(f"{QEMU[name]} is not installed")
    graph = make_random_network(seed)
    core = ("cortex-a53", "cortex-a76")[seed % 2]
    firmware = generate_firmware(graph, load_target(core), portable=True)
    for architecture in ARM_ARCHITECTURES:
        check_network(graph, firmware, architecture, core)
