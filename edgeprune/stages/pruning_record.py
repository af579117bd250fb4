"""What the report says about pruning beyond the method's own account: what needs the compiled forms, or the data."""

from __future__ import annotations

from typing import Any

from edgeprune.measure.transport import measure_transport
from edgeprune.prune.checkpoint import digest_module
from edgeprune.prune.redundancy import describe_redundancy
from edgeprune.report import to_plain
from edgeprune.stages.build import Exported, Programs, quantize_network
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel


def describe_pruned(job: Job, base: Exported | None, pruned: PrunedModel, programs: Programs) -> dict[str, Any]:
    """The section `pruning` of the report.

    base: the model as it was given, exported; None for an int8 program.
    """
    section = dict(pruned.record)
    if base is not None and "masks" in section:
        section["transport"] = describe_transport(job, base, programs)
    if "pretrained" in pruned.variants:  # DSP: the paper's analysis of what its sparse training does
        forms = [pruned.variants[key] for key in ("base", "pretrained", "retrained") if key in pruned.variants]
        inputs = {
            "forms": [(label, digest_module(module)) for label, module in forms],
            "data": job.data.sha256,
            "train": job.train_indices,
            "seed": job.settings.seed,
        }
        section |= job.cache.reuse_json(
            "redundancy",
            inputs,
            lambda: to_plain(describe_redundancy(dict(forms), job.x_train, seed=job.settings.seed)),
        )
    return section


def describe_transport(job: Job, base: Exported, programs: Programs) -> dict[str, Any]:
    """Zeros among the weights save nothing but bytes of a compressed file: those, of base and result."""
    after = measure_transport(programs.int8_tflite)
    _, base_tflite = quantize_network(job, base, programs.calibration_nhwc)
    before = measure_transport(base_tflite)
    is_zlib = after.compressor.startswith("zlib")
    return {
        "compressor": after.compressor,
        "bytes": after.compressed_bytes,
        "plain_bytes": after.plain_bytes,
        "base_bytes": before.zlib_bytes if is_zlib else before.xz_bytes,
        "base_plain_bytes": before.plain_bytes,
    }
