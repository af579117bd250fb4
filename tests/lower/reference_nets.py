"""The reference nets of `edgeprune.models` as float programs, by way of ONNX: seconds each, for slow tests."""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.graph import Graph
from edgeprune.lower import legalize


def make_reference_net(name: str) -> Callable[[], Graph]:
    """A function that makes the net; its random weights give lively activations once BatchNorm has seen samples."""

    def make() -> Graph:
        import torch  # here: the quick tests of this folder do not wait for it

        from edgeprune.export import export_onnx, read_onnx
        from edgeprune.load.raising import raise_module
        from edgeprune.models import build_model

        torch.manual_seed(0)
        module = build_model(name, in_channels=1, classes=3)
        example = torch.randn(64, 1, 64)
        module.train()
        with torch.no_grad():
            for _ in range(5):
                module(example)
        module.eval()
        return legalize(read_onnx(export_onnx(raise_module(module, example[:2]), (1, 64)), name=name))

    return make


REFERENCE_NETS = {name: make_reference_net(name) for name in ("lite", "inception", "fcn", "resnet1d", "eegcnn")}
