"""export_onnx: the file's form, its bytes, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import edgeprune
from edgeprune.errors import ParityError, UnsupportedModelError
from edgeprune.export import export_onnx, onnx_export, read_onnx
from edgeprune.export.onnx_cleaning import fold_batchnorms
from edgeprune.export.parity_checks import run_onnx
from edgeprune.load.raising import raise_module
from tests.export.onnx_nets import OnnxNet, count_kinds


class TwoHeads(nn.Module):
    """A little of everything that makes export awkward: dropout, a dict of outputs, a map among them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(2, 4, 3, padding="same"), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, object]:
        features = self.body(x)
        return {
            "classes": torch.softmax(self.head(features.mean(dim=-1)), dim=1),
            "rest": (features, features.amax(-1)),
        }


@pytest.fixture(scope="module")
def two_heads() -> tuple[TwoHeads, onnx.ModelProto]:
    torch.manual_seed(0)
    module = TwoHeads()  # in train mode, as it comes from training
    return module, export_onnx(module, (2, 12), class_names=("a", "b", "c"))


def test_names_and_shapes(two_heads: tuple[TwoHeads, onnx.ModelProto]) -> None:
    _, model = two_heads
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert model.graph.input[0].name == "input"
    assert (dims[0].dim_param, dims[1].dim_value, dims[2].dim_value) == ("batch", 2, 12)
    assert [output.name for output in model.graph.output] == ["output_0", "output_1", "output_2"]
    assert next(node.name for node in model.graph.node) == "body.0"
    assert {entry.key: entry.value for entry in model.metadata_props} == {"class_names": '["a", "b", "c"]'}


def test_outputs_are_those_of_torch(two_heads: tuple[TwoHeads, onnx.ModelProto]) -> None:
    module, model = two_heads
    samples = torch.randn(4, 2, 12)
    module.eval()
    with torch.no_grad():
        outputs = module(samples)
    module.train()
    expected = [outputs["classes"], *outputs["rest"]]
    for wanted, found in zip(expected, run_onnx(model, samples.numpy()), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)  # sums in another order
    graph = read_onnx(model)
    assert graph.outputs == ("output_0", "output_1", "output_2")
    assert [graph.tensors[name].shape for name in graph.outputs] == [(1, 3), (1, 1, 12, 4), (1, 4)]


def test_module_is_left_as_it_was(two_heads: tuple[TwoHeads, onnx.ModelProto]) -> None:
    module, _ = two_heads
    assert all(child.training for child in module.modules())


def test_same_module_same_bytes_and_no_trace_of_the_machine(
    two_heads: tuple[TwoHeads, onnx.ModelProto], capfd: pytest.CaptureFixture[str]
) -> None:
    module, model = two_heads
    data = model.SerializeToString()
    capfd.readouterr()
    assert export_onnx(module, (2, 12), class_names=("a", "b", "c")).SerializeToString() == data
    assert capfd.readouterr() == ("", "")  # nothing is printed, not even by native code
    for place in (
        Path.cwd(),
        Path.home(),
        Path(sys.prefix),
        Path(edgeprune.__file__).parent,
        Path(torch.__file__).parent,
    ):
        assert str(place).encode() not in data
    for word in (b"site-packages", b'File "', b"pkg.torch", b".py"):
        assert word not in data


@pytest.mark.slow
def test_same_bytes_and_no_chatter_in_a_new_process() -> None:
    """Neither the hash seed nor what was exported before shows; importing the exporter prints nothing."""
    script = (
        "import hashlib, torch; from tests.export.test_onnx_export import TwoHeads, export_onnx\n"
        "torch.manual_seed(0); model = export_onnx(TwoHeads(), (2, 12))\n"
        "print(hashlib.sha256(model.SerializeToString()).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-W", "default", "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        )
        for seed in ("1", "2")
    ]
    assert [run.stderr for run in runs] == ["", ""]
    assert runs[0].stdout == runs[1].stdout


def test_raised_program_keeps_the_names_of_the_modules() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Hardswish(), nn.Flatten(), nn.Linear(64, 2)
    )
    raised = raise_module(module.eval(), torch.randn(2, 3, 8, 8))
    graph = read_onnx(export_onnx(raised, (3, 8, 8)))
    assert [(op.kind, op.name) for op in graph.ops if op.kind in ("conv_2d", "fully_connected")] == [
        ("conv_2d", "0"),
        ("fully_connected", "4"),
    ]
    assert count_kinds(graph) == {"pad": 1, "conv_2d": 1, "hard_swish": 1, "fully_connected": 1}


def test_a_step_that_changes_values_is_named(
    two_heads: tuple[TwoHeads, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, exported = two_heads

    def spoil(model: onnx.ModelProto, *args: object, **kwargs: object) -> tuple[onnx.ModelProto, bool]:
        for tensor in model.graph.initializer:
            if tensor.name.endswith("weight"):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
        return model, True

    monkeypatch.setattr(onnx_export, "_convert", lambda *_: onnx.ModelProto.FromString(exported.SerializeToString()))
    monkeypatch.setattr(onnxsim, "simplify", spoil)
    with pytest.raises(ParityError, match=r"^onnxsim: output 0 changed by up to"):
        export_onnx(module, (2, 12))


def test_what_torch_cannot_write_is_refused() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x)

    with pytest.raises(UnsupportedModelError, match="Spectrum can't be written as ONNX"):
        export_onnx(Spectrum(), (3, 4))


def test_fixed_batch_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, -1)

    with pytest.raises(UnsupportedModelError, match="Fixed: its code fixes the size of the batch"):
        export_onnx(Fixed(), (3, 4))


def test_output_that_is_no_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            return x.relu(), 3

    with pytest.raises(UnsupportedModelError, match="Pair returns Tensor, int; it must return tensors only"):
        export_onnx(Pair(), (3, 4))


def test_batchnorm_through_concat_in_onnx() -> None:
    """Twice in one model, with a branch that can't take it, and one behind a Concat that somebody else reads."""
    net = OnnxNet((3, 10))
    for _ in range(2):
        branches = [net.conv(net.x, 3, 4, (1,)), net.add("Tanh", net.x), net.conv(net.x, 3, 2, (3,), pads=[1, 1])]
        joined = net.add("Concat", *branches, axis=1)
        last = net.conv(net.batchnorm(joined, 9), 9, 3, (1,))
        net.x = net.add("Add", last, net.add("Relu", net.x))
    shared = net.add("Concat", net.conv(net.x, 3, 4, (1,)), net.x, axis=1)
    normed = net.batchnorm(shared, 7)
    model = onnx.shape_inference.infer_shapes(net.model(normed, shared, rank=3))
    folded = fold_batchnorms(model)
    x = np.random.default_rng(0).standard_normal((2, 3, 10)).astype(np.float32)
    for wanted, found in zip(run_onnx(model, x), run_onnx(folded, x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)  # folded weights are rounded to float32
    channels = [
        len(next(numpy_helper.to_array(t) for t in folded.graph.initializer if t.name == node.input[1]))
        for node in folded.graph.node
        if node.op_type == "BatchNormalization"
    ]
    assert channels == [3, 3, 7]
