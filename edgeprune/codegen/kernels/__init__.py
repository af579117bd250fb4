"""The kernels at hand, by kind of op, and the choice among them.

Of those that fit a call, the one with the fewest modelled cycles is taken; the order breaks ties.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.codegen.kernel import Call, Kernel, Lowered
from edgeprune.errors import UnsupportedModelError

KERNELS: Mapping[str, tuple[Kernel, ...]] = {}


def lower_call(call: Call, *, portable: bool = False) -> Lowered:
    """The cheapest kernel for a call; with `portable`, the C99 one that runs everywhere.

    Raises UnsupportedModelError where no kernel computes the op exactly.
    """
    kernels = KERNELS.get(call.op.kind, ())
    candidates = [lowered for kernel in kernels if (lowered := kernel.lower(call)) is not None]
    if portable:
        candidates = [lowered for lowered in candidates if lowered.kernel.startswith("portable")]
    if not candidates:
        raise UnsupportedModelError(
            f"{call.op.name} ({call.op.kind}): there is no firmware kernel for it; `edgeprune ops` lists what there is"
        )
    return min(candidates, key=lambda lowered: lowered.cycles)
