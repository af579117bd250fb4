"""Stands for a user's own module: classes and factories that model files refer to."""

import torch
from torch import Tensor, nn

HERE = "tests.load.user_models"
SHAPE = (2, 20)
SAMPLES = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))

not_a_function = 7


class Net(nn.Module):
    """A small classifier on (2, 20)."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, width, 3)
        self.bn = nn.BatchNorm1d(width)
        self.act = nn.ReLU()
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.bn(self.conv(x))).mean(-1))


class NotALayer:
    """Pickled beside a model, but no layer."""


def make_net() -> Net:
    return Net()


def make_wide_net() -> Net:
    return Net(8)


def make_with_argument(width: int) -> Net:
    return Net(width)


def make_nothing() -> str:
    return "net"


def make_trained_net(seed: int = 4) -> Net:
    """A net with weights and statistics of its own, in eval mode."""
    torch.manual_seed(seed)
    net = Net()
    net.train()(torch.randn(16, 2, 20))
    return net.eval()
