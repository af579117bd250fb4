"""Linux programs of the model for a Cortex-A: generated, built for 64 and 32 bits, proven in QEMU on the test samples.

The C is the portable C of the firmware generator, so its results are the reference's to the bit. Nothing here is a
time: QEMU's speed says nothing of a device's.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.cache import Files, pack_array, pack_json, unpack_array, unpack_json
from edgeprune.codegen import Firmware, Layer, generate_firmware
from edgeprune.errors import EdgepruneError, InputError, MeasurementUnavailableError, UnsupportedModelError
from edgeprune.measure.linux import (
    ARM_ARCHITECTURES,
    Executable,
    ExecutableSizes,
    InstructionCount,
    build_executable,
    choose_core,
    count_instructions,
    find_qemu_user,
    has_same_code,
    measure_executable,
    read_bench,
    run_in_qemu,
)
from edgeprune.reference import run_joined
from edgeprune.report import CompileRecord, to_plain
from edgeprune.stages.build import Programs
from edgeprune.stages.firmware import quantize_samples
from edgeprune.stages.linux_readme import render_linux_readme
from edgeprune.stages.prepare import Job
from edgeprune.target import describe_target

FAMILY = "cortex-a"
FOLDER = "linux"
COUNTED = "aarch64"
GOLDEN_SAMPLES = 2
# what Linux can use of the generated folder besides the compiled files; the build files there are a Cortex-M's
_COMPANIONS = ("model_normalize.c", "model_selftest.c")


@dataclass(frozen=True)
class Proof:
    """A program run in QEMU. emulator: name and version. core: what it played. different: output values, of all."""

    emulator: str
    core: str
    samples: int
    different: int


@dataclass(frozen=True)
class LinuxProgram:
    """A built program and what was seen of it; proof: None where it was not run, for the `reason`."""

    executable: Executable
    sizes: ExecutableSizes
    proof: Proof | None
    reason: str = ""

    @property
    def path(self) -> str:
        """In the output folder."""
        return f"{FOLDER}/bench_{self.executable.architecture}"


@dataclass(frozen=True, eq=False)
class LinuxResult:
    """The generated C, and its programs: none where they could not be built, for the `reason`.

    firmware: None where the model has no C. memory: the mode it was generated in.
    expected: int8 (n, output bytes), the reference's, of the first n test samples.
    outputs: the same by the 64-bit program; n = 0 where it was not run.
    count: instructions of the first of them on a 64-bit core; None where they could not be counted.
    """

    firmware: Firmware | None
    programs: tuple[LinuxProgram, ...]
    expected: np.ndarray
    outputs: np.ndarray
    count: InstructionCount | None = None
    reason: str = ""

    @property
    def executables(self) -> dict[str, Executable]:
        """Architecture -> program, to be run on a device."""
        return {program.executable.architecture: program.executable for program in self.programs}

    @property
    def files(self) -> dict[str, tuple[str, bytes]]:
        """Path in the output folder -> (what it is, content)."""
        if self.firmware is None:
            return {}
        texts = {**self.firmware.compiled_files, **{name: self.firmware.files[name] for name in _COMPANIONS}}
        texts["bench.c"] = read_bench()
        files = {
            f"{FOLDER}/src/{name}": ("C source of the Linux program", text.encode())
            for name, text in sorted(texts.items())
        }
        files[f"{FOLDER}/README.md"] = ("how to run the Linux program", render_linux_readme(self).encode())
        for program in self.programs:
            kind = f"static Linux program, {program.executable.architecture} (ELF)"
            files[program.path] = (kind, program.executable.content)
        return files

    @property
    def section(self) -> Mapping[str, Any]:
        """The report's section on the programs; memory in bytes, by the ELF file (method `static`)."""
        firmware, count = self.firmware, self.count
        counts = {} if count is None else count.layers
        layers = () if firmware is None else firmware.layers
        return {
            "method": "static",
            "reason": self.reason,
            "mode": None if firmware is None else firmware.mode,
            "arena_bytes": None if firmware is None else firmware.arena_bytes,
            "constant_bytes": None if firmware is None else firmware.constant_bytes,
            "layers": [_describe_layer(layer, counts.get(layer.function)) for layer in layers],
            "counted": None
            if count is None
            else {
                "method": "emulated_instructions",
                "architecture": COUNTED,
                "instructions": count.total,
                "peak_stack_bytes": count.peak_stack_bytes,
                "emulator": count.emulator,
            },
            "programs": [_describe_program(program) for program in self.programs],
        }


