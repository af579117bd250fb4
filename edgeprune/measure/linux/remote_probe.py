"""What a device is, and the state it was in before and after a measurement: clock, governor, temperature, throttling.

All of it is read from /proc and /sys by remote_probe.sh. Hardly any device lets everything be read: what cannot be is
None, never an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# CPU implementer and part of /proc/cpuinfo, as in the Main ID Register (Arm's Technical Reference Manuals, MIDR_EL1;
# the same numbers as in util-linux, sys-utils/lscpu-arm.c). ARM Linux has no "model name" on 64 bits.
_PARTS: Mapping[tuple[int, int], str] = {
    (0x41, 0xC05): "Cortex-A5",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC08): "Cortex-A8",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0D): "Cortex-A17",
    (0x41, 0xC0E): "Cortex-A17",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xD01): "Cortex-A32",
    (0x41, 0xD02): "Cortex-A34",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD06): "Cortex-A65",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD0E): "Cortex-A76AE",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
}
_THROTTLED_NOW = 0xF  # Raspberry Pi firmware, vcgencmd get_throttled: under-voltage, capped, throttled, soft limit
PROBE_SCRIPT = Path(__file__).with_name("remote_probe.sh")


@dataclass(frozen=True)
class DeviceFacts:
    """What stays as it is.

    machine: `uname -m`. cpu: the core's name, of each kind where there are several. board: as the device tree or the
    BIOS calls it. cores: online. memory_bytes: all of it. kernel: name and release. features: instruction sets as
    Linux names them on Arm (asimd, asimddp, ...); empty elsewhere.
    """

    machine: str
    cpu: str | None
    board: str | None
    cores: int | None
    memory_bytes: int | None
    kernel: str | None
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceState:
    """What changes. None: not readable.

    governor: of core 0. frequency_hz, allowed_hz, most_hz: of core 0 now, as far as it may go now, and at its best.
    temperature_c: the hottest thermal zone. throttled: whether something holds the clock down now. throttled_by: what.
    load: processes that want to run, mean of the last minute. available_bytes: memory that programs can still take.
    """

    governor: str | None
    frequency_hz: int | None
    allowed_hz: int | None
    most_hz: int | None
    temperature_c: float | None
    throttled: bool | None
    throttled_by: str | None
    load: float | None
    available_bytes: int | None


def read_probe(output: str) -> tuple[DeviceFacts, DeviceState]:
    """Understand what remote_probe.sh wrote."""
    lines = [line.partition("=")[::2] for line in output.splitlines() if "=" in line]
    values = {name: value.strip() for name, value in reversed(lines)}  # the first of each name counts
    memory, available = (_read_int(values.get(name)) for name in ("memory_kib", "available_kib"))
    facts = DeviceFacts(
        machine=values.get("machine", ""),
        cpu=_name_cpu(values, [value for name, value in lines if name == "cpu_part"]),
        board=values.get("board") or values.get("board_name") or None,
        cores=_read_int(values.get("cores")),
        memory_bytes=None if memory is None else 1024 * memory,
        kernel=values.get("kernel") or None,
        features=tuple(values.get("features", "").split()),
    )
    current, allowed, most = (_read_int(values.get(name)) for name in ("current_khz", "allowed_khz", "most_khz"))
    throttled, reason = _find_throttling(values, [value for name, value in lines if name == "cooler"], allowed, most)
    zones = [_read_int(value.split(" ")[0]) for name, value in lines if name == "zone"]
    # zones of a modem that sleeps say -273 degrees or 0
    warm = [zone / 1000 for zone in zones if zone is not None and 0 < zone < 200_000]
    load = re.match(r"\d+\.\d+", values.get("load", ""))
    state = DeviceState(
        governor=values.get("governor") or None,
        frequency_hz=None if current is None else 1000 * current,
        allowed_hz=None if allowed is None else 1000 * allowed,
        most_hz=None if most is None else 1000 * most,
        temperature_c=max(warm, default=None),
        throttled=throttled,
        throttled_by=reason,
        load=None if load is None else float(load[0]),
        available_bytes=None if available is None else 1024 * available,
    )
    return facts, state


def _name_cpu(values: Mapping[str, str], parts: list[str]) -> str | None:
    """`4 x Cortex-A55, 4 x Cortex-A76` out of the parts of all cores; else what /proc/cpuinfo calls it."""
    names = Counter(_name_part(part) for part in parts)
    if names:
        several = len(names) > 1
        return ", ".join(f"{count} x {name}" if several else name for name, count in names.items())
    return values.get("cpu_name") or values.get("cpu_hardware") or None


def _name_part(text: str) -> str:
    numbers = tuple(int(word, 16) for word in re.findall(r"0x[0-9a-fA-F]+", text))
    if len(numbers) == 2 and numbers in _PARTS:
        return _PARTS[numbers]
    return f"CPU part {text}"


def _find_throttling(
    values: Mapping[str, str], coolers: list[str], allowed: int | None, most: int | None
) -> tuple[bool | None, str | None]:
    """Whether the clock is held down, and by what; (None, None) where nothing says so or otherwise.

    A clock that is low by itself proves nothing: an idle core under ondemand or schedutil has one.
    """
    firmware = re.search(r"0x[0-9a-fA-F]+", values.get("firmware_throttled", ""))
    reasons = []
    if firmware is not None and int(firmware[0], 16) & _THROTTLED_NOW:
        reasons.append(f"the firmware (get_throttled {firmware[0]})")
    pairs = [(_read_int(state), kind) for state, _, kind in (cooler.partition(" ") for cooler in coolers)]
    of_cpu = [(state, kind) for state, kind in pairs if state is not None and re.search("cpu|Processor", kind)]
    reasons += [f"cooling device {kind} at step {state}" for state, kind in of_cpu if state]
    if allowed is not None and most is not None and allowed < most:
        reasons.append(f"a limit of {allowed / 1000:g} MHz of {most / 1000:g}")
    if reasons:
        return True, "; ".join(dict.fromkeys(reasons))
    knows = firmware is not None or of_cpu or (allowed is not None and most is not None)
    return (False, None) if knows else (None, None)


def _read_int(text: str | None) -> int | None:
    match = re.fullmatch(r"\s*(-?\d+)\s*", text or "")
    return None if match is None else int(match[1])
