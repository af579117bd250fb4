"""A model measured on a device over ssh: the static program always, ONNX Runtime and LiteRT where its Python has them.

Nothing is installed there. What is missing is a row with the reason; what makes the whole measurement impossible (no
connection, no room, the wrong kind of machine) is a MeasurementUnavailableError.
"""

from __future__ import annotations

import io
import json
import signal
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import EdgepruneError, InputError, MeasurementUnavailableError
from edgeprune.layout import to_nhwc
from edgeprune.measure.linux.device_address import DeviceAddress
from edgeprune.measure.linux.remote_probe import PROBE_SCRIPT, DeviceFacts, DeviceState, read_probe
from edgeprune.measure.linux.remote_runtimes import ONNX_PACKAGES, TFLITE_PACKAGES
from edgeprune.measure.linux.ssh import DeviceSession, Finished, open_session
from edgeprune.measure.linux.ssh_errors import explain_full, is_full
from edgeprune.progress import SILENT, Progress, Step

STATIC = "static"  # the name of the executable's outputs among those of the model files
# `uname -m` -> the architecture of the executable it takes. armv8l: a 64-bit core under a 32-bit kernel.
MACHINES: Mapping[str, str] = {
    "aarch64": "aarch64",
    **dict.fromkeys(("armv7l", "armv8l"), "armv7"),
    "x86_64": "x86_64",
}
_RUN_SECONDS = 900
_RUNTIMES_SCRIPT = "remote_runtimes.py"


@dataclass(frozen=True)
class Form:
    """A model file and what runs it: a name for tables, the packages that can, which inputs it takes."""

    name: str
    packages: tuple[str, ...]
    inputs: str  # 'channels_first', 'channels_last' (float32) or 'int8'


FORMS: Mapping[str, Form] = {
    "model_float32.onnx": Form("ONNX Runtime float32", ONNX_PACKAGES, "channels_first"),
    "model_int8.onnx": Form("ONNX Runtime int8", ONNX_PACKAGES, "channels_first"),
    "model_float32.tflite": Form("LiteRT float32", TFLITE_PACKAGES, "channels_last"),
    "model_int8.tflite": Form("LiteRT int8", TFLITE_PACKAGES, "int8"),
}


@dataclass(frozen=True)
class DeviceRun:
    """Single inferences, batch 1, of one form with one number of threads.

    runtime: what ran it, with its version. n: timed runs, after `warmup` that were not. *_us: microseconds; None, as
    threads and n, where it did not run: `reason` says why.
    """

    name: str
    runtime: str
    threads: int | None = None
    n: int | None = None
    warmup: int | None = None
    p50_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None
    min_us: float | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class DeviceMeasurement:
    """What a device answered.

    architecture: of the executable that ran. runs: the static one first. python, packages: versions of the device's
    Python and of what it has, None where missing. notes: what a reader should know of the figures. removed: whether
    the device confirmed that its temporary folder is gone.
    outputs: by model file, and STATIC: each output of all samples, (n, ...) in the form's own type.
    """

    facts: DeviceFacts
    before: DeviceState
    after: DeviceState
    architecture: str
    runs: tuple[DeviceRun, ...]
    python: str | None
    packages: Mapping[str, str | None]
    notes: tuple[str, ...]
    removed: bool
    outputs: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    @property
    def static(self) -> DeviceRun:
        """The executable's run."""
        return self.runs[0]


