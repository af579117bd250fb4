"""A session on a device: one ssh connection, one temporary folder there, gone when the session ends however it ends.

The system's own ssh is used, so that keys, agents, jump hosts and known hosts are what they are for the user. The
connection that stays open runs remote_keeper.sh, which makes the folder and removes it as soon as its input ends; every
step (a file, a program) goes over the same connection as a channel of its own (ControlMaster).
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import MeasurementUnavailableError
from edgeprune.measure.linux.device_address import DeviceAddress
from edgeprune.measure.linux.ssh_errors import (
    explain_connection,
    explain_full,
    explain_lost_connection,
    explain_missing_tool,
    explain_no_folder,
    is_full,
    last_line,
)

SSH_INSTALL = "apt install openssh-client"
CONNECT_SECONDS = 10
HEARTBEAT_SECONDS = 10.0  # between the lines that tell the device that we are still here
SILENCE_SECONDS = 60  # without one, after which the device cleans up
_READY_SECONDS = 60  # for logging in and making the folder
_GONE_SECONDS = 20  # for removing it
_FILE_SECONDS = 600
# The path of a Unix socket may have 104 to 108 bytes, and ssh binds it under a name of 17 more.
_SOCKET_PATH_BYTES = 80
_MARK = b"edgeprune: begin\n"  # what a login script prints stands before it
_SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+@:,=-]+")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_OPTIONS = (
    *("BatchMode=yes", f"ConnectTimeout={CONNECT_SECONDS}", "ServerAliveInterval=10", "ServerAliveCountMax=3"),
    *("ControlPersist=no", "ClearAllForwardings=yes", "PermitLocalCommand=no", "RemoteCommand=none"),
    *("RequestTTY=no", "LogLevel=ERROR"),
)


@dataclass(frozen=True)
class Finished:
    """A command that ran on the device: its exit status (128 + n: ended by signal n) and what it wrote."""

    status: int
    output: bytes
    errors: str

    @property
    def reason(self) -> str:
        """Why it failed, in its own words."""
        return last_line(self.errors) or f"exit status {self.status}"


class DeviceSession:
    """An open session; `open_session` makes it.

    machine: what `uname -m` says. removed: whether the device confirmed, at the end, that the folder is gone.
    """

    def __init__(self, address: DeviceAddress, socket: Path, process: subprocess.Popen[bytes], told: Path) -> None:
        self.address = address
        self.machine = ""
        self.removed = False
        self._folder = ""
        self._socket, self._process, self._told = socket, process, told

    def run(self, command: str, content: bytes = b"", *, doing: str, most_seconds: float = 60) -> Finished:
        """Run a shell command in the folder, `content` as its input.

        command: without single quotes. doing: for messages, as in 'the connection broke while ...'.
        Raises MeasurementUnavailableError for a lost connection, or when it does not end in time.
        """
        assert "'" not in command
        script = f"LC_ALL=C; export LC_ALL; cd {self._folder} || exit 97; echo {_MARK.decode().strip()}; {command}"
        # without the exit a shell may become the command itself, and ssh says 255 for whatever signal ends it
        line = [*_ssh_command(self.address, self._socket, "no"), f"exec sh -c '{script}; exit $?'"]
        status, told, errors = self._communicate(line, content, doing, most_seconds)
        _, mark, output = told.partition(_MARK)
        if status == 255 or not mark:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)  # the connection's own process needs a moment to see that it is gone
            if self._process.poll() is not None or not mark:
                raise explain_lost_connection(self.address, doing)
        return Finished(status, output, errors.decode(errors="replace"))

    def _communicate(
        self, line: list[str], content: bytes, doing: str, most_seconds: float
    ) -> tuple[int, bytes, bytes]:
        """Status, output and errors of a local command; it is gone afterwards, after Ctrl-C too."""
        pipe = subprocess.PIPE
        # no `with`, no subprocess.run: both leave the process behind after Ctrl-C
        process = subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        try:
            output, errors = process.communicate(content, most_seconds)
        except subprocess.TimeoutExpired as error:
            raise MeasurementUnavailableError(
                f"{self.address}: the device did not finish within {most_seconds:g} s while {doing}"
            ) from error
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what was not sent yet has nobody to go to
                        stream.close()
        return process.returncode, output, errors

    def put(self, name: str, content: bytes, *, executable: bool = False) -> None:
        """Write a file into the folder; raises MeasurementUnavailableError for a full disk or a lost connection."""
        assert _SAFE_NAME.fullmatch(name)
        command = f"cat >{name}" + (f" && chmod 700 {name}" if executable else "")
        done = self.run(command, content, doing=f"{name} was copied to it", most_seconds=_FILE_SECONDS)
        if done.status == 0:
            return
        # 153: ended by SIGXFSZ, a limit on the size of files
        if is_full(done.errors) or done.status == 153:
            raise explain_full(self.address, f"{name}, {len(content):,} bytes: {done.reason}")
        raise MeasurementUnavailableError(f"{self.address}: {name} could not be written on the device: {done.reason}")

    def get(self, name: str) -> bytes:
        """Read a file of the folder; raises MeasurementUnavailableError if it cannot be read."""
        assert _SAFE_NAME.fullmatch(name)
        done = self.run(f"cat {name}", doing=f"{name} was copied back", most_seconds=_FILE_SECONDS)
        if done.status:
            raise MeasurementUnavailableError(f"{self.address}: {name} could not be read on the device: {done.reason}")
        return done.output

    def _read_greeting(self) -> None:
        """Wait for the keeper's first word: the folder is there, or why not."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, rest = line.decode(errors="replace").strip().partition(" ")
            if word == "missing":
                raise explain_missing_tool(self.address, rest)
            if word == "nowhere":
                raise explain_no_folder(self.address, rest)
            if word == "ready":
                self.machine, _, self._folder = rest.partition(" ")
                if not _SAFE_PATH.fullmatch(self._folder):
                    raise MeasurementUnavailableError(
                        f"{self.address}: the device's folder for temporary files is {self._folder!r}; set TMPDIR "
                        "there to a path of letters, digits and . _ - + only"
                    )
                return
        self._process.wait()
        told = self._told.read_text(errors="replace")
        if self._process.returncode == -signal.SIGKILL and not told:
            raise MeasurementUnavailableError(
                f"{self.address}: it did not answer within {_READY_SECONDS} s of the login; try {self.address.by_hand}"
            )
        if self._process.returncode == 127 or re.search(r"\bsh: .*not found", told):
            raise explain_missing_tool(self.address, "sh")
        raise explain_connection(self.address, told)

    def _end(self) -> None:
        """Close the keeper's input and wait until it has cleaned up."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018
        try:
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GONE_SECONDS)
                self.removed = b"gone" in process.stdout.read().split()
        finally:
            # if it still runs: a connection that breaks is an end of input for the keeper as well
            process.kill()
            process.wait()
            process.stdout.close()


@contextlib.contextmanager
def open_session(
    address: DeviceAddress, *, heartbeat_seconds: float = HEARTBEAT_SECONDS, silence_seconds: int = SILENCE_SECONDS
) -> Iterator[DeviceSession]:
    """Connect, make the folder, and remove it at the end, after an exception and Ctrl-C too.

    Raises MeasurementUnavailableError: no ssh here, device not reached, login refused, host key unknown, tools missing
    there, no room for the folder.
    """
    keeper = f"limit={silence_seconds}\n".encode() + Path(__file__).with_name("remote_keeper.sh").read_bytes()
    fetch = "command -v dd >/dev/null || { echo missing dd; exit 3; }"
    start = f"exec sh -c '{fetch}; eval \"$(dd bs=1 count={len(keeper)} 2>/dev/null)\"'"
    with _make_local_folder() as folder:
        told = folder / "told"
        with told.open("wb") as errors:
            # a session of its own: Ctrl-C is for us, who end it in good order
            process = subprocess.Popen(
                [*_ssh_command(address, folder / "s", "yes"), start],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,
            )
        session = DeviceSession(address, folder / "s", process, told)
        stop = threading.Event()
        heart = threading.Thread(target=_beat, args=(process, heartbeat_seconds, stop), daemon=True)
        patience = threading.Timer(_READY_SECONDS, process.kill)
        patience.daemon = True
        patience.start()
        try:
            assert process.stdin is not None
            with contextlib.suppress(OSError):  # a connection that failed at once; the greeting says why
                process.stdin.write(keeper)
            session._read_greeting()
            patience.cancel()
            heart.start()
            yield session
        finally:
            patience.cancel()
            stop.set()
            session._end()
            if heart.ident is not None:
                heart.join()


def _beat(process: subprocess.Popen[bytes], seconds: float, stop: threading.Event) -> None:
    assert process.stdin is not None
    while not stop.wait(seconds):
        try:
            process.stdin.write(b"\n")
        except (OSError, ValueError):  # the connection is gone, or was closed in this moment
            return


def _ssh_command(address: DeviceAddress, socket: Path, master: str) -> list[str]:
    """The command line up to the command; master: 'yes' for the connection itself, 'no' for a step on it."""
    options = [word for option in (*_OPTIONS, f"ControlMaster={master}") for word in ("-o", option)]
    config = [] if address.config is None else ["-F", str(address.config)]
    port = [] if address.port is None else ["-p", str(address.port)]
    path = str(socket).replace("%", "%%")  # ssh expands %h and the like in it
    return [_find_ssh(), *config, *options, "-S", path, "-x", "-a", *port, "-l", address.user, "--", address.host]


def _find_ssh() -> str:
    program = shutil.which("ssh")
    if program is None:
        raise MeasurementUnavailableError(f"ssh is not installed here (not on PATH): {SSH_INSTALL}")
    return program


@contextlib.contextmanager
def _make_local_folder() -> Iterator[Path]:
    """A temporary folder of ours whose path is short enough for a socket in it."""
    base = tempfile.gettempdir()
    short = base if len(base.encode()) <= _SOCKET_PATH_BYTES - 30 else "/tmp"
    # ssh removes its socket by itself, sometimes in the same moment as we do
    with tempfile.TemporaryDirectory(prefix="edgeprune-", dir=short, ignore_cleanup_errors=True) as name:
        yield Path(name)
