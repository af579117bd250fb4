"""The architectures every room must cope with, as plain `nn.Module`s with random BatchNorm statistics.

>>> model = make_model("fcn")
>>> model(make_batch("fcn", 3)).shape
torch.Size([3, 5])
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.zoo import images, series


@dataclass(frozen=True)
class ZooEntry:
    """factory: makes the network with weights drawn from torch's global seed. sample_shape: (C, T) or (C, H, W)."""

    factory: Callable[[], nn.Module]
    sample_shape: tuple[int, ...]


def make_gru() -> nn.Module:
    return series.RecurrentHybrid(nn.GRU(16, 24, batch_first=True), 24)


def make_lstm() -> nn.Module:
    lstm = nn.LSTM(16, 24, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
    return series.RecurrentHybrid(lstm, 48)


ZOO: dict[str, ZooEntry] = {
    "lite": ZooEntry(series.Lite, (1, 150)),
    "inception_time": ZooEntry(series.InceptionTime, (1, 96)),
    "fcn": ZooEntry(series.Fcn, (1, 96)),
    "resnet1d": ZooEntry(series.ResNet1d, (1, 96)),
    "eeg_cnn": ZooEntry(series.EegCnn, (2, 64)),
    "eegnet": ZooEntry(images.EegNet, (1, 8, 128)),
    "resnet20": ZooEntry(images.ResNet20, (3, 32, 32)),
    "mobilenet_v2": ZooEntry(images.MobileNetV2, (3, 32, 32)),
    "vgg": ZooEntry(images.Vgg, (3, 32, 32)),
    "densenet": ZooEntry(images.DenseNet, (3, 16, 16)),
    "shufflenet": ZooEntry(images.ShuffleNet, (3, 16, 16)),
    "se_net": ZooEntry(images.SeNet, (3, 16, 16)),
    "gru": ZooEntry(make_gru, (3, 12)),
    "lstm_bidirectional": ZooEntry(make_lstm, (3, 12)),
    "lstm_last_hidden": ZooEntry(series.LastHidden, (3, 6)),
    "vit": ZooEntry(images.VisionTransformer, (3, 32, 32)),
    "shared_conv": ZooEntry(series.SharedConv, (3, 64)),
    "grouped_conv": ZooEntry(images.GroupedConv, (3, 16, 16)),
    "depthwise_multiplier": ZooEntry(series.DepthwiseMultiplier, (2, 48)),
    "odds_and_ends": ZooEntry(series.OddsAndEnds, (2, 50)),
}


def make_model(name: str, seed: int = 0) -> nn.Module:
    """The network in eval mode, its BatchNorms with statistics and scales that are not the identity."""
    torch.manual_seed(seed)
    model = ZOO[name].factory()
    randomize_batchnorm(model)
    return model.eval()


def make_batch(name: str, size: int, seed: int = 0) -> Tensor:
    """Random samples (size, *sample_shape)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, *ZOO[name].sample_shape, generator=generator)


def randomize_batchnorm(model: nn.Module) -> None:
    """Give each BatchNorm random statistics, scale and shift, in place."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
