"""--method dsp (arXiv 2602.12744, Algorithm 1): train sparsely, remove what no sample uses, retrain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from edgeprune.prune.bench import Bench, describe_training
from edgeprune.prune.dsp import DspSettings, run_dsp
from edgeprune.prune.methods.base import Method, MethodResult, describe_pruning
from edgeprune.prune.sparsity import Activity

FINETUNING_EPOCHS = 500  # the paper's; the recipe's epochs are those of sparse pretraining
RETRAININGS: Mapping[str, tuple[str, ...]] = {
    "scratch": ("scratch",),
    "finetune": ("finetune",),
    "both": ("finetune", "scratch"),
    "none": (),
}


@dataclass(frozen=True)
class Dsp(Method):
    """start: of sparse pretraining, "scratch" or "trained". sparsity_weight: lambda. retrain: a key of RETRAININGS."""

    start: str
    sparsity_weight: float
    retrain: str

    def run(self, bench: Bench) -> MethodResult:
        recipe = bench.recipe
        result = run_dsp(
            bench.base,
            bench.x_train,
            bench.y_train,
            DspSettings(
                strength=self.sparsity_weight,
                start=self.start,
                retrain=RETRAININGS[self.retrain],
                pretraining=replace(recipe, early_stopping="none"),
                retraining=recipe,
                finetuning=replace(recipe, epochs=min(recipe.epochs, FINETUNING_EPOCHS)),
            ),
            x_val=bench.x_val,
            y_val=bench.y_val,
            factory=bench.factory,
            progress=bench.progress,
            checkpoints=bench.checkpoints,
        )
        trainings = {
            "sparse pretraining": result.pretraining,
            "fine-tuning": result.finetuned,
            "training from scratch": result.scratch,
        }
        for title, training in trainings.items():
            if training is not None:
                row = {"title": title, **describe_training(training), "seconds": round(training.seconds, 3)}
                bench.trainings.append(row)
        variants: dict[str, tuple[str, fx.GraphModule]] = {
            label.lower(): (label, module) for label, module in result.variants.items()
        }
        record: dict[str, Any] = {
            **describe_pruning(result.pruning),
            "activities": [describe_activity(activity) for activity in result.activities],
        }
        retrained = result.scratch or result.finetuned
        if retrained is None:
            return MethodResult(result.pruning.module, variants, record)
        # the deployed one comes last and under the name that every method's report has
        variants["retrained"] = variants.pop("scratch-trained" if result.scratch is not None else "finetuned")
        return MethodResult(retrained.module, variants, record)


def describe_activity(activity: Activity) -> dict[str, Any]:
    """How many of an observed tensor's channels no training sample uses, for the report."""
    return {
        "tensor": activity.tensor.node,
        "learnable_channels": len(activity.tensor.learnable),
        "inactive_channels": len(activity.inactive),
        "silent_samples": activity.silent_samples,
        "samples": activity.samples,
    }
