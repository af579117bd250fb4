"""Load: models and datasets, from whatever file they come in."""

from edgeprune.load.data import find_dataset, load_dataset
from edgeprune.load.raising import raise_module, raise_program
from edgeprune.load.splits import split_train

__all__ = ["find_dataset", "load_dataset", "raise_module", "raise_program", "split_train"]
