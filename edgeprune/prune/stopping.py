"""When a retraining between two pruning steps has gone on long enough: rules, each a hook that ends the training.

The state after the last epoch is the result, under all rules alike: a rule that ends a training because of the state
that it sees must hand on that state, and rules can only be compared if they hand on the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from edgeprune.prune.batchnorm import recalibrate_batchnorm
from edgeprune.prune.bench import Bench
from edgeprune.prune.epoch_figures import Epoch
from edgeprune.prune.hooks import TrainingHook
from edgeprune.prune.information import Flow, GradientFlow, InformationFlow, Kept, Phi
from edgeprune.prune.losses import balance_classes
from edgeprune.prune.masks import Masks, digest_tensors


class StopRule(TrainingHook):
    """Ends a training; `history` holds the figure it looked at after each epoch."""

    keeps_last = True
    figure = ""  # what it looks at, a key of the step's row; none: nothing

    def __init__(self) -> None:
        self.history: list[float] = []

    def get_figures(self) -> dict[str, float | str]:
        return {self.figure: self.history[-1]} if self.figure and self.history else {}

    def get_state(self) -> dict[str, Any]:
        return {"history": list(self.history)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.history = [float(value) for value in state["history"]]

    @property
    def has_fired(self) -> bool:
        """Whether the last epoch seen ended the training."""
        return False


@final
class EpochsRule(StopRule):
    """All epochs of the recipe."""

    def describe(self) -> str:
        return "all epochs"


@final
class AccuracyRule(StopRule):
    """Until the score (Bench.score) is back at the dense net's; batch norms are recalibrated for it, as in the end."""

    figure = "score"

    def __init__(self, bench: Bench, reference: float) -> None:
        super().__init__()
        self._bench, self._reference = bench, reference

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._module = module

    def end_epoch(self, epoch: Epoch) -> bool:
        assert isinstance(self._module, fx.GraphModule)  # benches train raised programs only
        self.history.append(self._bench.score(recalibrate_batchnorm(self._module, self._bench.x_train)))
        return self.has_fired

    @property
    def has_fired(self) -> bool:
        return bool(self.history) and self.history[-1] >= self._reference - 1e-9

    def describe(self) -> str:
        metric = self._bench.limit.metric if self._bench.limit else "accuracy"
        return f"until {metric} is {self._reference!r}"


class FlowReference:
    """Phi*: what flows through the dense, trained net, and the samples it was measured on."""

    def __init__(self, flow: Flow, dense: fx.GraphModule, bench: Bench) -> None:
        self.flow = flow
        self.x = torch.from_numpy(bench.x_train).float()
        self.y = torch.from_numpy(bench.y_train).long()
        self.phi: Phi = flow.measure(dense, self.x, self.y)
        self.digest = f"{type(flow).__name__} {digest_tensors(self.phi)}"


@final
class FlowRule(StopRule):
    """InCoP: until ||Phi_e - Phi*|| / ||Phi*|| <= epsilon, over what survives of the dense net (relative: ours)."""

    figure = "phi"

    def __init__(self, reference: FlowReference, epsilon: float, kept: Kept, masks: Masks) -> None:
        super().__init__()
        self._reference, self._epsilon, self._kept, self._masks = reference, epsilon, kept, masks

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        assert isinstance(module, fx.GraphModule)  # benches train raised programs only
        self._probe = self._reference.flow.make_probe(module)
        device = next(module.parameters()).device
        self._x: Tensor = self._reference.x.to(device)
        self._y: Tensor = self._reference.y.to(device)

    def end_epoch(self, epoch: Epoch) -> bool:
        phi = self._probe(self._x, self._y)
        reference = self._reference
        self.history.append(reference.flow.compute_distance(phi, reference.phi, self._kept, self._masks))
        return self.has_fired

    @property
    def has_fired(self) -> bool:
        return bool(self.history) and self.history[-1] <= self._epsilon

    def describe(self) -> str:
        # what survives shows in the net's shapes and in the masks, which are described with them
        return f"until {self._reference.digest} is within {self._epsilon!r}"


class RuleMaker:
    """Makes the rule of each step; what concerns the dense net is measured once, at the start."""

    def __init__(self, name: str, epsilon: float | None, dense: fx.GraphModule, bench: Bench) -> None:
        self._name, self._epsilon, self._bench = name, epsilon, bench
        if name == "accuracy":
            self._score = bench.score(dense)
        elif name == "incop-if":
            self._flow = FlowReference(InformationFlow(dense), dense, bench)
        elif name == "incop-gf":
            balanced = bench.recipe.class_weights == "balanced"
            classes = int(bench.y_train.max()) + 1
            weights = balance_classes(bench.y_train, classes) if balanced else None
            self._flow = FlowReference(GradientFlow(dense, weights), dense, bench)

    def make_rule(self, kept: Kept, masks: Masks) -> StopRule:
        """The rule for a net of which `kept` and `masks` say what is left of the dense one."""
        if self._name == "accuracy":
            return AccuracyRule(self._bench, self._score)
        if self._name in ("incop-if", "incop-gf"):
            assert self._epsilon is not None  # method_table gives each of these rules one
            return FlowRule(self._flow, self._epsilon, kept, masks)
        return EpochsRule()
