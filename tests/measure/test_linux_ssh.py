"""Sessions and measurements over ssh, against a real sshd on the loopback interface.

The "device" is this machine: what is tested is the way there and back, and that nothing stays behind. The program that
runs there is a stand-in with the executable's protocol; tests/test_device_stage.py runs a real one.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import EdgepruneError, InputError, MeasurementUnavailableError
from edgeprune.measure.linux import remote_runtimes, ssh
from edgeprune.measure.linux.device import MACHINES, DeviceMeasurement, list_threads, measure_on_device
from edgeprune.measure.linux.device_address import DeviceAddress, parse_device
from edgeprune.measure.linux.ssh import DeviceSession, open_session
from edgeprune.measure.linux.ssh_errors import explain_connection
from tests.measure.ssh_server import SshServer, needs_sshd, run_sshd

HERE = MACHINES.get(platform.machine(), platform.machine())
INPUTS = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
FLOATS = np.zeros((3, 1, 4), np.float32)

# the executable's protocol: outputs are the inputs, negated
STAND_IN = f"""#!{sys.executable} -SE
import array, json, sys
inputs, outputs, _, warmup, _, runs = sys.argv[1:]
values = array.array("b", open(inputs, "rb").read())
open(outputs, "wb").write(array.array("b", [-value for value in values]).tobytes())
print(json.dumps({{"samples": 3, "warmup": int(warmup), "ns": [1000 * (run + 1) for run in range(int(runs))]}}))
""".encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with run_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python without any package, as devices have."""
    return write_program(tmp_path_factory.mktemp("python") / "python", f'exec {sys.executable} -SE "$@"')


def write_program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def measure(
    server: SshServer, python: str, program: bytes = STAND_IN, architecture: str = HERE, **options: object
) -> DeviceMeasurement:
    address = dataclasses.replace(server.address, python=python)
    files = {"model_int8.tflite": b"not a model"}
    return measure_on_device(
        address, {architecture: program}, INPUTS, files, float_inputs=FLOATS, warmup=2, runs=100, **options
    )  # type: ignore[arg-type]


# --- the address


def test_an_address_is_read() -> None:
    assert parse_device("ssh://pi@raspberrypi.local", {}) == DeviceAddress("pi", "raspberrypi.local")
    assert parse_device("ssh://root@10.0.0.7:2222/", {}) == DeviceAddress("root", "10.0.0.7", 2222)
    assert parse_device("ssh://pi@[fe80::1%eth0]:22", {}) == DeviceAddress("pi", "fe80::1%eth0", 22)
    assert parse_device("ssh://pi@board", {}).by_hand == "ssh pi@board"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pi@board", "not an address"),
        ("http://pi@board", "not an address"),
        ("ssh://board", "names no user"),
        ("ssh://pi@", "cannot be read"),
        ("ssh://pi@board:99999", "port 99999 does not exist"),
        ("ssh://pi@board:abc", "cannot be read"),
        ("ssh://pi@-oProxyCommand=id", "cannot be read"),  # never an option of ssh's
        ("ssh://-l@board", "cannot be read"),
        ("ssh://pi@board/tmp", "cannot be read"),
        ("ssh://pi@board;id", "cannot be read"),
    ],
)
def test_what_is_no_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_device(text, {})


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="passwords are not taken") as caught:
        parse_device("ssh://pi:raspberry@board", {})
    assert "raspberry" not in str(caught.value)


def test_the_environment_names_configuration_and_python(tmp_path: Path) -> None:
    config = tmp_path / "config"
    environment = {"EDGEPRUNE_SSH_CONFIG": str(config), "EDGEPRUNE_DEVICE_PYTHON": "~/venv/bin/python"}
    with pytest.raises(InputError, match="EDGEPRUNE_SSH_CONFIG names"):
        parse_device("ssh://pi@board", environment)
    config.write_text("")
    address = parse_device("ssh://pi@board", environment)
    assert (address.config, address.python) == (config, "~/venv/bin/python")
    with pytest.raises(InputError, match="EDGEPRUNE_DEVICE_PYTHON"):
        parse_device("ssh://pi@board", {"EDGEPRUNE_DEVICE_PYTHON": "python3; id"})


