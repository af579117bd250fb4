"""The device of --device within a compile: asked for before anything is trained, measured once everything is built."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from edgeprune.errors import InputError, MeasurementUnavailableError
from edgeprune.measure.linux import ARM_ARCHITECTURES, Executable, build_executable
from edgeprune.measure.linux.device import check_device
from edgeprune.measure.linux.device_address import DeviceAddress, parse_device
from edgeprune.report import CompileRecord
from edgeprune.settings import CompileSettings
from edgeprune.stages.build import Programs
from edgeprune.stages.device import DeviceResult, describe_failure, measure_device
from edgeprune.stages.linux import FAMILY, LinuxResult
from edgeprune.stages.prepare import Job
from edgeprune.target import load_target

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# what `platform.machine` calls this host -> the architecture to try the way over ssh on it
HOSTS = {"x86_64": "x86_64", "AMD64": "x86_64"}


def ask_for_device(settings: CompileSettings) -> None:
    """Raise for a device that is not there, or is none of the target's, before hours of training.

    InputError: the target is measured otherwise, or the address is none. MeasurementUnavailableError: the device.
    """
    if settings.device is None:
        return
    address, target = parse_device(settings.device), load_target(settings.target)
    if target.family != FAMILY:
        raise InputError(
            f"--device does not go with --target {target.name}, which is no ARM Linux device; name a {FAMILY} core of "
            "`edgeprune targets`"
        )
    check_device(address, (*ARM_ARCHITECTURES, *_list_own(address)))


def run_on_device(job: Job, programs: Programs, linux: LinuxResult | None) -> DeviceResult | None:
    """Measure on the device that the settings name; None where they name none.

    A device that got lost or full on the way does not lose what has been built: that is the reason in the report, and
    exit code 6.
    """
    if job.settings.device is None or linux is None:
        return None
    address = parse_device(job.settings.device)
    try:
        executables = {**linux.executables, **_build_own(linux, address)}
        return measure_device(job, programs, executables, linux.expected, address=address)
    except MeasurementUnavailableError as error:
        failure = describe_failure(address, error)
        job.notes.append(f"nothing was measured on the device: {failure.reason}")
        return failure


def _list_own(address: DeviceAddress) -> tuple[str, ...]:
    """This host's architecture, where the device is this host: to try out the way over ssh."""
    architecture = HOSTS.get(platform.machine())
    return () if architecture is None or address.host not in LOOPBACK else (architecture,)


def _build_own(linux: LinuxResult, address: DeviceAddress) -> Mapping[str, Executable]:
    """The program for this very host; it is no artifact."""
    if linux.firmware is None or not linux.programs:
        return {}
    return {name: build_executable(linux.firmware.compiled_files, name) for name in _list_own(address)}


def record_device(record: CompileRecord, linux: LinuxResult | None, device: DeviceResult | None) -> None:
    """The report's section `device`, and the device's outputs among the parity checks."""
    section: dict[str, Any] = {} if linux is None else {"linux": linux.section}
    if device is None:
        record.device = section
        return
    record.device = {**section, **device.section}
    passed = bool(record.parity["passed"] and device.passed)
    record.parity = {**record.parity, "passed": passed, "checks": [*record.parity["checks"], *device.checks]}
