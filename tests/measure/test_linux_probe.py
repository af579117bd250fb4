"""What a device says of itself, from made-up /proc and /sys: a Raspberry Pi, a big.LITTLE board, a bare container."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeprune.measure.linux.device import _list_notes
from edgeprune.measure.linux.remote_probe import PROBE_SCRIPT, DeviceFacts, DeviceState, read_probe

FREQUENCY = "sys/devices/system/cpu/cpu0/cpufreq"
CORE = "processor\t: {0}\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\nCPU part\t: {1}\n\n"
RASPBERRY = {
    "proc/cpuinfo": "".join(CORE.format(core, "0xd03") for core in range(4))
    + "Revision\t: a020d3\nSerial\t\t: 00000000deadbeef\nModel\t\t: Raspberry Pi 3 Model B Plus Rev 1.3\n",
    "proc/meminfo": "MemTotal:         931000 kB\nMemFree:          100000 kB\nMemAvailable:     600000 kB\n",
    "proc/loadavg": "0.10 0.20 0.30 1/100 1234\n",
    "sys/firmware/devicetree/base/model": "Raspberry Pi 3 Model B Plus Rev 1.3\0",
    f"{FREQUENCY}/scaling_governor": "ondemand\n",
    f"{FREQUENCY}/scaling_cur_freq": "600000\n",
    f"{FREQUENCY}/scaling_max_freq": "1400000\n",
    f"{FREQUENCY}/cpuinfo_max_freq": "1400000\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
}


def probe(root: Path, files: Mapping[str, str], tools: Path | None = None) -> tuple[DeviceFacts, DeviceState]:
    """Run the script as a device does, on files of our own; tools: a folder that is all of its PATH."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    script = f"root={root}\n".encode() + PROBE_SCRIPT.read_bytes()
    environment = None if tools is None else {"PATH": str(tools)}
    done = subprocess.run(["/bin/sh"], input=script, capture_output=True, check=True, env=environment)
    return read_probe(done.stdout.decode())


def test_a_raspberry_pi_is_understood(tmp_path: Path) -> None:
    facts, state = probe(tmp_path, RASPBERRY)
    assert (facts.cpu, facts.board) == ("Cortex-A53", "Raspberry Pi 3 Model B Plus Rev 1.3")
    assert facts.features == ("fp", "asimd", "crc32")
    assert facts.memory_bytes == 931_000 * 1024
    assert state == DeviceState(
        governor="ondemand",
        frequency_hz=600_000_000,
        allowed_hz=1_400_000_000,
        most_hz=1_400_000_000,
        temperature_c=48.312,
        throttled=False,  # an idle clock under ondemand is low by itself
        throttled_by=None,
        load=0.1,
        available_bytes=600_000 * 1024,
    )


def test_serial_numbers_stay_on_the_device(tmp_path: Path) -> None:
    assert "deadbeef" not in repr(probe(tmp_path, RASPBERRY))


@pytest.mark.parametrize(
    ("changes", "by"),
    [
        ({"sys/class/thermal/cooling_device0/cur_state": "3\n"}, "cooling device cpufreq-cpu0 at step 3"),
        ({f"{FREQUENCY}/scaling_max_freq": "1200000\n"}, "a limit of 1200 MHz of 1400"),
    ],
)
def test_throttling_is_seen_where_it_can_be(tmp_path: Path, changes: dict[str, str], by: str) -> None:
    facts, state = probe(tmp_path, {**RASPBERRY, **changes})
    assert (state.throttled, state.throttled_by) == (True, by)
    assert any("the times are too long" in note for note in _list_notes(facts, state, state, removed=True))


@pytest.mark.parametrize(("bits", "throttled"), [("0x0", False), ("0x50000", False), ("0x50005", True)])
def test_a_raspberry_s_firmware_is_asked(bits: str, throttled: bool) -> None:
    """The low bits are now, 0x50000 is under-voltage and throttling at some time since the start."""
    _, state = read_probe(f"machine=aarch64\nfirmware_throttled={bits}\n")
    assert state.throttled is throttled


def test_cores_of_several_kinds_are_counted(tmp_path: Path) -> None:
    parts = ["0xd05"] * 4 + ["0xd0b"] * 2 + ["0xfff"]
    cores = "".join(CORE.format(core, part) for core, part in enumerate(parts))
    facts, _ = probe(tmp_path, {"proc/cpuinfo": cores})
    assert facts.cpu == "4 x Cortex-A55, 2 x Cortex-A76, 1 x CPU part 0x41 0xfff"


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    """No /proc, no /sys, and of the tools just uname: a hardened container."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "uname").symlink_to("/bin/uname")
    facts, state = probe(tmp_path / "root", {}, tools)
    assert facts.machine
    assert (facts.cpu, facts.board, facts.cores, facts.memory_bytes, facts.features) == (None, None, None, None, ())
    assert state == DeviceState(*[None] * 9)
    assert _list_notes(facts, state, state, removed=True) == ()


def test_nonsense_is_none_and_never_an_error() -> None:
    facts, state = read_probe(
        "machine=aarch64\ncores=many\nload=?\nzone=-274000 modem\nzone=\ncurrent_khz=<unknown>\n===\n"
    )
    assert (facts.cores, state.load, state.temperature_c, state.frequency_hz) == (None, None, None, None)


def test_the_hottest_zone_counts() -> None:
    _, state = read_probe("zone=41000 cpu\nzone=55500 gpu\nzone=0 modem\n")
    assert state.temperature_c == 55.5
