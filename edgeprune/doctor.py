"""What is installed, and what each missing piece would enable."""

from __future__ import annotations

import importlib.metadata
import platform
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
OPTIONAL = {
    "tflite-micro": (
        "proof that int8 results equal TFLite Micro's",
        "pip install --pre -r requirements-tflite-micro.lock (nightly builds)",
    ),
    "aeon": ("--data ucr:NAME", "pip install 'edgeprune[ucr]'"),
    "pyedflib": ("--data recording.edf", "pip install 'edgeprune[eeg]'"),
    "pillow": ("--data with folders of images", "pip install 'edgeprune[images]'"),
    "tensorflow-cpu": ("--converter tensorflow", "pip install 'edgeprune[tensorflow]'"),
}


@dataclass(frozen=True)
class Finding:
    """One package: its version (None: missing), what it is for, how to get it."""

    name: str
    version: str | None
    purpose: str
    required: bool
    remedy: str


def examine_installation() -> tuple[Finding, ...]:
    """Every package that edgeprune uses, required ones first."""
    required = [
        Finding(name, _find_version(name), purpose, True, "pip install edgeprune") for name, purpose in REQUIRED.items()
    ]
    optional = [
        Finding(name, _find_version(name), purpose, False, remedy) for name, (purpose, remedy) in OPTIONAL.items()
    ]
    return (*required, *optional)


def list_tool_versions() -> dict[str, str]:
    """Versions of what takes part in a compile, for reports and manifests."""
    versions = {finding.name: finding.version for finding in examine_installation()}
    found = {name: version for name, version in versions.items() if version is not None}
    return {"python": platform.python_version(), **found}


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # TensorFlow is the same package under two names
        return _find_version("tensorflow") if name == "tensorflow-cpu" else None