# --- the session


@needs_sshd
def test_files_and_commands_go_over_one_session(server: SshServer) -> None:
    content = bytes(range(256)) * 4096
    with open_session(server.address) as session:
        assert session.machine == platform.machine()
        (folder,) = server.left_behind()
        assert (server.device / folder).stat().st_mode & 0o777 == 0o700
        session.put("data.bin", content)
        session.put("program", b"#!/bin/sh\ncat data.bin\necho to the side >&2\nexit 7\n", executable=True)
        assert session.get("data.bin") == content
        done = session.run("./program", doing="it ran")
        assert (done.status, done.output, done.reason) == (7, content, "to the side")
        assert session.run("cat", b"as input", doing="it ran").output == b"as input"
        assert session.run('sh -c "kill -SEGV \\$\\$"', doing="it ran").status == 128 + signal.SIGSEGV
        with pytest.raises(MeasurementUnavailableError, match=r"missing\.bin could not be read"):
            session.get("missing.bin")
        with pytest.raises(MeasurementUnavailableError, match=r"did not finish within 0\.2 s while it slept"):
            session.run("sleep 100", doing="it slept", most_seconds=0.2)
    assert session.removed
    assert server.left_behind() == []
    assert (server.folder / "log").read_text().count("Accepted publickey") == 1, "every step uses the one connection"


def spoil_session(address: DeviceAddress, spoil: Callable[[DeviceSession], object]) -> None:
    """Open a session, leave a file in it, and do what ends it."""
    session = None
    try:
        with open_session(address) as session:
            session.put("data.bin", b"1")
            spoil(session)
    finally:
        assert session is not None
        assert session.removed


