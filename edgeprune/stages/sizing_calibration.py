"""What a compiler makes of the runtime's C, core by core: means over firmware of the reference nets.

Measured with ziglang 0.17.1 (clang 22.1.8), -Os, in Unicorn and QEMU: LITE, FCN, InceptionTime, EEG CNN, ResNet-20 and
VGG, each at two or three widths between 15 and 60 % of its channels. Predictions without an anchor rest on them; with
one, only how figures change with a layer's size does. `tests/test_sizing.py` holds them against builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConvolutionCost:
    """Instructions of a portable convolution or dense layer: least squares of relative errors, on average 4 to 5 %.

    estimated: for a cycle of the estimate that kernels are chosen by. macs, outputs, positions: for each of them.
    """

    estimated: float
    macs: float
    outputs: float
    positions: float


@dataclass(frozen=True)
class Calibration:
    """Of one core.

    code_per_character: bytes of code for a character of the runtime's C, without comments. call_bytes,
    streamed_call_bytes: code of a call in the model's own function. layer_bytes: of the function that stands for a
    layer. stack_bytes: the deepest stack. instructions: for a cycle of the estimate; kernels: the same by kernel, of
    portable ones by kernel and kind. convolution: in place of these for convolutions and dense layers, on cores without
    DSP. cycles: for a cycle of the estimate, on cores without DSP for an instruction; 0 where there is no cycle model.
    """

    code_per_character: float
    call_bytes: float
    streamed_call_bytes: float
    layer_bytes: int
    stack_bytes: int
    instructions: float
    cycles: float
    kernels: Mapping[str, float] = field(default_factory=dict)
    convolution: ConvolutionCost | None = None


_DSP_KERNELS: Mapping[str, float] = {
    "add as a linear form": 0.84,
    "convolution of patches, 2 pixels x 4 channels": 0.90,
    "convolution, packed pairs": 0.84,
    "depthwise line, packed pairs": 0.69,
    "fully connected, 4 outputs of nested weights": 0.66,
    "map sum, pairs of 16 bits": 0.77,
    "pointwise convolution, 2 pixels x 4 channels": 0.86,
    "portable max_pool_2d": 0.62,
    "portable mean": 0.95,
}
_HELIUM_KERNELS: Mapping[str, float] = {
    "Helium add": 0.73,
    "Helium convolution (lines)": 1.05,
    "Helium convolution (points)": 0.94,
    "Helium convolution (series)": 1.11,
    "Helium depthwise, lines": 1.04,
    "Helium fully connected": 1.24,
    "Helium mean": 1.11,
    "Helium pooling": 1.47,
}
_M0_KERNELS: Mapping[str, float] = {
    "portable add": 2.87,
    "portable depthwise_conv_2d": 1.10,
    "portable max_pool_2d": 0.92,
    "portable mean": 1.27,
}

CALIBRATION: Mapping[str, Calibration] = {
    "cortex-m0plus": Calibration(
        0.168, 31, 97, 16, 400, 1.6, 1.47, _M0_KERNELS, ConvolutionCost(0.833, 3.62, 11.3, 103.3)
    ),
    "cortex-m3": Calibration(0.158, 27, 95, 14, 330, 0.75, 1.66, {}, ConvolutionCost(0.656, 0.467, 0.0, 76.4)),
    "cortex-m4": Calibration(0.158, 28, 95, 14, 410, 0.80, 1.02, _DSP_KERNELS),
    "cortex-m7": Calibration(0.158, 28, 95, 18, 410, 0.80, 0.66, _DSP_KERNELS),
    "cortex-m33": Calibration(0.158, 28, 95, 14, 410, 0.80, 0.94, _DSP_KERNELS),
    "cortex-m55": Calibration(0.107, 28, 120, 14, 510, 1.06, 0.0, _HELIUM_KERNELS),
}
