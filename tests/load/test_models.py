"""Model files of every format: told by content, and the same outputs as the model they came from."""

import copy
import hashlib
import json

import onnx
import pytest
import torch
from torch import nn

from edgeprune.artifacts import ModelInfo, Normalization
from edgeprune.errors import InputError, UnsupportedModelError, UntrustedInputError
from edgeprune.load import call_factory, load_model, save_model
from edgeprune.load.model_weights import read_torch_save
from tests.load import archive_forging as forging
from tests.load import user_models
from tests.load.user_models import HERE, SAMPLES, SHAPE
from tests.zoo import make_batch, make_model


@pytest.fixture(scope="module")
def net():
    return user_models.make_trained_net()


def assert_same_outputs(module, net):
    with torch.no_grad():
        assert torch.equal(module(SAMPLES), net(SAMPLES))


# -- state_dict -----------------------------------------------------------------------------------------------------


def wrap_in(key):
    return lambda weights: {"epoch": 3, key: weights}


def put_before(prefix):
    return lambda weights: {f"{prefix}{name}": value for name, value in weights.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        wrap_in("state_dict"),
        wrap_in("model_state_dict"),
        wrap_in("model"),
        put_before("module."),
        put_before("_orig_mod."),
        lambda weights: {"state_dict": {**put_before("net.")(weights), "loss.weight": torch.ones(3)}},
    ],
    ids=["plain", "state_dict", "model_state_dict", "model", "data parallel", "compiled", "lightning"],
)
def test_weights_are_found_wherever_they_are(wrap, net, tmp_path):
    torch.save(wrap(net.state_dict()), tmp_path / "weights.pt")
    data = (tmp_path / "weights.pt").read_bytes()
    kind, filled = read_torch_save("weights.pt", data, f"{HERE}:make_net", ())
    assert kind == "state_dict"
    assert_same_outputs(filled.eval(), net)


def test_state_dict(net, tmp_path):
    path = tmp_path / "weights.onnx"  # the name says nothing
    torch.save(net.state_dict(), path)
    loaded = load_model(path, factory=f"{HERE}:make_net", input_shape=SHAPE)
    assert (loaded.format, loaded.name, loaded.input_shape) == ("state_dict", "weights", SHAPE)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.info == ModelInfo()
    assert_same_outputs(loaded.module, net)


@pytest.mark.parametrize(
    ("factory", "fragments"),
    [
        (None, ["is a state_dict", "--model package.module:function"]),
        ("tests.load.user_models", ["write it as package.module:function"]),
        (":make_net", ["write it as package.module:function"]),
        ("no_such_module:make", ["no module 'no_such_module'", "install it"]),
        ("tests.load.no_such:make", ["no module 'tests.load.no_such'"]),
        (f"{HERE}:make_nut", ["has no 'make_nut'", "make_net"]),
        (f"{HERE}:not_a_function", ["is a int", "must be a function"]),
        (f"{HERE}:make_with_argument", ["failed: TypeError", "without arguments"]),
        (f"{HERE}:make_nothing", ["returned a str"]),
        (f"{HERE}:make_wide_net", ["does not fit", "conv.weight is (4, 2, 3) in the file, (8, 2, 3) in the model"]),
    ],
)
def test_factories_that_fail(factory, fragments, net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "weights.pt", factory=factory, input_shape=SHAPE)
    message = str(caught.value)
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_factory_whose_import_fails(tmp_path, monkeypatch):
    (tmp_path / "broken_factory.py").write_text("import package_that_is_missing\n")
    (tmp_path / "raising_factory.py").write_text("raise RuntimeError('no licence')\n")
    (tmp_path / "own_factory.py").write_text("from torch import nn\n\ndef make():\n    return nn.Linear(2, 3)\n")
    monkeypatch.chdir(tmp_path)  # factories are found from the working folder
    with pytest.raises(InputError, match="importing broken_factory failed: No module named 'package_that_is_missing'"):
        call_factory("broken_factory:make")
    with pytest.raises(InputError, match="RuntimeError: no licence"):
        call_factory("raising_factory:make")
    assert isinstance(call_factory("own_factory:make"), nn.Linear)


def test_weights_that_do_not_fit(net, tmp_path):
    weights = net.state_dict()
    weights["extra"] = weights.pop("fc.bias")
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"missing in the file: fc\.bias; unknown to the model: extra"):
        load_model(tmp_path / "weights.pt", factory=f"{HERE}:make_net", input_shape=SHAPE)


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [1, 2], torch.ones(3), {"state_dict": {"lr": 0.1}}])
def test_files_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"holds no weights|not a model"):
        load_model(tmp_path / "weights.pt", factory=f"{HERE}:make_net", input_shape=SHAPE)


def test_state_dict_needs_the_input_shape(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="doesn't say what its input looks like; give the data with --data"):
        load_model(tmp_path / "weights.pt", factory=f"{HERE}:make_net")


