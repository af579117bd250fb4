"""Ops that move values without arithmetic: concat, pad, reshape, transpose, strided_slice; float32 and int8 alike.

They act on each sample alone: the batch, axis 0, must stay where it is.
"""

from __future__ import annotations

import numpy as np

from edgeprune.reference.call import Call


def _require_copy(call: Call) -> None:
    if call.output.dtype == "int8":
        call.require_same_quantization(*call.inputs)


def concat(call: Call) -> np.ndarray:
    """Join along `axis`; in int8 all operands share the output's quantization."""
    _require_copy(call)
    axis = call["axis"]
    if axis % call.x.ndim == 0:
        raise call.unsupported("it joins along the batch axis; join along height, width or channels")
    samples = max(values.shape[0] for values in call.values)
    parts = [np.broadcast_to(values, (samples, *values.shape[1:])) for values in call.values]  # constants say 1
    return np.concatenate(parts, axis=axis)


def pad(call: Call) -> np.ndarray:
    """Pad with 0 (in int8: the zero point) or with the least value of the type."""
    _require_copy(call)
    paddings, mode = call["paddings"], call["mode"]
    if tuple(paddings[0]) != (0, 0):
        raise call.unsupported("it pads the batch axis; pad height, width or channels")
    if mode not in ("zero", "lowest"):
        raise call.fault(f"mode is {mode!r}; allowed: zero, lowest")
    if call.output.dtype == "int8":
        fill: float = call.zero_point(call.output) if mode == "zero" else -128
    else:
        fill = 0.0 if mode == "zero" else float(np.finfo(np.float32).min)
    return np.pad(call.x, paddings, constant_values=fill)


def reshape(call: Call) -> np.ndarray:
    """The same values in another shape."""
    _require_copy(call)
    shape = call["shape"]
    if call.inputs[0].is_constant:
        return call.x.reshape(shape)
    if shape[0] != call.inputs[0].shape[0]:
        raise call.unsupported(f"{call.inputs[0].shape} -> {tuple(shape)} changes the batch axis; keep axis 0")
    return call.x.reshape(call.x.shape[0], *shape[1:])


def transpose(call: Call) -> np.ndarray:
    """Reorder the axes."""
    _require_copy(call)
    if call["perm"][0] != 0:
        raise call.unsupported(f"perm {tuple(call['perm'])} moves the batch axis; keep axis 0 first")
    return np.ascontiguousarray(call.x.transpose(call["perm"]))


def strided_slice(call: Call) -> np.ndarray:
    """Every stride-th value from begin (in) to end (out), per axis."""
    _require_copy(call)
    bounds = list(zip(call["begin"], call["end"], call["stride"], strict=True))
    if bounds[0] != (0, call.inputs[0].shape[0], 1):
        raise call.unsupported(f"it slices the batch axis by {bounds[0]}; slice height, width or channels")
    return np.ascontiguousarray(call.x[(slice(None), *(slice(*bound) for bound in bounds[1:]))])
