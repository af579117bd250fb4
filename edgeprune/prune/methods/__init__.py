"""The pruning methods: one small class each, in a file of its own beside its paper; names as in `method_table`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.method_table import METHODS as INFOS
from edgeprune.method_table import check_options
from edgeprune.prune.methods.base import Method, MethodResult
from edgeprune.prune.methods.dprp import Dprp
from edgeprune.prune.methods.dsp import Dsp
from edgeprune.prune.methods.filters import L1Pruning, L2Pruning, RandomPruning
from edgeprune.prune.methods.magnitude import Lth, Sap
from edgeprune.prune.methods.slimming import ProxSlimming, Slimming
from edgeprune.prune.methods.static import StaticWidths
from edgeprune.prune.methods.taylor import TaylorPruning

METHODS: Mapping[str, type[Method]] = {
    "dsp": Dsp,
    "l1": L1Pruning,
    "l2": L2Pruning,
    "random": RandomPruning,
    "static": StaticWidths,
    "taylor": TaylorPruning,
    "slimming": Slimming,
    "prox-slimming": ProxSlimming,
    "lth": Lth,
    "sap": Sap,
    "dprp": Dprp,
}


def make_method(name: str, retrain: str | None = None, **options: Any) -> Method:
    """A method by its name in `method_table`; options not given take the table's defaults.

    Raises InputError for an option that the method does not have, or a value that is not allowed.
    """
    make: Any = METHODS[name]  # each a dataclass of its own fields
    return make(retrain=retrain or INFOS[name].retrain[0], **check_options(name, options))


__all__ = ["METHODS", "Method", "MethodResult", "make_method"]