def test_stretched_tensors(net, tmp_path):
    """A few bytes that claim to be many: the stride is 0."""
    torch.save({**net.state_dict(), "fc.bias": torch.zeros(1).expand(1 << 40)}, tmp_path / "weights.pt")
    with pytest.raises(UntrustedInputError, match=r"fc\.bias claims 4398046511104 bytes, 4 are stored"):
        load_model(tmp_path / "weights.pt", factory=f"{HERE}:make_net", input_shape=SHAPE)


# -- pickled modules ------------------------------------------------------------------------------------------------


@pytest.fixture
def pickled(net, tmp_path):
    path = tmp_path / "whole.pt"
    torch.save(net, path)
    return path


def test_pickled_module_is_refused_with_what_it_needs(pickled):
    with pytest.raises(UntrustedInputError) as caught:
        load_model(pickled, input_shape=SHAPE)
    assert f"it needs {HERE}.Net. Refused" in str(caught.value)
    assert f"--allow-pickle {HERE}.Net" in str(caught.value)
    assert caught.value.exit_code == 7


def test_pickled_module_of_allowed_classes(pickled, net):
    loaded = load_model(pickled, allow_pickle=[f"{HERE}.Net"], input_shape=SHAPE)
    assert loaded.format == "pickle"
    assert_same_outputs(loaded.module, net)


def test_pickled_module_of_torch_only(tmp_path):
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()).eval()
    torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(UntrustedInputError, match=r"--allow-pickle .*torch\.nn\.modules\.container\.Sequential"):
        load_model(tmp_path / "whole.pt", input_shape=SHAPE)
    allowed = ["torch.nn.modules.container.Sequential"]
    assert_same_outputs(load_model(tmp_path / "whole.pt", allow_pickle=allowed, input_shape=SHAPE).module, net)


def test_allowing_another_class_is_not_enough(pickled):
    with pytest.raises(UntrustedInputError, match=rf"needs {HERE}\.Net"):
        load_model(pickled, allow_pickle=["tests.zoo.series.Fcn"], input_shape=SHAPE)


def test_only_layers_can_be_allowed(net, tmp_path):
    net = copy.deepcopy(net)
    net.helper = user_models.NotALayer()
    torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(UntrustedInputError, match="NotALayer, which is not a layer class"):
        load_model(tmp_path / "whole.pt", allow_pickle=[f"{HERE}.Net", f"{HERE}.NotALayer"], input_shape=SHAPE)


def test_functions_cannot_be_allowed(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "evil.pt").write_bytes(forging.pickle_marker(marker))
    for allowed in ((), ("posix.mkdir",)):
        with pytest.raises(UntrustedInputError, match=r"posix\.mkdir"):
            load_model(tmp_path / "evil.pt", allow_pickle=allowed, input_shape=SHAPE)
    assert not marker.exists()


def test_classes_of_the_saving_script(net, tmp_path, monkeypatch):
    monkeypatch.setattr(user_models.Net, "__module__", "__main__")
    monkeypatch.setattr("__main__.Net", user_models.Net, raising=False)
    torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(InputError, match="Net of the script that saved it"):
        load_model(tmp_path / "whole.pt", allow_pickle=["__main__.Net"], input_shape=SHAPE)


# -- ONNX -----------------------------------------------------------------------------------------------------------


def make_onnx(*, shape=("batch", 2, 20), weight=1.0, elem_type=onnx.TensorProto.FLOAT):
    """y = x * weight."""
    node = onnx.helper.make_node("Mul", ["x", "w"], ["y"])
    constant = onnx.numpy_helper.from_array(torch.tensor([weight]).numpy(), "w")
    graph = onnx.helper.make_graph(
        [node],
        "net",
        [onnx.helper.make_tensor_value_info("x", elem_type, shape)],
        [onnx.helper.make_tensor_value_info("y", elem_type, shape)],
        [constant],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])


def test_onnx_file(tmp_path):
    path = tmp_path / "net.pt"  # the name says nothing
    path.write_bytes(make_onnx().SerializeToString())
    loaded = load_model(path)
    assert (loaded.format, loaded.input_shape, loaded.module) == ("onnx", SHAPE, None)
    assert loaded.onnx_bytes == path.read_bytes()


def test_onnx_file_of_open_size(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(make_onnx(shape=("batch", 2, "steps")).SerializeToString())
    assert load_model(path, input_shape=SHAPE).input_shape == SHAPE
    with pytest.raises(InputError, match="leaves its size open"):
        load_model(path)
    with pytest.raises(InputError, match=r"takes samples of shape \(2, '\?'\), the data has \(3, 20\)"):
        load_model(path, input_shape=(3, 20))


def break_external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def break_input_count(model):
    model.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, (1, 2)))


def break_op(model):
    model.graph.node[0].op_type = "NoSuchOp"


def break_values(model):
    model.graph.initializer[0].raw_data = b"\x00"


