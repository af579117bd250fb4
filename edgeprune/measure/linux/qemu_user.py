"""Linux programs for Arm run by QEMU's user mode, where it is on PATH: what they compute, never how long they take.

QEMU plays the oldest core that the program claims to run on, not its best one: an instruction beyond that is SIGILL
here, as it would be on the device.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.errors import EdgepruneError, MeasurementUnavailableError
from edgeprune.measure.linux.executable import Executable

QEMU_INSTALL = "apt install qemu-user"
PROGRAMS: Mapping[str, str] = {"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}
# the oldest core that the program runs on: Cortex-A8 is Armv7-A with NEON and without division
_BASELINES: Mapping[str, str] = {"aarch64": "cortex-a53", "armv7": "cortex-a8"}
_DOTPROD_CORE = "cortex-a76"
_ANY_CORE = "max"
_MOST_SECONDS = 900


@dataclass(frozen=True)
class QemuUser:
    """QEMU's user mode for one architecture as found. cores: what it can play."""

    program: str
    version: str
    cores: frozenset[str]


def find_qemu_user(architecture: str) -> QemuUser:
    """Raises MeasurementUnavailableError where QEMU for that architecture is not on PATH."""
    name = PROGRAMS[architecture]
    program = shutil.which(name)
    if program is None:
        raise MeasurementUnavailableError(f"{name} is not installed (not on PATH): {QEMU_INSTALL}")
    return _examine(name, program)


@functools.cache
def _examine(name: str, program: str) -> QemuUser:
    told = _ask(program, "--version")
    found = re.search(r"version (\S+)", told)
    cores = frozenset(re.findall(r"^\s+(\S+)$", _ask(program, "-cpu", "help"), re.MULTILINE))
    return QemuUser(program, f"{name} {found.group(1) if found else 'of unknown version'}", cores)


def choose_core(executable: Executable) -> str:
    """The core that QEMU plays: the oldest that the program says it runs on; 'max' where QEMU lacks that one."""
    core = _DOTPROD_CORE if executable.requires else _BASELINES[executable.architecture]
    return core if core in find_qemu_user(executable.architecture).cores else _ANY_CORE


def run_in_qemu(executable: Executable, inputs: np.ndarray, *, timeout_seconds: float = _MOST_SECONDS) -> np.ndarray:
    """What the program computes: int8 (n, output bytes).

    inputs: int8 (n, ...), n >= 1, of each sample as many bytes as the model takes.
    Raises MeasurementUnavailableError without QEMU, or where it takes longer than the timeout; EdgepruneError where the
    program ends in a fault, with what it said.
    """
    qemu = find_qemu_user(executable.architecture)
    samples = np.ascontiguousarray(inputs)
    if samples.dtype != np.int8 or samples.ndim < 2 or not len(samples):
        raise EdgepruneError(
            f"inputs are {samples.dtype} of shape {samples.shape}; int8 samples (n, bytes) are expected"
        )
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as temporary:
        folder = Path(temporary)
        (folder / "bench").write_bytes(executable.content)
        (folder / "bench").chmod(0o700)
        (folder / "inputs").write_bytes(samples.tobytes())
        command = [qemu.program, "-cpu", choose_core(executable), "./bench", "inputs", "outputs", "--runs", "0"]
        done = _run(command, folder, timeout_seconds)
        if done.returncode != 0:
            raise EdgepruneError(f"the program for {executable.architecture} {_explain(done)} in {qemu.version}")
        content = (folder / "outputs").read_bytes()
    if not content or len(content) % len(samples):
        raise EdgepruneError(
            f"the program for {executable.architecture} wrote {len(content)} bytes for {len(samples)} samples"
        )
    return np.frombuffer(content, np.int8).reshape(len(samples), -1)


def _run(command: list[str], folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=_make_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        name = Path(command[0]).name
        raise MeasurementUnavailableError(f"{name} did not end within {seconds:g} s; give it fewer samples") from error


def _explain(done: subprocess.CompletedProcess[str]) -> str:
    """What became of a program that did not end well."""
    said = next((line for line in done.stderr.splitlines() if line.strip()), "without a word")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        why = ", an instruction that the core lacks" if name == "SIGILL" else ""
        return f"was ended by {name}{why} ({said})"
    return f"ended with exit code {done.returncode} ({said})"


def _make_environment() -> dict[str, str]:
    """This process's environment without what steers QEMU (QEMU_CPU, QEMU_LOG, ...)."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QEMU_")}


def _ask(*command: str) -> str:
    """What a program prints."""
    return subprocess.run(
        command, env=_make_environment(), capture_output=True, text=True, errors="replace", check=False
    ).stdout
