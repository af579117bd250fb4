"""Programs exported once per session: torch.export takes 0.3 to 3 seconds each."""

import io
import warnings
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import fx, nn
from torch.export import ExportedProgram

from edgeprune.load import raise_program
from edgeprune.load.tracing import export_module
from tests.zoo import make_batch, make_model


@cache
def export_zoo_net(name: str) -> tuple[nn.Module, ExportedProgram]:
    """A net of the zoo and its program; treat both as read-only."""
    model = make_model(name)
    return model, export_module(model, make_batch(name, 2))


@cache
def raise_zoo_net(name: str) -> fx.GraphModule:
    """A net of the zoo, raised; treat it as read-only."""
    return raise_program(export_zoo_net(name)[1])


@cache
def save_zoo_archive(name: str) -> bytes:
    """What torch.export.save writes for a net of the zoo, as users call it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its treespecs
        torch.export.save(export_zoo_net(name)[1], buffer)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def zoo_program() -> Callable[[str], tuple[nn.Module, ExportedProgram]]:
    return export_zoo_net


@pytest.fixture(scope="session")
def zoo_raised() -> Callable[[str], fx.GraphModule]:
    return raise_zoo_net


@pytest.fixture(scope="session")
def zoo_archive() -> Callable[[str], bytes]:
    return save_zoo_archive
