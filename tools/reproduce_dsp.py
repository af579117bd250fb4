#!/usr/bin/env python3
"""DSP (arXiv 2602.12744) on LITE and a UCR set: parameters removed, accuracy of base, scratch-trained and int8.

The paper's recipe: 1500 epochs for each of base, sparse pretraining and scratch training, lambda 1e-5, five seeds, each
with its own pruned net; the ensemble averages softmax. About 10 minutes on 2 cores for ItalyPowerDemand.
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

from edgeprune.artifacts import Dataset, Normalization
from edgeprune.load import load_dataset, raise_module
from edgeprune.models import build_model
from edgeprune.prune import DspSettings, TrainSettings, run_dsp, train_model


def load_normalized(spec: str) -> Dataset:
    """The data, z-normalised per series."""
    return load_dataset(spec).normalized(Normalization("per_series"))


def run_seed(seed: int, arguments: argparse.Namespace) -> SeedRun:
    """Base, and DSP from new weights, with the same recipe."""
    elapsed = start_clock()
    data = load_normalized(arguments.data)
    channels, classes = data.sample_shape[0], len(data.class_names)
    torch.manual_seed(seed)
    net = build_model("lite", in_channels=channels, classes=classes).eval()
    module = raise_module(net, torch.zeros(2, *data.sample_shape))
    recipe = TrainSettings(epochs=arguments.epochs, seed=seed)
    progress = SeedProgress(seed)
    base = train_model(module, data.x_train, data.y_train, recipe, progress=progress, title="base")
    settings = DspSettings(pretraining=recipe, retraining=recipe, retrain=("scratch",))
    result = run_dsp(module, data.x_train, data.y_train, settings, progress=progress)
    forms = {"Base": base.module, **result.variants}
    outputs = {name: run_float(module, data) for name, module in forms.items()}
    outputs["int8"] = run_int8(forms["Scratch-trained"], data)
    before, after = count_parameters(module), count_parameters(forms["Scratch-trained"])
    inactive = [f"{len(a.inactive)}/{len(a.tensor.learnable)}" for a in result.activities]
    return SeedRun(
        seed, outputs, (before[0], after[0]), (before[1], after[1]), elapsed(), {"inactive": ", ".join(inactive)}
    )


def main() -> None:
    """Run all seeds and print the table."""
    arguments = parse_arguments(str(__doc__), epochs=1500)
    runs = run_seeds(run_seed, arguments)
    data = load_normalized(arguments.data)
    report_runs(f"DSP, LITE, {data.name}", runs, data, arguments)


if __name__ == "__main__":
    main()
