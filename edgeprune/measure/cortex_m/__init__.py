"""Cortex-M firmware built and measured on this machine: compilers, sizes, emulators, modelled cycles.

Everything here works on C sources and ELF files; it knows nothing of graphs or kernels. `measure_firmware` does all of
it; `build_elf`, `run_unicorn` and `run_qemu` are its steps.
"""

from edgeprune.measure.cortex_m.costs import Cost, RunCosts
from edgeprune.measure.cortex_m.cycle_validation import CYCLE_MODEL_ERROR, VALIDATION, CycleModelError
from edgeprune.measure.cortex_m.elf import FirmwareSizes, read_elf
from edgeprune.measure.cortex_m.emulated import EmulatedRun
from edgeprune.measure.cortex_m.firmware import FirmwareMeasurement, measure_firmware
from edgeprune.measure.cortex_m.qemu_runner import find_qemu, run_qemu
from edgeprune.measure.cortex_m.toolchain import BuiltFirmware, Toolchain, build_elf, find_toolchain
from edgeprune.measure.cortex_m.unicorn_runner import run_unicorn

__all__ = [
    "CYCLE_MODEL_ERROR",
    "VALIDATION",
    "BuiltFirmware",
    "Cost",
    "CycleModelError",
    "EmulatedRun",
    "FirmwareMeasurement",
    "FirmwareSizes",
    "RunCosts",
    "Toolchain",
    "build_elf",
    "find_qemu",
    "find_toolchain",
    "measure_firmware",
    "read_elf",
    "run_qemu",
    "run_unicorn",
]
