"""Every net of the zoo, raised: the same to the bit in eval and train mode, and again after save and load."""

import copy
import io

import pytest
import torch
from torch import nn

from edgeprune.load import load_model, raise_module, raise_program, save_model
from edgeprune.load.tracing import silence_torch
from tests.load.helpers import assert_trains_alike, flatten, list_nodes
from tests.zoo import ZOO, make_batch, make_model

LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.PReLU)
LAYERS += (nn.GRU, nn.LSTM, nn.modules.dropout._DropoutNd)


@pytest.mark.parametrize("name", ZOO)
def test_net(name, zoo_program, zoo_archive, tmp_path):
    """One test per net, so that one worker exports it once."""
    model, program = zoo_program(name)
    raised = raise_program(program)
    check_equal_to_the_bit(model, raised, make_batch(name, 3))  # another batch size than the example's
    check_layers(model, raised)
    (tmp_path / "model.bin").write_bytes(zoo_archive(name))  # the name says nothing
    loaded = load_model(tmp_path / "model.bin")
    assert (loaded.name, loaded.format, loaded.input_shape) == ("model", "torch.export", ZOO[name].sample_shape)
    assert loaded.notes == ()
    check_same_program(raised, loaded.module)


def check_equal_to_the_bit(model, raised, samples):
    with torch.no_grad():
        assert torch.equal(flatten(model(samples)), flatten(raised(samples)))
    assert_trains_alike(model, raised, samples)
    assert set(dict(raised.named_parameters())) == set(dict(model.named_parameters()))
    assert raised.meta["raise_notes"] == ()


def check_layers(model, raised):
    """The user's layers stand under their own names; no op writes in place."""
    kinds = {path: type(layer) for path, layer in raised.named_modules()}
    for path, layer in model.named_modules():
        if isinstance(layer, LAYERS):
            assert kinds[path] is type(layer), path
    ops = [node.target for node in raised.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    assert [op for op in ops if op._schema.is_mutable] == []


def check_same_program(raised, loaded):
    assert list_nodes(loaded) == list_nodes(raised)
    expected, state = raised.state_dict(), loaded.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in state.items())
    frozen = {key for key, parameter in raised.named_parameters() if not parameter.requires_grad}
    assert {key for key, parameter in loaded.named_parameters() if not parameter.requires_grad} == frozen
    assert not loaded.training


def check_saving_again(name, tmp_path):
    model = make_model(name)
    samples = make_batch(name, 2)
    save_model(model, samples, tmp_path / "first.pt")
    first = load_model(tmp_path / "first.pt").module
    save_model(first, samples, tmp_path / "second.pt")
    second = load_model(tmp_path / "second.pt").module
    assert list_nodes(first) == list_nodes(second)
    assert torch.equal(flatten(model(samples)), flatten(second(samples)))
    assert_trains_alike(model, second, samples)


@pytest.mark.parametrize("name", ["shared_conv", "odds_and_ends"])
def test_save_load_save_load(name, tmp_path):
    check_saving_again(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_save_load_save_load_of_every_net(name, tmp_path):
    check_saving_again(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_no_net_of_the_zoo_differs_in_train_mode(name):
    assert raise_module(make_model(name), make_batch(name, 1)).meta["raise_notes"] == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lite", "shufflenet", "lstm_last_hidden", "odds_and_ends"])
def test_raised_net_exports_to_onnx(name, zoo_raised):
    with silence_torch():
        program = torch.onnx.export(zoo_raised(name), (make_batch(name, 2),), dynamo=True, verbose=False)
    assert len(program.model_proto.graph.node) > 0


def test_raised_net_can_be_copied(zoo_raised):
    raised = zoo_raised("lite")
    twin = copy.deepcopy(raised)
    with torch.no_grad():
        twin.fc.weight.zero_()
    assert raised.fc.weight.abs().sum() > 0
    assert list_nodes(raised) == list_nodes(twin)


def test_raising_leaves_model_and_program_alone(zoo_program):
    model, program = zoo_program("eeg_cnn")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    raised = raise_program(program)
    with torch.no_grad():
        for parameter in raised.parameters():
            parameter.fill_(0.5)
        raised.train()(make_batch("eeg_cnn", 2))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in program.state_dict.items())


def test_lite_keeps_its_frozen_filters(zoo_archive, tmp_path):
    (tmp_path / "lite.pt").write_bytes(zoo_archive("lite"))
    module = load_model(tmp_path / "lite.pt").module
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"hand_crafted.convs.{index}.weight" for index in range(17)]


def test_weights_are_shared_where_the_model_shares_them(zoo_raised):
    calls = [node.target for node in zoo_raised("shared_conv").graph.nodes if node.op == "call_module"]
    assert calls.count("shared") == 2


def test_archive_loads_from_memory_only(zoo_archive):
    """The cleaned archive, not the file, is what torch reads: nothing of the original's pickles is in it."""
    from edgeprune.load.archive import read_entries
    from edgeprune.load.archive_program import check_program_archive

    archive = check_program_archive("model.pt", read_entries("model.pt", zoo_archive("depthwise_multiplier")))
    entries = read_entries("model.pt", archive.data)
    assert entries["archive/data/sample_inputs/model.pt"] == b""
    assert archive.sample_shape == ZOO["depthwise_multiplier"].sample_shape
    assert torch.export.load(io.BytesIO(archive.data)).example_inputs is None