def make_executables(job: Job, programs: Programs) -> LinuxResult | None:
    """Generate, build and prove the Linux programs; None for a target that is no Cortex-A.

    A model without C, a missing compiler or QEMU are no faults of the compile: ONNX Runtime and LiteRT run the model's
    other forms. They are the result's reasons, and notes.
    """
    if job.target.family != FAMILY:
        return None
    samples = quantize_samples(job, programs.int8_graph)
    with job.progress.step("Linux programs", total=2 + 2 * len(ARM_ARCHITECTURES)) as step:
        try:
            firmware = _generate(job, programs, samples)
        except UnsupportedModelError as error:
            return _give_up(job, None, f"the model has no portable C: {error}")
        step.advance()
        try:
            executables = []
            for architecture in ARM_ARCHITECTURES:
                executables.append(_build(job, firmware, architecture))
                step.advance()
        except (InputError, MeasurementUnavailableError) as error:  # no compiler
            return _give_up(job, firmware, str(error))
        expected = run_joined(programs.int8_graph, samples)
        built, outputs = [], expected[:0]
        for executable in executables:
            program, found = _prove(job, executable, samples.reshape(len(samples), -1), expected)
            built.append(program)
            outputs = found if executable.architecture == COUNTED else outputs
            if program.reason:
                job.notes.append(f"{program.path} was built but NOT run: {program.reason}")
            step.advance()
        count = _count(job, firmware, executables[0], samples[0])
        step.advance()
    return LinuxResult(firmware, tuple(built), expected, outputs, count)


def _generate(job: Job, programs: Programs, samples: np.ndarray) -> Firmware:
    return generate_firmware(
        programs.int8_graph,
        job.target,
        memory=job.settings.memory,
        portable=True,
        normalization=job.normalization,
        class_names=job.data.class_names if job.is_scored else (),
        golden_inputs=samples[:GOLDEN_SAMPLES],
    )


def _give_up(job: Job, firmware: Firmware | None, reason: str) -> LinuxResult:
    job.notes.append(f"NO Linux program was built: {reason}")
    nothing = np.zeros((0, 0), np.int8)
    return LinuxResult(firmware, (), nothing, nothing, reason=reason)


def _build(job: Job, firmware: Firmware, architecture: str, *, keep_symbols: bool = False) -> Executable:
    """The program for an architecture."""

    def make() -> Files:
        built = build_executable(firmware.compiled_files, architecture, target=job.target, keep_symbols=keep_symbols)
        return {"program": built.content, "about.json": pack_json((built.toolchain, built.flags, built.requires))}

    inputs = {
        "sources": firmware.compiled_files,
        "architecture": architecture,
        "target": to_plain(describe_target(job.target)),
        "keep_symbols": keep_symbols,
    }
    files = job.cache.reuse("linux-program", inputs, make)
    toolchain, flags, requires = unpack_json(files["about.json"])
    return Executable(files["program"], architecture, toolchain, tuple(flags), tuple(requires))