def measure_on_device(
    address: DeviceAddress,
    executables: Mapping[str, bytes],
    inputs: np.ndarray,
    files: Mapping[str, bytes],
    *,
    float_inputs: np.ndarray,
    warmup: int = 20,
    runs: int = 200,
    threads: Sequence[int] | None = None,
    requires: Mapping[str, Collection[str]] | None = None,
    most_seconds: float = 10.0,
    progress: Progress = SILENT,
) -> DeviceMeasurement:
    """Copy, run, time, copy back, clean up.

    executables: by architecture (aarch64, armv7, x86_64); the one that the device takes is used. inputs: int8
        (n, input bytes). files: content by the names in FORMS; those that are missing are left out. float_inputs: the
        same samples for the other forms, float32 (n, C, ...) in PyTorch's layout.
    threads: of the runtimes; None: 1, 2, 4, ... up to the device's cores. requires: by architecture, instruction sets
        (as /proc/cpuinfo names them) that the executable was built for. most_seconds: of timed runs with one number of
        threads in one runtime; the executable makes all `runs`.
    Raises MeasurementUnavailableError (see `open_session`; wrong architecture, disk full, connection lost), and
    EdgepruneError where the executable itself fails.
    """
    if runs < 1 or warmup < 0 or len(inputs) == 0:
        raise InputError(f"runs {runs}, warmup {warmup}, samples {len(inputs)}: allowed are 1, 0 and 1 at least")
    known = {name: content for name, content in files.items() if name in FORMS}
    with progress.step(f"on {address}", total=3 + len(known)) as step, open_session(address) as session:
        job = _DeviceJob(session, warmup, runs, most_seconds, step)
        facts, before = read_state(session)
        architecture = _choose_architecture(address, facts, executables, requires or {})
        step.advance()
        static, outputs = job.run_static(architecture, executables[architecture], np.ascontiguousarray(inputs, np.int8))
        found = job.run_runtimes(known, inputs, float_inputs, threads or list_threads(facts.cores))
        _, after = read_state(session)
        step.advance()
    return DeviceMeasurement(
        facts=facts,
        before=before,
        after=after,
        architecture=architecture,
        runs=(static, *found.rows),
        python=found.python,
        packages=found.packages,
        notes=_list_notes(facts, before, after, session.removed),
        removed=session.removed,
        outputs={STATIC: (outputs,), **found.outputs},
    )


def check_device(
    address: DeviceAddress,
    architectures: Collection[str],
    *,
    requires: Mapping[str, Collection[str]] | None = None,
) -> DeviceFacts:
    """What the device is, if programs of these architectures can run on it: to be asked before hours of training.

    Raises MeasurementUnavailableError as `measure_on_device` does.
    """
    with open_session(address) as session:
        facts, _ = read_state(session)
    _choose_architecture(address, facts, architectures, requires or {})
    return facts


def read_state(session: DeviceSession) -> tuple[DeviceFacts, DeviceState]:
    """What the device is, and its clock, temperature and load now."""
    done = session.run("sh", b"root=\n" + PROBE_SCRIPT.read_bytes(), doing="its state was read")
    return read_probe(done.output.decode(errors="replace"))


def list_threads(cores: int | None) -> tuple[int, ...]:
    """1, 2, 4, ... and all cores.

    >>> list_threads(6), list_threads(None)
    ((1, 2, 4, 6), (1,))
    """
    most = max(1, cores or 1)
    return tuple(sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)}))


def _choose_architecture(
    address: DeviceAddress,
    facts: DeviceFacts,
    executables: Collection[str],
    requires: Mapping[str, Collection[str]],
) -> str:
    """The architecture of the executable for this machine; raises MeasurementUnavailableError where there is none."""
    architecture = MACHINES.get(facts.machine, facts.machine)
    article = "an" if facts.machine[:1] in "aeiox" else "a"  # an x86_64, a riscv64
    called = f"{article} {facts.machine}" + (f" machine ({facts.cpu})" if facts.cpu else " machine")
    if architecture not in executables:
        raise MeasurementUnavailableError(
            f"{address}: the device is {called}; programs are built for {' and '.join(sorted(executables))}. Name "
            "a device of such an architecture, or the target that this device is"
        )
    missing = sorted(set(requires.get(architecture, ())) - set(facts.features))
    if missing:
        raise MeasurementUnavailableError(
            f"{address}: the device, {called}, lacks {', '.join(missing)}, which the program for this target uses; "
            "compile for the core that the device has (`edgeprune targets`)"
        )
    return architecture


@dataclass(frozen=True, eq=False)
class _RuntimeResults:
    rows: tuple[DeviceRun, ...]
    outputs: Mapping[str, tuple[np.ndarray, ...]]
    python: str | None
    packages: Mapping[str, str | None]


