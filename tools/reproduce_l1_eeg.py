#!/usr/bin/env python3
"""L1 filter pruning (arXiv 2509.05190) of the EEG CNN at 50 %: parameters removed, accuracy and macro-F1 of each form.

The paper's way: standard scaling per channel, Adam with weight decay, early stopping on validation macro-F1 (20 % of
the training samples, stratified), half the filters of every layer removed, the others' weights kept, training again
with the same hyper-parameters.
"""

from __future__ import annotations

import argparse

import torch
from reproduction import (
    SeedProgress,
    SeedRun,
    count_parameters,
    parse_arguments,
    report_runs,
    run_float,
    run_int8,
    run_seeds,
    start_clock,
)

from edgeprune.artifacts import Dataset, fit_normalization
from edgeprune.load import load_dataset, raise_module, split_train
from edgeprune.models import build_model
from edgeprune.prune import (
    CRITERIA,
    TrainSettings,
    find_units,
    prune_channels,
    recalibrate_batchnorm,
    select_lowest,
    train_model,
)

RATIO = 0.5
PATIENCE = 10


def load_normalized(spec: str) -> Dataset:
    """The data, scaled by mean and standard deviation of the training samples, per channel."""
    data = load_dataset(spec)
    return data.normalized(fit_normalization("per_channel", data.x_train))


def run_seed(seed: int, arguments: argparse.Namespace) -> SeedRun:
    """Base, pruned at 50 %, retrained, int8."""
    elapsed = start_clock()
    data = load_normalized(arguments.data)
    torch.manual_seed(seed)
    net = build_model("eegcnn", in_channels=data.sample_shape[0], classes=len(data.class_names)).eval()
    example = torch.zeros(2, *data.sample_shape)
    module = raise_module(net, example)
    recipe = TrainSettings(
        epochs=arguments.epochs, seed=seed, weight_decay=1e-4, early_stopping="macro_f1", patience=PATIENCE
    )
    train, validation = split_train(data.y_train, seed=seed)
    x, y = data.x_train[train], data.y_train[train]
    held_out = {"x_val": data.x_train[validation], "y_val": data.y_train[validation]}
    progress = SeedProgress(seed)

    base = train_model(module, x, y, recipe, **held_out, progress=progress, title="base")
    units = find_units(base.module, example)
    dead = select_lowest(units, CRITERIA["l1"]().score_units(base.module, units), RATIO)
    pruned = recalibrate_batchnorm(prune_channels(base.module, example, dead, fold_batches=[torch.tensor(x)]).module, x)
    retrained = train_model(pruned, x, y, recipe, **held_out, progress=progress, title="retrain")

    forms = {"Base": base.module, "Pruned": pruned, "Retrained": retrained.module}
    outputs = {name: run_float(module, data) for name, module in forms.items()}
    outputs["int8"] = run_int8(retrained.module, data)
    before, after = count_parameters(module), count_parameters(retrained.module)
    epochs = {"epochs of base": len(base.history), "of retraining": len(retrained.history)}
    return SeedRun(seed, outputs, (before[0], after[0]), (before[1], after[1]), elapsed(), epochs)


def main() -> None:
    """Run all seeds and print the table."""
    arguments = parse_arguments(str(__doc__), epochs=300)
    runs = run_seeds(run_seed, arguments)
    data = load_normalized(arguments.data)
    report_runs(f"L1 {RATIO:.0%}, EEG CNN, {data.name}", runs, data, arguments)


if __name__ == "__main__":
    main()
