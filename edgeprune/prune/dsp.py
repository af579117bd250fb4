"""DSP, Algorithm 1 (arXiv 2602.12744): train with an instance-wise sparsity loss, prune what no sample uses, retrain.

No ratio is asked for: the data decides. Batch norms are recalibrated before channels are judged and before anything is
given back (`train_model` does so): running averages go stale under the sparsity loss (Chinatown, Inception: test
accuracy 0.42 with stale statistics, 0.87 with recalibrated ones).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import fx

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.progress import SILENT, Progress
from edgeprune.prune.batchnorm import recalibrate_batchnorm
from edgeprune.prune.observed import find_observed_tensors
from edgeprune.prune.pruning import PruneResult, prune_channels
from edgeprune.prune.reset import reset_parameters
from edgeprune.prune.sparsity import CHUNK_SAMPLES, Activity, SparsityLoss, find_inactive_units, measure_activity
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.training import TrainResult, train_model
from edgeprune.prune.units import find_units

STARTS = ("scratch", "trained")
RETRAININGS = ("scratch", "finetune")

Factory = Callable[[int], fx.GraphModule]  # seed -> the unpruned net with new weights, raised


@dataclass(frozen=True)
class DspSettings:
    """Settings of `run_dsp`.

    strength: lambda of the sparsity loss; the paper's 1e-5.
    tensor_weights: one weight for each observed tensor, in program order; empty: 1 each, as in the paper.
    start: what sparse pretraining starts from: "scratch" (Algorithm 1) or "trained" (the weights as given).
    retrain: what becomes of the pruned net: "scratch" (new weights in the pruned shape, the paper's result),
        "finetune", both, or nothing.
    pretraining, retraining, finetuning: recipes. Pretraining takes no early stopping: sparsity needs its epochs
        (ItalyPowerDemand, Inception: 4/9/18/29 % of the parameters removed after 200/400/800/1500 of them).
    """

    strength: float = 1e-5
    tensor_weights: tuple[float, ...] = ()
    start: str = "scratch"
    retrain: tuple[str, ...] = ("scratch",)
    pretraining: TrainSettings = field(default_factory=TrainSettings)
    retraining: TrainSettings = field(default_factory=TrainSettings)
    finetuning: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=500))

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise InputError(f"DSP: strength is {self.strength}; allowed: a positive number, such as 1e-5")
        if any(not 0 <= weight < float("inf") for weight in self.tensor_weights):
            raise InputError(f"DSP: tensor_weights are {self.tensor_weights}; allowed: finite numbers, 0 or more")
        if self.start not in STARTS:
            raise InputError(f"DSP: start is {self.start!r}; allowed: {', '.join(STARTS)}")
        for name in self.retrain:
            if name not in RETRAININGS:
                raise InputError(f"DSP: retrain holds {name!r}; allowed: {', '.join(RETRAININGS)}")
        if self.pretraining.early_stopping != "none":
            raise InputError(
                "DSP: pretraining takes no early stopping; sparsity needs its epochs. Set it for retraining"
            )


@dataclass(frozen=True, eq=False)
class DspResult:
    """What came of Algorithm 1, by the names of the paper's Table 1; `base` is the caller's.

    pretraining: with the sparsity loss, not pruned. pruning: the surgery; its module is not retrained, what the removed
    channels contributed on average is folded into the next layers. finetuned, scratch: the retrained ones asked for.
    activities: what decided, one for each observed tensor.
    All modules are in eval mode with recalibrated batch norms.
    """

    pretraining: TrainResult[fx.GraphModule]
    activities: tuple[Activity, ...]
    pruning: PruneResult
    finetuned: TrainResult[fx.GraphModule] | None
    scratch: TrainResult[fx.GraphModule] | None

    @property
    def variants(self) -> dict[str, fx.GraphModule]:
        """Modules by the paper's names, in the order they came about."""
        modules = {"Pretrained": self.pretraining.module, "Pruned": self.pruning.module}
        if self.finetuned is not None:
            modules["Finetuned"] = self.finetuned.module
        if self.scratch is not None:
            modules["Scratch-trained"] = self.scratch.module
        return modules


def run_dsp(
    module: fx.GraphModule,
    x_train: np.ndarray,
    y_train: np.ndarray,
    settings: DspSettings,
    *,
    x_val: np.ndarray | None = None,
    y_val: np.ndarray | None = None,
    factory: Factory | None = None,
    progress: Progress = SILENT,
    checkpoints: Path | None = None,
) -> DspResult:
    """Prune a classifier by DSP; the module itself stays as it is.

    module: a raised program. x_train, y_train: float32 (N, C, ...), integers (N,). x_val, y_val: for early stopping in
    retraining, if its settings ask for it. factory: draws new weights for a model whose layers cannot reset themselves.
    checkpoints: folder that an interrupted run goes on from.

    Raises UnsupportedModelError if nothing in the model can be observed or new weights cannot be drawn, and what
    `train_model` raises.
    """
    example = torch.tensor(x_train[:2], dtype=torch.float32)
    units = find_units(module, example)
    tensors = find_observed_tensors(module, units)
    if not tensors:
        raise UnsupportedModelError(
            "DSP: no activation in this model feeds a layer with channels that could be removed; use --method l1"
        )
    names = ", ".join(f"{tensor.node} ({len(tensor.learnable)})" for tensor in tensors)
    progress.note(f"DSP observes {len(tensors)} tensors (learnable channels): {names}")

    start = module
    if settings.start == "scratch":
        start = draw_weights(module, settings.pretraining.seed, factory)
    pretraining = train_model(
        start,
        x_train,
        y_train,
        settings.pretraining,
        hook=SparsityLoss(tensors, settings.strength, settings.tensor_weights),
        progress=progress,
        checkpoints=checkpoints,
        title="sparse pretraining",
    )
    activities = measure_activity(pretraining.module, tensors, x_train)
    dead = find_inactive_units(units, activities)
    progress.note(f"DSP: {len(dead)} of {units.count} units are active in no training sample")
    pruning = _prune(pretraining.module, example, dead, x_train)

    def retrain(net: fx.GraphModule, recipe: TrainSettings, title: str) -> TrainResult[fx.GraphModule]:
        return train_model(
            net,
            x_train,
            y_train,
            recipe,
            x_val=x_val,
            y_val=y_val,
            progress=progress,
            checkpoints=checkpoints,
            title=title,
        )

    finetuned = scratch = None
    if "finetune" in settings.retrain:
        finetuned = retrain(pruning.module, settings.finetuning, "fine-tuning")
    if "scratch" in settings.retrain:
        fresh = draw_pruned_weights(pretraining.module, example, dead, settings.retraining.seed, factory)
        scratch = retrain(fresh, settings.retraining, "training from scratch")
    return DspResult(pretraining, activities, pruning, finetuned, scratch)


def draw_weights(module: fx.GraphModule, seed: int, factory: Factory | None = None) -> fx.GraphModule:
    """The net with new weights: by its layers' own initialisation, else by the factory.

    Raises UnsupportedModelError if neither can, or if the factory's net is another one.
    """
    try:
        return reset_parameters(module, seed)
    except UnsupportedModelError:
        if factory is None:
            raise
    fresh = factory(seed)
    shapes = [{name: tuple(t.shape) for name, t in net.state_dict().items()} for net in (module, fresh)]
    if shapes[0] != shapes[1]:
        raise UnsupportedModelError(
            "the factory's net has other parameters than the model; give the factory that the model was made with"
        )
    return fresh


def draw_pruned_weights(
    module: fx.GraphModule, example: torch.Tensor, dead: frozenset[int], seed: int, factory: Factory | None
) -> fx.GraphModule:
    """New weights in the pruned shape: drawn for that shape, else (by a factory) for the full one, then pruned."""
    pruned = prune_channels(module, example, dead).module  # nothing folded: folding may add biases that were not there
    try:
        return reset_parameters(pruned, seed)
    except UnsupportedModelError:
        return prune_channels(draw_weights(module, seed, factory), example, dead).module


def _prune(module: fx.GraphModule, example: torch.Tensor, dead: frozenset[int], x: np.ndarray) -> PruneResult:
    """Remove the dead units, fold what they contributed on average, recalibrate."""
    result = prune_channels(module, example, dead, fold_batches=torch.tensor(x).split(CHUNK_SAMPLES))
    return replace(result, module=recalibrate_batchnorm(result.module, x))
