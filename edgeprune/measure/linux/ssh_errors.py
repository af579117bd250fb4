"""What went wrong on the way to a device or on it, in one sentence that says what to do.

ssh has no exit codes for it (255 is all it says), so its messages are read; they are the same in every language, and
have been for twenty years.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgeprune.errors import MeasurementUnavailableError
from edgeprune.measure.linux.device_address import DeviceAddress

# what ssh says -> what it means and what to do; {by_hand}: the command to try
_CONNECTION: Mapping[str, str] = {
    r"REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "its host key is not the one that is known, so this may be another machine; if the device was set up anew, "
        "remove the old key with ssh-keygen -R and connect once by hand: {by_hand}"
    ),
    r"Host key verification failed|No .* host key is known": (
        "its host key is not known here; connect once by hand and compare the fingerprint: {by_hand}"
    ),
    r"Permission denied|Too many authentication failures|No supported authentication": (
        "it refused the login by key. Put your public key on it (ssh-copy-id), or load your key into the agent "
        "(ssh-add); passwords are not taken. To try: {by_hand}"
    ),
    r"Could not resolve hostname": "no such host name is known here; check the name, or give its IP address",
    r"Connection refused": "nothing listens for ssh there; check the port, and that sshd runs on the device",
    r"timed out|No route to host|Network is unreachable|Host is down": (
        "it cannot be reached; check that it is switched on and on this network"
    ),
    r"UNPROTECTED PRIVATE KEY FILE|bad permissions": "ssh does not take a private key that others may read: chmod 600",
}

_FULL = r"No space left on device|[Dd]isk quota exceeded|File too large|File size limit exceeded|disk is full"


def explain_connection(address: DeviceAddress, told: str) -> MeasurementUnavailableError:
    """No connection came about; told: what ssh wrote on stderr."""
    for pattern, meaning in _CONNECTION.items():
        if re.search(pattern, told):
            return MeasurementUnavailableError(f"{address}: {meaning.format(by_hand=address.by_hand)}")
    said = f"ssh says: {last_line(told)}" if told.strip() else "ssh ended without a word"
    return MeasurementUnavailableError(f"{address}: no connection; {said}. To try: {address.by_hand}")


def explain_no_folder(address: DeviceAddress, reasons: str) -> MeasurementUnavailableError:
    """The device has no place for the temporary folder; reasons: what its tools said, one for each place."""
    if is_full(reasons):
        return explain_full(address, reasons)
    return MeasurementUnavailableError(
        f"{address}: no folder was found on the device in which a program can be written and executed ({reasons}). Set "
        "TMPDIR for ssh logins to one (on the device: ~/.ssh/environment or sshd's SetEnv)"
    )


def explain_full(address: DeviceAddress, told: str) -> MeasurementUnavailableError:
    """The device's disk took no more."""
    return MeasurementUnavailableError(
        f"{address}: the device's disk is full ({last_line(told)}). Free some space there; nothing was left on it"
    )


def explain_missing_tool(address: DeviceAddress, tool: str) -> MeasurementUnavailableError:
    """A tool that every Linux has is not on the device's PATH."""
    return MeasurementUnavailableError(
        f"{address}: the device has no {tool} (not on PATH of an ssh login); sh, dd, mktemp, rm, cat, chmod, sleep and "
        "uname are needed: install coreutils or busybox there"
    )


def explain_lost_connection(address: DeviceAddress, doing: str) -> MeasurementUnavailableError:
    """The connection was there and broke."""
    return MeasurementUnavailableError(
        f"{address}: the connection broke while {doing}. The device removes its temporary folder by itself within two "
        "minutes; run the command again"
    )


def is_full(told: str) -> bool:
    """Whether a message says that a disk is full."""
    return re.search(_FULL, told) is not None


def last_line(text: str) -> str:
    """The last line with something on it, without a closing full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""
