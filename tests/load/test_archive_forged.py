"""Crafted archives are refused before torch reads them, and what they carry never runs."""

import contextlib
import io
import json
import zipfile

import pytest
import torch

from edgeprune.errors import InputError, UnsupportedModelError, UntrustedInputError
from edgeprune.load import load_model
from tests.load import archive_forging as forging
from tests.load.archive_forging import CONSTANTS, PROGRAM, SAMPLES, WEIGHTS, get_nodes, set_everywhere

NET = "depthwise_multiplier"


@pytest.fixture
def archive(zoo_archive):
    return zoo_archive(NET)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def load_bytes(tmp_path):
    def load(data):
        path = tmp_path / "model.pt"
        path.write_bytes(data)
        return load_model(path)

    return load


def test_the_untouched_archive_loads(archive, load_bytes):
    assert load_bytes(forging.pack(forging.unpack(archive))).format == "torch.export"


# -- the three code-execution archives that torch.export.load falls for ------------------------------------------------


def forge_sample_inputs(archive, marker):
    return forging.replace_entry(archive, SAMPLES, forging.pickle_marker(marker))


def forge_pickled_weight(archive, marker):
    def use_pickle(config):
        next(iter(config["config"].values()))["use_pickle"] = True

    forged = forging.edit_json(archive, WEIGHTS, use_pickle)
    return forging.replace_entry(forged, "data/weights/weight_0", forging.pickle_marker(marker))


def forge_size_expression(archive, marker):
    return forging.edit_json(
        archive, PROGRAM, lambda program: _set(program, "expr_str", f"open({str(marker)!r}, 'w').close()")
    )


def _set(document, field, value):
    assert set_everywhere(document, field, value) > 0


FORGERIES = [forge_sample_inputs, forge_pickled_weight, forge_size_expression]


@pytest.mark.parametrize("forge", FORGERIES)
def test_code_in_an_archive_never_runs(forge, archive, marker, load_bytes):
    with pytest.raises(UntrustedInputError, match=r"run code|could run") as caught:
        load_bytes(forge(archive, marker))
    assert not marker.exists()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("forge", FORGERIES)
def test_the_same_archives_do_run_code_in_torch(forge, archive, marker):
    """Else the tests above would prove nothing. The code is this file's own: it creates an empty file."""
    with contextlib.suppress(Exception):  # torch fails one way or another, after it ran the code
        torch.export.load(io.BytesIO(forge(archive, marker)))
    assert marker.exists()


# -- other ways in ----------------------------------------------------------------------------------------------------


def set_target(target):
    def edit(program):
        get_nodes(program)[0]["target"] = target

    return edit


def rename_nodes(name):
    def edit(program):
        old = get_nodes(program)[-1]["name"]
        return json.loads(json.dumps(program).replace(json.dumps(old), json.dumps(name)))

    return edit


def set_signature(field, value):
    def edit(program):
        for entry in program["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"][field] = value

    return edit


def add_string_argument(program):
    get_nodes(program)[0]["inputs"].append({"name": "x", "arg": {"as_operator": "torch.os.getcwd"}, "kind": 1})


IMPORTING_SPEC = json.dumps(
    [
        1,
        {
            "type": "builtins.dict",
            "context": json.dumps({"__enum__": True, "fqn": "this:Zen", "name": "a"}),
            "children_spec": [],
        },
    ]
)


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (set_target("torch.os.getcwd"), "'target' holds 'torch.os.getcwd'"),
        (set_target("torch.ops.aten.save.default"), "aten.save.default takes the string argument filename"),
        (set_target("torch.ops.aten.from_file.default"), "filename"),
        (set_target("torch._C._jit_set_profiling_mode"), "'target'"),
        (set_target("_operator.call"), "'_operator.call'"),
        (set_target("math.factorial"), "'math.factorial'"),
        (set_target(7), "'target'"),
        (rename_nodes("a = 1\nopen('x', 'w')\nb"), "'name' holds"),
        (rename_nodes("a;b"), "'a;b'"),
        (set_signature("forward_arg_names", ["x=open('x', 'w')"]), "forward_arg_names"),
        (set_signature("out_spec", IMPORTING_SPEC), "out_spec"),
        (set_signature("in_spec", "[1, " + "[" * 9000 + "]" * 9000 + "]"), "in_spec"),
        (add_string_argument, "as_operator"),
        (lambda program: _set(program, "parameter_name", 'fc" or open("x") or "'), "parameter_name"),
        (lambda program: _set(program, "expr_str", "9**9**9**9"), "expr_str"),
        (lambda program: _set(program, "expr_str", "Symbol('s0').__class__"), "expr_str"),
        (
            lambda program: program["range_constraints"].update({"u999999999": {"min_val": 0, "max_val": 1}}),
            "u99999999",
        ),
        (lambda program: program["range_constraints"].update({"open('x')": {}}), "range_constraints"),
        (lambda program: program.update(verifiers=["os.system"]), "verifiers"),
        (lambda program: program.update(extra="text"), "'extra'"),
    ],
)
def test_forged_programs(edit, fragment, archive, load_bytes):
    with pytest.raises(UntrustedInputError) as caught:
        load_bytes(forging.edit_json(archive, PROGRAM, edit))
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_guards_are_dropped_and_never_run(archive, marker, load_bytes):
    """`ep.module()` would exec these."""
    guard = f"open({str(marker)!r}, 'w') or True"
    module = load_bytes(forging.edit_json(archive, PROGRAM, lambda program: program.update(guards_code=[guard]))).module
    module(torch.zeros(2, 2, 48))
    assert not marker.exists()


