"""Prune and retrain: the loaded network in, the network to deploy out, with every state in between worth reporting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgeprune.errors import EdgepruneError
from edgeprune.load import raise_module
from edgeprune.load.model_factory import call_factory, import_attribute
from edgeprune.models import build_model
from edgeprune.prune import (
    CRITERIA,
    DspSettings,
    PruneResult,
    TrainResult,
    find_units,
    prune_channels,
    recalibrate_batchnorm,
    reset_parameters,
    run_dsp,
    select_lowest,
    train_model,
)
from edgeprune.prune.sparsity import Activity
from edgeprune.prune.user_training import TrainContext, train_with
from edgeprune.settings import DSP_FINETUNE_EPOCHS
from edgeprune.stages.prepare import Job

Variants = dict[str, tuple[str, fx.GraphModule]]
FOLD_BATCH_SIZE = 256


@dataclass(frozen=True, eq=False)
class PrunedModel:
    """What pruning gives: the module to deploy (None for an ONNX file), its history, and the report's section.

    variants: key -> (label, module) in the order they came about; 'base' first, 'retrained' is the one to deploy.
    """

    module: fx.GraphModule | None
    variants: Mapping[str, tuple[str, fx.GraphModule]]
    record: Mapping[str, Any]


def prune_and_retrain(job: Job) -> PrunedModel:
    """Run the method that the settings name."""
    return METHODS[job.settings.method](job)


def keep_all_channels(job: Job) -> PrunedModel:
    """--method none: quantize and deploy what was given."""
    variants: Variants = {} if job.model.module is None else {"base": ("Base", job.model.module)}
    return PrunedModel(job.model.module, variants, {"method": "none"})


def prune_by_l1(job: Job) -> PrunedModel:
    """--method l1 (arXiv 2509.05190): remove the filters of least L1 norm, copy the others, retrain."""
    base = require_module(job)
    units = find_units(base, job.example)
    scores = CRITERIA["l1"]().score_units(base, units)
    dead = select_lowest(units, scores, job.settings.ratio, job.settings.scope)
    # the paper prunes every layer: one that keeps all its channels is worth a line in the report
    asked = [layer.name for layer in units.layers] if job.settings.ratio and job.settings.scope == "layer" else None
    result = prune_channels(
        base, job.example, dead, fold_batches=torch.split(training_batch(job), FOLD_BATCH_SIZE), asked=asked
    )
    pruned = recalibrate_batchnorm(result.module, job.x_train)
    variants: Variants = {"base": ("Base", base), "pruned": ("Pruned", pruned)}
    record: dict[str, Any] = {"method": "l1", "ratio": job.settings.ratio, "scope": job.settings.scope}
    record.update(describe_pruning(result))
    if job.settings.retrain == "none":
        return PrunedModel(pruned, variants, record)
    label, start = "Finetuned", pruned
    if job.settings.retrain == "scratch":
        # without folding, which may add biases that the architecture does not have
        plain = prune_channels(base, job.example, dead).module
        label, start = "Scratch-trained", reset_parameters(plain, job.settings.seed)
    trained = train(job, start, label)
    variants["retrained"] = (label, trained.module)
    record["retraining"] = describe_training(trained)
    return PrunedModel(trained.module, variants, record)


def prune_by_dsp(job: Job) -> PrunedModel:
    """--method dsp (arXiv 2602.12744, Algorithm 1): train sparsely, remove what no sample uses, retrain."""
    base = require_module(job)
    settings = job.settings
    recipe = job.training
    finetuning_epochs = settings.training.get("epochs", DSP_FINETUNE_EPOCHS)
    result = run_dsp(
        base,
        job.x_train,
        job.y_train,
        DspSettings(
            strength=settings.sparsity_weight,
            start=settings.start,
            retrain=DSP_RETRAININGS[str(settings.retrain)],
            pretraining=dataclasses.replace(recipe, early_stopping="none"),
            retraining=recipe,
            finetuning=dataclasses.replace(recipe, epochs=finetuning_epochs),
        ),
        x_val=job.x_validation,
        y_val=job.y_validation,
        factory=make_factory(job),
        progress=job.progress,
        checkpoints=job.checkpoints,
    )
    variants: Variants = {"base": ("Base", base)}
    variants.update((label.lower(), (label, module)) for label, module in result.variants.items())
    record: dict[str, Any] = {
        "method": "dsp",
        "sparsity_weight": settings.sparsity_weight,
        "from": settings.start,
        **describe_pruning(result.pruning),
        "pretraining": describe_training(result.pretraining),
        "activities": [describe_activity(activity) for activity in result.activities],
    }
    retrained = result.scratch or result.finetuned
    if result.finetuned is not None:
        record["finetuning"] = describe_training(result.finetuned)
    if result.scratch is not None:
        record["retraining"] = describe_training(result.scratch)
    if retrained is None:
        return PrunedModel(result.pruning.module, variants, record)
    # the deployed one comes last and under the name that every method's report has
    key = "scratch-trained" if result.scratch is not None else "finetuned"
    variants["retrained"] = variants.pop(key)
    return PrunedModel(retrained.module, variants, record)


def make_factory(job: Job) -> Callable[[int], fx.GraphModule] | None:
    """How to draw new weights for a net whose layers cannot: its architecture on record, or the user's factory."""
    info, factory = job.model.info, job.settings.factory

    def build(seed: int) -> fx.GraphModule:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if factory is not None:
                module = call_factory(factory)
            else:
                module = build_model(
                    str(info.architecture),
                    in_channels=job.model.input_shape[0],
                    classes=len(job.data.class_names),
                    **info.architecture_options,
                )
        return raise_module(module, job.example)

    return build if factory is not None or info.architecture is not None else None


