"""Cortex-M firmware built and measured on this machine: compilers (`build_elf`), sizes, emulators, modelled cycles.

Everything here works on C sources and ELF files; it knows nothing of graphs or kernels.
"""

from edgeprune.measure.cortex_m.costs import Cost, RunCosts
from edgeprune.measure.cortex_m.elf import FirmwareSizes, read_elf
from edgeprune.measure.cortex_m.emulated import EmulatedRun
from edgeprune.measure.cortex_m.toolchain import BuiltFirmware, Toolchain, build_elf, find_toolchain
from edgeprune.measure.cortex_m.unicorn_runner import run_unicorn

__all__ = [
    "BuiltFirmware",
    "Cost",
    "EmulatedRun",
    "FirmwareSizes",
    "RunCosts",
    "Toolchain",
    "build_elf",
    "find_toolchain",
    "read_elf",
    "run_unicorn",
]
