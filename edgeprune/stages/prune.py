"""Prune and retrain: the loaded network in, the network to deploy out, with every state in between worth reporting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from edgeprune.errors import EdgepruneError
from edgeprune.load import raise_module
from edgeprune.load.model_factory import call_factory, import_attribute
from edgeprune.method_table import METHODS
from edgeprune.models import build_model
from edgeprune.prune import AccuracyLimit, Bench, MethodResult, make_method
from edgeprune.prune.search import describe_search, search_strength
from edgeprune.stages.factor_forms import deploy_low_rank
from edgeprune.stages.prepare import Job

Variants = dict[str, tuple[str, fx.GraphModule]]


@dataclass(frozen=True, eq=False)
class PrunedModel:
    """What pruning gives: the module to deploy (None for an ONNX file), its history, and the report's section.

    variants: key -> (label, module) in the order they came about; 'base' first, 'retrained' is the one to deploy.
    """

    module: fx.GraphModule | None
    variants: Mapping[str, tuple[str, fx.GraphModule]]
    record: Mapping[str, Any]


def prune_and_retrain(job: Job) -> PrunedModel:
    """Run the method that the settings name, or search its strength where the settings ask for a limit."""
    settings = job.settings
    base = job.model.module
    if settings.method == "none" or base is None:
        return PrunedModel(base, {} if base is None else {"base": ("Base", base)}, {"method": "none"})
    bench = make_bench(job)
    options = {**settings.pruning_options, "retrain": settings.retrain}
    record: dict[str, Any] = {"method": settings.method, "retrain": settings.retrain, "options": options}
    if bench.limit is not None:
        record["limit"] = {"metric": bench.limit.metric, "drop": bench.limit.drop, "reference": bench.limit.reference}
        note_limit(job, bench.limit)
    info = METHODS[settings.method]
    if bench.limit is None or info.is_schedule:
        result = make_method(settings.method, **options).run(bench)
    else:
        found = search_strength(info, options, bench)
        record["search"] = describe_search(info, bench, found)
        if found.result is None:
            job.notes.append(
                f"--accuracy-drop: not even {record['search']['option']} {info.strengths[0]:g} stays within "
                f"{100 * bench.limit.drop:g} percentage points of the base on validation samples; nothing was pruned"
            )
        result = found.result or MethodResult(base, {})
        options[str(info.strength)] = found.value
    result = deploy_low_rank(job, result)
    if bench.limit is not None:
        record["limit"]["validation_metric"] = bench.score(result.module)
    variants = {"base": ("Base", base), **result.variants}
    record |= {**result.record, "trainings": bench.trainings}
    return PrunedModel(result.module, variants, record)


def make_bench(job: Job) -> Bench:
    """What every method works with."""
    settings = job.settings
    bench = Bench(
        base=require_module(job),
        x_train=job.x_train,
        y_train=job.y_train,
        x_val=job.x_validation,
        y_val=job.y_validation,
        recipe=job.training,
        factory=make_factory(job),
        trainer=find_trainer(job),
        progress=job.progress,
        checkpoints=job.cache.trainings,
    )
    if settings.accuracy_drop is None:
        return bench
    reference = bench.score(bench.base, settings.metric)
    return replace(bench, limit=AccuracyLimit(settings.metric, settings.accuracy_drop / 100, reference))


def note_limit(job: Job, limit: AccuracyLimit) -> None:
    """Say what the limit means, and where its reference may flatter the base."""
    name = limit.metric.replace("_", "-")
    job.progress.note(
        f"--accuracy-drop: the base has a validation {name} of {100 * limit.reference:.2f} %; the limit is "
        f"{100 * (limit.reference - limit.drop):.2f} %"
    )
    job.notes.append(
        f"--accuracy-drop is held on {len(job.y_validation)} validation samples, 20 % of the training samples; a base "
        "that was trained on them scores too well there, which makes the limit stricter than it says"
    )


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


def find_trainer(job: Job) -> Any:
    """The user's own training function, None without one."""
    if job.settings.train is None:
        return None
    module_name, _, name = job.settings.train.partition(":")
    return import_attribute(module_name, name, f"--train {job.settings.train}")


def require_module(job: Job) -> fx.GraphModule:
    """The PyTorch program; `prepare` has refused ONNX files for every method that needs one."""
    if job.model.module is None:
        raise EdgepruneError(f"{job.model.name}: pruning was started without a PyTorch program")
    return job.model.module