@pytest.mark.parametrize(
    ("change", "error", "fragment"),
    [
        (break_external, InputError, "keeps its weights in another file"),
        (break_input_count, UnsupportedModelError, "inputs x, z"),
        (break_op, InputError, "not a valid ONNX model"),
        (break_values, InputError, "values of w"),
    ],
)
def test_onnx_files_that_are_refused(change, error, fragment, tmp_path):
    model = make_onnx()
    change(model)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(error) as caught:
        load_model(tmp_path / "net.onnx")
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_onnx_weights_must_be_finite(tmp_path):
    (tmp_path / "net.onnx").write_bytes(make_onnx(weight=float("nan")).SerializeToString())
    with pytest.raises(InputError, match="w holds NaN"):
        load_model(tmp_path / "net.onnx")


# -- our own archive ------------------------------------------------------------------------------------------------


def test_what_is_saved_beside_the_weights(net, tmp_path):
    info = ModelInfo(Normalization("per_channel", (0.5, 1.0), (2.0, 3.0)), ("no", "ja é"), "lite", {"filters": 16})
    save_model(
        net,
        SAMPLES,
        tmp_path / "net.pt",
        normalization=info.normalization,
        class_names=list(info.class_names),
        architecture=info.architecture,
        architecture_options=info.architecture_options,
    )
    loaded = load_model(tmp_path / "net.pt", input_shape=SHAPE)
    assert loaded.info == info
    assert_same_outputs(loaded.module, net)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "[" * 100_000,
        '{"version": 99}',
        '{"normalization": {"kind": "magic"}}',
        '{"normalization": {"kind": "none", "mean": [1]}}',
        '{"normalization": {"kind": "per_channel", "mean": [1], "std": [0]}}',
        '{"class_names": "abc"}',
        '{"class_names": [1]}',
        '{"architecture": 5}',
        '{"architecture_options": []}',
        '{"frozen": {}}',
    ],
)
def test_malformed_information(text, zoo_archive, tmp_path):
    data = forging.replace_entry(zoo_archive("depthwise_multiplier"), "extra/edgeprune.json", text.encode())
    (tmp_path / "net.pt").write_bytes(data)
    with pytest.raises(InputError, match=r"edgeprune\.json inside of it is malformed"):
        load_model(tmp_path / "net.pt")


def test_unknown_information_is_left_alone(zoo_archive, tmp_path):
    text = json.dumps({"class_names": ["a", "b"], "colour": "green"}).encode()
    data = forging.replace_entry(zoo_archive("depthwise_multiplier"), "extra/edgeprune.json", text)
    (tmp_path / "net.pt").write_bytes(data)
    assert load_model(tmp_path / "net.pt").info == ModelInfo(class_names=("a", "b"))


def test_giant_information(zoo_archive, tmp_path):
    data = forging.replace_entry(zoo_archive("depthwise_multiplier"), "extra/edgeprune.json", b" " * (2 << 20))
    (tmp_path / "net.pt").write_bytes(data)
    with pytest.raises(UntrustedInputError, match=r"edgeprune\.json has 2097152 bytes"):
        load_model(tmp_path / "net.pt")


def test_requires_grad_is_restored_where_an_archive_lost_it(tmp_path):
    net = make_model("depthwise_multiplier")
    net.stem.weight.requires_grad_(False)
    save_model(net, make_batch("depthwise_multiplier", 1), tmp_path / "net.pt")

    def forget(config):
        assert forging.set_everywhere(config["config"]["stem.weight"], "requires_grad", True) == 1

    (tmp_path / "net.pt").write_bytes(forging.edit_json((tmp_path / "net.pt").read_bytes(), forging.WEIGHTS, forget))
    module = load_model(tmp_path / "net.pt").module
    assert [name for name, value in module.named_parameters() if not value.requires_grad] == ["stem.weight"]


def test_sizes_that_the_program_leaves_free(net, tmp_path):
    """A fully convolutional net exported for any length: the data says which."""
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("time", min=8)}
    torch.export.save(torch.export.export(net, (SAMPLES,), dynamic_shapes=(sizes,)), tmp_path / "net.pt2")
    assert load_model(tmp_path / "net.pt2").input_shape == SHAPE  # of the sample it was saved with
    assert load_model(tmp_path / "net.pt2", input_shape=(2, 33)).input_shape == (2, 33)


def test_data_of_another_shape(zoo_archive, tmp_path):
    (tmp_path / "net.pt").write_bytes(zoo_archive("depthwise_multiplier"))
    with pytest.raises(InputError, match=r"takes samples of shape \(2, 48\), the data has \(1, 48\)"):
        load_model(tmp_path / "net.pt", input_shape=(1, 48))
    with pytest.raises(InputError, match=r"samples of 2 axes, the data has 3"):
        load_model(tmp_path / "net.pt", input_shape=(1, 2, 48))
