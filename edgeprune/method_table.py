"""The pruning methods by name: their papers, options with defaults and allowed values, and recipes. No torch here.

`prune.methods.METHODS` holds the classes of the same names; the command line, edgeprune.toml, `edgeprune methods` and
the checks of all options read this table, so that a typing mistake is told before anything heavy is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeprune.errors import InputError

RETRAIN_MODES = ("finetune", "scratch", "both", "none")
STOP_RULES = ("epochs", "accuracy", "incop-if", "incop-gf")
METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Option:
    """One option that some methods have.

    kind: float, int or str. choices: the allowed words of a str; empty: any that `check` takes.
    low, high: bounds of a number; `open_low`, `open_high`: whether the bound itself is outside.
    """

    name: str
    help: str
    kind: type
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = True

    @property
    def flag(self) -> str:
        """As typed: --sparsity-weight; `start` is --from."""
        return "--from" if self.name == "start" else "--" + self.name.replace("_", "-")

    def check(self, value: Any) -> None:
        """Raises InputError unless the value is allowed."""
        if self.choices and value not in self.choices:
            raise InputError(f"{self.flag} is {value!r}; allowed: {', '.join(self.choices)}")
        if self.name == "pq":
            parse_norms(value)
        elif self.kind is not str and not self._is_inside(value):
            raise InputError(f"{self.flag} is {value}; allowed: {self._describe_range()}")

    def _is_inside(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def _describe_range(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"{self.low:g} or more"
        if self.high == math.inf:
            return low
        return f"{low}, {'below' if self.open_high else 'up to'} {self.high:g}"


def parse_norms(text: str) -> tuple[float, float]:
    """(p, q) of the PQ index, 0 < p <= 1 <= q and p < q (papers.md P4; p = 0 counts entries, q/(q-p) needs p != q).

    >>> parse_norms("0.5,1")
    (0.5, 1.0)
    """
    try:
        p, q = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--pq is {text!r}; write two numbers, such as 1,2 or 0.5,1") from None
    if not (0 < p <= 1 <= q < math.inf and p < q):
        raise InputError(f"--pq is {text!r}; allowed: 0 < p <= 1 <= q with p < q, such as 1,2 or 0.5,1")
    return p, q


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option("ratio", "share of the channels to remove", float, low=0, high=1),
        Option("scope", "rank within each layer, or all together (global)", str, ("layer", "global")),
        Option("width", "channels that every layer keeps at most", int, low=1),
        Option("start", "start from scratch weights or from the trained ones", str, ("scratch", "trained")),
        Option("sparsity_weight", "weight (lambda) of the sparsity penalty", float, low=0, open_low=True),
        Option("prox_weight", "weight (beta) that ties xi to the BatchNorm scales", float, low=0, open_low=True),
        Option("iterations", "times to prune and retrain", int, low=1),
        Option("step", "share of what is left that goes in each iteration", float, low=0, high=1, open_low=True),
        Option("step_epochs", "epochs of the retraining in each iteration, at most", int, low=1),
        Option("stop", "what ends the retraining in an iteration", str, STOP_RULES),
        Option("epsilon", "incop-*: relative distance from the base's flow to stop at, by default 0.7 for incop-if and "
               "10 for incop-gf", float, low=0, open_low=True),
        Option("rewind", "after pruning, go on from the weights as they are (none), from those of the trained base "
               "(warmup) or from the initial ones (init)", str, ("none", "warmup", "init")),
        Option("pq", "p,q of the PQ index", str),
        Option("compression_weight", "weight (lambda_comp) of the compression loss", float, low=0, open_low=True),
        Option("rank_epsilon", "factor by which singular values must fall for the rank to be cut there", float, low=0,
               high=1, open_low=True),
    )
}  # fmt: skip

# What follows the pruning, for methods that retrain once: the L1 paper's training (papers.md P2; patience is ours).
_FINETUNING: Mapping[str, Any] = {
    "epochs": 300,
    "weight_decay": 1e-4,
    "early_stopping": "macro_f1",
    "patience": 10,
}
_SCRATCH: Mapping[str, Any] = {**_FINETUNING, "patience": 30}  # new weights take longer to show whether they improve
# Ranks fall one at a time, each after a number of steps: small sets need many epochs at a high rate (DECISIONS.md).
_LOW_RANK: Mapping[str, Any] = {"epochs": 1000, "learning_rate": 0.01}
_SCHEDULE: Mapping[str, Any] = {"stop": "epochs", "epsilon": None}

# Of --stop incop-*, where no --epsilon is given. The two measures differ in scale: nothing in the paper says how far a
# retraining brings them back, and these were found on validation samples of small nets (DECISIONS.md).
EPSILONS: Mapping[str, float] = {"incop-if": 0.7, "incop-gf": 10.0}


@dataclass(frozen=True)
class MethodInfo:
    """One pruning method.

    summary, paper, needs: for people. defaults: its options. retrain: allowed modes after pruning, its default first.
    recipes: retrain mode -> training settings that differ from TrainSettings' defaults.
    strengths: option -> values to search for --accuracy-drop, weakest first; empty for a method that either stops by
        itself (is_schedule) or has nothing to search.
    is_schedule: prunes step by step, so that --accuracy-drop ends the schedule.
    limit_defaults: defaults that give way where --accuracy-drop says when to end.
    takes_trainer: whether a training function of the user's can stand in for every training of the method.
    refusals: option -> why this method does not have it.
    """

    name: str
    summary: str
    paper: str
    needs: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    retrain: tuple[str, ...] = ("finetune", "scratch", "none")
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    strength: str | None = None
    strengths: tuple[float, ...] = ()
    is_schedule: bool = False
    limit_defaults: Mapping[str, Any] = field(default_factory=dict)
    takes_trainer: bool = False
    refusals: Mapping[str, str] = field(default_factory=dict)


_RATIOS = tuple(round(0.05 * step, 2) for step in range(1, 20))
_ONE_SHOT_RECIPES = {"finetune": _FINETUNING, "scratch": _SCRATCH}
_FILTERS: Mapping[str, Any] = {"ratio": 0.5, "scope": "layer", "iterations": 1, "step_epochs": 20, **_SCHEDULE}


def _describe_filters(name: str, summary: str, paper: str) -> MethodInfo:
    return MethodInfo(
        name,
        summary,
        paper,
        "labels",
        defaults=_FILTERS,
        recipes=_ONE_SHOT_RECIPES,
        strength="ratio",
        strengths=_RATIOS,
        takes_trainer=True,
        refusals={"step": "--ratio and --iterations say how much goes in each iteration"},
    )


METHODS: Mapping[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            "dsp",
            "trains with a sparsity loss, removes the channels that no training sample uses; no ratio to tune",
            "Abdullayev et al. 2026, arXiv 2602.12744",
            "labels; activations that feed layers with weights",
            defaults={"start": "scratch", "sparsity_weight": 1e-5},
            retrain=("scratch", "finetune", "both", "none"),
            recipes={mode: {"epochs": 1500} for mode in ("scratch", "finetune", "both", "none")},
            strength="sparsity_weight",
            strengths=(1e-6, 3e-6, 1e-5, 3e-5, 1e-4),
            refusals={
                "ratio": "dsp finds the number of channels by itself",
                "scope": "dsp judges each channel by itself, so there is no ranking",
                "stop": "dsp prunes once, after a training whose length its sparsity needs",
            },
        ),
        _describe_filters(
            "l1", "removes the filters of least L1 norm, copies the others, fine-tunes", "arXiv 2509.05190"
        ),
        _describe_filters("l2", "the same by L2 norm", "baseline of arXiv 2509.05190"),
        _describe_filters("random", "the same by lot: what any criterion must beat", "baseline of arXiv 2509.05190"),
        MethodInfo(
            "static",
            "every layer keeps a fixed number of channels, trained from scratch",
            "baseline of arXiv 2602.12744 (LITETime_16, _8, _4)",
            "labels; layers that can be initialised anew",
            defaults={"width": 16},
            retrain=("scratch",),
            recipes={"scratch": {"epochs": 1500}},
            strength="width",
            strengths=(48, 32, 24, 16, 12, 8, 6, 4, 2),
            takes_trainer=True,
            refusals={"ratio": "static keeps a fixed --width"},
        ),
        MethodInfo(
            "taylor",
            "removes the channels whose loss changes least (activation x gradient), a few at a time",
            "Molchanov et al. 2017, arXiv 1611.06440",
            "labels",
            defaults={"ratio": 0.5, "scope": "global", "step": 0.1, "step_epochs": 5, **_SCHEDULE},
            retrain=("finetune", "none"),
            recipes={"finetune": _FINETUNING, "none": _FINETUNING},
            is_schedule=True,
            limit_defaults={"ratio": 0.95},
            refusals={"iterations": "--step says how much goes at a time, and --ratio where it ends"},
        ),
        MethodInfo(
            "slimming",
            "trains with an L1 penalty on the BatchNorm scales, removes the channels of the smallest",
            "Liu et al. 2017, arXiv 1708.06519",
            "labels; BatchNorm behind the layers to prune",
            defaults={"ratio": 0.5, "scope": "global", "sparsity_weight": 1e-4, "start": "trained"},
            retrain=("finetune", "scratch", "none"),
            recipes={**_ONE_SHOT_RECIPES, "none": _FINETUNING},
            strength="ratio",
            strengths=_RATIOS,
        ),
        MethodInfo(
            "prox-slimming",
            "a proximal update drives BatchNorm scales to exact zeros, which are removed; fine-tuning is optional",
            "Bui et al. 2023, arXiv 2301.08137",
            "labels; BatchNorm behind the layers to prune",
            defaults={"sparsity_weight": 4.5e-3, "prox_weight": 100.0, "start": "trained"},
            retrain=("finetune", "none"),
            recipes={"finetune": _FINETUNING, "none": _FINETUNING},
            strength="sparsity_weight",
            strengths=(1.5e-3, 2e-3, 2.5e-3, 3e-3, 3.5e-3, 4.5e-3, 6e-3, 9e-3),
            refusals={"ratio": "prox-slimming removes what became exactly zero; --sparsity-weight is its strength"},
        ),
        MethodInfo(
            "lth",
            "iterative magnitude pruning: the smallest weights become zeros (masks), the rest trains on",
            "Frankle and Carbin 2019, arXiv 1803.03635",
            "labels",
            defaults={"step": 0.2, "iterations": 10, "step_epochs": 20, "scope": "layer", "rewind": "none",
                      **_SCHEDULE},
            retrain=("none", "finetune"),
            recipes={"finetune": _FINETUNING, "none": _FINETUNING},
            is_schedule=True,
            limit_defaults={"iterations": 40},
            refusals={"ratio": "lth removes --step of the weights in each of --iterations; channels go once all zero"},
        ),
        MethodInfo(
            "sap",
            "the same with a share per iteration that the PQ index of the weights decides",
            "Diao et al. 2023, arXiv 2302.05601",
            "labels",
            defaults={"pq": "0.5,1", "iterations": 15, "step_epochs": 20, "scope": "layer", "rewind": "none",
                      **_SCHEDULE},
            retrain=("none", "finetune"),
            recipes={"finetune": _FINETUNING, "none": _FINETUNING},
            is_schedule=True,
            limit_defaults={"iterations": 40},
            refusals={
                "ratio": "sap finds the share of weights by itself",
                "step": "sap finds the share of weights by itself, from the PQ index",
            },
        ),
        MethodInfo(
            "dprp",
            "trains convolutions and dense layers as U S V^T and cuts their ranks on the way; deploys the factors",
            "Sharma et al. 2025, 10.1109/ACCESS.2025.3533419",
            "labels",
            defaults={"compression_weight": 0.3, "rank_epsilon": 0.1, "start": "trained"},
            retrain=("none", "finetune"),
            recipes={"none": _LOW_RANK, "finetune": _LOW_RANK},
            strength="compression_weight",
            strengths=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
            refusals={
                "ratio": "dprp finds the ranks by itself; --compression-weight is its strength",
                "scope": "dprp cuts each layer's rank by its own spectrum",
            },
        ),
        MethodInfo(
            "none",
            "quantizes and deploys the model as it is",
            "",
            "nothing",
            retrain=("none",),
            takes_trainer=True,
            refusals={"retrain": "none changes nothing, so there is nothing to retrain"},
        ),
    )
}  # fmt: skip


# --fit searches the widths, so it takes the place of every option that says how much goes; these are left.
FIT_OPTIONS = ("start", "sparsity_weight", "prox_weight")
# why --fit cannot search the widths for a method
FIT_REFUSALS: Mapping[str, str] = {
    "lth": "lth makes zeros of single weights, which the firmware still multiplies by",
    "sap": "sap makes zeros of single weights, which the firmware still multiplies by",
    "dprp": "dprp cuts ranks, not channels",
    "none": "none prunes nothing",
}


def check_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method: what was given over its defaults.

    Raises InputError for an option that the method does not have, with the reason, and for a value not allowed.
    """
    info = METHODS[method]
    for name, value in given.items():
        if name not in info.defaults:
            raise InputError(explain_refusal(name, method))
        if value is not None or info.defaults[name] is not None:
            OPTIONS[name].check(value)
    options = {**info.defaults, **given}
    if options.get("epsilon") is None and "stop" in options:
        options["epsilon"] = EPSILONS.get(options["stop"])
    elif "stop" in options and options["stop"] not in EPSILONS:
        raise InputError(f"--epsilon goes with --stop {' or '.join(EPSILONS)}; --stop is {options['stop']}")
    return options


