"""Load: models and datasets, from whatever file they come in."""

from edgeprune.load.data import find_dataset, load_dataset, look_for_dataset
from edgeprune.load.model_factory import call_factory
from edgeprune.load.models import load_model, read_model_file
from edgeprune.load.raising import raise_module, raise_program
from edgeprune.load.saving import save_model
from edgeprune.load.splits import split_train

__all__ = [
    "call_factory",
    "find_dataset",
    "load_dataset",
    "load_model",
    "look_for_dataset",
    "raise_module",
    "raise_program",
    "read_model_file",
    "save_model",
    "split_train",
]
