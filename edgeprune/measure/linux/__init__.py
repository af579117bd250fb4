"""ARM Linux targets: the static executable, its proof in QEMU, and a device over ssh."""

from edgeprune.measure.linux.counting import InstructionCount, count_instructions
from edgeprune.measure.linux.executable import (
    ARM_ARCHITECTURES,
    Executable,
    ExecutableSizes,
    build_executable,
    has_same_code,
    measure_executable,
    read_bench,
)
from edgeprune.measure.linux.qemu_user import choose_core, find_qemu_user, run_in_qemu

__all__ = [
    "ARM_ARCHITECTURES",
    "Executable",
    "ExecutableSizes",
    "InstructionCount",
    "build_executable",
    "choose_core",
    "count_instructions",
    "find_qemu_user",
    "has_same_code",
    "measure_executable",
    "read_bench",
    "run_in_qemu",
]