def explain_refusal(option: str, method: str) -> str:
    """Why a method does not take an option, and which do."""
    info = METHODS[method]
    having = [other.name for other in METHODS.values() if option in other.defaults]
    if option == "retrain":
        having = [other.name for other in METHODS.values() if other.name != "none"]
    flag = OPTIONS[option].flag if option in OPTIONS else "--" + option.replace("_", "-")
    reason = info.refusals.get(option, "")
    if method == "none" and not reason:
        reason = "none prunes nothing"
    middle = f": {reason}" if reason else ""
    return f"{flag} does not go with --method {method}{middle}. Methods that have it: {', '.join(having)}"


def describe_methods() -> list[dict[str, Any]]:
    """The table as plain values, for `edgeprune methods`."""
    return [
        {
            "name": info.name,
            "summary": info.summary,
            "paper": info.paper,
            "needs": info.needs,
            "options": {OPTIONS[name].flag: _show_default(default) for name, default in info.defaults.items()},
            "retrain": list(info.retrain),
            "accuracy_drop": _describe_search(info),
        }
        for info in METHODS.values()
    ]


def _show_default(default: Any) -> Any:
    return "by --stop" if default is None else default


def _describe_search(info: MethodInfo) -> str:
    """What --accuracy-drop does with a method."""
    if info.is_schedule:
        return "ends the schedule at the last state within the limit"
    if info.strength is None:
        return ""
    first, last = info.strengths[0], info.strengths[-1]
    return f"searches {OPTIONS[info.strength].flag} among {len(info.strengths)} values, {first:g} to {last:g}"
