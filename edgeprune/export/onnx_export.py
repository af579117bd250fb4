"""PyTorch -> ONNX: the dynamo exporter, then onnxsim, then our own cleaning, each step held against torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import onnxsim
import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import is_concrete_int
from torch.utils._pytree import tree_leaves

from edgeprune.errors import EdgepruneError, UnsupportedModelError
from edgeprune.export.onnx_cleaning import fold_batchnorms, name_nodes, remove_traces
from edgeprune.export.parity_checks import check_step
from edgeprune.load.tracing import export_module, silence_torch

OPSET = 18  # what the dynamo exporter writes without converting, and every runtime of the last years reads
EXAMPLE_BATCH = 2  # a batch of 1 would become a constant of the program
_SEED = 20


def export_onnx(module: nn.Module, input_shape: Sequence[int], *, class_names: Sequence[str] = ()) -> onnx.ModelProto:
    """Export a module, in eval mode, as one float32 ONNX model with a free batch.

    module: any `nn.Module` or raised `fx.GraphModule` of one input; unchanged afterwards.
    input_shape: of one sample, (C,), (C, T) or (C, H, W).
    class_names: written into the model's metadata under 'class_names', where given.

    The input is called 'input', its first axis 'batch'; the output 'output' (several: 'output_0', ...). Nodes have the
    names of the user's modules ('block1.conv'). The same module gives the same bytes, without a trace of the machine.

    Raises UnsupportedModelError if the module can't be exported, ParityError naming the step if a step of the export
    changed its values.
    """
    generator = torch.Generator().manual_seed(_SEED)
    samples = torch.randn(EXAMPLE_BATCH + 1, *input_shape, generator=generator)
    program = export_module(module, samples[:EXAMPLE_BATCH])
    _require_free_batch(program, module)
    expected = _run_program(program, module, samples)
    model = _convert(program, module, len(expected))
    check_step("torch.onnx.export", expected, model, samples.numpy())
    name_nodes(model)
    simplified, _ = onnxsim.simplify(model)
    check_step("onnxsim", expected, simplified, samples.numpy())
    cleaned = remove_traces(fold_batchnorms(simplified), class_names)
    check_step("folding BatchNorm in ONNX", expected, cleaned, samples.numpy())
    onnx.checker.check_model(cleaned, full_check=True)
    return cleaned


def _require_free_batch(program: torch.export.ExportedProgram, module: nn.Module) -> None:
    """Refuse a module whose code works for one size of batch only."""
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in names]
    if inputs and is_concrete_int(inputs[0].shape[0]):
        raise UnsupportedModelError(
            f"{type(module).__name__}: its code fixes the size of the batch. "
            "Write x.shape[0], or -1 in a reshape, where the batch is meant"
        )


def _run_program(program: torch.export.ExportedProgram, module: nn.Module, samples: torch.Tensor) -> list[np.ndarray]:
    """What torch computes, all outputs."""
    runnable = program.module()
    with torch.no_grad(), silence_torch():
        outputs = tree_leaves(runnable(samples))
    if not outputs or not all(isinstance(output, torch.Tensor) for output in outputs):
        kinds = ", ".join(type(output).__name__ for output in outputs) or "nothing"
        raise UnsupportedModelError(f"{type(module).__name__} returns {kinds}; it must return tensors only")
    return [output.cpu().numpy() for output in outputs]


@contextmanager
def _disable_logs() -> Iterator[None]:
    """No log of any module: the exporter imports parts of torch, whose new loggers warn of optional packages."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _convert(program: torch.export.ExportedProgram, module: nn.Module, output_count: int) -> onnx.ModelProto:
    names = ["output"] if output_count == 1 else [f"output_{index}" for index in range(output_count)]
    try:
        with silence_torch(), _disable_logs():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                optimize=True,  # without, onnxsim leaves chains of CastLike and Expand
                opset_version=OPSET,
                input_names=["input"],
                output_names=names,
                verbose=False,
            )
    except Exception as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedModelError(
            f"{type(module).__name__} can't be written as ONNX: {line}. Use operators that torch.onnx.export supports"
        ) from error
    if converted is None:
        raise EdgepruneError("torch.onnx.export returned nothing")
    return converted.model_proto
