"""What both emulators answer, and what both need to know of a firmware."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.errors import EdgepruneError
from edgeprune.measure.cortex_m.costs import RunCosts
from edgeprune.measure.cortex_m.counting import BlockCount, FlowCounter
from edgeprune.measure.cortex_m.elf import FirmwareImage

MODEL_RUN = "edgeprune_model_run"
PAINT = 0xA5  # fills memory that should stay untouched
STACK_BYTES = 64 << 10


@dataclass(frozen=True, eq=False)
class EmulatedRun:
    """A firmware run on some inputs.

    outputs: int8 (n, output_bytes). costs: of the first inference. instructions: of each inference that was counted,
    exact. peak_stack_bytes: the deepest stack over all inferences, found by painting. emulator: name and version.
    mips: millions of instructions per second while counting, and without it (0 where not timed).
    blocks: executed blocks of the first inference. image: the firmware's symbols.
    """

    outputs: np.ndarray
    costs: RunCosts
    instructions: tuple[int, ...]
    peak_stack_bytes: int
    emulator: str
    image: FirmwareImage
    blocks: tuple[BlockCount, ...] = ()
    counting_mips: float = 0.0
    running_mips: float = 0.0


@dataclass(frozen=True)
class BufferSizes:
    """Bytes of the model's input, output and arena, as its header states them."""

    input: int
    output: int
    arena: int


def read_buffer_sizes(image: FirmwareImage) -> BufferSizes:
    """What the rig took down from model.h."""
    if "rig_sizes" not in image.addresses:
        raise EdgepruneError("the firmware's ELF file has no rig_sizes; was it built by build_elf?")
    return BufferSizes(*struct.unpack("<3I", image.read_code(image.addresses["rig_sizes"], 12)))


def check_inputs(inputs: np.ndarray, sizes: BufferSizes) -> np.ndarray:
    """The inputs as int8 (n, input_bytes), contiguous."""
    values = np.ascontiguousarray(inputs)
    if values.dtype != np.int8 or values.ndim < 2 or not len(values) or values[0].size != sizes.input:
        raise EdgepruneError(
            f"inputs are {values.dtype} of shape {values.shape}; the firmware takes int8, n x {sizes.input} values"
        )
    return values.reshape(len(values), sizes.input)


def make_counter(image: FirmwareImage, layers: Sequence[str]) -> FlowCounter:
    """A counter that knows where each layer begins. Raises EdgepruneError for a layer that is no function."""
    entries = {}
    for name in layers:
        if name not in image.addresses:
            raise EdgepruneError(f"the firmware has no function {name}; was it inlined, or dropped by the linker?")
        entries[image.addresses[name]] = name
    run = image.get_function(MODEL_RUN)
    return FlowCounter(entries, range(run.address, run.address + run.size))


def measure_painted_stack(memory: bytes) -> int:
    """How much of a painted stack, which grows down, was used. Raises EdgepruneError where all of it was."""
    used = np.flatnonzero(np.frombuffer(memory, np.uint8) != PAINT)
    if len(used) and used[0] == 0:
        raise EdgepruneError(f"the firmware needs more than {len(memory)} bytes of stack")
    return len(memory) - int(used[0]) if len(used) else 0
