"""Last stage: what was done, with what, and how it ended; the files on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import fx

from edgeprune.disk import remove_leftovers, write_file_atomically
from edgeprune.doctor import list_tool_versions
from edgeprune.errors import BudgetMissedError, MeasurementUnavailableError, ParityError, combine_exit_codes
from edgeprune.load import save_model
from edgeprune.prune.checkpoint import digest_module
from edgeprune.report import Artifact, Budget, CompileRecord, check_budgets, exit_code_of
from edgeprune.report.gate import add_baseline, compare_with_baseline
from edgeprune.report.tolerance import parse_tolerances
from edgeprune.settings import CompileSettings
from edgeprune.stages.build import Programs
from edgeprune.stages.device import DeviceResult
from edgeprune.stages.firmware import ELF, FirmwareResult
from edgeprune.stages.firmware import FOLDER as FIRMWARE_FOLDER
from edgeprune.stages.linux import FOLDER as LINUX_FOLDER
from edgeprune.stages.linux import LinuxResult
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel
from edgeprune.target import describe_target

PRUNED_MODEL = "model_pruned.pt"


def describe_job(record: CompileRecord, job: Job) -> None:
    """Fill the sections that say what went in and what was asked for; no path of this machine among them."""
    record.model = {
        "name": job.model.name,
        "format": job.model.format,
        "sha256": job.model.sha256,
        "input_shape": job.model.input_shape,
        "notes": job.model.notes,
    }
    record.data = {
        "name": job.data.name,
        "source": job.data.source,
        "sha256": job.data.sha256,
        "samples": {
            "train": len(job.train_indices),
            "validation": len(job.validation_indices),
            "test": len(job.data.y_test),
        },
        "class_names": job.data.class_names,
        "normalization": job.normalization,
    }
    record.target = describe_target(job.target)
    record.settings = describe_settings(job.settings)
    record.tools = list_tool_versions()
    record.notes = job.notes


def describe_settings(settings: CompileSettings) -> dict[str, Any]:
    """Settings as plain values, files by their names only: a report must not tell where it was made."""
    values = {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}
    values["model"] = settings.model.name
    values["target"] = Path(settings.target).name
    values["data"] = None if settings.data is None else settings.data.rsplit("/", 1)[-1]
    values["output"] = None if settings.output is None else settings.output.name
    values["training"] = settings.recipe
    # they change nothing in what comes out; an address is nobody else's business
    for name in ("cache", "use_cache", "baseline", "device"):
        del values[name]
    return values


def write_artifacts(
    record: CompileRecord,
    job: Job,
    pruned: PrunedModel,
    programs: Programs,
    firmware: FirmwareResult | None,
    linux: LinuxResult | None,
) -> None:
    """Put every form of the model into the output folder and note size and digest of each."""
    files = {**programs.files, **_list_firmware_files(firmware), **({} if linux is None else linux.files)}
    if pruned.module is not None:
        files[PRUNED_MODEL] = ("PyTorch (torch.export), pruned", _save_pruned(job, pruned.module))
    for name, (kind, content) in files.items():
        write_file_atomically(job.output / name, content)
        record.artifacts.append(describe_artifact(name, kind, content))
    job.cache.tidy()
    for folder in ("", FIRMWARE_FOLDER, LINUX_FOLDER, f"{LINUX_FOLDER}/src"):
        remove_leftovers(job.output / folder)
    for folder in (FIRMWARE_FOLDER, f"{LINUX_FOLDER}/src"):
        for path in (job.output / folder).glob("*"):
            if f"{folder}/{path.name}" not in files:
                path.unlink()  # of an earlier compile: it would be built into this one


def _list_firmware_files(firmware: FirmwareResult | None) -> dict[str, tuple[str, bytes]]:
    kinds = {ELF: "firmware as it was run in the emulator (ELF)"}
    files = {} if firmware is None else firmware.files
    return {name: (kinds.get(name, "firmware"), content) for name, content in files.items()}


def _save_pruned(job: Job, module: fx.GraphModule) -> bytes:
    """The network as a file that `edgeprune compile` takes again."""

    def make() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            path = Path(folder) / PRUNED_MODEL
            save_model(module, job.example, path, normalization=job.normalization, class_names=job.data.class_names)
            return {PRUNED_MODEL: path.read_bytes()}

    inputs = {
        "module": digest_module(module),
        "input_shape": job.model.input_shape,
        "normalization": dataclasses.asdict(job.normalization),
        "class_names": job.data.class_names,
    }
    return job.cache.reuse("pruned-model", inputs, make)[PRUNED_MODEL]


def compare_with_earlier(document: dict[str, Any], job: Job) -> dict[str, Any]:
    """The report with the comparison that the settings ask for in it."""
    if job.baseline is None:
        return document
    tolerances = parse_tolerances(job.settings.tolerances)
    return add_baseline(document, compare_with_baseline(document, job.baseline, tolerances))


def note_cache(job: Job) -> None:
    """Say what was not computed again, and what could not be kept."""
    cache = job.cache
    if cache.found:
        count = len(cache.found) + len(cache.made)
        job.progress.note(f"{len(cache.found)} of {count} results were found in {cache.folder}, made by an earlier run")
    if cache.problem:
        job.progress.note(f"not all results could be kept for the next run: {cache.problem}")


def describe_artifact(name: str, kind: str, content: bytes) -> Artifact:
    """A written file's size and digest."""
    return Artifact(name, kind, len(content), hashlib.sha256(content).hexdigest())


def decide_outcome(record: CompileRecord, budgets: Sequence[Budget], device: DeviceResult | None) -> None:
    """Hold the budgets against the figures; set the exit code and the sentence that the report opens with.

    device: of --device; one that gave no figure is a measurement that is unavailable.
    """
    record.budgets = check_budgets(budgets, record.metrics)
    if not record.parity.get("passed", True):
        failed = [check["name"] for check in record.parity["checks"] if not check["passed"]]
        record.exit_code = ParityError.exit_code
        record.outcome = f"Parity failed: {'; '.join(failed)}. The artifacts are kept as evidence; do not ship them."
        return
    is_lost = device is not None and device.latency_us is None
    codes = [exit_code_of(record.budgets), MeasurementUnavailableError.exit_code if is_lost else 0]
    record.exit_code = combine_exit_codes(codes)
    unmet = [result.message for result in record.budgets if result.state != "met"]
    if record.fit.get("missed"):
        unmet.append(record.fit["missed"])
        record.exit_code = record.exit_code or BudgetMissedError.exit_code
    if unmet:
        record.outcome = f"Built and verified, but not within budget: {'; '.join(unmet)}"
    elif is_lost:
        record.outcome = f"Built and verified, but nothing was measured on the device: {record.device['reason']}"
    else:
        record.outcome = "Built and verified" + (f", within {len(record.budgets)} budgets" if record.budgets else "")