def train(job: Job, module: fx.GraphModule, title: str) -> TrainResult[fx.GraphModule]:
    """Train with the settings' recipe, or with the user's function where one is named."""
    if job.settings.train is not None:
        module_name, _, name = job.settings.train.partition(":")
        trainer = import_attribute(module_name, name, f"--train {job.settings.train}")
        data = (job.x_train, job.y_train, job.x_validation, job.y_validation)
        return train_with(trainer, TrainContext(module, title, *data, job.training, job.progress))
    return train_model(
        module,
        job.x_train,
        job.y_train,
        job.training,
        x_val=job.x_validation,
        y_val=job.y_validation,
        progress=job.progress,
        checkpoints=job.checkpoints,
        title=title,
    )


def training_batch(job: Job) -> torch.Tensor:
    """The training samples as one tensor (N, C, ...)."""
    return torch.from_numpy(job.x_train)


def require_module(job: Job) -> fx.GraphModule:
    """The PyTorch program; `prepare` has refused ONNX files for every method that needs one."""
    if job.model.module is None:
        raise EdgepruneError(f"{job.model.name}: pruning was started without a PyTorch program")
    return job.model.module


def describe_pruning(result: PruneResult) -> dict[str, Any]:
    """Widths, and what could not shrink with the reason, for the report."""
    return {
        "removed_units": len(result.removed),
        "widths": [dataclasses.asdict(width) for width in result.widths],
        "pinned": [{"layer": layer, "reason": reason} for layer, reason in result.pinned],
        "not_shrunk": [{"layer": layer, "reason": reason} for layer, reason in result.not_shrunk],
    }


def describe_activity(activity: Activity) -> dict[str, Any]:
    """How many of an observed tensor's channels no training sample uses, for the report."""
    return {
        "tensor": activity.tensor.node,
        "learnable_channels": len(activity.tensor.learnable),
        "inactive_channels": len(activity.inactive),
        "silent_samples": activity.silent_samples,
        "samples": activity.samples,
    }


def describe_training(result: TrainResult[fx.GraphModule]) -> dict[str, Any]:
    """How a training went, for the report."""
    if not result.history:
        return {"stopped_by": result.stopped_by}
    return {
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "stopped_by": result.stopped_by,
        "loss": result.history[result.best_epoch - 1].loss,
        "validation_metric": result.history[result.best_epoch - 1].validation_metric,
    }


DSP_RETRAININGS: Mapping[str, tuple[str, ...]] = {
    "scratch": ("scratch",),
    "finetune": ("finetune",),
    "both": ("finetune", "scratch"),
    "none": (),
}
METHODS: Mapping[str, Callable[[Job], PrunedModel]] = {
    "dsp": prune_by_dsp,
    "l1": prune_by_l1,
    "none": keep_all_channels,
}
