"""ResNet and VGG for images: sizes as published, shortcuts by hand, and the way through pruning to firmware."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.codegen import generate_firmware
from edgeprune.errors import InputError
from edgeprune.export import export_onnx, read_onnx
from edgeprune.layout import to_nhwc
from edgeprune.load import raise_module
from edgeprune.lower import legalize
from edgeprune.measure.cortex_m import measure_firmware
from edgeprune.models import build_model
from edgeprune.models.resnet2d import PaddedShortcut
from edgeprune.prune import CRITERIA, find_units, prune_channels, select_lowest
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.reference import quantize_values, run_graph
from edgeprune.target import load_target


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "options", "channels", "parameters"),
    [
        # He et al., table 6: 0.27 M and 0.46 M
        ("resnet20", {}, 3, 269_722),
        ("resnet32", {}, 3, 464_154),
        # a 1x1 convolution and a batch norm for each of two shortcuts
        ("resnet20", {"shortcut": "B"}, 3, 269_722 + 16 * 32 + 32 * 64 + 2 * (32 + 64)),
        # 9 weights for each of 16 filters and of two channels less
        ("resnet20", {}, 1, 269_722 - 2 * 9 * 16),
        # first convolution, two of one block, batch norms, head
        ("resnet20", {"depth": 8, "widths": (4,)}, 1, 9 * 4 + 2 * 9 * 16 + 3 * 2 * 4 + 4 * 10 + 10),
        (
            "vgg",
            {},
            3,
            9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 2 * 2 * (32 + 64 + 128) + 1290,
        ),
        ("vgg", {"plan": [[4], [5, 6]]}, 1, 9 * (4 + 20 + 30) + 2 * 15 + 6 * 10 + 10),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], channels: int, parameters: int) -> None:
    assert count(build_model(name, in_channels=channels, classes=10, **options)) == parameters


def test_resnet20_has_the_macs_of_its_19_convolutions_and_head() -> None:
    net = build_model("resnet20", in_channels=3, classes=10).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net(torch.zeros(1, 3, 32, 32))
    stages = (432 + 6 * 2304) * 1024, (4608 + 5 * 9216) * 256, (18432 + 5 * 36864) * 64
    assert counter.get_total_flops() // 2 == sum(stages) + 640 == 40_551_040


def test_padded_shortcut_takes_every_second_pixel_and_adds_zeros_around() -> None:
    x = torch.arange(2.0 * 9).reshape(1, 2, 3, 3)
    y = PaddedShortcut(3, 2)(x)
    assert y.shape == (1, 5, 2, 2)
    assert y[0, 1].tolist() == [[0, 2], [6, 8]]
    assert y[0, 2].tolist() == [[9, 11], [15, 17]]
    assert y[0, [0, 3, 4]].abs().sum() == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet20", {"depth": 18}, "depth is 18; allowed: 6 n"),
        ("resnet20", {"depth": 2}, "depth is 2; allowed: 6 n"),
        ("resnet20", {"shortcut": "C"}, "shortcut is 'C'; allowed: A, B"),
        ("resnet20", {"widths": (8, 4)}, r"widths are \[8, 4\].*Take shortcut B"),
        ("resnet32", {"width": 3}, "'width' is unknown; allowed: depth, widths, shortcut"),
        ("vgg", {"plan": [[8], []]}, r"plan is \[\[8\], \[\]\]"),
    ],
)
def test_options_that_make_no_net_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model(name, in_channels=1, classes=2, **options)


def test_padded_shortcuts_couple_the_channels_that_they_join() -> None:
    net = build_model("resnet20", in_channels=1, classes=3, depth=8, widths=(4, 6)).eval()
    example = torch.zeros(2, 1, 8, 8)
    units = find_units(raise_module(net, example), example)
    assert units.pinned == (("head", "model output"),)
    groups = {group.layers: len(group.units) for group in units.groups}
    # one channel of zeros on either side of the four that pass: these two belong to the second stage alone
    assert groups == {
        ("convolution", "blocks.0.convolution2", "blocks.1.convolution2"): 4,
        ("blocks.0.convolution1",): 4,
        ("blocks.1.convolution1",): 6,
        ("blocks.1.convolution2",): 2,
    }


CHAINS: list[tuple[str, dict[str, Any], tuple[int, ...], str]] = [
    ("resnet20", {"depth": 8, "widths": (4, 6)}, (1, 8, 8), "cortex-m4"),
    ("vgg", {"plan": ((5,), (6,))}, (1, 8, 8), "cortex-m0plus"),  # portable kernels
]


def check_chain(name: str, options: dict[str, Any], shape: tuple[int, ...], target: str) -> None:
    """Half the channels of every layer removed, int8, firmware: each form computes what the one before does."""
    torch.manual_seed(0)
    net = build_model(name, in_channels=shape[0], classes=10, **options)
    x = torch.randn(16, *shape)
    with torch.no_grad():
        net(x)  # batch norms see samples
    module = raise_module(net.eval(), x[:2])
    units = find_units(module, x[:2])
    dead = select_lowest(units, CRITERIA["l1"]().score_units(module, units), 0.5)
    result = prune_channels(module, x[:2], dead)
    assert result.not_shrunk == ()
    assert count(result.module) < 0.4 * count(net)
    graph = legalize(read_onnx(export_onnx(result.module, shape), name=name))
    samples = to_nhwc(x.numpy())
    with torch.no_grad():
        expected = result.module(x).numpy()
    # float32 in another order of summation
    np.testing.assert_allclose(run_graph(graph, samples)[graph.outputs[0]].reshape(16, -1), expected, atol=1e-4)
    int8 = quantize_graph(graph, calibrate(graph, samples))
    quant = int8.tensors[int8.inputs[0]].quant
    assert quant is not None
    values = quantize_values(samples[:2], quant)
    chip = load_target(target)
    firmware = generate_firmware(int8, chip)
    measured = measure_firmware(firmware.compiled_files, chip, values.reshape(2, -1))
    assert measured.outputs is not None
    np.testing.assert_array_equal(measured.outputs, run_graph(int8, values)[int8.outputs[0]].reshape(2, -1))


@pytest.mark.parametrize(("name", "options", "shape", "target"), CHAINS)
def test_small_image_nets_go_from_pruning_to_firmware(
    name: str, options: dict[str, Any], shape: tuple[int, ...], target: str
) -> None:
    check_chain(name, options, shape, target)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("resnet20", {}), ("resnet20", {"shortcut": "B"}), ("resnet32", {}), ("vgg", {})]
)
def test_image_nets_go_from_pruning_to_firmware(name: str, options: dict[str, Any]) -> None:
    check_chain(name, options, (3, 32, 32), "cortex-m4")
