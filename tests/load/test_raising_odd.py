"""Raising of single oddities: what is kept, what is noted."""

import copy

import pytest
import torch
from torch import nn
from torch.export import Dim

from edgeprune.load import raise_module, raise_program
from tests.load import odd_models
from tests.load.helpers import assert_trains_alike, flatten, list_nodes

SAMPLES = torch.randn(3, 3, 16, generator=torch.Generator().manual_seed(5))
SHORT_SAMPLES = SAMPLES[:, :, :4].contiguous()  # torch.export takes 0.1 s per step of a recurrent layer
RECURRENT = (odd_models.GivenState, odd_models.LearnedState)


def raise_odd(model_class, **options):
    torch.manual_seed(3)
    model = model_class().eval()
    return model, raise_module(model, SHORT_SAMPLES if model_class in RECURRENT else SAMPLES, **options)


@pytest.mark.parametrize(
    "model_class",
    [
        odd_models.ExoticLayers,
        odd_models.TiedWeights,
        odd_models.WeightInBuffer,
        odd_models.OwnLayerClass,
        odd_models.OddNames,
        odd_models.ConstantInCode,
        odd_models.StopsGradient,
        odd_models.DropoutTwice,
        odd_models.GivenState,
        odd_models.LearnedState,
        odd_models.WritesThroughView,
        odd_models.WritesInput,
    ],
)
def test_equal_to_the_bit_and_again_after_raising_again(model_class):
    model, raised = raise_odd(model_class, compare_training=False)
    samples = SHORT_SAMPLES if model_class in RECURRENT else SAMPLES
    assert torch.equal(flatten(model(samples.clone())), flatten(raised(samples.clone())))
    # a layer inside of a layer is renamed; a buffer used as weight becomes a frozen parameter
    if model_class not in (odd_models.OwnLayerClass, odd_models.WeightInBuffer):
        assert_trains_alike(model, raised, samples)
    again = raise_module(raised, samples, compare_training=False)
    assert list_nodes(raised) == list_nodes(again)
    assert torch.equal(flatten(raised(samples.clone())), flatten(again(samples.clone())))


def test_momentum_none_survives_and_is_noted_where_it_is_lost():
    _, raised = raise_odd(odd_models.ExoticLayers)
    assert raised.cumulative.momentum is None
    assert raised.plain.momentum == 0.1
    assert [note for note in raised.meta["raise_notes"] if "momentum" in note] == []
    lost = raise_program(torch.export.export(nn.Sequential(nn.BatchNorm1d(3, momentum=0.0)).eval(), (SAMPLES,)))
    assert lost.meta["raise_notes"] == (
        "0: its momentum is lost by torch.export; None (cumulative average) is assumed",
    )


def test_tied_weights_stay_one_parameter():
    _, raised = raise_odd(odd_models.TiedWeights, compare_training=False)
    assert raised.conv.weight is raised.dilated.weight
    assert raised.dilated.dilation == (2,)


def test_filters_in_a_buffer_become_a_frozen_layer():
    _, raised = raise_odd(odd_models.WeightInBuffer, compare_training=False)
    assert isinstance(raised.filters, nn.Conv1d)
    assert not raised.filters.weight.requires_grad


def test_dropout_of_every_kind_follows_the_mode():
    _, raised = raise_odd(odd_models.DropoutTwice)
    kinds = [type(raised.get_submodule(node.target)) for node in raised.graph.nodes if node.op == "call_module"]
    assert kinds == [nn.Conv1d, nn.Dropout, nn.Dropout, nn.Dropout, nn.AlphaDropout, nn.Linear]
    assert raised.meta["raise_notes"] == ()


@pytest.mark.parametrize(
    ("model_class", "note"),
    [
        (
            odd_models.TrainBranch,
            "forward() does something else in train mode, from mul (aten.mul.Tensor) at odd_models.py",
        ),
        (odd_models.FrozenNorm, "BatchNorm kept in eval mode by the model's train(), but trained here: norm"),
        (odd_models.UnusedLayer, "not used by forward() in eval mode, dropped: aux.weight, aux.bias"),
        (odd_models.LearnedState, "its initial state is not zero"),
        (odd_models.DropoutAlways, "dropout is active in eval mode too"),
    ],
)
def test_what_is_not_kept_is_noted(model_class, note):
    _, raised = raise_odd(model_class)
    assert note in "\n".join(raised.meta["raise_notes"])
    assert "/" not in "".join(raised.meta["raise_notes"])  # notes go into reports: no path of this machine


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_fixed_batch_sizes_become_free(batch):
    """In the user's code, or by an export without dynamic shapes."""
    model = odd_models.FixedBatch().eval()
    expected = odd_models.Classifier.forward(odd_models.Classifier.eval(copy.deepcopy(model)), SAMPLES[:2])
    raised = raise_module(model, SAMPLES)
    assert torch.allclose(raised(SAMPLES)[:2], expected)

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 3, 1))
            self.fc = nn.Linear(51, 2)

        def forward(self, x):
            x = torch.cat([self.token.expand(x.size(0), -1, -1), x], -1)
            return self.fc(x.view(x.size(0), -1))

    flat = Flat().eval()
    static = torch.export.export(flat, (SAMPLES[:1].repeat(batch, 1, 1),))
    assert torch.equal(raise_program(static)(SAMPLES), flat(SAMPLES))


@pytest.mark.parametrize("dim", [Dim("n"), Dim("n", min=1, max=64), Dim.AUTO, Dim.DYNAMIC])
def test_every_way_of_a_dynamic_batch(dim):
    model = odd_models.Classifier().eval()
    program = torch.export.export(model, (SAMPLES[:2],), dynamic_shapes=({0: dim},))
    assert torch.equal(raise_program(program)(SAMPLES), model(SAMPLES))


def test_train_mode_archives_are_raised_too():
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.ReLU(inplace=True))
    program = torch.export.export(model.train(), (SAMPLES,), dynamic_shapes=({0: Dim.AUTO},))
    raised = raise_program(program)
    model.eval()
    assert torch.equal(raised(SAMPLES), model(SAMPLES))
    assert_trains_alike(model, raised, SAMPLES)


def test_modes_of_the_users_module_stay_as_they_were():
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU())
    model.train()
    model[1].eval()
    raise_module(model, SAMPLES)
    assert [module.training for module in model.modules()] == [True, True, False, True]
