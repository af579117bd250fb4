"""1-D networks of the zoo: the reference nets of time series classification, and what people build around them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HandCraftedFilters(nn.Module):
    """LITE's fixed filters: rising and falling edges, and peaks; weights with requires_grad False."""

    def __init__(self, channels: int, edge_sizes: tuple[int, ...], peak_sizes: tuple[int, ...]) -> None:
        super().__init__()
        kernels = []
        for size in edge_sizes:
            signs = torch.where(torch.arange(size) % 2 == 0, -1.0, 1.0)
            kernels += [signs, -signs]
        kernels += [torch.sin(torch.linspace(0, torch.pi, size)) ** 2 - 0.3 for size in peak_sizes]
        self.convs = nn.ModuleList()
        for kernel in kernels:
            conv = nn.Conv1d(channels, 1, len(kernel), padding="same", bias=False)
            conv.weight = nn.Parameter(kernel.repeat(1, channels, 1), requires_grad=False)
            self.convs.append(conv)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([conv(x) for conv in self.convs], 1))


class Lite(nn.Module):
    """LITE-like: three parallel convolutions beside frozen filters, then two dilated separable ones."""

    def __init__(self, channels: int = 1, filters: int = 32, classes: int = 5) -> None:
        super().__init__()
        self.hand_crafted = HandCraftedFilters(channels, (2, 4, 8, 16, 32, 64), (6, 12, 24, 48, 96))
        self.parallel = nn.ModuleList(
            [nn.Conv1d(channels, filters, size, padding="same", bias=False) for size in (40, 20, 10)]
        )
        width = 3 * filters + len(self.hand_crafted.convs)
        self.bn0 = nn.BatchNorm1d(width)
        self.depthwise1 = nn.Conv1d(width, width, 20, padding="same", dilation=2, groups=width, bias=False)
        self.pointwise1 = nn.Conv1d(width, filters, 1, bias=False)
        self.bn1 = nn.BatchNorm1d(filters)
        self.depthwise2 = nn.Conv1d(filters, filters, 10, padding="same", dilation=4, groups=filters, bias=False)
        self.pointwise2 = nn.Conv1d(filters, filters, 1, bias=False)
        self.bn2 = nn.BatchNorm1d(filters)
        self.fc = nn.Linear(filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([conv(x) for conv in self.parallel] + [self.hand_crafted(x)], 1)
        x = F.relu(self.bn0(x))
        x = F.relu(self.bn1(self.pointwise1(self.depthwise1(x))))
        x = F.relu(self.bn2(self.pointwise2(self.depthwise2(x))))
        return self.fc(x.mean(-1))


class InceptionBlock(nn.Module):
    """Parallel convolutions behind a bottleneck, beside a pooled 1x1; concatenated, BN, ReLU."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(channels, filters, 1, bias=False) if channels > 1 else nn.Identity()
        inner = filters if channels > 1 else 1
        self.convs = nn.ModuleList(
            [nn.Conv1d(inner, filters, size, padding="same", bias=False) for size in (40, 20, 10)]
        )
        self.pool = nn.MaxPool1d(3, stride=1, padding=1)
        self.pool_conv = nn.Conv1d(channels, filters, 1, bias=False)
        self.bn = nn.BatchNorm1d(4 * filters)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.bottleneck(x)
        branches = [conv(narrow) for conv in self.convs]
        branches.append(self.pool_conv(self.pool(x)))
        return torch.relu(self.bn(torch.cat(branches, 1)))


class InceptionTime(nn.Module):
    """Six inception blocks with a residual every three."""

    def __init__(self, channels: int = 1, filters: int = 8, classes: int = 5) -> None:
        super().__init__()
        widths = [channels] + 6 * [4 * filters]
        self.blocks = nn.ModuleList([InceptionBlock(width, filters) for width in widths[:6]])
        self.shortcuts = nn.ModuleList(
            [
                nn.Sequential(nn.Conv1d(width, 4 * filters, 1, bias=False), nn.BatchNorm1d(4 * filters))
                for width in (widths[0], widths[3])
            ]
        )
        self.fc = nn.Linear(4 * filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index % 3 == 2:
                x = F.relu(x + self.shortcuts[index // 3](residual))
                residual = x
        return self.fc(F.adaptive_avg_pool1d(x, 1).flatten(1))


class Fcn(nn.Module):
    """Fully convolutional network with in-place ReLUs."""

    def __init__(self, channels: int = 1, filters: int = 24, classes: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, size in ((channels, filters, 8), (filters, 2 * filters, 5), (2 * filters, filters, 3)):
            layers += [
                nn.Conv1d(inputs, outputs, size, padding="same"),
                nn.BatchNorm1d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean(dim=2))


class ResidualBlock1d(nn.Module):
    """Three convolutions and a shortcut (1x1, or BN alone), added in place."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 8, padding="same")
        self.bn1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, 5, padding="same")
        self.bn2 = nn.BatchNorm1d(outputs)
        self.conv3 = nn.Conv1d(outputs, outputs, 3, padding="same")
        self.bn3 = nn.BatchNorm1d(outputs)
        self.shortcut: nn.Module = nn.BatchNorm1d(outputs)
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)
        return F.relu(y)


