"""What is installed, and what each missing piece would enable."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass

# distribution -> (what it is for, how to get it); the first group is what edgeprune cannot work without
REQUIRED = {
    "torch": "load, prune, train",
    "numpy": "everything",
    "scipy": "channel units of the pruning engine",
    "onnx": "ONNX files",
    "onnxscript": "export from PyTorch",
    "onnxsim": "simplify ONNX",
    "onnxruntime": "run ONNX, float and int8",
    "ai-edge-litert": "write and run TFLite",
    "flatbuffers": "write TFLite",
    "lightning-fabric": "train on CUDA",
    "pydantic": "read edgeprune.toml",
    "typer": "the command line",
    "rich": "tables and progress bars",
    "jinja2": "report.html",
    "plotly": "pictures in report.html",
}
CORTEX_M_INSTALL = "pip install 'edgeprune[cortex-m]'"
OPTIONAL = {
    "tflite-micro": (
        "proof that int8 results equal TFLite Micro's",
        "pip install --pre -r requirements-tflite-micro.lock (nightly builds)",
    ),
    "aeon": ("--data ucr:NAME", "pip install 'edgeprune[ucr]'"),
    "pyedflib": ("--data recording.edf", "pip install 'edgeprune[eeg]'"),
    "pillow": ("--data with folders of images", "pip install 'edgeprune[images]'"),
    "matplotlib": ("the picture of `edgeprune history`", "pip install 'edgeprune[plots]'"),
    "ziglang": ("build Cortex-M firmware and Linux programs", CORTEX_M_INSTALL),
    "unicorn": ("run Cortex-M firmware", CORTEX_M_INSTALL),
    "capstone": ("modelled cycles of Cortex-M firmware", CORTEX_M_INSTALL),
    "pyelftools": ("sizes of Cortex-M firmware and Linux programs", CORTEX_M_INSTALL),
    "tensorflow-cpu": ("--converter tensorflow", "pip install 'edgeprune[tensorflow]'"),
}
# programs on PATH -> (what for, how to get it, the option that makes it print its version)
PROGRAMS = {
    "arm-none-eabi-gcc": (
        "--toolchain gcc",
        "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi",
        "-dumpfullversion",
    ),
    "qemu-system-arm": ("--emulator qemu, and all Cortex-M55 firmware", "apt install qemu-system-arm", "--version"),
    "qemu-aarch64": ("proof of the 64-bit Linux program's results", "apt install qemu-user", "--version"),
    "qemu-arm": ("proof of the 32-bit Linux program's results", "apt install qemu-user", "--version"),
    "ssh": ("--device ssh://user@host", "apt install openssh-client", "-V"),
}


@dataclass(frozen=True)
class Finding:
    """One package or program: its version (None: missing), what it is for, how to get it."""

    name: str
    version: str | None
    purpose: str
    required: bool
    remedy: str


def examine_installation() -> tuple[Finding, ...]:
    """Every package and program that edgeprune uses, required ones first."""
    programs = [
        Finding(name, find_program_version(name, option), purpose, False, remedy)
        for name, (purpose, remedy, option) in PROGRAMS.items()
    ]
    return (*_examine_packages(), *programs)


def list_tool_versions() -> dict[str, str]:
    """Versions of the packages that take part in a compile, for reports and manifests."""
    versions = {finding.name: finding.version for finding in _examine_packages()}
    found = {name: version for name, version in versions.items() if version is not None}
    return {"python": platform.python_version(), **found}


def _examine_packages() -> tuple[Finding, ...]:
    required = [
        Finding(name, _find_version(name), purpose, True, "pip install edgeprune") for name, purpose in REQUIRED.items()
    ]
    optional = [
        Finding(name, _find_version(name), purpose, False, remedy) for name, (purpose, remedy) in OPTIONAL.items()
    ]
    return (*required, *optional)


def describe_rig(toolchain: str, emulator: str) -> dict[str, tuple[str, str | None]]:
    """What builds and runs firmware, for keys of the cache; the versions of packages are in every key anyway."""
    return {
        "toolchain": (toolchain, find_program_version("arm-none-eabi-gcc")),
        "emulator": (emulator, find_program_version("qemu-system-arm")),
    }


def find_program_version(name: str, option: str | None = None) -> str | None:
    """What a program says of its version; None where it is not on PATH. option: what makes it say so."""
    program = shutil.which(name)
    return None if program is None else _ask_version(program, option or PROGRAMS[name][2])


@functools.cache  # by the program's path: PATH may change
def _ask_version(program: str, option: str) -> str:
    done = subprocess.run([program, option], capture_output=True, text=True, errors="replace", check=False)
    found = re.search(r"\d+\.\d[\d.]*", done.stdout + done.stderr)  # ssh says it on stderr
    return found.group() if found else "unknown"


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # TensorFlow is the same package under two names
        return _find_version("tensorflow") if name == "tensorflow-cpu" else None
