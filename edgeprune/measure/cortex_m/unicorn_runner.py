"""Firmware run in Unicorn, QEMU's translator as a Python package: Cortex-M0+ to M33 (no Helium, so no M55).

The model's function is called directly, once per input, with its buffers in memory of their own: guard bytes around
each one must stay as they were, and one more inference with each buffer at the very end of its memory finds reads
beyond it. The first inferences are counted block by block (counting.py); the rest run without counting.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import EdgepruneError, InputError, MeasurementUnavailableError
from edgeprune.measure.cortex_m.counting import BlockCount, FlowCounter
from edgeprune.measure.cortex_m.elf import INSTALL, FirmwareImage, read_elf
from edgeprune.measure.cortex_m.toolchain import BuiltFirmware
from edgeprune.target import Target

MODEL_RUN = "edgeprune_model_run"
GUARD = 64  # bytes on each side of a buffer
PAINT = 0xA5
_PAGE = 0x1000
_CODE, _CODE_BYTES = 0x0000_0000, 4 << 20
_RAM, _RAM_BYTES = 0x2000_0000, 4 << 20
_STACK, _STACK_BYTES = 0x2800_0000, 64 << 10
_RETURN = 0x2F00_0000  # where the model's function returns to
_BUFFERS = {"input": 0x3000_0000, "output": 0x4000_0000, "arena": 0x5000_0000}

_CPU_MODELS = {
    "cortex-m0plus": "UC_CPU_ARM_CORTEX_M0",
    "cortex-m3": "UC_CPU_ARM_CORTEX_M3",
    "cortex-m4": "UC_CPU_ARM_CORTEX_M4",
    "cortex-m7": "UC_CPU_ARM_CORTEX_M7",
    "cortex-m33": "UC_CPU_ARM_CORTEX_M33",
}


@dataclass(frozen=True, eq=False)
class EmulatedRun:
    """What an emulator saw.

    outputs: int8 (n, output_bytes). blocks: executed blocks of the first inference, by layer.
    instructions: of each counted inference. peak_stack_bytes: the deepest over all inferences.
    emulator: name and version. image: the firmware's symbols.
    """

    outputs: np.ndarray
    blocks: tuple[BlockCount, ...]
    instructions: tuple[int, ...]
    peak_stack_bytes: int
    emulator: str
    image: FirmwareImage


def run_unicorn(
    built: BuiltFirmware,
    target: Target,
    inputs: np.ndarray,
    *,
    layers: Sequence[str] = (),
    counted: int = 1,
) -> EmulatedRun:
    """Run the firmware on every input.

    inputs: int8 (n, input_bytes). layers: C functions that stand for a layer. counted: how many inferences to count.
    Raises InputError without unicorn; MeasurementUnavailableError for a core that it lacks; EdgepruneError where the
    firmware leaves its memory, does not return 0, or ends in a fault.
    """
    machine = _Machine(built, target)
    return machine.run(np.ascontiguousarray(inputs, np.int8), layers, counted)


@dataclass(frozen=True)
class _Buffer:
    """Memory of the model's: `bytes` at `address`, within a mapping of `mapped` bytes at `start` filled with PAINT."""

    name: str
    start: int
    mapped: int
    address: int
    bytes: int


