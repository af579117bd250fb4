"""Masks, removal of what they empty, and both flows on all networks of the zoo: 1-D and 2-D, groups, gates, frozen."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgeprune.prune import predict, recalibrate_batchnorm
from edgeprune.prune.bench import Bench
from edgeprune.prune.information import GradientFlow, InformationFlow, Kept, find_consecutive_layers
from edgeprune.prune.masks import apply_masks, find_maskable, keep_all, remove_zero_units
from edgeprune.prune.train_settings import TrainSettings
from tests.prune.raised import draw_units, make_samples, raise_zoo
from tests.zoo import ZOO

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ZOO)
def test_emptied_channels_go_and_flows_follow(name: str) -> None:
    raised = raise_zoo(name)
    module, units = copy.deepcopy(raised.module).float(), raised.units
    maskable = find_maskable(module)
    masks = keep_all(module)
    chosen = draw_units(units, 3, ratio=0.4)
    emptied = set()
    for unit in chosen:
        filters = units.producers(unit)
        if all(weight in maskable.layers for weight, _, _ in filters):
            emptied.add(unit)
            for weight, axis, index in filters:
                masks[weight].select(axis, index).fill_(False)
    x = make_samples(tuple(raised.example.shape[1:]), 12).float()
    y = torch.arange(12) % 2
    bench = Bench(module, x.numpy(), y.numpy(), x.numpy()[:0], y.numpy()[:0], TrainSettings())
    masked = apply_masks(module, masks)
    # the emptied channels' constants stay in front of zero-padded borders: silence them, so that folds are exact
    parameters, buffers = dict(masked.named_parameters()), dict(masked.named_buffers())
    with torch.no_grad():
        for unit in emptied:
            for member, axis, index in units.members(unit):
                if member in parameters and parameters[member].dim() == 1:
                    parameters[member].select(axis, index).zero_()
                elif member.endswith("running_mean"):
                    buffers[member].select(axis, index).zero_()
    removal = remove_zero_units(masked, masks, bench)
    assert (removal is None) == (not emptied)
    if removal is None:
        return
    assert removal.pruning.removed == emptied
    assert removal.is_exact
    left = dict(removal.module.named_parameters())
    assert all(mask.shape == left[weight].shape for weight, mask in removal.masks.items())
    outputs = predict(removal.module, x.numpy()), predict(recalibrate_batchnorm(masked, x.numpy()), x.numpy())
    # single precision through up to some fifty layers and batch norms over 12 samples
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-3 * np.abs(outputs[1]).max())

    kept = Kept().remove(units, removal.pruning.removed)
    gradients = GradientFlow(module)
    before, after = gradients.measure(masked, x, y), gradients.measure(removal.module, x, y)
    scale = max(float(gradient.abs().max()) for gradient in before.values())
    for weight, gradient in before.items():
        expected = kept.select(gradient, gradients.axes[weight])
        torch.testing.assert_close(after[weight], expected, rtol=0, atol=1e-3 * scale)
    assert gradients.compute_distance(after, gradients.measure(module, x, y), kept, removal.masks) > 0
    if not find_consecutive_layers(module):
        return
    flow = InformationFlow(module)
    dense = flow.measure(module, x, y)
    distance = flow.compute_distance(flow.measure(masked, x, y), dense, Kept(), masks)
    assert distance > 0
    after = flow.measure(removal.module, x, y)
    assert flow.compute_distance(after, dense, kept, removal.masks) == pytest.approx(distance, rel=1e-4)
