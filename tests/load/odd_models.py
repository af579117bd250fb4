"""Small models, each with one thing that raising must cope with or refuse."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """A convolution on (3, 16), `middle`, the mean over time, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self.conv(x)).mean(-1))


class ExoticLayers(nn.Module):
    """BatchNorm without momentum and without scale, transposed and weight-normed convolutions, channel dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.cumulative = nn.BatchNorm1d(8, momentum=None)
        self.plain = nn.BatchNorm1d(8, affine=False)
        self.up = nn.ConvTranspose1d(8, 6, 4, 2, 1)
        self.dropout = nn.Dropout1d(0.3)
        self.instance = nn.InstanceNorm1d(6, affine=True)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 4, 3))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(F.relu(self.plain(self.cumulative(self.conv(x)))))
        return self.fc(F.relu(self.normed(self.instance(self.dropout(x)))).mean(-1))


class TiedWeights(Classifier):
    """Two convolutions of different dilation with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv1d(3, 4, 3, dilation=2, padding=2)
        self.dilated.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.conv(x) + self.dilated(x)).mean(-1))


class WeightInBuffer(nn.Module):
    """Hand-crafted filters kept in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.randn(4, 3, 3))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.conv1d(x, self.filters).mean(-1))


class ScaledConv(nn.Conv1d):
    """A layer class of the user's own, with a parameter and a layer inside."""

    def __init__(self) -> None:
        super().__init__(3, 4, 3)
        self.scale = nn.Parameter(torch.rand(4, 1))
        self.inner = nn.Conv1d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(super().forward(x) * self.scale)


class OwnLayerClass(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.conv = ScaledConv()


class OddNames(nn.Module):
    """Names that Python can't write with a dot."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({"conv-1": nn.Conv1d(3, 4, 3), "1 x": nn.Linear(4, 2)})

    def forward(self, x: Tensor) -> Tensor:
        return self.branches["1 x"](self.branches["conv-1"](x).mean(-1))


class ConstantInCode(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - torch.tensor([[0.1], [0.2], [0.3]]))


class StopsGradient(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        return x.detach()


class DropoutTwice(Classifier):
    """One dropout used twice, a functional one, and alpha dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.3)
        self.alpha = nn.AlphaDropout(0.2)

    def middle(self, x: Tensor) -> Tensor:
        return self.alpha(F.dropout(self.dropout(self.dropout(x)), 0.1, self.training))


class GivenState(nn.Module):
    """A GRU whose zero start is written out, read by its last hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gru(x.transpose(1, 2), torch.zeros(1, x.size(0), 4))[1][-1])


class LearnedState(nn.Module):
    """A GRU that starts from a learned state: it stays a function call."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.start = nn.Parameter(torch.randn(1, 1, 4))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gru(x.transpose(1, 2), self.start.repeat(1, x.size(0), 1))[0][:, -1])


class WritesThroughView(Classifier):
    """In place, but nothing else reads the memory."""

    def middle(self, x: Tensor) -> Tensor:
        x = x.flatten(1).view(-1, 4, 16)
        x += 1
        x.relu_()
        return x


class WritesInput(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x, inplace=True))


class FixedBatch(Classifier):
    """A batch size written into the code."""

    def middle(self, x: Tensor) -> Tensor:
        return x.view(2, 2, -1).reshape(2, 4, 16)


class UnusedLayer(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Linear(4, 2)


class TrainBranch(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        return x * 2 if self.training else x


class FrozenNorm(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(mode)
        self.norm.eval()
        return self


class DropoutAlways(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


# -- refused ---------------------------------------------------------------------------------------------------------


class DecidesByValue(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = F.relu(x)
        return x


class DictOutput(Classifier):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x)}


class NestedOutput(Classifier):
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return super().forward(x), (x, x)


class WritesHalf(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        x[:, :2].add_(1.0)
        return x


class AssignsChannel(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        x[:, 0] = 0
        return x


class CountsCalls(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def middle(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class NoGradInside(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return F.relu(x)


class Conditional(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


class AddsNoise(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class MixesSamples(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class RunsOverBatch(nn.Module):
    """batch_first forgotten: the layer runs over the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gru(x.transpose(1, 2))[0][:, -1])


class InstanceStatistics(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(4, track_running_stats=True)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)


class KeywordName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"class": nn.Linear(16, 2)})

    def forward(self, x: Tensor) -> Tensor:
        return self.layers["class"](x)


class LeavesTorch(Classifier):
    def middle(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy())


class TwoInputs(Classifier):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)
