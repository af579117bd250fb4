"""`torch.export` with our settings: batch size free, quiet, and its errors in the user's terms."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import PurePath

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from edgeprune.errors import InputError, UnsupportedModelError

# torch.export specialises a batch of 1 to a constant, so examples are repeated to this size
EXAMPLE_BATCH = 2


def export_module(module: nn.Module, example: Tensor, *, training: bool = False) -> ExportedProgram:
    """Export a module as a training-IR program whose batch size is free.

    module: any `nn.Module` of one input; its train/eval flags are as before afterwards.
    example: one or more samples (N, C, T) or (N, C, H, W).
    training: export what forward() does in train mode instead of eval mode.

    A model that fixes the batch size in its code is exported with the example's (raising frees it again).

    Raises InputError if the module fails on the example, UnsupportedModelError if it runs but can't be exported.
    """
    batch = _repeat_samples(example)
    with _mode(module, training), silence_torch(), torch.enable_grad():
        if not training:
            _run_once(module, batch)
        try:
            return _export(module, batch, Dim("batch", min=1))
        except torch._dynamo.exc.UserError as error:
            if "Constraints violated" not in str(error):
                raise _explain_failure(module, error) from error
        except Exception as error:
            raise _explain_failure(module, error) from error
        try:
            return _export(module, batch, Dim.AUTO)
        except Exception as error:
            raise _explain_failure(module, error) from error


def find_source_line(stack_trace: str | None) -> str:
    """Where in the user's code: 'net.py:12: x = x.view(2, -1)', or '' if it isn't known.

    The last frame outside torch of a trace as Python prints it. The folder is left out: messages go into reports.

    >>> find_source_line('  File "/home/me/net.py", line 12, in forward\\n    x = x.view(2, -1)')
    'net.py:12: x = x.view(2, -1)'
    """
    frames = re.findall(r'File "([^"]+)", line (\d+)[^\n]*\n[ \t]*([^\n]*)', stack_trace or "")
    own = [frame for frame in frames if "/torch/" not in frame[0] and not frame[0].startswith("<")]
    if not own:
        return ""
    path, line, code = own[-1]
    return f"{PurePath(path).name}:{line}: {code.strip()}"


def _export(module: nn.Module, batch: Tensor, batch_dim: object) -> ExportedProgram:
    return torch.export.export(module, (batch,), dynamic_shapes=({0: batch_dim},), strict=False)


def _repeat_samples(example: Tensor) -> Tensor:
    if example.dim() < 2 or len(example) == 0:
        raise InputError(
            f"the example has shape {tuple(example.shape)}; give at least one sample as (1, channels, time) "
            "or (1, channels, height, width)"
        )
    samples = example[:EXAMPLE_BATCH]
    return torch.cat([samples] * EXAMPLE_BATCH)[:EXAMPLE_BATCH].contiguous()


def _run_once(module: nn.Module, batch: Tensor) -> None:
    """Tell an input of the wrong shape from a model that can't be exported."""
    try:
        with torch.no_grad():
            module(batch)
    except Exception as error:
        shape = tuple(batch.shape[1:])
        raise InputError(
            f"{type(module).__name__} fails on samples of shape {shape}: {_first_line(error)}. "
            "Check the shape of the data (channels first) and that forward() takes one input"
        ) from error


def _explain_failure(module: nn.Module, error: Exception) -> UnsupportedModelError:
    name = type(module).__name__
    line = find_source_line(str(error))
    where = f" at {line}" if line else ""
    if isinstance(error, GuardOnDataDependentSymNode):
        return UnsupportedModelError(
            f"{name}: forward() decides by the values of a tensor{where}; a compiled program has one path. "
            "Replace the decision by torch.where, or take it out of the model"
        )
    return UnsupportedModelError(f"{name} can't be exported by torch.export{where}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


@contextlib.contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Train or eval mode inside, each submodule's own flag restored after."""
    flags = {child: child.training for child in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for child, flag in flags.items():
            child.training = flag


@contextlib.contextmanager
def silence_torch() -> Iterator[None]:
    """Hide torch's logs, warnings and graph dumps; what goes wrong still comes as an exception."""
    names = ["torch", *(name for name in logging.root.manager.loggerDict if name.startswith("torch."))]
    loud = [logger for logger in map(logging.getLogger, names) if not logger.disabled]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    for logger in loud:
        logger.disabled = True  # setLevel clears all caches of the logging module each time
    # the fused attention of nn.MultiheadAttention is for inference only and would hide its layers
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        dump = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(dump), contextlib.redirect_stderr(dump):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for logger in loud:
            logger.disabled = False


def describe_node(node: fx.Node) -> str:
    """How a message names a node: its name, its op, and the user's line where known."""
    line = find_source_line(node.meta.get("stack_trace"))
    return f"{node.name} ({node.target})" + (f" at {line}" if line else "")
