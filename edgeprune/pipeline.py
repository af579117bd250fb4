"""The compiler on one screen: the stages in order, artifact to artifact.

    prepare -> survey -> prune (+ retrain) -> build (ONNX, int8, TFLite) -> verify -> firmware, or Linux programs and
    device -> evaluate -> measure -> report

A network goes the whole way; an int8 program that others made joins it after `build`. Each stage is a function in
`stages` and takes what the stages before it made. Files are written once everything has been built, each whole or not
at all; the report is written whenever there is something to report, after a parity failure too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune import __version__
from edgeprune.cache import Cache
from edgeprune.file_kinds import is_tflite_file
from edgeprune.progress import SILENT, Progress
from edgeprune.report import CompileRecord, to_json, write_manifest, write_report
from edgeprune.settings import CompileSettings
from edgeprune.stages.build import Exported, Programs, build_programs, survey_base
from edgeprune.stages.evaluate import evaluate_variants
from edgeprune.stages.firmware import make_firmware, measure_base, record_firmware
from edgeprune.stages.fit import begin_fit
from edgeprune.stages.fit_record import describe_fit
from edgeprune.stages.linux import make_executables, record_executables
from edgeprune.stages.measure import collect_metrics, compare_layers, describe_profiles, measure_latencies
from edgeprune.stages.on_device import ask_for_device, record_device, run_on_device
from edgeprune.stages.prepare import Job, prepare_job
from edgeprune.stages.prepare_program import UNPRUNED, prepare_program
from edgeprune.stages.prune import PrunedModel, prune_and_retrain
from edgeprune.stages.pruning_record import describe_pruned
from edgeprune.stages.record import compare_with_earlier, decide_outcome, describe_job, note_cache, write_artifacts
from edgeprune.stages.verify import verify_programs


@dataclass(frozen=True, eq=False)
class CompileResult:
    """What a compile gives back: the exit code, the report as data, where its page lies, and what was found again."""

    exit_code: int
    document: dict[str, Any]
    page: Path
    cache: Cache


def compile_model(settings: CompileSettings, progress: Progress = SILENT) -> CompileResult:
    """Compile a trained model: prune, retrain, export, quantize, verify, evaluate, measure, report.

    A full-int8 .tflite is compiled as it is (`compile_program`). The exit code in the result is 1 for a parity failure,
    3 or 6 for budgets; what stops the compile before there is anything to report is raised as an EdgepruneError.
    """
    ask_for_device(settings)
    if is_tflite_file(settings.model):
        return compile_program(settings, progress)
    record = CompileRecord()
    with timed(record, "prepare"):
        job = prepare_job(settings, progress)
    with timed(record, "survey"):
        base = survey_base(job)
    with timed(record, "prune"):
        pruned = prune_until_it_fits(record, job, base) if settings.fit else prune_and_retrain(job)
    with timed(record, "build"):
        programs = build_programs(job, base, pruned)
    return finish_compile(record, job, base, pruned, programs)


def prune_until_it_fits(record: CompileRecord, job: Job, base: Exported) -> PrunedModel:
    """The one loop of the compiler: what became of the widths that were tried decides which ones are next."""
    search = begin_fit(job, base)
    for candidate in search.propose():
        pruned = search.prune(candidate)
        search.judge(candidate, pruned, build_programs(job, base, pruned))
    record.fit = describe_fit(search)
    return search.choose().pruned


def compile_program(settings: CompileSettings, progress: Progress = SILENT) -> CompileResult:
    """Compile a full-int8 .tflite that others made: no network, so nothing to prune, retrain, export or quantize."""
    record = CompileRecord()
    with timed(record, "prepare"):
        job, programs = prepare_program(settings, progress)
    return finish_compile(record, job, None, UNPRUNED, programs)


def finish_compile(
    record: CompileRecord, job: Job, base: Exported | None, pruned: PrunedModel, programs: Programs
) -> CompileResult:
    """What every compile does once its int8 program stands: verify, make the firmware, evaluate, measure, report."""
    base_graph = None if base is None else base.graph
    with timed(record, "verify"):
        record.parity, record.sqnr = verify_programs(job, pruned, programs)
    with timed(record, "firmware"):
        firmware = make_firmware(job, programs)
        record_firmware(record, job, firmware, measure_base(job, base, programs))
    with timed(record, "linux"):
        linux = make_executables(job, programs)
        record_executables(record, job, linux)
        device = run_on_device(job, programs, linux)
        record_device(record, linux, device)
    with timed(record, "evaluate"):
        record.variants = evaluate_variants(job, base_graph, pruned, programs, firmware)
    with timed(record, "measure"):
        record.latency = measure_latencies(job, programs, firmware, device)
        record.layers = compare_layers(job, pruned, programs)
        record.profiles = describe_profiles(base_graph, programs)
        record.metrics = collect_metrics(job, record, firmware, device)
    record.pruning = describe_pruned(job, base, pruned, programs)
    describe_job(record, job)
    write_artifacts(record, job, pruned, programs, firmware, linux)
    decide_outcome(record, job.settings.limits, device)
    document = compare_with_earlier(to_json(record, __version__), job)
    write_manifest(document, job.output)
    note_cache(job)
    return CompileResult(document["exit_code"], document, write_report(document, job.output), job.cache)


@contextmanager
def timed(record: CompileRecord, stage: str) -> Iterator[None]:
    """Note how many seconds a stage took."""
    start = time.perf_counter()
    yield
    record.timings[stage] = round(time.perf_counter() - start, 3)
