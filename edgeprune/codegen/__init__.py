"""codegen: the int8 program made into C firmware for Cortex-M.

    Graph --stand_up--> upright Graph --make_program--> steps and places --make_schedule--> kernels, windows, arena
          --emit_model_c--> model.c, with the runtime files and the assembly that its kernels need

In the order of reading: `kernel` (what a kernel is), `upright` (time on the rows), `dead_channels` (what need not be
computed), `program` (where tensors lie), `rows` and `streaming` (a few rows at a time), `memory` (the arena),
`schedule` (the choice between memory and time), `emit` (C text), `folder` (header, self-test, build files), `firmware`
(all of it). `kernels/` lowers ops to C calls, `runtime/` holds the C itself.
"""

from edgeprune.codegen.firmware import (
    Estimate,
    Firmware,
    Layer,
    MemoryChoice,
    estimate_firmware,
    generate_firmware,
)
from edgeprune.codegen.folder import MeasuredSizes, render_readme
from edgeprune.codegen.schedule import MEMORY_MODES

__all__ = [
    "MEMORY_MODES",
    "Estimate",
    "Firmware",
    "Layer",
    "MeasuredSizes",
    "MemoryChoice",
    "estimate_firmware",
    "generate_firmware",
    "render_readme",
]
