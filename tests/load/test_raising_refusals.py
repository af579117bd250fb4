"""What can't be raised is refused with the node, the user's line and the way out."""

import contextlib

import pytest
import torch

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.load import raise_module, raise_program
from edgeprune.load.operators import find_op_problem
from edgeprune.load.tracing import export_module, silence_torch
from tests.load import odd_models
from tests.zoo import make_batch, make_model

SAMPLES = torch.zeros(2, 3, 16)


@pytest.mark.parametrize(
    ("model_class", "fragments"),
    [
        (odd_models.DecidesByValue, ["DecidesByValue", "odd_models.py:", "if x.sum() > 0:", "torch.where"]),
        (odd_models.DictOutput, ["returns a dict", "return a tensor or a tuple"]),
        (odd_models.NestedOutput, ["more than tensors", "flat tuple"]),
        (odd_models.WritesHalf, ["add_", "odd_models.py:", "shares", "read later by mean", "`x = op(x)`"]),
        (odd_models.AssignsChannel, ["fill_", "odd_models.py:", "in place"]),
        (odd_models.CountsCalls, ["'calls'", "outside the model"]),
        (odd_models.NoGradInside, ["switches gradients off", "requires_grad = False"]),
        (odd_models.Conditional, ["cond", "control flow"]),
        (odd_models.AddsNoise, ["randn_like", "odd_models.py:", "random numbers"]),
        (odd_models.MixesSamples, ["changes with the other samples"]),
        (odd_models.RunsOverBatch, ["changes with the other samples"]),
        (odd_models.InstanceStatistics, ["InstanceNorm with running statistics", "track_running_stats=False"]),
        (odd_models.KeywordName, ["'class'", "Python keyword", "rename"]),
        (odd_models.LeavesTorch, ["LeavesTorch can't be exported", "numpy"]),
    ],
)
def test_refused_with_reason_and_place(model_class, fragments):
    with pytest.raises(UnsupportedModelError) as caught:
        raise_module(model_class().eval(), SAMPLES, compare_training=False)
    message = str(caught.value)
    assert [fragment for fragment in fragments if fragment not in message] == [], message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("model_class", "shape", "fragment"),
    [
        (odd_models.Classifier, (2, 5, 16), "fails on samples of shape (5, 16)"),
        (odd_models.TwoInputs, (2, 3, 16), "forward() takes one input"),
        (odd_models.Classifier, (16,), "the example has shape (16,)"),
        (odd_models.Classifier, (0, 3, 16), "at least one sample"),
    ],
)
def test_examples_that_do_not_fit(model_class, shape, fragment):
    with pytest.raises(InputError) as caught:
        raise_module(model_class(), torch.zeros(shape))
    assert fragment in str(caught.value)


def test_several_inputs_in_an_archive():
    program = torch.export.export(odd_models.TwoInputs(), (SAMPLES, SAMPLES))
    with pytest.raises(UnsupportedModelError, match=r"inputs \(x, y\); it must take one tensor"):
        raise_program(program)


def test_integer_inputs():
    program = torch.export.export(torch.nn.Embedding(4, 3), (torch.zeros(2, 5, dtype=torch.int64),))
    with pytest.raises(UnsupportedModelError, match="must be float"):
        raise_program(program)


def test_ops_of_other_libraries():
    library = torch.library.Library("edgeprune_tests", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")

    class Custom(odd_models.Classifier):
        def middle(self, x):
            return torch.ops.edgeprune_tests.twice(x)

    with pytest.raises(UnsupportedModelError, match=r"twice.* comes from edgeprune_tests, not from PyTorch"):
        raise_module(Custom(), SAMPLES)


@pytest.mark.parametrize("name", ["fcn", "depthwise_multiplier"])
@pytest.mark.parametrize("table", [None, {}], ids=["core aten", "inference"])
def test_decomposed_programs(name, table, zoo_program):
    program = zoo_program(name)[1]
    with silence_torch():
        decomposed = program.run_decompositions(table)
    with pytest.raises(UnsupportedModelError, match=r"decomposed.*without run_decompositions\(\)"):
        raise_program(decomposed)


def test_batch_sizes_that_cannot_be_freed():
    class Folded(odd_models.Classifier):
        def middle(self, x):
            return x.permute(1, 0, 2).reshape(4, 32).view(4, 2, 16).permute(1, 0, 2)

    with pytest.raises(UnsupportedModelError, match="only with the batch size it was exported with"):
        raise_module(Folded(), SAMPLES)


def test_nothing_is_printed(capfd):
    for model_class in (odd_models.DecidesByValue, odd_models.FixedBatch):
        with contextlib.suppress(UnsupportedModelError):
            export_module(model_class(), SAMPLES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("op", "problem"),
    [
        ("aten.save.default", "string argument filename"),
        ("aten.from_file.default", "string argument filename"),
        ("aten.item.default", "would depend on values"),
        ("aten._unsafe_index.Tensor", "internal"),
        ("aten.rand.default", "is not a function of tensors"),
        ("aten.bernoulli.default", "random numbers"),
        ("quantized.linear.default", "comes from quantized"),
    ],
)
def test_ops_that_no_program_may_hold(op, problem):
    namespace, name, overload = op.split(".")
    target = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    assert problem in find_op_problem(target)


def test_wrong_layout_names_the_shape():
    with pytest.raises(InputError, match=r"Fcn fails on samples of shape \(96, 1\)"):
        raise_module(make_model("fcn"), make_batch("fcn", 2).transpose(1, 2))