def _prove(
    job: Job, executable: Executable, samples: np.ndarray, expected: np.ndarray
) -> tuple[LinuxProgram, np.ndarray]:
    """Run a program on all samples (n, bytes) and hold its outputs against the reference's; the outputs, too."""
    sizes = measure_executable(executable.content)
    try:
        emulator = find_qemu_user(executable.architecture).version
        inputs = {"program": executable.content, "samples": samples, "emulator": emulator}
        outputs = job.cache.reuse_array("linux-outputs", inputs, lambda: run_in_qemu(executable, samples))
    except MeasurementUnavailableError as error:
        return LinuxProgram(executable, sizes, None, str(error)), expected[:0]
    different = int((outputs != expected).sum()) if outputs.shape == expected.shape else expected.size
    return LinuxProgram(executable, sizes, Proof(emulator, choose_core(executable), len(samples), different)), outputs


def _count(job: Job, firmware: Firmware, shipped: Executable, sample: np.ndarray) -> InstructionCount | None:
    """Instructions of the 64-bit program on one sample; None, and a note, where they could not be counted."""
    functions = [layer.function for layer in firmware.layers]
    named = _build(job, firmware, shipped.architecture, keep_symbols=True)
    if not has_same_code(named.content, shipped.content):
        raise EdgepruneError("the program with symbols differs from the one without: its count would not hold")

    def count() -> Files:
        found = count_instructions(named, sample, functions)
        figures = (found.total, found.layers, found.peak_stack_bytes, found.emulator)
        return {"figures.json": pack_json(figures), "outputs.npy": pack_array(found.outputs)}

    try:
        files = job.cache.reuse("linux-count", {"program": named.content, "sample": sample, "of": functions}, count)
    except InputError as error:  # no emulator
        job.notes.append(f"no instructions of the Linux program were counted: {error}")
        return None
    total, layers, stack, emulator = unpack_json(files["figures.json"])
    return InstructionCount(
        total=total,
        layers=layers,
        peak_stack_bytes=stack,
        emulator=emulator,
        outputs=unpack_array(files["outputs.npy"]),
    )


def check_executables(result: LinuxResult, samples: str) -> list[dict[str, Any]]:
    """Rows of the parity table, one for each program and emulator that ran it. samples: what the inputs are called."""
    rows = [
        _make_row(
            program.executable.architecture,
            f"{program.proof.emulator} -cpu {program.proof.core}",
            f"{program.proof.samples} {samples}",
            program.proof.different,
        )
        for program in result.programs
        if program.proof is not None
    ]
    if result.count is not None:
        different = int((result.count.outputs != result.expected[0]).sum())
        rows.append(_make_row(COUNTED, result.count.emulator, f"the first of the {samples}", different))
    return rows


def _make_row(architecture: str, emulator: str, what: str, different: int) -> dict[str, Any]:
    return {
        "name": f"Linux program, {architecture} ({emulator})",
        "what": what,
        "difference": "0 LSB" if different == 0 else f"{different:,} output values differ",
        "limit": "0 LSB",
        "passed": different == 0,
    }


def record_executables(record: CompileRecord, job: Job, result: LinuxResult | None) -> None:
    """Note among the parity checks what the programs computed."""
    if result is None:
        return
    checks = check_executables(result, job.tested_on)
    passed = bool(record.parity["passed"] and all(check["passed"] for check in checks))
    record.parity = {**record.parity, "passed": passed, "checks": [*record.parity["checks"], *checks]}


def _describe_layer(layer: Layer, instructions: int | None) -> dict[str, Any]:
    described = dataclasses.asdict(layer)
    del described["estimated_cycles"]  # of a Cortex-M
    return {**described, "instructions": instructions}


def _describe_program(program: LinuxProgram) -> dict[str, Any]:
    executable, sizes = program.executable, program.sizes
    return {
        "path": program.path,
        "architecture": executable.architecture,
        "bytes": sizes.file,
        "sha256": hashlib.sha256(executable.content).hexdigest(),
        "text": sizes.text,
        "rodata": sizes.rodata,
        "data": sizes.data,
        "bss": sizes.bss,
        "ram_bytes": sizes.ram_bytes,
        "toolchain": executable.toolchain,
        "flags": list(executable.flags),
        "requires": list(executable.requires),
        "proof": None if program.proof is None else dataclasses.asdict(program.proof),
        "reason": program.reason,
    }
