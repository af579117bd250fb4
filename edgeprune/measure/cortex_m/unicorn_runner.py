"""Firmware run in Unicorn, QEMU's translator as a Python package: Cortex-M0+ to M33 (no Helium, so no M55).

The model's function is called directly, once per input. Input, output, arena and stack lie in memory of their own,
with nothing mapped around it. Guard bytes around each buffer must stay as they were. Two more inferences, with each
buffer at the very start and at the very end of its memory, find reads beyond it; there memory holds other values at
first, so that an output which depends on what an arena held before is found too. The first inferences are counted
block by block (counting.py), the others run at full speed.

Unicorn's Cortex-M0 faults like silicon on unaligned accesses and on instructions that Armv6-M lacks.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import EdgepruneError, InputError, MeasurementUnavailableError
from edgeprune.measure.cortex_m.costs import price_blocks
from edgeprune.measure.cortex_m.counting import BlockCount, FlowCounter
from edgeprune.measure.cortex_m.elf import INSTALL, FirmwareImage, read_elf
from edgeprune.measure.cortex_m.emulated import (
    MODEL_RUN,
    PAINT,
    STACK_BYTES,
    EmulatedRun,
    check_inputs,
    make_counter,
    measure_painted_stack,
    read_buffer_sizes,
)
from edgeprune.measure.cortex_m.instructions import count_instructions
from edgeprune.measure.cortex_m.toolchain import BuiltFirmware
from edgeprune.target import Target

GUARD = 64  # bytes on each side of a buffer
_PAGE = 0x1000
_CODE_BYTES = 64 << 20  # at 0, see mps2.ld
_RAM, _RAM_BYTES = 0x2000_0000, 4 << 20
_STACK = 0x2800_0000
_COUNTED_INSTRUCTIONS = 20_000_000  # counting one inference of a large net takes a second: then one is enough
_RETURN = 0x2F00_0000  # where the model's function returns to
_BUFFERS = {"input": 0x3000_0000, "output": 0x4000_0000, "arena": 0x5000_0000}

_PAINTS = {"start": 0x3C, "middle": PAINT, "end": 0x5A}

CPU_MODELS = {
    "cortex-m0plus": "UC_CPU_ARM_CORTEX_M0",  # Armv6-M has no difference that matters here
    "cortex-m3": "UC_CPU_ARM_CORTEX_M3",
    "cortex-m4": "UC_CPU_ARM_CORTEX_M4",
    "cortex-m7": "UC_CPU_ARM_CORTEX_M7",
    "cortex-m33": "UC_CPU_ARM_CORTEX_M33",
}


def run_unicorn(
    built: BuiltFirmware,
    target: Target,
    inputs: np.ndarray,
    *,
    layers: Sequence[str] = (),
    counted: int = 3,
) -> EmulatedRun:
    """Run the firmware on every input.

    inputs: int8 (n, ...), n >= 1, input_bytes values each. layers: C functions that stand for a layer.
    counted: how many inferences to count at most; the costs are those of the first one, and fewer are counted where one
        takes many millions of instructions.
    Raises InputError without unicorn or capstone; MeasurementUnavailableError for a core that Unicorn lacks;
    EdgepruneError where the firmware leaves its memory, does not return 0, or ends in a fault.
    """
    machine = _Machine(built, target)
    values = check_inputs(inputs, machine.sizes)
    outputs = np.empty((len(values), machine.sizes.output), np.int8)
    first_blocks: tuple[BlockCount, ...] = ()
    instructions: list[int] = []
    buffers = machine.map_buffers("middle")
    started = time.perf_counter()
    for index in range(min(max(counted, 1), len(values))):
        if instructions and sum(instructions) + instructions[-1] > _COUNTED_INSTRUCTIONS:
            break
        counter = make_counter(machine.image, layers)
        outputs[index] = machine.infer(values[index], buffers, counter)
        blocks = counter.collect()
        first_blocks = first_blocks or blocks
        instructions.append(_count_all(blocks, machine.image))
    done_counting = time.perf_counter()
    for index in range(len(instructions), len(values)):
        outputs[index] = machine.infer(values[index], buffers)
    done = time.perf_counter()
    machine.unmap_buffers(buffers)
    machine.check_places(values[0], outputs[0])
    rest = len(values) - len(instructions)
    return EmulatedRun(
        outputs=outputs,
        costs=price_blocks(first_blocks, machine.image, target.core, layers),
        instructions=tuple(instructions),
        peak_stack_bytes=machine.measure_stack(),
        emulator=machine.version,
        image=machine.image,
        blocks=first_blocks,
        counting_mips=sum(instructions) / (done_counting - started) / 1e6,
        running_mips=rest * instructions[0] / (done - done_counting) / 1e6 if rest else 0.0,
    )


def _count_all(blocks: Sequence[BlockCount], image: FirmwareImage) -> int:
    return sum(block.count * count_instructions(image.read_code(block.address, block.size)) for block in blocks)


@dataclass(frozen=True)
class _Buffer:
    """`size` bytes at `address` for the model, in `mapped` bytes of memory at `start` that were filled with `paint`."""

    name: str
    start: int
    mapped: int
    address: int
    size: int
    paint: int


class _Machine:
    """A core with the firmware loaded."""

    def __init__(self, built: BuiltFirmware, target: Target) -> None:
        try:
            import unicorn
            from unicorn import arm_const
        except ImportError as error:
            raise InputError(f"the emulator 'unicorn' is not installed: {INSTALL}") from error
        if target.core not in CPU_MODELS:
            raise MeasurementUnavailableError(
                f"Unicorn has no {target.core}; qemu-system-arm runs it: --emulator qemu (apt install qemu-system-arm)"
            )
        self.unicorn, self.registers = unicorn, arm_const
        self.image = read_elf(built.elf)
        self.sizes = read_buffer_sizes(self.image)
        self.version = f"unicorn {importlib.metadata.version('unicorn')}"
        # with UC_MODE_MCLASS Unicorn takes a core of its own choice and ignores the model that is set
        self.engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB)
        self.engine.ctl_set_cpu_model(getattr(arm_const, CPU_MODELS[target.core]))
        self.engine.mem_map(0, _CODE_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        for start, size in ((_RAM, _RAM_BYTES), (_STACK, STACK_BYTES), (_RETURN, _PAGE)):
            self.engine.mem_map(start, size)
        for address, data in self.image.segments:
            self.engine.mem_write(address, data)
        self.engine.mem_write(_STACK, bytes([PAINT]) * STACK_BYTES)
        self.engine.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._note_fault)
        self.fault = ""
        self.raised: BaseException | None = None

    def infer(self, values: np.ndarray, buffers: Sequence[_Buffer], counter: FlowCounter | None = None) -> np.ndarray:
        """One inference: the output's bytes as int8."""
        source, result, arena = buffers
        self.engine.mem_write(source.address, values.tobytes())
        registers = self.registers
        for register, value in (
            (registers.UC_ARM_REG_R0, source.address),
            (registers.UC_ARM_REG_R1, result.address),
            (registers.UC_ARM_REG_R2, arena.address),
            (registers.UC_ARM_REG_SP, _STACK + STACK_BYTES),
            (registers.UC_ARM_REG_LR, _RETURN | 1),
        ):
            self.engine.reg_write(register, value)
        try:
            with self._counting(counter):
                self.engine.emu_start(self.image.addresses[MODEL_RUN] | 1, _RETURN)
        except self.unicorn.UcError as error:
            raise EdgepruneError(self._explain(str(error))) from error
        if self.raised is not None:
            raise self.raised
        status = self.engine.reg_read(registers.UC_ARM_REG_R0)
        if status != 0:
            raise EdgepruneError(f"{MODEL_RUN} answered {status} instead of 0")
        return np.frombuffer(bytes(self.engine.mem_read(result.address, result.size)), np.int8)

    @contextmanager
    def _counting(self, counter: FlowCounter | None) -> Iterator[None]:
        """Tell the counter of every block, by a hook given to the library itself: 2.5 times as quick as hook_add's."""
        if counter is None:
            yield
            return
        from unicorn.unicorn_py3 import unicorn as binding

        callback = binding.HOOK_CODE_CFUNC(counter.make_hook(self._stop))  # must live as long as the hook
        handle = ctypes.c_size_t()
        everywhere = (ctypes.c_uint64(1), ctypes.c_uint64(0))
        pointer = ctypes.cast(callback, ctypes.c_void_p)
        status = binding.uclib.uc_hook_add(
            self.engine._uch, ctypes.byref(handle), self.unicorn.UC_HOOK_BLOCK, pointer, None, *everywhere
        )
        if status != self.unicorn.UC_ERR_OK:
            raise EdgepruneError(f"Unicorn refuses the counting hook: {self.unicorn.UcError(status)}")
        try:
            yield
        finally:
            binding.uclib.uc_hook_del(self.engine._uch, handle)

    def _stop(self, error: BaseException) -> None:
        self.raised = error
        self.engine.emu_stop()

    def map_buffers(self, place: str) -> tuple[_Buffer, ...]:
        """Memory for input, output and arena, each at the start, in the middle or at the end of its memory."""
        buffers = []
        for name, start in _BUFFERS.items():
            size = getattr(self.sizes, name)
            mapped = -(-(size + 2 * GUARD) // _PAGE) * _PAGE
            offset = {"start": 0, "middle": GUARD, "end": mapped - size}[place]
            offset -= offset % 16 if name == "arena" else 0
            buffer = _Buffer(name, start, mapped, start + offset, size, _PAINTS[place])
            self.engine.mem_map(start, mapped)
            self.engine.mem_write(start, bytes([buffer.paint]) * mapped)
            buffers.append(buffer)
        return tuple(buffers)

    def unmap_buffers(self, buffers: Sequence[_Buffer]) -> None:
        """Take the memory away. Raises EdgepruneError where bytes around a buffer changed."""
        for buffer in buffers:
            memory = np.frombuffer(bytes(self.engine.mem_read(buffer.start, buffer.mapped)), np.uint8)
            self.engine.mem_unmap(buffer.start, buffer.mapped)
            first = buffer.address - buffer.start
            changed = memory != buffer.paint
            changed[first : first + buffer.size] = False
            if changed.any():
                offset = int(np.flatnonzero(changed)[0]) - first
                where = f"{-offset} bytes before it" if offset < 0 else f"{offset - buffer.size} bytes after its end"
                raise EdgepruneError(f"the firmware wrote outside of its {buffer.name}: {where}")

    def check_places(self, values: np.ndarray, expected: np.ndarray) -> None:
        """Inferences with buffers elsewhere, in memory that held something else; the output must be the same."""
        outputs = []
        for place in ("start", "end"):
            buffers = self.map_buffers(place)
            outputs.append(self.infer(values, buffers))
            self.unmap_buffers(buffers)
        for output in outputs:  # after both, since a fault of the second tells more than a difference
            if not np.array_equal(output, expected):
                differing = int((output != expected).sum())
                raise EdgepruneError(
                    f"{differing} of {len(output)} outputs of the firmware depend on where its buffers lie or what "
                    "memory held before: it reads beyond them, or what it never wrote, or leaves outputs unwritten"
                )

    def measure_stack(self) -> int:
        """Bytes of stack used so far."""
        return measure_painted_stack(bytes(self.engine.mem_read(_STACK, STACK_BYTES)))

    def _note_fault(self, _engine: Any, access: int, address: int, size: int, _value: int, _data: Any) -> bool:
        writes = (self.unicorn.UC_MEM_WRITE_UNMAPPED, self.unicorn.UC_MEM_WRITE_PROT)
        fetches = (self.unicorn.UC_MEM_FETCH_UNMAPPED, self.unicorn.UC_MEM_FETCH_PROT)
        verb = "writes" if access in writes else "jumps to" if access in fetches else "reads"
        near = [name for name, start in _BUFFERS.items() if start - _PAGE <= address < start + 0x1000_0000 - _PAGE]
        if _STACK - STACK_BYTES <= address < _STACK:
            near = ["stack"]
        place = f", near the {near[0]}" if near else ""
        self.fault = f"it {verb} {size} bytes at {address:#010x}{place}, where nothing of its own is"
        return False

    def _explain(self, error: str) -> str:
        counter = self.engine.reg_read(self.registers.UC_ARM_REG_PC) & ~1
        if "UC_ERR_EXCEPTION" in error:
            error = "a fault of the core; on Cortex-M0+ most likely an unaligned load or store"
        return f"the firmware failed in {self.image.find_function(counter)} ({counter:#010x}): {self.fault or error}"