@dataclass(frozen=True, eq=False)
class _DeviceJob:
    """The steps of one measurement on an open session."""

    session: DeviceSession
    warmup: int
    runs: int
    most_seconds: float
    step: Step

    def run_static(self, architecture: str, executable: bytes, inputs: np.ndarray) -> tuple[DeviceRun, np.ndarray]:
        """The executable on all samples, then timed; its outputs, int8 (n, bytes)."""
        session = self.session
        session.put("bench", executable, executable=True)
        session.put("inputs.bin", inputs.tobytes())
        command = f"./bench inputs.bin outputs.bin --warmup {self.warmup} --runs {self.runs}"
        done = session.run(command, doing="the model ran on it", most_seconds=_RUN_SECONDS)
        if done.status:
            raise self._explain_failure(done, architecture)
        times = _read_lines(done.output)[-1:]
        values = np.frombuffer(session.get("outputs.bin"), np.int8)
        if not times or len(times[0].get("ns", ())) != self.runs or len(values) % len(inputs):
            raise EdgepruneError(f"{session.address}: the program's answer cannot be read: {done.output[-200:]!r}")
        self.step.advance()
        run = _summarize("static C", f"static {architecture} program", 1, times[0])
        return run, values.reshape(len(inputs), -1)

    def run_runtimes(
        self, files: Mapping[str, bytes], inputs: np.ndarray, float_inputs: np.ndarray, threads: Sequence[int]
    ) -> _RuntimeResults:
        """Every model file in the device's Python, or why not."""
        session = self.session
        script = Path(__file__).with_name(_RUNTIMES_SCRIPT).read_bytes()
        session.put(_RUNTIMES_SCRIPT, script)
        told, problem = self._run_script("versions", doing="its Python was asked")
        versions = told[0] if told else {}
        packages: dict[str, str | None] = versions.get("packages", {})
        rows: list[DeviceRun] = []
        outputs: dict[str, tuple[np.ndarray, ...]] = {}
        sent: set[str] = set()
        for name, content in files.items():
            form = FORMS[name]
            reason = problem or _find_missing(form, packages)
            if reason:
                rows.append(DeviceRun(form.name, "", reason=reason))
            else:
                if form.inputs not in sent:
                    session.put(f"{form.inputs}.npy", _pack_inputs(form.inputs, inputs, float_inputs))
                    sent.add(form.inputs)
                session.put(name, content)
                found, results = self._run_form(name, form, threads)
                rows += found
                outputs |= {} if results is None else {name: results}
            self.step.advance()
        return _RuntimeResults(tuple(rows), outputs, versions.get("python"), packages)

    def _run_form(
        self, name: str, form: Form, threads: Sequence[int]
    ) -> tuple[list[DeviceRun], tuple[np.ndarray, ...] | None]:
        words = f"run {name} {form.inputs}.npy outputs.npz {','.join(map(str, threads))}"
        words += f" {self.warmup} {self.runs} {self.most_seconds:g}"
        told, problem = self._run_script(words, doing=f"{form.name} ran on it")
        runtime = next((line["runtime"] for line in told if "runtime" in line), "")
        rows = [_summarize(form.name, runtime, line["threads"], line) for line in told if line.get("ns")]
        outputs = None
        if runtime:
            try:
                with np.load(io.BytesIO(self.session.get("outputs.npz")), allow_pickle=False) as archive:
                    outputs = tuple(archive[key] for key in archive.files)
            except (ValueError, OSError, zipfile.BadZipFile) as error:
                problem = problem or f"its outputs cannot be read: {error}"
        if problem:
            rows.append(DeviceRun(form.name, runtime, reason=problem))
        return rows, outputs

    def _run_script(self, words: str, *, doing: str) -> tuple[list[dict[str, Any]], str]:
        """Lines that remote_runtimes.py told, and why it did not end well, '' if it did."""
        session = self.session
        python = session.address.python
        command = f"{python} {_RUNTIMES_SCRIPT} {words}"
        done = session.run(command, doing=doing, most_seconds=_RUN_SECONDS)
        told = _read_lines(done.output)
        problem = next((str(line["problem"]) for line in told if "problem" in line), "")
        if is_full(problem) or is_full(done.errors):
            raise explain_full(session.address, problem or done.errors)
        if done.status in (126, 127) and not told:
            problem = f"the device has no {python}"
        elif done.status and not problem:
            problem = f"the device's Python ended with {_name_status(done.status)}"
            if done.status <= 128:
                problem += f": {done.reason}"
        return [line for line in told if "problem" not in line], problem

    def _explain_failure(self, done: Finished, architecture: str) -> EdgepruneError:
        """Why the executable did not run: the device's matter (exit code 6), or a fault of the program."""
        address = self.session.address
        if is_full(done.errors):
            return explain_full(address, done.reason)
        if done.status == 128 + signal.SIGILL:
            return MeasurementUnavailableError(
                f"{address}: the device's core lacks an instruction that the {architecture} program for this target "
                "uses (SIGILL); compile for the core that the device has (`edgeprune targets`)"
            )
        if done.status in (126, 127):
            return MeasurementUnavailableError(
                f"{address}: the device cannot execute the {architecture} program: {done.reason}"
            )
        if done.status == 128 + signal.SIGKILL:
            return MeasurementUnavailableError(
                f"{address}: the device killed the program, as it does when memory runs out; free memory there, or "
                "prune the model further"
            )
        said = f": {done.reason}" if done.errors.strip() else ""
        return EdgepruneError(f"{address}: the {architecture} program ended with {_name_status(done.status)}{said}")


