"""Pruned networks exported again: ONNX Runtime gives the masked original's outputs, and all counts agree."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.executors import OnnxExecutor
from edgeprune.export import export_onnx, read_onnx
from edgeprune.measure import count_macs, count_parameters, profile_graph
from edgeprune.prune import L1Norm, prune_channels, select_lowest
from tests.prune.independent_check import compare_with_masked, flatten_outputs, mask_original
from tests.prune.raised import make_samples, raise_zoo
from tests.zoo import ZOO

NAMES = ("lite", "inception_time", "eegnet", "resnet20", "mobilenet_v2", "densenet", "shufflenet", "se_net")
# A BatchNorm behind a ReLU or a join stays in the program, as a depthwise layer with MACs of its own.
OTHER_MACS = ("lite", "densenet")


@pytest.mark.parametrize(
    "name", ["depthwise_multiplier", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES)]
)
def test_pruned_network_in_onnx(name: str) -> None:
    case, shape = raise_zoo(name), ZOO[name].sample_shape
    dead = select_lowest(case.units, L1Norm().score_units(case.module, case.units), 0.5)
    pruned = prune_channels(case.module, case.example, dead).module
    batch = make_samples(shape, 3, seed=9)
    assert compare_with_masked(case.original, pruned, batch)[0] < 1e-9
    masked, _ = mask_original(case.original, pruned)
    single = pruned.float()
    model = export_onnx(single, shape)
    outputs = OnnxExecutor(model.SerializeToString()).run(batch.float().numpy())
    with torch.no_grad():
        expected = flatten_outputs(masked(batch))
    found = torch.cat([torch.from_numpy(output).flatten() for output in outputs])
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max().clamp(min=1)  # float32

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        single(batch[:1].float())
    macs = count_macs(single, shape).total
    assert macs == counter.get_total_flops() // 2
    if name not in OTHER_MACS:
        assert macs == profile_graph(read_onnx(model, name=name)).macs
    assert macs < count_macs(copy.deepcopy(case.module).float(), shape).total  # the case is shared
    assert count_parameters(single).total == sum(value.numel() for value in single.parameters())
