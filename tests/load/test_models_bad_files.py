"""Files that are no models: one clear sentence each, with the right exit code."""

import gzip
import io
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import EdgepruneError, InputError, UnsupportedModelError, UntrustedInputError
from edgeprune.load import load_model, save_model
from tests.load import archive_forging as forging
from tests.load import user_models
from tests.load.user_models import HERE, SAMPLES, SHAPE


def make_torchscript():
    buffer = io.BytesIO()
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)), buffer)
    return buffer.getvalue()


def make_legacy_save():
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def make_npz():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(3))
    return buffer.getvalue()


def make_npy():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


RANDOM = np.random.default_rng(0)
SAFETENSORS = (2).to_bytes(8, "little") + b"{}" + bytes(40)


@pytest.mark.parametrize(
    ("content", "error", "fragment"),
    [
        (b"", InputError, "is empty (0 bytes)"),
        (b"\x00", InputError, "no PyTorch or ONNX model"),
        (b"\x80", InputError, "no PyTorch or ONNX model"),
        (b"hello, world\n", InputError, "no PyTorch or ONNX model"),
        (RANDOM.bytes(1), InputError, "model.pt"),
        (RANDOM.bytes(5000), InputError, "no PyTorch or ONNX model"),
        (b"PK\x03\x04" + RANDOM.bytes(500), InputError, "truncated or damaged archive"),
        (b"PK\x05\x06" + bytes(18), InputError, "no model of PyTorch"),
        (pickle.dumps([1, 2]), UntrustedInputError, "plain pickle"),
        (make_legacy_save, UntrustedInputError, "plain pickle"),
        (make_torchscript, UnsupportedModelError, "TorchScript"),
        (make_npz, InputError, ".npz dataset"),
        (make_npy, InputError, "NumPy array"),
        (gzip.compress(b"x", mtime=0), InputError, "gzip"),
        (b"\x00\x00\x00\x00TFL3" + bytes(50), InputError, "TensorFlow Lite"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), InputError, "Keras"),
        (SAFETENSORS, InputError, "safetensors"),
        (forging.pack({"readme.txt": b"hello"}), InputError, "no model of PyTorch"),
        (forging.pack({"serialized_exported_program.json": b"{}"}, root=""), UnsupportedModelError, "2.7 or older"),
    ],
)
def test_what_is_no_model(content, error, fragment, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(error) as caught:
        load_model(path, input_shape=SHAPE)
    message = str(caught.value)
    assert fragment in message
    assert "\n" not in message
    assert message.startswith("model.pt")


def test_random_bytes_of_many_kinds(tmp_path):
    """Whatever the bytes, one of our errors."""
    path = tmp_path / "model.pt"
    heads = [b"", b"PK\x03\x04", b"\x80\x02", b"\x08\x07\x12", b"TFL3", b"\x0a\x00"]
    for size in (1, 8, 9, 30, 200, 3000):
        for head in heads:
            path.write_bytes(head + RANDOM.bytes(size))
            with pytest.raises(EdgepruneError) as caught:
                load_model(path)
            assert caught.value.exit_code in (2, 5, 7)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist; check the path"):
        load_model(tmp_path / "nothing.pt")


def test_folder(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        load_model(tmp_path)


def test_path_with_a_nul():
    with pytest.raises(InputError, match="is not a path"):
        load_model("a\0b")


def test_path_through_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"can't be read \(Not a directory\)"):
        load_model(tmp_path / "file" / "model.pt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(InputError, match="permissions"):
        load_model(path)


def test_giant_file(tmp_path):
    with (tmp_path / "model.pt").open("wb") as stream:
        stream.truncate((1 << 30) + 1)  # sparse: takes no space
    with pytest.raises(InputError, match="has 1073741825 bytes; models of at most"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_state_dict(share, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(user_models.make_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match="truncated or damaged archive"):
        load_model(path, factory=f"{HERE}:make_net", input_shape=SHAPE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["fc.weight", "bn.running_var"])
def test_weights_that_are_not_finite(value, name, tmp_path):
    net = user_models.make_trained_net()
    net.state_dict()[name].view(-1)[1] = value
    save_model(net, SAMPLES, tmp_path / "archive.pt")
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    for path in (tmp_path / "archive.pt", tmp_path / "weights.pt"):
        with pytest.raises(InputError, match=rf"{path.name}: {name} holds NaN or infinite values \(1 of"):
            load_model(path, factory=f"{HERE}:make_net", input_shape=SHAPE)


def test_weights_of_other_types(tmp_path):
    torch.save(user_models.make_net().double().state_dict(), tmp_path / "weights.pt")
    loaded = load_model(tmp_path / "weights.pt", factory=f"{HERE}:make_net", input_shape=SHAPE)
    assert loaded.module.fc.weight.dtype == torch.float32  # the factory's model decides
    torch.export.save(torch.export.export(user_models.make_net().half(), (SAMPLES.half(),)), tmp_path / "half.pt2")
    with pytest.raises(UnsupportedModelError, match=r"takes torch\.float16; convert it with model\.float\(\)"):
        load_model(tmp_path / "half.pt2")


def test_unsupported_programs_name_the_file(tmp_path):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    torch.export.save(torch.export.export(Noisy(), (SAMPLES,)), tmp_path / "noisy.pt2")
    with pytest.raises(UnsupportedModelError, match=r"noisy\.pt2: rand_like .* random numbers"):
        load_model(tmp_path / "noisy.pt2")
