"""Fully connected layers on cores with the DSP extension: runtime/ep_dsp_fully_connected.c."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_dot import fold_rescaling, list_quad_channels, pack_quads
from edgeprune.codegen.kernels.dsp_dot_code import VECTOR_UNITS, build_vector_code
from edgeprune.codegen.kernels.portable import split_pixels
from edgeprune.codegen.requantize import scale_layer

# Inputs are widened to int16 before, in the scratch, or each time that they are loaded: 3 cycles for each input, or 2
# for each eight inputs and four outputs.
_FEW_OUTPUTS = 48
_MOST_WIDE_BYTES = 512


class DspFullyConnected(Kernel):
    """fully_connected of any size, a byte per weight."""

    def lower(self, call: Call) -> Lowered | None:
        if call.op.kind != "fully_connected" or not call.target.dsp or call.target.mve:
            return None
        weight = call.inputs[1].data
        assert weight is not None
        if call.x_strides[0] != split_pixels(call.inputs[0]).channels:
            return None  # a part of a wider tensor: its pixels do not touch
        scales = scale_layer(call)
        rescaling = fold_rescaling(scales, weight, shared=scales.is_uniform)
        if rescaling is None:
            return None
        outputs, inputs = weight.shape
        units = -(-inputs // 8)
        channels = list_quad_channels(outputs)
        constants = [rescaling.twice_bias]
        if not scales.is_uniform:
            constants += [rescaling.multiplier, rescaling.offset, rescaling.shift]
        words = pack_quads(
            np.where(rescaling.is_fixed[:, None], 0, weight)[channels],
            _order_units(inputs),
            plain=rescaling.finish.plain,
        )
        table = (np.stack(constants, axis=1)[channels] & 0xFFFFFFFF).astype(np.uint32)
        stream = np.concatenate([words.reshape(len(words), -1), table.reshape(len(words), -1)], axis=1).reshape(-1)
        unit_cycles = 53 if rescaling.finish.plain else 39
        narrow = inputs % 8 == 0 and (outputs <= _FEW_OUTPUTS or 16 * units > _MOST_WIDE_BYTES)
        if narrow:
            unit_cycles += 2
        code = build_vector_code(replace(rescaling.finish, narrow=narrow))
        return Lowered(
            kernel="fully connected, 4 outputs of nested weights",
            function="ep_dsp_fully_connected",
            fields={
                "multiply": code.name,
                "stream": f"{call.name}_stream",
                "multiplier": int(rescaling.multiplier[0]),
                "offset": int(rescaling.offset[0]),
                "shift": int(rescaling.shift[0]),
                "constant_words": 4 * len(constants),
                "inputs": inputs,
                "outputs": outputs,
                "reads_bytes": int(narrow),
                "act_min": rescaling.packed_act_min,
                "excess": rescaling.packed_excess,
            },
            cycles=180
            + (0 if narrow else 3 * inputs)
            + len(words) * (60 + unit_cycles * units + units // VECTOR_UNITS * 6),
            constants=(Constant(f"{call.name}_stream", "uint32_t", stream),),
            assembly=(code,),
            sources=("ep_dsp_fully_connected.c",),
            scratch_bytes=0 if narrow else 16 * units,
        )


def _order_units(inputs: int) -> np.ndarray:
    """(steps, 2): the inputs of each step, filled up to whole units of eight with -1, no input."""
    groups = np.arange(0, -(-inputs // 8) * 8, 4)[:, None, None] + np.array([[0, 2], [1, 3]])
    order = groups.reshape(-1, 2)
    return np.where(order < inputs, order, -1)
