"""Does every form compute what the one before it did? In every compile, written to the report, passed or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.layout import arrange_samples
from edgeprune.lower import write_tflite
from edgeprune.parity import (
    EXECUTORS,
    MICRO,
    ONNX_RUNTIME,
    EndToEndParity,
    FloatParity,
    LockstepParity,
    OpParity,
    compare_end_to_end,
    compare_float,
    compare_lockstep,
    count_affordable_samples,
    find_missing_kernels,
)
from edgeprune.prune.checkpoint import digest_module
from edgeprune.quantize import measure_sqnr, write_qdq_op
from edgeprune.report import to_plain
from edgeprune.stages.build import Programs
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel

LOCKSTEP_SAMPLES = 16
END_TO_END_SAMPLES = 256
# a second or two of end-to-end runs in TFLite Micro's plain loops
END_TO_END_MACS = 1_000_000_000

Check = dict[str, Any]


def verify_programs(
    job: Job, pruned: PrunedModel, programs: Programs
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """Parity of all forms, and the quantization noise of each layer; never raises for a difference: it is reported.

    Lockstep and noise are taken on calibration samples, end to end on test samples (their labels stay closed).
    """
    most = min(len(job.data.x_test), END_TO_END_SAMPLES)
    test_samples = job.data.x_test[: count_affordable_samples(programs.int8_graph, most, END_TO_END_MACS)]
    inputs = {
        "module": None if pruned.module is None else digest_module(pruned.module),
        "files": {name: content for name, (_kind, content) in programs.files.items()},
        "names": [op.name for op in programs.int8_graph.ops],
        "calibration": programs.calibration_nhwc[:LOCKSTEP_SAMPLES],
        "test": test_samples,
        "words": (job.checked_on, job.tested_on, job.settings.converter),
    }
    found = job.cache.reuse_json("verify", inputs, lambda: to_plain(_verify(job, pruned, programs, test_samples)))
    job.notes.extend(found["notes"])
    return found["parity"], found["sqnr"]


def _verify(job: Job, pruned: PrunedModel, programs: Programs, test_samples: np.ndarray) -> dict[str, Any]:
    """Sections `parity` and `sqnr` of the report, and notes on what was not checked."""
    notes: list[str] = []
    lockstep = compare_lockstep(
        programs.int8_graph,
        programs.calibration_nhwc[:LOCKSTEP_SAMPLES],
        write_tflite,
        write_qdq_op,
        executors=_list_executors(programs),
        progress=job.progress,
    )
    end_to_end = _compare_whole_programs(job, programs, test_samples, notes)
    checks = [_check_executor(lockstep, executor, job.checked_on) for executor in EXECUTORS]
    checks += [_check_whole(row, job.tested_on) for row in end_to_end]
    floats = None
    if pruned.module is not None and programs.float32_onnx is not None:
        floats = compare_float(pruned.module, programs.float32_onnx, test_samples)
        checks.insert(0, _check_float(floats))
    for executor, remedy in lockstep.unavailable:
        notes.append(f"parity with {executor} was NOT checked: it is not installed ({remedy})")
    parity = {
        "passed": all(check["passed"] for check in checks if check is not None),
        "checks": [check for check in checks if check is not None],
        "float": floats,
        "lockstep": [dataclasses.asdict(row) for row in lockstep.rows],
        "lockstep_samples": lockstep.samples,
        "end_to_end": end_to_end,
        "unavailable": [{"executor": name, "remedy": remedy} for name, remedy in lockstep.unavailable],
    }
    return {"parity": parity, "sqnr": measure_noise(job, programs, notes), "notes": notes}


def measure_noise(job: Job, programs: Programs, notes: list[str]) -> Sequence[Mapping[str, Any]]:
    """Signal to quantization noise of each layer on the lockstep samples, worst first."""
    if programs.float_graph is None:
        return ()
    if programs.int8_graph.inputs != programs.float_graph.inputs:
        notes.append(
            f"no noise per layer: the tensors of the file that {job.settings.converter} wrote have other names"
        )
        return ()
    rows = measure_sqnr(programs.float_graph, programs.int8_graph, programs.calibration_nhwc[:LOCKSTEP_SAMPLES])
    return [dataclasses.asdict(row) for row in rows]


def _compare_whole_programs(
    job: Job, programs: Programs, samples: np.ndarray, notes: list[str]
) -> tuple[EndToEndParity, ...]:
    executors = _list_executors(programs)
    for executor in executors:
        missing = find_missing_kernels(programs.int8_graph, executor)
        if missing:
            notes.append(f"{executor} has no kernel for {', '.join(missing)}; it cannot run this model whole")
    return compare_end_to_end(
        programs.int8_graph,
        arrange_samples(samples, programs.input_shape),
        programs.int8_tflite,
        programs.int8_onnx,
        input_shape=job.model.input_shape,
        executors=executors,
    )


def _list_executors(programs: Programs) -> tuple[str, ...]:
    """ONNX Runtime is asked where there is an ONNX file to ship."""
    return tuple(name for name in EXECUTORS if name != ONNX_RUNTIME or programs.int8_onnx is not None)


def _check_float(parity: FloatParity) -> Check:
    return {
        "name": "PyTorch and ONNX float32",
        "what": f"{parity.samples} test samples",
        "difference": f"{parity.max_abs_error:.1e}",
        "limit": f"{parity.limit:.1e}",
        "passed": parity.passed,
    }


def _check_executor(lockstep: LockstepParity, executor: str, samples: str) -> Check | None:
    """An executor's worst op in lockstep, as one row."""
    worst = lockstep.worst(executor)
    if worst is None:
        return None
    return {
        "name": f"{executor}, each op in lockstep",
        "what": f"{lockstep.samples} {samples}",
        "difference": _describe_difference(worst),
        "limit": "by op, 0 to 1 LSB" if executor != MICRO else "0 LSB",
        "passed": all(row.passed for row in lockstep.rows if row.executor == executor),
    }


def _describe_difference(row: OpParity) -> str:
    if row.max_lsb is None:
        return f"{row.layer}: {row.problem}"
    return "0 LSB" if row.max_lsb == 0 else f"{row.max_lsb} LSB ({row.layer})"


def _check_whole(row: EndToEndParity, samples: str) -> Check:
    share = 100 * row.different / max(row.elements, 1)
    if row.max_lsb is None:
        difference = row.problem
    else:
        difference = "0 LSB" if row.max_lsb == 0 else f"{row.max_lsb} LSB, {share:.1f} % of outputs"
    if row.argmax_changes:
        difference += f", {row.argmax_changes} decision{'s' if row.argmax_changes > 1 else ''}"
    return {
        "name": f"{row.executor}, end to end",
        "what": f"{row.samples} {samples}",
        "difference": difference,
        "limit": "0 LSB" if row.must_be_equal else "reported",
        "passed": row.passed,
    }