def _find_missing(form: Form, packages: Mapping[str, str | None]) -> str:
    """Why the device's Python cannot run this form; '' if it can."""
    if packages.get("numpy") is None:
        return "the device's Python has no numpy"
    if all(packages.get(name) is None for name in form.packages):
        return f"the device's Python has no {' or '.join(form.packages)}"
    return ""


def _pack_inputs(kind: str, inputs: np.ndarray, float_inputs: np.ndarray) -> bytes:
    """The samples as an .npy file in the layout that a form takes."""
    floats = np.ascontiguousarray(float_inputs, np.float32)
    arrays = {"channels_first": floats, "int8": np.asarray(inputs, np.int8)}
    array = to_nhwc(floats) if kind == "channels_last" else arrays[kind]
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _summarize(name: str, runtime: str, threads: int, line: Mapping[str, Any]) -> DeviceRun:
    """Figures of the nanoseconds in one line of JSON."""
    times = np.asarray(line["ns"], np.float64) / 1e3
    p50, p90, p99 = (round(float(np.percentile(times, share)), 3) for share in (50, 90, 99))
    return DeviceRun(
        name=name,
        runtime=runtime,
        threads=threads,
        n=len(times),
        warmup=int(line["warmup"]),
        p50_us=p50,
        p90_us=p90,
        p99_us=p99,
        min_us=round(float(times.min()), 3),
    )


def _read_lines(output: bytes) -> list[dict[str, Any]]:
    """The lines that are JSON objects; what else a login or a runtime prints is not ours."""
    lines = []
    for line in output.decode(errors="replace").splitlines():
        if line.startswith("{"):
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:  # cut off in the middle
                continue
    return lines


def _name_status(status: int) -> str:
    if status > 128:
        try:
            return f"{signal.Signals(status - 128).name} (signal {status - 128})"
        except ValueError:
            return f"status {status}"
    return f"status {status}"


def _list_notes(facts: DeviceFacts, before: DeviceState, after: DeviceState, removed: bool) -> tuple[str, ...]:
    """What a reader of the times should know."""
    notes = []
    for state, when in ((before, "before"), (after, "after")):
        if state.throttled:
            notes.append(f"the clock was held down {when} the runs by {state.throttled_by}: the times are too long")
    if before.governor not in (None, "performance"):
        notes.append(f"the clock's governor is {before.governor}: short runs may be timed before the clock has risen")
    if before.load is not None and before.load > 0.5 * (facts.cores or 1):
        notes.append(
            f"the device was busy: a load of {before.load:g} on {facts.cores or 'unknown'} cores before the runs"
        )
    if not removed:
        notes.append("the device did not confirm that the temporary folder is gone")
    return tuple(notes)
