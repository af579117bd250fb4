"""Instructions of one inference on a 64-bit core: the program's own code, run in Unicorn, counted block by block.

Counted is `edgeprune_model_run` with everything it calls: not the kernel, not the reading of files. The count is exact
(QEMU, an instruction at a time, says the same), and the same on every core that runs the program. It is no time: cores
issue one to eight instructions in a cycle, and wait for memory.
"""

from __future__ import annotations

import importlib.metadata
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.measure.cortex_m.counting import FlowCounter
from edgeprune.measure.cortex_m.elf import FirmwareImage, read_elf
from edgeprune.measure.cortex_m.emulated import MODEL_RUN, PAINT, make_counter, measure_painted_stack
from edgeprune.measure.linux.executable import INSTALL, Executable

METHOD = "emulated_instructions"
_BYTES_PER_INSTRUCTION = 4
_PAGE = 0x1_0000
_INPUT, _STACK, _RETURN = 0x4000_0000, 0x7000_0000, 0x7800_0000  # the program itself lies at 0x100_0000
_STACK_BYTES = 1 << 20
_VECTORS_ON = 3 << 20  # CPACR_EL1.FPEN: Arm DDI 0487, D19.2.30


@dataclass(frozen=True, eq=False)
class InstructionCount:
    """One inference. layers: C function -> instructions; the rest of `total` is between them.

    outputs: int8 (output bytes,). peak_stack_bytes: found by painting. emulator: name and version.
    """

    total: int
    layers: Mapping[str, int]
    outputs: np.ndarray
    peak_stack_bytes: int
    emulator: str


def count_instructions(executable: Executable, values: np.ndarray, layers: Sequence[str] = ()) -> InstructionCount:
    """Run one inference and count it.

    executable: for aarch64, built with keep_symbols; its code is that of the one without. values: int8, one sample.
    layers: C functions that stand for a layer. Raises InputError where a package is missing; EdgepruneError where the
    program fails, or has no function of such a name.
    """
    try:
        import unicorn
        from unicorn import arm64_const as registers
    except ImportError as error:
        raise InputError(f"instruction counts need unicorn, which is not installed: {INSTALL}") from error
    image = read_elf(executable.content)
    counter = make_counter(image, layers)
    engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    engine.ctl_set_cpu_model(registers.UC_CPU_ARM64_MAX)
    _load(engine, executable)
    sizes = {symbol.name: (symbol.address, symbol.size) for symbol in image.symbols}
    engine.mem_map(_INPUT, -(-values.nbytes // _PAGE) * _PAGE)
    engine.mem_write(_INPUT, np.ascontiguousarray(values, np.int8).tobytes())
    engine.mem_map(_STACK, _STACK_BYTES)
    engine.mem_write(_STACK, bytes([PAINT]) * _STACK_BYTES)
    engine.mem_map(_RETURN, _PAGE)
    for register, value in (
        (registers.UC_ARM64_REG_CPACR_EL1, _VECTORS_ON),
        (registers.UC_ARM64_REG_X0, _INPUT),
        (registers.UC_ARM64_REG_X1, sizes["output"][0]),
        (registers.UC_ARM64_REG_X2, sizes["arena"][0]),
        (registers.UC_ARM64_REG_SP, _STACK + _STACK_BYTES),
        (registers.UC_ARM64_REG_LR, _RETURN),
    ):
        engine.reg_write(register, value)
    _run(engine, image, counter, unicorn)
    if engine.reg_read(registers.UC_ARM64_REG_W0) != 0:
        raise EdgepruneError(f"{MODEL_RUN} did not answer 0")
    per_layer: Counter[str] = Counter()
    for block in counter.collect():
        per_layer[block.layer] += block.count * block.size // _BYTES_PER_INSTRUCTION
    return InstructionCount(
        total=per_layer.total(),
        layers={name: per_layer[name] for name in layers},
        outputs=np.frombuffer(bytes(engine.mem_read(*sizes["output"])), np.int8),
        peak_stack_bytes=measure_painted_stack(bytes(engine.mem_read(_STACK, _STACK_BYTES))),
        emulator=f"unicorn {importlib.metadata.version('unicorn')}",
    )


def _load(engine: Any, executable: Executable) -> None:
    """Put the program into memory, its zeroed variables too."""
    from elftools.elf.elffile import ELFFile

    segments = [
        segment for segment in ELFFile(io.BytesIO(executable.content)).iter_segments() if segment["p_type"] == "PT_LOAD"
    ]
    start = min(segment["p_vaddr"] for segment in segments) // _PAGE * _PAGE
    end = max(segment["p_vaddr"] + segment["p_memsz"] for segment in segments)
    engine.mem_map(start, -(-(end - start) // _PAGE) * _PAGE)
    for segment in segments:
        engine.mem_write(segment["p_vaddr"], segment.data())


def _run(engine: Any, image: FirmwareImage, counter: FlowCounter, unicorn: Any) -> None:
    raised: list[BaseException] = []

    def stop(error: BaseException) -> None:
        raised.append(error)
        engine.emu_stop()

    engine.hook_add(unicorn.UC_HOOK_BLOCK, counter.make_hook(stop))
    try:
        engine.emu_start(image.addresses[MODEL_RUN], _RETURN)
    except unicorn.UcError as error:
        raise EdgepruneError(f"the program failed in the emulator: {error}") from error
    if raised:
        raise raised[0]
