"""The reference nets have the sizes their papers give, and take the shapes they say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeprune.errors import InputError
from edgeprune.models import ARCHITECTURES, IMAGE_ARCHITECTURES, build_model, check_sample_shape


def count_parameters(module: nn.Module, *, trainable: bool) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad is trainable)


@pytest.mark.parametrize("classes", [2, 5, 60])
def test_parameter_counts_are_the_papers(classes: int) -> None:
    lite = build_model("lite", in_channels=1, classes=classes)
    assert count_parameters(lite, trainable=True) == 9_814 + 33 * classes
    assert count_parameters(lite, trainable=False) == 438
    inception = build_model("inception", in_channels=1, classes=classes)
    assert count_parameters(inception, trainable=True) == 420_192 + 129 * classes
    assert count_parameters(inception, trainable=False) == 0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # conv weights + 2 per batch-norm channel + head
        ("fcn", 128 * 8 + 256 * 128 * 5 + 128 * 256 * 3 + 2 * (128 + 256 + 128) + 129 * 3),
        (
            "resnet1d",
            (8 + 64 * 5 + 64 * 3 + 1) * 64  # block 1 and its shortcut
            + (64 * 8 + 128 * 5 + 128 * 3 + 64) * 128  # block 2 and its shortcut
            + (8 + 5 + 3) * 128 * 128  # block 3
            + 4 * 2 * (64 + 128 + 128)
            + 129 * 3,
        ),
        ("eegcnn", 32 * 7 + 64 * 32 * 5 + 128 * 64 * 3 + 2 * (32 + 64 + 128) + 129 * 3),
    ],
)
def test_parameter_counts_of_the_other_nets(name: str, parameters: int) -> None:
    net = build_model(name, in_channels=1, classes=3)
    assert count_parameters(net, trainable=True) == parameters


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in IMAGE_ARCHITECTURES])
@pytest.mark.parametrize("shape", [(1, 24), (3, 61)])
def test_nets_for_series_take_any_channels_and_length(name: str, shape: tuple[int, ...]) -> None:
    check_sample_shape(name, shape)
    net = build_model(name, in_channels=shape[0], classes=4).eval()
    with torch.no_grad():
        assert net(torch.randn(2, *shape)).shape == (2, 4)


@pytest.mark.parametrize("name", IMAGE_ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 17, 9)])
def test_nets_for_images_take_any_channels_and_size(name: str, shape: tuple[int, ...]) -> None:
    check_sample_shape(name, shape)
    net = build_model(name, in_channels=shape[0], classes=4).eval()
    with torch.no_grad():
        assert net(torch.randn(2, *shape)).shape == (2, 4)


def test_series_and_images_are_not_mixed_up() -> None:
    with pytest.raises(InputError, match=r"lite takes series \(C, T\).*\(1, 8, 8\).*resnet20, resnet32, vgg"):
        check_sample_shape("lite", (1, 8, 8))
    with pytest.raises(InputError, match=r"vgg takes images \(C, H, W\).*\(1, 24\).*lite, inception"):
        check_sample_shape("vgg", (1, 24))


def test_handcrafted_filters_see_rises_falls_and_peaks() -> None:
    lite = build_model("lite", in_channels=1, classes=2)
    weights = [p for p in lite.parameters() if not p.requires_grad]
    assert [tuple(w.shape) for w in weights] == [
        *((2, 1, k) for k in (2, 4, 8, 16, 32, 64)),
        *((1, 1, k) for k in (6, 12, 24, 48, 96)),
    ]
    rise, fall = weights[0][:, 0]
    assert rise.tolist() == [-1.0, 1.0]
    assert fall.tolist() == [1.0, -1.0]
    assert weights[6][0, 0].tolist() == [-1.0, -1.0, 2.0, 2.0, -1.0, -1.0]


def test_static_reductions_remove_what_the_dsp_paper_says() -> None:
    # LITETime_16, _8, _4 of arXiv 2602.12744: 55.8, 76.5, 84.9 %, frozen weights counted, at the archive's 9 classes
    def count(filters: int) -> int:
        net = build_model("lite", in_channels=1, classes=9, filters=filters)
        return sum(p.numel() for p in net.parameters())

    removed = [round(100 * (1 - count(filters) / count(32)), 1) for filters in (16, 8, 4)]
    # the paper's figures are means over sets of 2 to 60 classes: 0.1 percentage points
    assert removed == pytest.approx([55.8, 76.5, 84.9], abs=0.11)


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'lite'"):
        build_model("lit", in_channels=1, classes=2)
    with pytest.raises(InputError, match="'depth' is unknown; allowed: filters"):
        build_model("lite", in_channels=1, classes=2, depth=3)
    with pytest.raises(InputError, match="classes is 0"):
        build_model("fcn", in_channels=1, classes=0)