def test_metadata_cannot_break_out_of_a_comment(archive, marker, load_bytes):
    def edit(program):
        for node in get_nodes(program):
            code = f'x\ropen({str(marker)!r}, "w")'
            node["metadata"] = {"stack_trace": f'  File "a.py", line 1, in f\n    {code}', "nn_module_stack": "a,b"}

    load_bytes(forging.edit_json(archive, PROGRAM, edit)).module(torch.zeros(2, 2, 48))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("data/aotinductor/model/model.so", b"\x7fELF", "not part of an exported program"),
        ("data/constants/custom_obj_0", b"", "custom_obj_0 is a pickle"),
        ("data/weights/model.pt", b"", "model.pt is a pickle"),
        ("notes.txt", b"", "not part of an exported program"),
    ],
)
def test_unexpected_entries(name, content, fragment, archive, load_bytes):
    with pytest.raises(UntrustedInputError, match=r"Refused|Save") as caught:
        load_bytes(forging.replace_entry(archive, name, content))
    assert fragment in str(caught.value)


def test_pickle_in_constants(archive, marker, load_bytes):
    entries = forging.unpack(archive)
    payload = {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    entries[CONSTANTS] = json.dumps({"config": {"c": payload}}).encode()
    entries["data/constants/tensor_0"] = forging.pickle_marker(marker)
    with pytest.raises(UntrustedInputError, match="c is stored as a pickle"):
        load_bytes(forging.pack(entries))
    assert not marker.exists()


def edit_first_weight(**changes):
    def edit(config):
        next(iter(config["config"].values()))["tensor_meta"].update(changes)

    return edit


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (edit_first_weight(sizes=[{"as_int": 1 << 40}], strides=[{"as_int": 1}]), "bytes, 320 are stored"),
        (edit_first_weight(sizes=[{"as_int": 1 << 40}], strides=[{"as_int": 0}]), "bytes, 320 are stored"),
        (edit_first_weight(sizes=[{"as_int": -1}] * 3), "a shape that no tensor has"),
        (lambda config: _set(config, "path_name", "../../secret"), "'../../secret'"),
    ],
)
def test_weights_beyond_what_is_stored(edit, fragment, archive, load_bytes):
    with pytest.raises(UntrustedInputError) as caught:
        load_bytes(forging.edit_json(archive, WEIGHTS, edit))
    assert fragment in str(caught.value)


def test_weights_with_empty_records(archive, load_bytes):
    """torch would make zeros of whatever size is claimed."""
    with pytest.raises(UntrustedInputError, match="claims 320 bytes, 0 are stored"):
        load_bytes(forging.replace_entry(archive, "data/weights/weight_0", b""))


# -- honest archives that edgeprune can't take ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (set_target("torch.ops.mylib.twice.default"), "mylib.twice"),
        (set_target("torch.ops.quantized_decomposed.quantize_per_tensor.default"), "before it was quantized"),
        (set_target("torch.ops.higher_order.cond"), "control flow"),
        (set_target("torch.ops.aten.op_of_the_future.default"), "unknown to the installed PyTorch"),
        (lambda program: _set(program, "device", {"type": "cuda", "index": 0}), "model.cpu()"),
        (
            lambda program: program["graph_module"].update(treespec_namedtuple_fields={"a.B": {"field_names": ["x"]}}),
            "named tuple",
        ),
    ],
)
def test_unsupported_programs(edit, fragment, archive, load_bytes):
    with pytest.raises(UnsupportedModelError) as caught:
        load_bytes(forging.edit_json(archive, PROGRAM, edit))
    assert fragment in str(caught.value)


