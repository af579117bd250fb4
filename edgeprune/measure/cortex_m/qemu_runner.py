"""Firmware run in qemu-system-arm, where it is on PATH: Cortex-M55 with Helium, and M3, M4, M7 to check Unicorn by.

A run is one process with all inputs in memory; the rig (rig.c) saves the memory at the end. The first inference runs
once more with QEMU's trace of executed blocks (-d in_asm,exec,nochain), which is counted as Unicorn's blocks are, so
that instructions are exact, layer by layer. Armv8.1-M's loop ends (LE, LETP) count as instructions in each pass; how
many there were is in `RunCosts.loop_ends`.
"""

from __future__ import annotations

import functools
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.errors import EdgepruneError, MeasurementUnavailableError
from edgeprune.measure.cortex_m.costs import price_blocks
from edgeprune.measure.cortex_m.counting import BlockCount, FlowCounter
from edgeprune.measure.cortex_m.elf import FirmwareImage, read_elf
from edgeprune.measure.cortex_m.emulated import (
    MODEL_RUN,
    PAINT,
    STACK_BYTES,
    BufferSizes,
    EmulatedRun,
    check_inputs,
    make_counter,
    measure_painted_stack,
    read_buffer_sizes,
)
from edgeprune.measure.cortex_m.instructions import count_instructions
from edgeprune.measure.cortex_m.toolchain import BuiltFirmware
from edgeprune.target import Target

QEMU_INSTALL = "apt install qemu-system-arm"
GUARD = 64
_BATCH_BYTES = 12 << 20  # inputs and outputs of one process; the boards have 16 MiB there
_MOST_SECONDS = 900


@dataclass(frozen=True)
class Board:
    """A machine of QEMU's with the memory map of mps2.ld or mps3.ld; `data`: where its large memory begins."""

    name: str
    data: int


BOARDS = {
    "cortex-m3": Board("mps2-an385", 0x2100_0000),
    "cortex-m4": Board("mps2-an386", 0x2100_0000),
    "cortex-m7": Board("mps2-an500", 0x6000_0000),
    "cortex-m55": Board("mps3-an547", 0x6000_0000),
}


@dataclass(frozen=True)
class Qemu:
    """qemu-system-arm as found."""

    program: str
    version: str


@functools.cache
def find_qemu() -> Qemu:
    """Raises MeasurementUnavailableError where qemu-system-arm is not on PATH."""
    program = shutil.which("qemu-system-arm")
    if program is None:
        raise MeasurementUnavailableError(f"qemu-system-arm is not installed (not on PATH): {QEMU_INSTALL}")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", check=False).stdout
    found = re.search(r"version (\S+)", told)
    return Qemu(program, f"qemu-system-arm {found.group(1) if found else 'of unknown version'}")


