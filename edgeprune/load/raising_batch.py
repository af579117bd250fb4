"""The batch size of a raised program, made free and shown to be."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from edgeprune.errors import UnsupportedModelError

aten = torch.ops.aten

# Outputs of one sample alone and in a batch differ by the order of sums only: float32, relative to the largest output.
_TOLERANCE = 1e-3


def read_constant_size(size: int | torch.SymInt) -> int | None:
    """A size as a number, or None for a free one; torch keeps sizes that a program fixed as constant SymInts."""
    return size if isinstance(size, int) else size.node.maybe_as_int()


def free_batch_size(module: fx.GraphModule, batch: int) -> None:
    """Replace the constant batch size of a program exported without a dynamic batch, in place.

    A size that stands first in reshape, expand or repeat, and equals the batch size that the result has, is the batch.
    """
    graph = module.graph
    source = next(node for node in graph.nodes if node.op == "placeholder")
    size: fx.Node | None = None
    for node in list(graph.nodes):
        if not _fixes_batch(node, batch):
            continue
        if size is None:
            with graph.inserting_after(source):
                size = graph.call_function(aten.sym_size.int, (source, 0))
        node.args = (node.args[0], [size, *node.args[1][1:]])
    graph.lint()
    module.recompile()


def _fixes_batch(node: fx.Node, batch: int) -> bool:
    if node.op != "call_function" or len(node.args) < 2:
        return False
    before, sizes = node.args[:2]
    if not isinstance(before, fx.Node) or not isinstance(sizes, (list, tuple)) or not sizes:
        return False
    if not all(isinstance(other.meta.get("val"), Tensor) for other in (before, node)):
        return False
    shape, result = ([read_constant_size(size) for size in other.meta["val"].shape] for other in (before, node))
    if not shape or not result or not sizes[0] == result[0] == batch:
        return False
    if node.target is aten.reshape.default:
        return shape[0] == batch
    if node.target is aten.repeat.default:
        return len(shape) < len(result) or shape[0] == 1
    return node.target is aten.expand.default


def check_batch_free(module: fx.GraphModule, sample_shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise UnsupportedModelError unless each sample's outputs are its own, whatever the batch size."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(3, *sample_shape, generator=generator).to(dtype)
    with torch.no_grad():
        try:
            # the last one: a recurrent layer over the wrong axis hands the first samples on to the later ones
            together, alone = _run(module, samples), _run(module, samples[-1:])
        except RuntimeError as error:
            raise UnsupportedModelError(
                f"the program runs only with the batch size it was exported with ({str(error).splitlines()[0]}). "
                "Export it with an example batch of 2 and dynamic_shapes=({0: torch.export.Dim('batch')},), or use "
                "edgeprune.save_model"
            ) from error
    for index, (many, one) in enumerate(zip(together, alone, strict=True)):
        if many.shape != (3, *one.shape[1:]) or len(one) != 1:
            raise UnsupportedModelError(
                f"output {index} has shape {tuple(many.shape)} for 3 samples; samples must lie along axis 0"
            )
        scale = torch.nan_to_num(one, posinf=0.0, neginf=0.0).abs().max().item()
        if not torch.allclose(many[-1:], one, rtol=0, atol=_TOLERANCE * scale + 1e-12, equal_nan=True):
            raise UnsupportedModelError(
                f"output {index} of a sample changes with the other samples of the batch, also in eval mode; on a "
                "device there is only one sample. Normalise per sample, or with running statistics"
            )


def _run(module: fx.GraphModule, samples: Tensor) -> tuple[Tensor, ...]:
    outputs = module(samples)
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
