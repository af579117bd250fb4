"""Cortex-M firmware built and measured on this machine: compilers (`build_elf`), sizes, emulators, modelled cycles.

Everything here works on C sources and ELF files; it knows nothing of graphs or kernels.
"""

from edgeprune.measure.cortex_m.toolchain import BuiltFirmware, Toolchain, build_elf, find_toolchain
from edgeprune.measure.cortex_m.unicorn_runner import EmulatedRun, run_unicorn

__all__ = ["BuiltFirmware", "EmulatedRun", "Toolchain", "build_elf", "find_toolchain", "run_unicorn"]