def test_several_programs_in_one_archive(archive, load_bytes):
    with pytest.raises(UnsupportedModelError, match="programs 'model, other'"):
        load_bytes(forging.replace_entry(archive, "models/other.json", b"{}"))


def test_extra_files_of_others_are_fine(archive, load_bytes):
    assert load_bytes(forging.replace_entry(archive, "extra/readme.txt", b"hello")).notes == ()


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda entries: entries.pop(PROGRAM), "models/model.json is missing"),
        (lambda entries: entries.pop(WEIGHTS), "model_weights_config.json is missing"),
        (lambda entries: entries.pop("data/weights/weight_0"), "are missing"),
        (lambda entries: entries.update({PROGRAM: b"{"}), "is not JSON"),
        (lambda entries: entries.update({PROGRAM: b"[]"}), "not a program"),
        (lambda entries: entries.update({PROGRAM: b'{"graph_module": {}}'}), "not a program"),
        (lambda entries: entries.update({WEIGHTS: b"{}"}), "table of its tensors"),
        (
            lambda entries: entries.update({SAMPLES: entries[SAMPLES][:-30]}),
            "sample inputs can't be read",
        ),
    ],
)
def test_damaged_programs(change, fragment, archive, load_bytes):
    entries = forging.unpack(archive)
    change(entries)
    with pytest.raises(InputError) as caught:
        load_bytes(forging.pack(entries))
    assert fragment in str(caught.value)


def test_deep_json(archive, load_bytes):
    with pytest.raises(UntrustedInputError, match="nested too deeply"):
        load_bytes(forging.replace_entry(archive, PROGRAM, b"[" * 200_000 + b"]" * 200_000))


# -- the zip itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("../../etc/passwd", "leads out of the archive"),
        ("/etc/passwd", "leads out of the archive"),
        ("archive/..", "leads out of the archive"),
        ("archive\\evil", "leads out of the archive"),
        ("C:/evil", "leads out of the archive"),
        ("archive//evil", "leads out of the archive"),
        ("archive/a\nb", "leads out of the archive"),
        ("archive/" + "x" * 600, "overlong name"),
        ("other/readme", "outside of its one folder"),
        ("archive/models/model.json", "twice"),
    ],
)
def test_entry_names(name, fragment, archive, load_bytes):
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as zipped:
        root = zipped.namelist()[0].partition("/")[0]
        if name == "archive/models/model.json":
            with pytest.warns(UserWarning, match="Duplicate name"):
                zipped.writestr(name.replace("archive", root), b"{}")
        else:
            zipped.writestr(name.replace("archive", root), b"{}")
    with pytest.raises(UntrustedInputError) as caught:
        load_bytes(buffer.getvalue())
    assert fragment in str(caught.value)


def test_compressed_bomb(archive, load_bytes):
    entries = {**forging.unpack(archive), "data/weights/weight_0": bytes(50 << 20)}
    bomb = forging.pack(entries, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    with pytest.raises(UntrustedInputError, match="is compressed"):
        load_bytes(bomb)


def test_giant_declared_sizes(archive, load_bytes):
    with pytest.raises(UntrustedInputError, match=r"is compressed|claims \d+ bytes"):
        load_bytes(forging.claim_size(forging.pack(forging.unpack(archive)), 0xFFFFFF00))


def test_encrypted_entries(archive, load_bytes):
    data = bytearray(forging.pack(forging.unpack(archive)))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UntrustedInputError, match="is encrypted"):
        load_bytes(bytes(data))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_archives(share, archive, load_bytes):
    with pytest.raises(InputError, match="truncated") as caught:
        load_bytes(archive[: int(len(archive) * share)])
    assert "model.pt" in str(caught.value)


def test_flipped_bits_never_escape_as_another_error(archive, load_bytes):
    """A damaged archive ends with one of our errors, or (in a weight's own bytes: the checksum says so) not at all."""
    generator = torch.Generator().manual_seed(0)
    for position in torch.randint(len(archive), (40,), generator=generator).tolist():
        data = bytearray(archive)
        data[position] ^= 0x41
        with contextlib.suppress(InputError, UntrustedInputError, UnsupportedModelError):
            load_bytes(bytes(data))