class _Machine:
    def __init__(self, built: BuiltFirmware, target: Target) -> None:
        try:
            import unicorn
            from unicorn import arm_const
        except ImportError as error:
            raise InputError(f"the emulator 'unicorn' is not installed: {INSTALL}") from error
        if target.core not in _CPU_MODELS:
            raise MeasurementUnavailableError(
                f"Unicorn has no {target.core}; qemu-system-arm runs it (apt install qemu-system-arm)"
            )
        self.unicorn, self.registers = unicorn, arm_const
        self.image = read_elf(built.elf)
        self.version = f"unicorn {importlib.metadata.version('unicorn')}"
        self.sizes = dict(zip(_BUFFERS, self._read_sizes(), strict=True))
        # with UC_MODE_MCLASS Unicorn would take its own default core and ignore the model that is set
        self.engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB)
        self.engine.ctl_set_cpu_model(getattr(arm_const, _CPU_MODELS[target.core]))
        for start, size in ((_CODE, _CODE_BYTES), (_RAM, _RAM_BYTES), (_STACK, _STACK_BYTES), (_RETURN, _PAGE)):
            self.engine.mem_map(start, size)
        for address, data in self.image.segments:
            self.engine.mem_write(address, data)
        self.engine.mem_write(_STACK, bytes([PAINT]) * _STACK_BYTES)
        self.fault = ""
        self.stop: BaseException | None = None
        invalid = unicorn.UC_HOOK_MEM_INVALID
        self.engine.hook_add(invalid, self._note_fault)

    def _read_sizes(self) -> tuple[int, ...]:
        address = self.image.addresses["rig_sizes"]
        for start, data in self.image.segments:
            if start <= address < start + len(data):
                return struct.unpack_from("<3I", data, address - start)
        raise EdgepruneError("the firmware's ELF file does not hold rig_sizes")

    def run(self, inputs: np.ndarray, layers: Sequence[str], counted: int) -> EmulatedRun:
        if inputs.ndim != 2 or inputs.shape[1] != self.sizes["input"]:
            raise EdgepruneError(f"inputs of shape {inputs.shape}; the firmware takes (n, {self.sizes['input']}) int8")
        buffers = self._map_buffers(at_end=False)
        outputs = np.empty((len(inputs), self.sizes["output"]), np.int8)
        blocks: tuple[BlockCount, ...] = ()
        instructions: list[int] = []
        for index, values in enumerate(inputs):
            counter = self._make_counter(layers) if index < counted else None
            outputs[index] = self._infer(values, buffers, counter)
            if counter is not None:
                found = counter.collect()
                blocks = blocks or found
                instructions.append(sum(block.count * _count_instructions(self, block) for block in found))
        self._check_guards(buffers)
        self._unmap(buffers)
        if len(inputs):
            self._check_placement(inputs[0], outputs[0])
        return EmulatedRun(outputs, blocks, tuple(instructions), self._measure_stack(), self.version, self.image)

    def _infer(self, values: np.ndarray, buffers: Sequence[_Buffer], counter: FlowCounter | None) -> np.ndarray:
        engine, registers = self.engine, self.registers
        source, result, arena = buffers
        engine.mem_write(source.address, values.tobytes())
        for register, value in (
            (registers.UC_ARM_REG_R0, source.address),
            (registers.UC_ARM_REG_R1, result.address),
            (registers.UC_ARM_REG_R2, arena.address),
            (registers.UC_ARM_REG_SP, _STACK + _STACK_BYTES),
            (registers.UC_ARM_REG_LR, _RETURN | 1),
        ):
            engine.reg_write(register, value)
        hook = self._add_block_hook(counter) if counter is not None else None
        try:
            engine.emu_start(self.image.addresses[MODEL_RUN] | 1, _RETURN)
        except self.unicorn.UcError as error:
            raise EdgepruneError(self._explain(error)) from error
        finally:
            if hook is not None:
                engine.hook_del(hook)
        if self.stop is not None:
            raise self.stop
        status = engine.reg_read(registers.UC_ARM_REG_R0)
        if status != 0:
            raise EdgepruneError(f"{MODEL_RUN} answered {status} instead of 0")
        return np.frombuffer(bytes(engine.mem_read(result.address, result.bytes)), np.int8)

    def _make_counter(self, layers: Sequence[str]) -> FlowCounter:
        entries = {}
        for name in layers:
            if name not in self.image.addresses:
                raise EdgepruneError(f"the firmware has no function {name}; was the layer inlined or dropped?")
            entries[self.image.addresses[name]] = name
        run = next(symbol for symbol in self.image.functions if symbol.name == MODEL_RUN)
        return FlowCounter(entries, range(run.address, run.address + run.size))

    def _add_block_hook(self, counter: FlowCounter) -> Any:
        """Count every block. The hook is given to the library itself: three times as quick as through hook_add."""
        from unicorn.unicorn_py3 import unicorn as binding

        step = counter.step

        def note_block(_engine: int, address: int, size: int, _data: int) -> None:
            try:
                step(address, size)
            except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt too: nothing may pass through C
                self.stop = error
                self.engine.emu_stop()

        callback = binding.HOOK_CODE_CFUNC(note_block)
        handle = ctypes.c_size_t()
        status = binding.uclib.uc_hook_add(
            self.engine._uch,
            ctypes.byref(handle),
            self.unicorn.UC_HOOK_BLOCK,
            ctypes.cast(callback, ctypes.c_void_p),
            None,
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status != self.unicorn.UC_ERR_OK:
            raise EdgepruneError(f"Unicorn refuses the counting hook: {self.unicorn.UcError(status)}")
        self._callback = callback  # must live as long as the hook
        self.engine._callbacks[handle.value] = callback
        return handle.value

    def _map_buffers(self, *, at_end: bool) -> tuple[_Buffer, ...]:
        """Memory for input, output and arena, 16-byte aligned; `at_end`: as near to the end of its mapping as may be."""
        buffers = []
        for name, start in _BUFFERS.items():
            size = self.sizes[name]
            mapped = -(-(size + 2 * GUARD) // _PAGE) * _PAGE
            address = start + GUARD
            if at_end:
                address = start + mapped - size
                address -= address % 16 if name == "arena" else 0
            self.engine.mem_map(start, mapped)
            self.engine.mem_write(start, bytes([PAINT]) * mapped)
            buffers.append(_Buffer(name, start, mapped, address, size))
        return tuple(buffers)

    def _unmap(self, buffers: Sequence[_Buffer]) -> None:
        for buffer in buffers:
            self.engine.mem_unmap(buffer.start, buffer.mapped)

    def _check_guards(self, buffers: Sequence[_Buffer]) -> None:
        for buffer in buffers:
            memory = np.frombuffer(bytes(self.engine.mem_read(buffer.start, buffer.mapped)), np.uint8)
            first = buffer.address - buffer.start
            around = memory != PAINT
            around[first : first + buffer.bytes] = False
            if around.any():
                offset = int(np.flatnonzero(around)[0]) - first
                raise EdgepruneError(f"the firmware wrote outside of its {buffer.name}, {_describe(offset, buffer)}")

    def _check_placement(self, values: np.ndarray, expected: np.ndarray) -> None:
        """Once more with each buffer at the end of its memory: a read beyond it faults, alignment changes nothing."""
        buffers = self._map_buffers(at_end=True)
        outputs = self._infer(values, buffers, None)
        self._check_guards(buffers)
        self._unmap(buffers)
        if not np.array_equal(outputs, expected):
            raise EdgepruneError("the firmware's outputs depend on where its buffers lie, or on an earlier inference")

    def _measure_stack(self) -> int:
        memory = np.frombuffer(bytes(self.engine.mem_read(_STACK, _STACK_BYTES)), np.uint8)
        used = np.flatnonzero(memory != PAINT)
        return _STACK_BYTES - int(used[0]) if len(used) else 0

    def _note_fault(self, _engine: Any, access: int, address: int, size: int, _value: int, _data: Any) -> bool:
        writes = (self.unicorn.UC_MEM_WRITE_UNMAPPED, self.unicorn.UC_MEM_WRITE_PROT)
        fetches = (self.unicorn.UC_MEM_FETCH_UNMAPPED, self.unicorn.UC_MEM_FETCH_PROT)
        verb = "writes" if access in writes else "jumps to" if access in fetches else "reads"
        place = f"{address:#010x}"
        for name, start in _BUFFERS.items():
            if start - _PAGE <= address < start + self.sizes[name] + 2 * _PAGE:
                place += f" (near the {name})"
        if _STACK - _PAGE <= address < _STACK:
            place += " (the stack is full)"
        self.fault = f"{verb} {size} bytes at {place}"
        return False

    def _explain(self, error: Exception) -> str:
        counter = self.engine.reg_read(self.registers.UC_ARM_REG_PC)
        where = f"in {self.image.find_function(counter & ~1)} (pc {counter:#010x})"
        return f"the firmware failed {where}: {self.fault or error}"


def _describe(offset: int, buffer: _Buffer) -> str:
    if offset < 0:
        return f"{-offset} bytes before its start"
    return f"{offset - buffer.bytes} bytes after its end"


def _count_instructions(machine: _Machine, block: BlockCount) -> int:
    code = bytes(machine.engine.mem_read(block.address, block.size))
    count, at = 0, 0
    while at < len(code):
        # a first halfword from 0b11101 on begins a 32-bit instruction: Armv7-M manual A5.1
        at += 4 if code[at + 1] >= 0xE8 else 2
        count += 1
    return count