def run_qemu(
    built: BuiltFirmware,
    target: Target,
    inputs: np.ndarray,
    *,
    layers: Sequence[str] = (),
) -> EmulatedRun:
    """Run the firmware on every input; counted is the first inference.

    inputs: int8 (n, ...), n >= 1, input_bytes values each. layers: C functions that stand for a layer.
    Raises MeasurementUnavailableError without qemu-system-arm or for a core that no board of QEMU's map has;
    EdgepruneError where the firmware writes outside its buffers, does not return 0, or ends in a fault.
    """
    qemu = find_qemu()
    if target.core not in BOARDS:
        raise MeasurementUnavailableError(f"no board of QEMU's is set up for {target.core}; use --emulator unicorn")
    job = _Job(qemu, BOARDS[target.core], read_elf(built.elf), built.elf)
    values = check_inputs(inputs, job.sizes)
    blocks, counting_seconds = job.count(values[:1], layers)
    instructions = sum(
        block.count * count_instructions(job.image.read_code(block.address, block.size)) for block in blocks
    )
    started = time.perf_counter()
    per_process = max(1, (_BATCH_BYTES - job.sizes.arena) // (job.sizes.input + job.sizes.output))
    results = [job.run(values[first : first + per_process]) for first in range(0, len(values), per_process)]
    seconds = time.perf_counter() - started
    return EmulatedRun(
        outputs=np.concatenate([result.outputs for result in results]),
        costs=price_blocks(blocks, job.image, target.core, layers),
        instructions=(instructions,),
        peak_stack_bytes=max(result.stack_bytes for result in results),
        emulator=f"{qemu.version} -M {job.board.name}",
        image=job.image,
        blocks=blocks,
        counting_mips=instructions / counting_seconds / 1e6,
        running_mips=len(values) * instructions / seconds / 1e6,
    )


@dataclass(frozen=True, eq=False)
class _Result:
    outputs: np.ndarray
    stack_bytes: int


@dataclass(frozen=True)
class _Layout:
    """Offsets in the large memory of guard, inputs, guard, outputs, guard, arena, guard."""

    inputs: int
    outputs: int
    arena: int
    end: int


class _Job:
    def __init__(self, qemu: Qemu, board: Board, image: FirmwareImage, elf: bytes) -> None:
        self.qemu, self.board, self.image, self.elf = qemu, board, image, elf
        self.sizes: BufferSizes = read_buffer_sizes(image)

    def run(self, inputs: np.ndarray) -> _Result:
        """All inputs in one process."""
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            layout = self._prepare(folder, inputs)
            command = self._command()
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    capture_output=True,
                    timeout=_MOST_SECONDS,
                    check=False,
                    stdin=subprocess.DEVNULL,
                )
            except subprocess.TimeoutExpired as error:
                raise EdgepruneError(f"the firmware did not end within {_MOST_SECONDS} s in QEMU") from error
            return self._read_results(folder, layout, len(inputs), done.stderr)

    def count(self, inputs: np.ndarray, layers: Sequence[str]) -> tuple[tuple[BlockCount, ...], float]:
        """Executed blocks of one inference, and the seconds it took."""
        counter = make_counter(self.image, layers)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            self._prepare(folder, inputs)
            started = time.perf_counter()
            command = [*self._command(), "-d", "in_asm,exec,nochain"]
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            try:
                assert process.stderr is not None
                _follow_trace(process.stderr, counter, self.image)
            finally:
                process.kill()
                process.communicate()
            return counter.collect(), time.perf_counter() - started

    def _command(self) -> list[str]:
        addresses = self.image.addresses
        loads = (
            ("memory.in", self.board.data),
            ("stack.in", addresses["rig_stack_bottom"]),
            ("request.in", addresses["rig_request"]),
        )
        devices = [word for name, at in loads for word in ("-device", f"loader,file={name},addr={at:#x},force-raw=on")]
        quiet = ("-display", "none", "-monitor", "none", "-serial", "none")
        semihosting = ("-semihosting-config", "enable=on,target=native")
        return [self.qemu.program, "-M", self.board.name, *quiet, *semihosting, "-kernel", "firmware.elf", *devices]

    def _prepare(self, folder: Path, inputs: np.ndarray) -> _Layout:
        first = GUARD
        outputs = _align(first + inputs.nbytes + GUARD)
        arena = _align(outputs + len(inputs) * self.sizes.output + GUARD)
        layout = _Layout(first, outputs, arena, _align(arena + self.sizes.arena + GUARD))
        memory = np.full(layout.end, PAINT, np.uint8)
        memory[first : first + inputs.nbytes] = inputs.view(np.uint8).ravel()
        base = self.board.data
        request = (base + first, base + outputs, base + arena, len(inputs), base, layout.end)
        (folder / "memory.in").write_bytes(memory.tobytes())
        (folder / "stack.in").write_bytes(bytes([PAINT]) * STACK_BYTES)
        (folder / "request.in").write_bytes(struct.pack("<6I", *request))
        (folder / "firmware.elf").write_bytes(self.elf)
        return layout

    def _read_results(self, folder: Path, layout: _Layout, count: int, told: bytes) -> _Result:
        if not (folder / "status.out").is_file():
            first = told.decode(errors="replace").strip().splitlines()[:4]
            raise EdgepruneError("QEMU ended before the firmware did: " + " / ".join(first))
        exception, where, answer = struct.unpack("<3I", (folder / "status.out").read_bytes())
        if exception:
            function = self.image.find_function(where & ~1)
            raise EdgepruneError(
                f"the firmware failed in {function} ({where:#010x}): exception {exception} of the core"
            )
        if answer:
            raise EdgepruneError(f"{MODEL_RUN} answered {answer} instead of 0")
        memory = np.fromfile(folder / "memory.out", np.uint8)
        guards = {
            "before its inputs": (0, layout.inputs),
            "between inputs and outputs": (layout.inputs + count * self.sizes.input, layout.outputs),
            "between outputs and arena": (layout.outputs + count * self.sizes.output, layout.arena),
            "after its arena": (layout.arena + self.sizes.arena, layout.end),
        }
        for where, (start, end) in guards.items():
            if (memory[start:end] != PAINT).any():
                raise EdgepruneError(f"the firmware wrote outside of its buffers, {where}")
        outputs = memory[layout.outputs : layout.outputs + count * self.sizes.output].view(np.int8)
        stack = (folder / "stack.out").read_bytes()
        return _Result(outputs.reshape(count, self.sizes.output), measure_painted_stack(stack))


def _align(offset: int) -> int:
    return -(-offset // 64) * 64


def _follow_trace(lines: Iterable[bytes], counter: FlowCounter, image: FirmwareImage) -> None:
    """Count the first call of the model from QEMU's log.

    The log lists a block's instructions when it is translated, then names it by its place in QEMU's memory each time
    it runs: `Trace 0: 0x7f1d7c000100 [00800408/00000328/...] name`, where the second field is the block's address.
    """
    note = counter.make_hook(_raise)
    entry = image.addresses[MODEL_RUN]
    rig = [function for function in image.functions if function.is_rig]
    rig_range = range(rig[0].address, rig[-1].address + rig[-1].size)
    known: dict[bytes, tuple[int, int, bool]] = {}
    listed_end = 0
    is_new = is_running = False
    for line in lines:
        if line.startswith(b"Trace"):
            block = line[9:24]
            if is_new or block not in known:
                address = int(line.split(b"/", 2)[1], 16)
                known[block] = (address, listed_end - address, address in rig_range)
                is_new = False
            address, size, is_rig = known[block]
            if is_running:
                if is_rig:
                    return
                note(None, address, size, None)
            elif address == entry:
                is_running = True
                note(None, address, size, None)
        elif line.startswith(b"0x"):
            address = int(line[2:10], 16)
            listed_end = address + (4 if image.read_code(address, 2)[1] >= 0xE8 else 2)
            is_new = True
    raise EdgepruneError("QEMU's trace ends before the firmware's first inference does")


def _raise(error: BaseException) -> None:
    raise error
