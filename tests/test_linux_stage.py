"""Linux programs as a compile makes them: files, proof, sizes, and what is said where something is missing."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeprune.cache import Cache
from edgeprune.errors import UnsupportedModelError
from edgeprune.lower import write_tflite
from edgeprune.measure.cortex_m import toolchain
from edgeprune.progress import SILENT
from edgeprune.report import CompileRecord
from edgeprune.report.linux_tables import list_linux_layers, list_linux_programs
from edgeprune.settings import CompileSettings
from edgeprune.stages import linux
from edgeprune.stages.build import Programs
from edgeprune.stages.linux import LinuxResult, check_executables, make_executables, record_executables
from edgeprune.stages.prepare import Job
from edgeprune.stages.prepare_program import prepare_program
from tests.test_compile_program import DATA, make_program

needs_qemu = [
    pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")
    for name in ("qemu-aarch64", "qemu-arm")
]


def prepare(folder: Path, target: str) -> tuple[Job, Programs]:
    """A finished int8 program as a job: nothing to train."""
    model = folder / "series.tflite"
    model.write_bytes(write_tflite(make_program()))
    settings = CompileSettings(model=model, target=target, data=str(DATA), output=folder / "out")
    return prepare_program(settings, SILENT)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Programs]:
    return prepare(tmp_path_factory.mktemp("linux"), "cortex-a53")


@pytest.fixture
def job(prepared: tuple[Job, Programs]) -> Job:
    """With notes of its own."""
    return dataclasses.replace(prepared[0], notes=[], cache=Cache(None))


@pytest.fixture(scope="module")
def result(prepared: tuple[Job, Programs]) -> LinuxResult:
    made = make_executables(dataclasses.replace(prepared[0], notes=[], cache=Cache(None)), prepared[1])
    assert made is not None
    return made


def test_other_targets_have_no_linux_programs(prepared: tuple[Job, Programs], tmp_path: Path) -> None:
    for target in ("host", "cortex-m4"):
        job, programs = prepare(tmp_path, target)
        assert make_executables(job, programs) is None


@pytest.mark.parametrize("architecture", [pytest.param(0, marks=needs_qemu[0]), pytest.param(1, marks=needs_qemu[1])])
def test_each_program_is_proven_on_the_test_samples(
    architecture: int, result: LinuxResult, prepared: tuple[Job, Programs]
) -> None:
    program = result.programs[architecture]
    assert program.reason == ""
    assert program.proof is not None
    assert (program.proof.samples, program.proof.different) == (len(prepared[0].data.x_test), 0)
    check = check_executables(result, "test samples")[architecture]
    assert check["name"].startswith(
        ("Linux program, aarch64 (qemu-aarch64 ", "Linux program, armv7 (qemu-arm ")[architecture]
    )
    assert check["name"].endswith(("-cpu cortex-a53)", "-cpu cortex-a8)")[architecture])
    assert (check["what"], check["difference"], check["passed"]) == ("1029 test samples", "0 LSB", True)
    assert result.expected.shape == (1029, 2)
    if architecture == 0:
        assert np.array_equal(result.outputs, result.expected)


def test_files_and_sizes(result: LinuxResult) -> None:
    files = result.files
    assert {"linux/bench_aarch64", "linux/bench_armv7", "linux/README.md", "linux/src/bench.c"} <= set(files)
    sources = {name.removeprefix("linux/src/") for name in files if name.startswith("linux/src/")}
    assert {"model.c", "model.h", "model_normalize.c", "model_selftest.c", "ep_conv_2d.c"} <= sources
    assert not {"Makefile", "main.c", "CMakeLists.txt"} & sources  # they are for a microcontroller
    section = result.section
    assert (section["method"], section["reason"]) == ("static", "")
    assert section["arena_bytes"] > 0
    for row in section["programs"]:
        content = files[row["path"]][1]
        assert (row["bytes"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert section["arena_bytes"] <= row["bss"] <= row["ram_bytes"] < row["bytes"]
        assert not any("ns" in key or "latency" in key or "seconds" in key for key in row)
    assert set(result.executables) == {"aarch64", "armv7"}


def test_instructions_are_counted_layer_by_layer(result: LinuxResult) -> None:
    assert result.count is not None
    section = result.section
    counted = section["counted"]
    assert (counted["method"], counted["architecture"]) == ("emulated_instructions", "aarch64")
    layers = [layer["instructions"] for layer in section["layers"]]
    assert all(layers)
    assert 0.9 * counted["instructions"] < sum(layers) < counted["instructions"]  # the rest passes rows along
    assert 0 < counted["peak_stack_bytes"] < 4096
    assert "estimated_cycles" not in section["layers"][0]


def test_the_report_has_tables_of_programs_and_layers(result: LinuxResult) -> None:
    document = {"device": {"linux": result.section}}
    programs, layers = list_linux_programs(document), list_linux_layers(document)
    assert programs is not None
    assert layers is not None
    assert [row[0] for row in programs.rows] == ["linux/bench_aarch64", "linux/bench_armv7"]
    assert all(len(row) == len(programs.head) for row in programs.rows)
    assert (programs.rows[0][6], programs.rows[1][6]) == (f"{result.section['counted']['instructions']:,}", "")
    assert [row[0] for row in layers.rows] == [layer["name"] for layer in result.section["layers"]]
    for nothing in ({}, {"device": {}}, {"device": {"linux": {"programs": [], "counted": None}}}):
        assert list_linux_programs(nothing) is None
        assert list_linux_layers(nothing) is None


def test_readme_says_how_to_run_it(result: LinuxResult) -> None:
    text = result.files["linux/README.md"][1].decode()
    assert "ssh user@device ./bench_aarch64 in.bin out.bin" in text
    assert "24 bytes each" in text
    assert f"{len(result.programs[0].executable.content):,}" in text
    assert "Illegal instruction" not in text  # for cortex-a53 it takes nothing that another Armv8-A core lacks
    assert "Nothing here was timed." in text


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_sources_build_with_any_compiler_and_pass_their_self_test(result: LinuxResult, tmp_path: Path) -> None:
    for name, (_, content) in result.files.items():
        if name.startswith("linux/src/"):
            (tmp_path / name.removeprefix("linux/src/")).write_bytes(content)
    main = (
        (tmp_path / "bench.c")
        .read_text()
        .replace("const samples all", "if (edgeprune_model_selftest(arena) != 0) { return 1; }\n    const samples all")
    )
    (tmp_path / "bench.c").write_text(main)
    units = sorted(path.name for path in tmp_path.glob("*.c"))
    command = ["gcc", "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", *units, "-o", "bench"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (tmp_path / "in").write_bytes(bytes(24))
    done = subprocess.run(["./bench", "in", "out", "--runs", "1"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_parity_rows_join_the_others_and_a_difference_fails(result: LinuxResult, job: Job) -> None:
    record = CompileRecord()
    record.parity = {"passed": True, "checks": [{"name": "earlier", "passed": True}]}
    record_executables(record, job, None)
    assert len(record.parity["checks"]) == 1
    record_executables(record, job, result)
    assert len(record.parity["checks"]) == 2 + sum(program.proof is not None for program in result.programs)
    assert record.parity["passed"]
    proof = linux.Proof("qemu-aarch64 7.2", "cortex-a53", 10, 3)
    wrong = dataclasses.replace(result, programs=(dataclasses.replace(result.programs[0], proof=proof),), count=None)
    record_executables(record, job, wrong)
    assert not record.parity["passed"]
    assert record.parity["checks"][-1]["difference"] == "3 output values differ"


def test_without_qemu_the_programs_are_there_and_the_notes_say_what_was_not_done(
    job: Job, prepared: tuple[Job, Programs], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made = make_executables(job, prepared[1])
    assert made is not None
    assert {"linux/bench_aarch64", "linux/bench_armv7"} <= set(made.files)
    (check,) = check_executables(made, "test samples")  # Unicorn is a package, not on PATH
    assert check["name"].startswith("Linux program, aarch64 (unicorn ")
    assert (check["what"], check["passed"]) == ("the first of the test samples", True)
    assert len(made.outputs) == 0
    assert len(made.expected) == 1029
    assert [note.split(":")[0] for note in job.notes] == [
        "linux/bench_aarch64 was built but NOT run",
        "linux/bench_armv7 was built but NOT run",
    ]
    assert all("apt install qemu-user" in note for note in job.notes)
    assert "not run: qemu-aarch64 is not installed" in made.files["linux/README.md"][1].decode()
    assert made.section["programs"][0]["proof"] is None


def test_without_a_compiler_the_sources_are_there(
    job: Job, prepared: tuple[Job, Programs], monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain._find_zig.cache_clear()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ziglang" else find(name))
    made = make_executables(job, prepared[1])
    assert made is not None
    assert made.programs == ()
    assert "ziglang, which is not installed" in made.reason
    assert job.notes == [f"NO Linux program was built: {made.reason}"]
    assert "linux/src/model.c" in made.files
    assert "linux/bench_aarch64" not in made.files
    assert made.section["programs"] == []


def test_a_model_without_c_keeps_its_other_forms(
    job: Job, prepared: tuple[Job, Programs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnsupportedModelError("layer5 (resize): no kernel")

    monkeypatch.setattr(linux, "generate_firmware", refuse)
    made = make_executables(job, prepared[1])
    assert made is not None
    assert (made.files, made.executables, made.section["arena_bytes"]) == ({}, {}, None)
    assert job.notes == ["NO Linux program was built: the model has no portable C: layer5 (resize): no kernel"]
