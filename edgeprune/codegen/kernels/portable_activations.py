"""Portable C for functions of one variable and softmax.

A function of one stored value is a table of 256 results, made by the reference: exact by construction, and equal tables
are stored once. Clamps that keep the scale need no table.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeprune import fixedpoint
from edgeprune.codegen.kernel import Call, Constant, Kernel, Lowered
from edgeprune.codegen.kernels.portable import SETUP_CYCLES, is_same_quant, split_pixels
from edgeprune.codegen.requantize import describe_operands, get_scale
from edgeprune.graph import Graph, Tensor
from edgeprune.reference import run_op

CLAMPS = ("relu", "relu6", "relu_n1_to_1")
LOOKUPS = (*CLAMPS, "leaky_relu", "elu", "hard_swish", "logistic", "tanh", "quantize")


class PortableClamp(Kernel):
    """relu, relu6, relu_n1_to_1 where input and output share their quantization."""

    def lower(self, call: Call) -> Lowered | None:
        if not is_same_quant(call.inputs[0], call.output):
            return None
        least, most = describe_operands(call).stored_range(call.op.kind)
        return Lowered(
            kernel="portable clamp",
            function="ep_clamp",
            fields={**_pixel_fields(call), "act_min": least, "act_max": most},
            cycles=_count_cycles(call, 3.5 if call.target.dsp else 11),
            sources=("ep_clamp.c",),
            in_place=(0,),
        )


class PortableLookup(Kernel):
    """Any function of one stored value: unary ops, and those of two operands where one is a single constant."""

    def lower(self, call: Call) -> Lowered | None:
        activations = [tensor for tensor in call.inputs if not tensor.is_constant]
        if len(activations) != 1 or activations[0].dtype != "int8" or call.output.dtype != "int8":
            return None
        (x,) = activations
        if x.shape != call.output.shape or any(
            tensor.element_count != 1 for tensor in call.inputs if tensor.is_constant
        ):
            return None
        return Lowered(
            kernel="portable table",
            function="ep_lookup",
            fields={"table": f"{call.name}_table", **_pixel_fields(call)},
            cycles=_count_cycles(call, 5.5),
            constants=(Constant(f"{call.name}_table", "int8_t", np.roll(tabulate(call), -128)),),  # 0..127, -128..-1
            sources=("ep_lookup.c",),
            in_place=(0,),
        )


def tabulate(call: Call) -> np.ndarray:
    """What the op makes of the stored values -128 to 127, by the reference; (256,) int8."""
    stored = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    tensors = {
        tensor.name: Tensor.constant(tensor.name, tensor.data.reshape(1), tensor.quant)
        if tensor.data is not None
        else replace(tensor, shape=stored.shape)
        for tensor in (*call.inputs, call.output)
    }
    inputs = tuple(name for name in call.op.inputs if tensors[name].data is None)
    graph = Graph(call.name, tensors, (call.op,), inputs, call.op.outputs)
    values = [stored if (data := tensors[name].data) is None else data for name in call.op.inputs]
    return run_op(call.op, graph, values).reshape(256)


def _pixel_fields(call: Call) -> dict[str, int | str]:
    x = split_pixels(call.output)
    # a tensor of another rank than 3 or 4 is one run of bytes
    strides = (call.x_strides[0], call.y_stride) if len(call.output.shape) in (3, 4) else (x.channels, x.channels)
    return {"columns": x.columns, "channels": x.channels, "x_stride": strides[0], "y_stride": strides[1]}


def _count_cycles(call: Call, per_value: float) -> int:
    """Modelled cycles of a function of each value; a map without gaps is one run."""
    fields = _pixel_fields(call)
    is_flat = fields["x_stride"] == fields["y_stride"] == fields["channels"]
    runs = 1 if is_flat else split_pixels(call.output).pixels
    return round(SETUP_CYCLES + runs * 14 + call.output.element_count * per_value)


class PortableSoftmax(Kernel):
    """softmax over the last axis: a table of exp as far down as it counts, one inversion per pixel.

    exp of a difference takes part in the sum rounded to 19 bits of fraction, and in an output times an inverse of at
    most 1, rounded to 8 bits. So powers below 2**-20 (2048 in F0) change neither, and their places in the table, with
    all beyond, are left out.
    """

    def lower(self, call: Call) -> Lowered | None:
        x = split_pixels(call.inputs[0])
        powers = tabulate_powers(call)
        # sums of 4096 powers do not fit 12 integer bits
        if powers is None or x.channels > 4095:
            return None
        return Lowered(
            kernel="portable",
            function="ep_softmax",
            fields={"powers": f"{call.name}_powers", "count": len(powers), **_pixel_fields(call)},
            cycles=SETUP_CYCLES + x.pixels * (130 + 70 * x.channels),
            constants=(Constant(f"{call.name}_powers", "int32_t", powers),),
            sources=("ep_softmax.c", "ep_fixed_point.c"),
            in_place=(0,),
        )


def tabulate_powers(call: Call) -> np.ndarray | None:
    """exp in F0 for differences of 0, 1, ... stored steps below the largest value (PreprocessSoftmaxScaling); int32.

    None where TFLite's kernel does not take the scale.
    """
    scale = float(np.float32(call.op.attrs["beta"])) * get_scale(call.inputs[0])
    real = min(scale * 2.0**26, 2.0**31 - 1)
    if real <= 1.0:
        return None
    multiplier, shift = fixedpoint.quantize_multiplier(real)
    radius = fixedpoint.calculate_input_radius(5, shift)
    differences = np.arange(0, min(radius, 255) + 1, dtype=np.int64)
    rescaled = fixedpoint.saturating_rounding_doubling_high_mul(-differences << shift, multiplier)
    powers = fixedpoint.exp_on_negative_values(rescaled, 5)
    count = int((powers >= 2048).sum())  # they fall
    return powers[:count].astype(np.int32)
