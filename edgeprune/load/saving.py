"""Model files out: a `torch.export` archive that needs none of the user's code to be read again."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from edgeprune.artifacts import ModelInfo, Normalization
from edgeprune.disk import write_file_atomically
from edgeprune.errors import InputError
from edgeprune.load.archive_program import INFO_FILE
from edgeprune.load.model_info import InfoFile, encode_info
from edgeprune.load.raising import raise_program
from edgeprune.load.tracing import export_module, silence_torch


def save_model(
    module: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    normalization: Normalization | None = None,
    class_names: Sequence[str] = (),
    architecture: str | None = None,
    architecture_options: Mapping[str, Any] | None = None,
) -> None:
    """Save a model, its weights and what must be known to use it, for `load_model` and `edgeprune compile`.

    module: any module that `raise_module` takes; it is saved as it is in eval mode, and left as it was.
    example: one or more samples (N, C, T) or (N, C, H, W); only their shape is kept.
    normalization: what is done to raw values before they go into the model; None if that isn't known.
    class_names: in the order of the outputs.
    architecture, architecture_options: name and options of `edgeprune.models.build_model`, if the model is one of its.

    The same model gives the same bytes, with no path of this machine in them. A file at `path` is replaced in one step,
    or stays as it was.

    Raises InputError (the example's shape, the disk), UnsupportedModelError (what edgeprune could not load again).
    """
    example = example.detach().to("cpu", torch.float32)
    _check_devices(module)
    program = export_module(module, torch.zeros_like(example))
    raised = raise_program(program)  # what can't be loaded again is told now
    frozen = tuple(name for name, parameter in raised.named_parameters() if not parameter.requires_grad)
    info = ModelInfo(normalization, tuple(class_names), architecture, dict(architecture_options or {}))
    write_file_atomically(Path(path), _encode_program(program, encode_info(InfoFile(info, frozen))))


def _check_devices(module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.device.type != "cpu":
            raise InputError(f"{name} is on {tensor.device}; move the model to the CPU first: model.cpu()")


def _encode_program(program: ExportedProgram, info: str) -> bytes:
    _shorten_metadata(program.graph_module)
    program._example_inputs = None
    buffer = io.BytesIO()
    with silence_torch():
        torch.export.save(program, buffer, extra_files={INFO_FILE: info})
    return buffer.getvalue()


def _shorten_metadata(module: fx.GraphModule) -> None:
    """Keep values and the name of the innermost module, for layers without weights of their own.

    Stack traces hold paths of this machine; the names of outer modules grow with each load and save.
    """
    for node in module.graph.nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
        if stack:
            node.meta["nn_module_stack"] = {"layer": stack[-1]}
