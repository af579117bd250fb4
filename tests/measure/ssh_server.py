"""A real sshd on the loopback interface, with its own keys, that a test connects to as to a device.

It runs as the user of the tests, asks for a key, and reads nothing of the user's own ~/.ssh: the client is told
everything by a configuration file (EDGEPRUNE_SSH_CONFIG). The login's environment is the test's to set, so that a PATH
without tools or a TMPDIR on a full disk can be tried.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeprune.measure.linux.device_address import DeviceAddress

# Debian has it in /usr/sbin, which is not on everyone's PATH
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="sshd is not installed")


@dataclass(frozen=True)
class SshServer:
    """A running sshd. folder: keys and logs. device: what a login sees as TMPDIR (the edgeprune folder's parent)."""

    folder: Path
    device: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> DeviceAddress:
        """As `--device` would give it."""
        return DeviceAddress(getpass.getuser(), "127.0.0.1", self.port, self.config(), "python3")

    def config(self, **changes: str) -> Path:
        """A client configuration with the key and the known host; changes: options by name."""
        options = {
            "IdentityFile": str(self.folder / "user_key"),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            **changes,
        }
        path = self.folder / f"client_{abs(hash(tuple(sorted(options.items()))))}"
        path.write_text("Host *\n" + "".join(f"  {name} {value}\n" for name, value in options.items()))
        return path

    def left_behind(self) -> list[str]:
        """Folders of ours that still lie on the device."""
        return sorted(path.name for path in self.device.glob("edgeprune.*"))

    def wait_until_clean(self, seconds: float) -> bool:
        """Whether nothing of ours lies there any more, within so many seconds."""
        end = time.monotonic() + seconds
        while self.left_behind() and time.monotonic() < end:
            time.sleep(0.02)
        return not self.left_behind()


@contextlib.contextmanager
def run_sshd(folder: Path, *, environment: Mapping[str, str] | None = None, wrapper: str = "") -> Iterator[SshServer]:
    """Start sshd on a free port.

    environment: of every login, over TMPDIR and HOME. wrapper: shell commands before each command of a login.
    """
    assert SSHD is not None
    device, home = folder / "device", folder / "home"
    for path in (folder, device, home):
        path.mkdir(exist_ok=True)
    for name in ("host_key", "user_key"):
        if not (folder / name).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd of root does not start without it
    variables = {"TMPDIR": str(device), "HOME": str(home), **(environment or {})}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = (
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {folder / 'host_key'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        *("PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no", "PermitRootLogin yes"),
        *("KbdInteractiveAuthentication no", "PrintMotd no", "UseDNS no"),
        "SetEnv " + " ".join(f"{name}={value}" for name, value in variables.items()),
    )
    if wrapper:
        lines += (f'ForceCommand {wrapper}; eval "$SSH_ORIGINAL_COMMAND"',)
    (home / ".bashrc").write_text("echo a login that talks\n")  # bash reads it under sshd; others do the like
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    public = (folder / "host_key.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(public)}\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        _wait_for_port(port, process, folder / "log")
        yield SshServer(folder, device, port, process)
    finally:
        process.terminate()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"sshd did not start: {log.read_text(errors='replace')}")
