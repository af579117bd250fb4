"""The kernels at hand, by kind of op, and the choice among them.

Of those that fit a call, the one with the fewest modelled cycles is taken; the order breaks ties.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.codegen.kernel import Call, Kernel, Lowered
from edgeprune.codegen.kernels.dsp_convolution import PackedPairsConvolution
from edgeprune.codegen.kernels.dsp_depthwise import DspDepthwiseLine, DspDepthwisePlane
from edgeprune.codegen.kernels.dsp_elementwise import DspElementwise
from edgeprune.codegen.kernels.dsp_fully_connected import DspFullyConnected
from edgeprune.codegen.kernels.dsp_pointwise import DspPatches, DspPointwise
from edgeprune.codegen.kernels.dsp_pooling import DspMapSum
from edgeprune.codegen.kernels.mve_depthwise import MveDepthwiseConv2d, MveDepthwiseTaps
from edgeprune.codegen.kernels.mve_elementwise import MveElementwise
from edgeprune.codegen.kernels.mve_layers import MveConv2d, MveFullyConnected
from edgeprune.codegen.kernels.mve_pool import MveLookup, MveMean, MvePool
from edgeprune.codegen.kernels.one_channel import OneChannel
from edgeprune.codegen.kernels.portable_activations import (
    CLAMPS,
    LOOKUPS,
    PortableClamp,
    PortableLookup,
    PortableSoftmax,
)
from edgeprune.codegen.kernels.portable_elementwise import PortableAdd, PortableMul, PortablePrelu
from edgeprune.codegen.kernels.portable_layers import PortableConv2d, PortableDepthwiseConv2d, PortableFullyConnected
from edgeprune.codegen.kernels.portable_movement import (
    PortableConcat,
    PortablePad,
    PortableReshape,
    PortableStridedSlice,
    PortableTranspose,
)
from edgeprune.codegen.kernels.portable_pool import PortableMean, PortablePool
from edgeprune.errors import UnsupportedModelError

KERNELS: Mapping[str, tuple[Kernel, ...]] = {
    "conv_2d": (
        MveConv2d(),
        DspPointwise(),
        PackedPairsConvolution(),
        DspPatches(),
        OneChannel(DspDepthwiseLine(), DspDepthwisePlane()),
        PortableConv2d(),
    ),
    "depthwise_conv_2d": (
        MveDepthwiseConv2d(),
        MveDepthwiseTaps(),
        DspDepthwiseLine(),
        DspDepthwisePlane(),
        OneChannel(PackedPairsConvolution(), DspPatches()),
        PortableDepthwiseConv2d(),
    ),
    "fully_connected": (MveFullyConnected(), DspFullyConnected(), PortableFullyConnected()),
    "add": (MveElementwise(), DspElementwise(), PortableAdd(), PortableLookup()),
    "sub": (MveElementwise(), DspElementwise(), PortableAdd(), PortableLookup()),
    "mul": (MveElementwise(), DspElementwise(), PortableMul(), PortableLookup()),
    "prelu": (PortablePrelu(), PortableLookup()),
    "max_pool_2d": (MvePool(), PortablePool()),
    "average_pool_2d": (MvePool(), DspMapSum(), PortablePool()),
    "mean": (MveMean(), DspMapSum(), PortableMean()),
    "softmax": (PortableSoftmax(),),
    **{kind: (MveLookup(), PortableLookup()) for kind in LOOKUPS},
    **{kind: (MveLookup(), PortableClamp(), PortableLookup()) for kind in CLAMPS},
    "concat": (PortableConcat(),),
    "pad": (PortablePad(),),
    "reshape": (PortableReshape(),),
    "strided_slice": (PortableStridedSlice(),),
    "transpose": (PortableTranspose(),),
}


def list_candidates(call: Call, *, portable: bool = False) -> list[Lowered]:
    """What every kernel that fits makes of a call, the cheapest first; with `portable`, the C99 ones only."""
    candidates = [lowered for kernel in KERNELS.get(call.op.kind, ()) if (lowered := kernel.lower(call)) is not None]
    if portable:
        candidates = [lowered for lowered in candidates if lowered.kernel.startswith("portable")]
    return sorted(candidates, key=lambda lowered: lowered.cycles)


def lower_call(call: Call, *, portable: bool = False) -> Lowered:
    """The cheapest kernel for a call; with `portable`, the C99 one that runs everywhere.

    Raises UnsupportedModelError where no kernel computes the op exactly.
    """
    candidates = list_candidates(call, portable=portable)
    if not candidates:
        raise UnsupportedModelError(
            f"{call.op.name} ({call.op.kind}): there is no firmware kernel for it; `edgeprune ops` lists what there is"
        )
    return candidates[0]
