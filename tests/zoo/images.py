"""2-D networks of the zoo: EEG as an image, and the families of image classification, narrow and short."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias, padded by half its size, and its BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class EegNet(nn.Module):
    """EEGNet-like: temporal, spatial (depthwise, multiplier 2) and separable convolutions on (1, electrodes, time)."""

    def __init__(self, electrodes: int = 8, steps: int = 128, filters: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.temporal = nn.Conv2d(1, filters, (1, 64), padding="same", bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.spatial = nn.Conv2d(filters, 2 * filters, (electrodes, 1), groups=filters, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * filters)
        self.pool1 = nn.AvgPool2d((1, 4))
        self.dropout1 = nn.Dropout(0.25)
        self.depthwise = nn.Conv2d(2 * filters, 2 * filters, (1, 16), padding=(0, 8), groups=2 * filters, bias=False)
        self.pointwise = nn.Conv2d(2 * filters, 16, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(16)
        self.pool2 = nn.AvgPool2d((1, 8))
        self.dropout2 = nn.Dropout(0.25)
        self.fc = nn.Linear(16 * (steps // 32), classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.spatial(self.bn1(self.temporal(x))))
        x = self.dropout1(self.pool1(F.elu(x)))
        x = self.bn3(self.pointwise(self.depthwise(x)))
        x = self.dropout2(self.pool2(F.elu(x)))
        return self.fc(x.view(x.size(0), -1))


class PaddedShortcutBlock(nn.Module):
    """Basic residual block; where the size changes the shortcut is subsampled and padded with zero channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, outputs, stride=stride)
        self.conv2, self.bn2 = conv_bn(outputs, outputs)
        self.stride = stride
        self.extra = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return F.relu(y + x)


class ResNet20(nn.Module):
    """ResNet-20 of CIFAR-10 with option A (padded) shortcuts."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.conv, self.bn = conv_bn(3, width)
        blocks = []
        inputs = width
        for stage, outputs in enumerate((width, 2 * width, 4 * width)):
            for index in range(3):
                blocks.append(PaddedShortcutBlock(inputs, outputs, 2 if stage and index == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        x = F.avg_pool2d(x, x.size(-1))
        return self.fc(x.view(x.size(0), -1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True)]
        layers += conv_bn(hidden, outputs, 1)
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """MobileNetV2-like: seven inverted residuals."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [*conv_bn(3, 16, 3, 2), nn.ReLU6(inplace=True)]
        inputs = 16
        for expansion, outputs, count, stride in ((1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 2, 2), (6, 24, 2, 1)):
            for index in range(count):
                layers.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, *conv_bn(inputs, 64, 1), nn.ReLU6(inplace=True))
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.fc(self.dropout(x.reshape(x.shape[0], -1)))


class Vgg(nn.Module):
    """VGG-like: convolutions and pooling, then three linear layers behind a flatten of whole maps."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in (8, 0, 16, 0, 24, 24, 0):
            if outputs == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(24 * 16, 48),
            nn.BatchNorm1d(48),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(48, 32),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(32, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class DenseLayer(nn.Module):
    """DenseNet's layer: its output is concatenated to its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        return torch.cat([x, y], 1)


class DenseNet(nn.Module):
    """DenseNet-like: two dense blocks of three layers with a transition between."""

    def __init__(self, growth: int = 6, classes: int = 10) -> None:
        super().__init__()
        first = [DenseLayer(12 + index * growth, growth) for index in range(3)]
        joined = 12 + 3 * growth
        transition = [
            nn.BatchNorm2d(joined),
            nn.ReLU(),
            nn.Conv2d(joined, joined // 2, 1, bias=False),
            nn.AvgPool2d(2),
        ]
        second = [DenseLayer(joined // 2 + index * growth, growth) for index in range(3)]
        width = joined // 2 + 3 * growth
        self.stem = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.features = nn.Sequential(*first, *transition, *second, nn.BatchNorm2d(width), nn.ReLU())
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(self.stem(x)), 1)
        return self.fc(x.squeeze(-1).squeeze(-1))


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass by, then the two halves are interleaved."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        width = channels if stride == 2 else channels // 2
        if stride == 2:
            self.left = nn.Sequential(
                *conv_bn(channels, channels, 3, 2, groups=channels),
                *conv_bn(channels, channels, 1),
                nn.ReLU(inplace=True),
            )
        self.right = nn.Sequential(
            *conv_bn(width, width, 1),
            nn.ReLU(inplace=True),
            *conv_bn(width, width, 3, stride, groups=width),
            *conv_bn(width, width, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            kept, changed = x.chunk(2, dim=1)
            y = torch.cat((kept, self.right(changed)), 1)
        else:
            y = torch.cat((self.left(x), self.right(x)), 1)
        batch, channels, height, width = y.shape
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return y.view(batch, -1, height, width)


class ShuffleNet(nn.Module):
    """ShuffleNetV2-like: chunk, concatenation and channel shuffle."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 12), nn.ReLU(inplace=True))
        self.units = nn.Sequential(
            ShuffleUnit(12, 2), ShuffleUnit(24, 1), ShuffleUnit(24, 1), ShuffleUnit(24, 2), ShuffleUnit(48, 1)
        )
        self.fc = nn.Linear(48, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.units(self.stem(x)).mean([2, 3]))


class SqueezeExcite(nn.Module):
    """Channel attention by two linear layers on the global mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 4)
        self.excite = nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class SeNet(nn.Module):
    """Squeeze-and-excitation by linear layers and by 1x1 convolutions; hardswish, SiLU, hardsigmoid."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.se1 = SqueezeExcite(16)
        self.conv2 = nn.Conv2d(16, 32, 3, 2, 1)
        self.bn2 = nn.BatchNorm2d(32)
        self.se2 = SqueezeExcite(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(32)
        self.squeeze = nn.Conv2d(32, 16, 1)
        self.excite = nn.Conv2d(16, 32, 1)
        self.fc = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.se1(F.hardswish(self.bn1(self.conv1(x))))
        x = self.se2(F.silu(self.bn2(self.conv2(x))))
        y = F.relu(self.bn3(self.conv3(x)))
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.fc((x + y * gate).mean((2, 3)))


class GroupedConv(nn.Module):
    """Convolutions in 4 and 8 groups with a residual; leaky ReLU and a global maximum."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.grouped1 = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.bn2 = nn.BatchNorm2d(32)
        self.grouped2 = nn.Conv2d(32, 64, 3, 2, 1, groups=8)
        self.pointwise = nn.Conv2d(64, 32, 1)
        self.fc = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.stem(x)))
        x = F.relu(self.bn2(self.grouped1(x))) + x
        x = F.leaky_relu(self.pointwise(F.relu(self.grouped2(x))), 0.1)
        return self.fc(x.amax((2, 3)))


class VisionTransformer(nn.Module):
    """One transformer block on patches, with a class token."""

    def __init__(self, width: int = 32, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp1 = nn.Linear(width, 4 * width)
        self.mlp2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(width, classes)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        batch, _, width = x.shape
        x = torch.cat([self.token.expand(batch, -1, -1), x], 1) + self.position
        qkv = self.qkv(self.norm1(x)).reshape(batch, 17, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, 17, width)
        x = x + self.dropout(self.project(attended))
        x = x + self.dropout(self.mlp2(F.gelu(self.mlp1(self.norm2(x)))))
        return self.fc(x[:, 0])
