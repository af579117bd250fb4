"""Prune: find which channels belong together, remove some, train again.

`find_units` labels every channel of a raised program; a criterion scores the units, a selection names the ones that
go, and `prune_channels` removes them. `train_model` trains what is left. `methods` puts these together as the papers
do: `make_method(name, **options).run(bench)`.
"""

from edgeprune.prune.batchnorm import recalibrate_batchnorm
from edgeprune.prune.bench import AccuracyLimit, Bench
from edgeprune.prune.checkpoint import TrainingInterruptedError
from edgeprune.prune.criteria import CRITERIA, Criterion, L1Norm
from edgeprune.prune.dsp import DspResult, DspSettings, draw_weights, run_dsp
from edgeprune.prune.folding import Fold, fold_constant_channels
from edgeprune.prune.inference import predict
from edgeprune.prune.methods import METHODS, Method, MethodResult, make_method
from edgeprune.prune.pruning import LayerWidth, PruneResult, prune_channels
from edgeprune.prune.reset import reset_parameters
from edgeprune.prune.selection import select_lowest
from edgeprune.prune.surgery import remove_units
from edgeprune.prune.train_settings import TrainSettings
from edgeprune.prune.training import TrainResult, check_classifier, train_model
from edgeprune.prune.units import ChannelUnits, CoupledGroup, Layer, find_units, guard_units

__all__ = [
    "CRITERIA",
    "METHODS",
    "AccuracyLimit",
    "Bench",
    "ChannelUnits",
    "CoupledGroup",
    "Criterion",
    "DspResult",
    "DspSettings",
    "Fold",
    "L1Norm",
    "Layer",
    "LayerWidth",
    "Method",
    "MethodResult",
    "PruneResult",
    "TrainResult",
    "TrainSettings",
    "TrainingInterruptedError",
    "check_classifier",
    "draw_weights",
    "find_units",
    "fold_constant_channels",
    "guard_units",
    "make_method",
    "predict",
    "prune_channels",
    "recalibrate_batchnorm",
    "remove_units",
    "reset_parameters",
    "run_dsp",
    "select_lowest",
    "train_model",
]