@needs_sshd
def test_nothing_stays_after_an_exception(server: SshServer) -> None:
    with pytest.raises(ZeroDivisionError):
        spoil_session(server.address, lambda session: 1 // 0)
    assert server.left_behind() == []


@needs_sshd
def test_nothing_stays_after_ctrl_c_in_the_middle_of_a_run(server: SshServer) -> None:
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells make background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            spoil_session(
                server.address, lambda session: (interrupt.start(), session.run("sleep 100", doing="it slept"))
            )
    finally:
        signal.signal(signal.SIGINT, before)
    assert server.left_behind() == []


def start_sleeper(session: DeviceSession) -> int:
    """A program that works in the folder, in the background; its process id."""
    return int(session.run("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!", doing="it started").output)


def is_gone(process: int) -> bool:
    """Whether a killed process is gone within two seconds: a busy machine takes its time to bury it."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            if ") Z" in Path(f"/proc/{process}/stat").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


@needs_sshd
def test_a_cut_connection_cleans_up_on_the_device(server: SshServer) -> None:
    with open_session(server.address) as session:
        sleeper = start_sleeper(session)
        threading.Timer(0.3, session._process.kill).start()  # as if the network had gone
        with pytest.raises(MeasurementUnavailableError, match="connection broke while the model ran"):
            session.run("sleep 100", doing="the model ran", most_seconds=20)
        assert server.wait_until_clean(5)
        assert is_gone(sleeper)
        with pytest.raises(MeasurementUnavailableError, match=r"connection broke while data\.bin was copied"):
            session.put("data.bin", b"1")
    assert not session.removed  # nobody was there to confirm it


@needs_sshd
def test_a_connection_that_falls_silent_cleans_up_on_the_device(server: SshServer) -> None:
    """As when a cable is pulled: no end of file, only nothing more."""
    with open_session(server.address, heartbeat_seconds=0.2, silence_seconds=1) as session:
        sleeper = start_sleeper(session)
        time.sleep(2.5)
        assert server.left_behind(), "heartbeats keep it"
        session._process.send_signal(signal.SIGSTOP)
        try:
            assert server.wait_until_clean(5)
        finally:
            session._process.send_signal(signal.SIGCONT)
        assert is_gone(sleeper)


@needs_sshd
@pytest.mark.slow
def test_a_killed_edgeprune_leaves_nothing_on_the_device(server: SshServer) -> None:
    address = server.address
    code = f"""
from pathlib import Path
from edgeprune.measure.linux.device_address import DeviceAddress
from edgeprune.measure.linux.ssh import open_session
address = DeviceAddress({address.user!r}, {address.host!r}, {address.port}, Path({str(address.config)!r}))
with open_session(address) as session:
    print("open", flush=True)
    session.run("sleep 1000", doing="it slept", most_seconds=1000)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "open\n"
        assert server.left_behind()
        process.kill()
        process.wait()
    assert server.wait_until_clean(10)


@needs_sshd
def test_a_long_temporary_path_here_still_has_room_for_the_socket(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with open_session(server.address) as session:
        assert session.run("true", doing="it ran").status == 0


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_a_measurement_cut_off_at_any_moment_leaves_nothing(
    server: SshServer, bare_python: str, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty moments, from the login to the last probe; a measurement here takes half a second."""
    begin = ssh._beat  # runs once the session is open, with its process

    def beat_and_cut(process: subprocess.Popen[bytes], seconds: float, stop: threading.Event) -> None:
        threading.Timer(0.025 * moment, process.kill).start()
        begin(process, seconds, stop)

    monkeypatch.setattr(ssh, "_beat", beat_and_cut)
    with contextlib.suppress(MeasurementUnavailableError):  # the last moments may be too late
        measure(server, bare_python)
    assert server.wait_until_clean(5)


# --- what goes wrong on the way


@needs_sshd
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"UserKnownHostsFile": "/dev/null"}, "its host key is not known here"),
        ({"IdentityFile": "/nonexistent"}, "refused the login by key"),
        ({"Hostname": "device.invalid"}, "no such host name"),
        ({"Port": "1"}, "nothing listens for ssh there"),
        ({"NoSuchOption": "yes"}, "no connection; ssh says: .*terminating, 1 bad configuration options"),
    ],
)
def test_no_connection_says_why(server: SshServer, changes: dict[str, str], said: str) -> None:
    address = dataclasses.replace(server.address, config=server.config(**changes))
    if "Port" in changes:
        address = dataclasses.replace(address, port=None)  # the address goes before the configuration
    with pytest.raises(MeasurementUnavailableError, match=said) as caught, open_session(address):
        pass
    assert caught.value.exit_code == 6
    assert str(caught.value).startswith(f"{address}: ")


@needs_sshd
def test_a_changed_host_key_is_refused(server: SshServer, tmp_path: Path) -> None:
    other = (server.folder / "user_key.pub").read_text().split()[:2]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {' '.join(other)}\n")
    address = dataclasses.replace(server.address, config=server.config(UserKnownHostsFile=str(known)))
    with pytest.raises(MeasurementUnavailableError, match="may be another machine"), open_session(address):
        pass


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("ssh: connect to host 10.0.0.9 port 22: Connection timed out", "cannot be reached"),
        ("ssh: connect to host 10.0.0.9 port 22: No route to host", "cannot be reached"),
        ("Received disconnect from 10.0.0.9 port 22:2: Too many authentication failures", "refused the login"),
        ("", "ssh ended without a word"),
    ],
)
def test_other_words_of_ssh_are_understood(told: str, said: str) -> None:
    address = DeviceAddress("pi", "10.0.0.9")
    assert said in str(explain_connection(address, told))


def test_without_ssh_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasurementUnavailableError, match="openssh-client"), open_session(DeviceAddress("pi", "board")):
        pass


def link_tools(folder: Path, names: Sequence[str], program: str | None = None) -> str:
    """A folder with these tools only, all of them links to `program` if there is one."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(program or str(shutil.which(name)))
    return str(folder)


NEEDED_TOOLS = ("sh", "dd", "mktemp", "rm", "cat", "chmod", "sleep", "uname")


@needs_sshd
@pytest.mark.parametrize("missing", ["sh", "dd", "mktemp"])
def test_a_missing_tool_is_named(missing: str, tmp_path: Path) -> None:
    path = link_tools(tmp_path / "bin", [tool for tool in NEEDED_TOOLS if tool != missing])
    with (
        run_sshd(tmp_path / "sshd", environment={"PATH": path}) as server,
        pytest.raises(MeasurementUnavailableError, match=f"the device has no {missing}"),
        open_session(server.address),
    ):
        pass


@needs_sshd
def test_a_device_with_the_needed_tools_only_is_measured(tmp_path: Path) -> None:
    path = link_tools(tmp_path / "bin", NEEDED_TOOLS)
    with run_sshd(tmp_path / "sshd", environment={"PATH": path}) as server:
        found = measure(server, "python3")
        assert found.removed
        assert server.left_behind() == []
    assert found.facts.machine == platform.machine()
    assert found.runs[1].reason == "the device has no python3"


@needs_sshd
def test_a_device_with_busybox_is_measured_and_cleans_up_when_cut_off(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not on PATH")
    tools = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    path = link_tools(tmp_path / "bin", tools, busybox)
    with run_sshd(tmp_path / "sshd", environment={"PATH": path}) as server:
        assert measure(server, "python3").removed
        with open_session(server.address) as session:
            sleeper = start_sleeper(session)
            session._process.kill()
            assert server.wait_until_clean(5)
            assert is_gone(sleeper)


@needs_sshd
def test_no_room_for_the_folder_is_said(tmp_path: Path) -> None:
    with (
        run_sshd(tmp_path, environment={"TMPDIR": "/nonexistent"}) as server,
        pytest.raises(MeasurementUnavailableError, match=r"no folder was found .*/nonexistent.*No such file"),
        open_session(server.address),
    ):
        pass


@needs_sshd
def test_a_file_over_the_device_s_limit_is_a_full_disk(tmp_path: Path) -> None:
    with run_sshd(tmp_path, wrapper="ulimit -f 8") as server:
        with open_session(server.address) as session:
            session.put("small", b"1")
            with pytest.raises(MeasurementUnavailableError, match=r"disk is full \(large, 100,000 bytes: "):
                session.put("large", bytes(100_000))
        assert session.removed
        assert server.left_behind() == []


@contextlib.contextmanager
def mount_tmpfs(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs rights that this user does not have")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_sshd
def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path, bare_python: str) -> None:
    with mount_tmpfs(tmp_path / "device", "size=64k"), run_sshd(tmp_path) as server:
        with pytest.raises(MeasurementUnavailableError, match=r"disk is full \(bench, .*No space left on device"):
            measure(server, bare_python, STAND_IN + bytes(100_000))
        assert server.left_behind() == []
        # the outputs of a program that fitted
        filling = b"#!/bin/sh\nhead -c 200000 /dev/zero >$2 || exit 2\n"
        with pytest.raises(MeasurementUnavailableError, match=r"disk is full \(.*No space left on device"):
            measure(server, bare_python, filling)
        assert server.left_behind() == []
        (server.device / "of somebody else").write_bytes(bytes(64 * 1024 - 4096))
        with pytest.raises(MeasurementUnavailableError, match="disk is full"):
            measure(server, bare_python)
        assert server.left_behind() == []


@needs_sshd
def test_a_folder_without_execution_is_not_taken(tmp_path: Path) -> None:
    with mount_tmpfs(tmp_path / "device", "size=1m,noexec"), run_sshd(tmp_path) as server:
        with pytest.raises(MeasurementUnavailableError, match="noexec"), open_session(server.address):
            pass
        assert server.left_behind() == []


# --- the measurement


@needs_sshd
def test_the_program_is_timed_and_its_outputs_come_back(server: SshServer, bare_python: str) -> None:
    found = measure(server, bare_python)
    assert (found.outputs["static"][0] == -INPUTS).all()
    run = found.static
    assert (run.name, run.runtime, run.threads) == ("static C", f"static {HERE} program", 1)
    assert (run.n, run.warmup, run.min_us) == (100, 2, 1.0)
    # of 1 to 100 microseconds; numpy interpolates linearly
    assert (run.p50_us, run.p90_us, run.p99_us) == (50.5, 90.1, 99.01)
    assert found.facts.machine == platform.machine()
    assert found.facts.cores == os.cpu_count()
    assert found.facts.cpu
    assert found.after.available_bytes is not None
    assert found.removed
    assert server.left_behind() == []


@needs_sshd
def test_a_python_without_packages_is_a_row_with_the_reason(server: SshServer, bare_python: str) -> None:
    found = measure(server, bare_python)
    assert found.python == platform.python_version()
    assert found.packages == {"numpy": None, "onnxruntime": None, "ai_edge_litert": None, "tflite_runtime": None}
    (row,) = found.runs[1:]
    assert (row.name, row.n, row.reason) == ("LiteRT int8", None, "the device's Python has no numpy")
    assert list(found.outputs) == ["static"]


@needs_sshd
def test_a_device_without_python_is_a_row_with_the_reason(server: SshServer) -> None:
    found = measure(server, "/nonexistent/python")
    assert found.python is None
    assert found.runs[1].reason == "the device has no /nonexistent/python"


@needs_sshd
def test_a_runtime_that_dies_is_a_row_with_the_signal(server: SshServer, tmp_path: Path) -> None:
    """Wheels built for newer cores die like this on a Cortex-A53."""
    versions = '{"python": "3.9.2", "packages": {"numpy": "1.26.4", "ai_edge_litert": "2.0.0"}}'
    python = write_program(tmp_path / "python", f"[ $2 = versions ] && exec echo '{versions}'\nkill -ILL $$")
    (row,) = measure(server, python).runs[1:]
    assert row.reason == "the device's Python ended with SIGILL (signal 4)"


@needs_sshd
def test_another_architecture_is_refused_before_anything_is_copied(server: SshServer, bare_python: str) -> None:
    other = "armv7" if HERE == "aarch64" else "aarch64"
    with pytest.raises(MeasurementUnavailableError) as caught:
        measure(server, bare_python, architecture=other)
    assert f"the device is an {platform.machine()} machine" in str(caught.value)
    assert f"programs are built for {other}" in str(caught.value)
    assert server.left_behind() == []


@needs_sshd
def test_an_instruction_set_that_the_device_lacks_is_refused(server: SshServer, bare_python: str) -> None:
    with pytest.raises(MeasurementUnavailableError, match="lacks no-such-feature, which the program"):
        measure(server, bare_python, requires={HERE: ("no-such-feature",)})


@needs_sshd
@pytest.mark.parametrize(
    ("program", "error", "said"),
    [
        ("echo bench: inputs.bin: too short >&2; exit 2", EdgepruneError, "status 2: bench: inputs.bin: too short"),
        ("kill -SEGV $$", EdgepruneError, "SIGSEGV"),
        ("exit 0", EdgepruneError, "could not be read|answer cannot be read"),
        ("kill -ILL $$", MeasurementUnavailableError, "lacks an instruction"),
        ("kill -KILL $$", MeasurementUnavailableError, "memory"),
        (None, MeasurementUnavailableError, "cannot execute"),
    ],
)
def test_a_program_that_fails_says_how(
    server: SshServer, bare_python: str, program: str | None, error: type[EdgepruneError], said: str
) -> None:
    # None: an ELF file of no machine
    content = b"\x7fELF" + bytes(60) if program is None else f"#!/bin/sh\n{program}\n".encode()
    with pytest.raises(error, match=said):
        measure(server, bare_python, content)
    assert server.left_behind() == []


def test_the_script_for_the_device_s_python_is_for_old_ones_too() -> None:
    """Debian 10, as many devices have it, brings Python 3.7; and edgeprune is not there."""
    source = Path(remote_runtimes.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    standard = {name for name in imported if name.split(".")[0] in sys.stdlib_module_names}
    assert imported - standard == {"numpy", "onnxruntime"}


def test_threads_double_up_to_all_cores() -> None:
    assert [list_threads(cores) for cores in (1, 2, 4, 6, 8)] == [
        (1,),
        (1, 2),
        (1, 2, 4),
        (1, 2, 4, 6),
        (1, 2, 4, 8),
    ]


@pytest.mark.parametrize(("runs", "warmup"), [(0, 1), (1, -1)])
def test_runs_that_make_no_sense_are_refused(runs: int, warmup: int) -> None:
    with pytest.raises(InputError, match="allowed are"):
        measure_on_device(DeviceAddress("pi", "board"), {}, INPUTS, {}, float_inputs=FLOATS, runs=runs, warmup=warmup)
