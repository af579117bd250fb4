"""What gcc is told about a Cortex-M: for the firmware's own build files, and where it is built to be measured."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.target import Target

# The FPUs that a core can have and gcc knows.
_FPUS: Mapping[str, tuple[str, ...]] = {
    "cortex-m4": ("single",),
    "cortex-m7": ("single", "double"),
    "cortex-m33": ("single",),
    "cortex-m55": ("single", "double"),
}


def list_gcc_flags(target: Target) -> tuple[str, ...]:
    """The core, without the extensions that the chip lacks, and the way floats are passed (GCC manual, ARM Options)."""
    fpus = _FPUS.get(target.core, ())
    has_fpu = target.fpu in fpus
    without = ""
    if target.core == "cortex-m33" and not target.dsp:
        without += "+nodsp"
    if target.core == "cortex-m55" and not target.mve:
        without += "+nomve"
    if fpus and not has_fpu:
        without += "+nofp"
    if target.core == "cortex-m7" and target.fpu == "single":
        without += "+nofp.dp"
    return (f"-mcpu={target.core}{without}", f"-mfloat-abi={'hard' if has_fpu else 'soft'}")
