"""`save_model`: the module stays as it was, the bytes are the same each time, a good file is never lost."""

import errno
import os

import pytest
import torch
from torch import nn

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.load import load_model, save_model
from tests.load import odd_models, user_models
from tests.load.user_models import SAMPLES


def test_module_stays_as_it_was(tmp_path):
    net = user_models.make_trained_net().train()
    net.bn.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    save_model(net, SAMPLES, tmp_path / "net.pt")
    assert [module.training for module in net.modules()] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.eval()
    assert torch.equal(load_model(tmp_path / "net.pt").module(SAMPLES), net(SAMPLES))


def test_same_bytes_each_time_and_no_path_inside(tmp_path):
    net = user_models.make_trained_net()
    save_model(net, SAMPLES, tmp_path / "first.pt")
    save_model(net.train(), SAMPLES[:1] * 7, tmp_path / "second.pt")  # values of the example aren't kept
    data = (tmp_path / "first.pt").read_bytes()
    assert data == (tmp_path / "second.pt").read_bytes()
    for path in (os.getcwd(), os.path.dirname(torch.__file__), str(tmp_path)):
        assert path.encode() not in data


def test_saving_what_was_loaded_changes_nothing_any_more(tmp_path):
    save_model(odd_models.DropoutTwice(), torch.zeros(2, 3, 16), tmp_path / "first.pt")
    save_model(load_model(tmp_path / "first.pt").module, torch.zeros(2, 3, 16), tmp_path / "second.pt")
    save_model(load_model(tmp_path / "second.pt").module, torch.zeros(2, 3, 16), tmp_path / "third.pt")
    assert (tmp_path / "second.pt").read_bytes() == (tmp_path / "third.pt").read_bytes()


def test_full_disk_keeps_the_good_file(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    path.write_bytes(b"the good one")

    def fail(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="disk is full"):
        save_model(user_models.make_net(), SAMPLES, path)
    assert path.read_bytes() == b"the good one"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "folder").write_text("x")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        save_model(user_models.make_net(), SAMPLES, tmp_path / "folder" / "net.pt")


def test_models_that_could_not_be_loaded_are_not_saved(tmp_path):
    with pytest.raises(UnsupportedModelError, match="random numbers"):
        save_model(odd_models.AddsNoise(), torch.zeros(2, 3, 16), tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"width": {1, 2}}, {"width": float("nan")}])
def test_options_that_json_cannot_hold(options, tmp_path):
    with pytest.raises(InputError, match="can't be written as JSON"):
        save_model(user_models.make_net(), SAMPLES, tmp_path / "net.pt", architecture="x", architecture_options=options)


def test_model_on_another_device(tmp_path):
    with pytest.raises(InputError, match=r"weight is on meta; move the model to the CPU first"):
        save_model(nn.Linear(3, 2, device="meta"), torch.zeros(2, 3), tmp_path / "net.pt")


def test_a_single_sample_is_enough_as_example(tmp_path):
    save_model(user_models.make_net(), SAMPLES[:1], tmp_path / "net.pt")
    assert load_model(tmp_path / "net.pt").module(SAMPLES).shape == (3, 3)