class ResNet1d(nn.Module):
    """The ResNet of time series classification, narrow."""

    def __init__(self, channels: int = 1, filters: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ResidualBlock1d(channels, filters),
            ResidualBlock1d(filters, 2 * filters),
            ResidualBlock1d(2 * filters, 2 * filters),
        )
        self.fc = nn.Linear(2 * filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(x).mean(2))


class EegCnn(nn.Module):
    """Seizure detection: three times convolution, BN, ReLU, dropout, max pooling; then GAP and a linear layer."""

    def __init__(self, channels: int = 2, classes: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, size in ((channels, 16, 7), (16, 32, 5), (32, 64, 3)):
            layers += [
                nn.Conv1d(inputs, outputs, size, padding="same"),
                nn.BatchNorm1d(outputs),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.MaxPool1d(2),
            ]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.features(x)).squeeze(-1))


class RecurrentHybrid(nn.Module):
    """A convolution feeding a recurrent layer, whose last step is classified."""

    def __init__(self, recurrent: nn.Module, width: int, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 16, 5, padding=2)
        self.bn = nn.BatchNorm1d(16)
        self.recurrent = recurrent
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn(self.conv(x))), 2)
        steps, _ = self.recurrent(x.permute(0, 2, 1))
        return self.fc(self.dropout(steps[:, -1]))


class LastHidden(nn.Module):
    """An LSTM of which only the final hidden state is used."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 12, batch_first=True)
        self.fc = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(x.transpose(1, 2))
        return self.fc(hidden[-1])


class SharedConv(nn.Module):
    """One convolution applied twice, with a BN of its own each time."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 16, 3, padding=1)
        self.shared = nn.Conv1d(16, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm1d(16)
        self.bn2 = nn.BatchNorm1d(16)
        self.head = nn.Conv1d(16, 20, 3, padding=1)
        self.fc = nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.bn1(self.shared(x)))
        x = F.relu(self.bn2(self.shared(x)))
        return self.fc(F.relu(self.head(x)).mean(-1))


class DepthwiseMultiplier(nn.Module):
    """Depthwise convolution with two outputs per input channel, between pointwise ones."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 8, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm1d(8)
        self.depthwise = nn.Conv1d(8, 16, 7, padding=3, groups=8, bias=False)
        self.bn2 = nn.BatchNorm1d(16)
        self.pointwise = nn.Conv1d(16, 12, 1)
        self.fc = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.stem(x)))
        x = F.relu(self.bn2(self.depthwise(x)))
        return self.fc(F.relu(self.pointwise(x)).mean(-1))


class OddsAndEnds(nn.Module):
    """Asymmetric padding, PReLU, a learned scale, split, slice, replicate padding, GroupNorm, two outputs."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((3, 0), 0.0)
        self.stem = nn.Conv1d(2, 24, 4)
        self.prelu = nn.PReLU(24)
        self.scale = nn.Parameter(torch.rand(24, 1) + 0.5)
        self.left = nn.Conv1d(8, 8, 3, padding=1)
        self.right = nn.Conv1d(16, 16, 3, padding=1, padding_mode="replicate")
        self.norm = nn.GroupNorm(4, 16)
        self.mix = nn.Conv1d(24, 16, 1)
        self.fc = nn.Linear(16, classes)
        self.aux = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.prelu(self.stem(self.pad(x))) * self.scale
        left, right = torch.split(x, [8, 16], 1)
        left = self.left(left) + x[:, :8]
        right = self.norm(self.right(right))
        x = torch.cat([left, right], 1)
        return self.fc(F.relu(self.mix(x)).mean(-1)), self.aux(x.mean(-1))
