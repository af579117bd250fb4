"""Passes over the program as it was read, each Graph -> Graph; `PASSES` is their order.

They leave values as they are (float32 rounding aside) and only ops of the table `ops.OPS`.
"""

from edgeprune.export.passes.activations import fuse_activations, fuse_hard_swish
from edgeprune.export.passes.affine import fold_affine, fold_affine_forward, lower_affine
from edgeprune.export.passes.pads import absorb_pads, merge_pads
from edgeprune.export.passes.vectors import drop_mean_axes, lift_vectors

PASSES = (
    fuse_hard_swish,  # before its additions and factors are folded elsewhere
    fold_affine,
    fold_affine_forward,  # while padding is explicit: a shift must not cross zeros
    lower_affine,
    merge_pads,
    absorb_pads,
    fuse_activations,  # after BatchNorm has become a layer or part of one
    lift_vectors,
    drop_mean_axes,
)

__all__ = [
    "PASSES",
    "absorb_pads",
    "drop_mean_axes",
    "fold_affine",
    "fold_affine_forward",
    "fuse_activations",
    "fuse_hard_swish",
    "lift_vectors",
    "lower_affine",
    "merge_pads",
]
