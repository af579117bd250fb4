"""low_rank: layers as U S V^T whose ranks fall while they train (DPRP, 10.1109/ACCESS.2025.3533419).

`factor_layers` replaces convolutions and linear layers by their factors, `DprpHook` trains these with the paper's
losses and cuts ranks after each epoch, `deploy_factors` puts plain layers back: two thin ones where that takes fewer
multiplications, one dense one elsewhere. In the order of reading: `factors`, `ranks`, `losses`, `costs`, `deploy`,
`hook`.
"""

from edgeprune.prune.low_rank.costs import NetCosts, count_form, count_parameters, describe_deployment, measure_costs
from edgeprune.prune.low_rank.deploy import FORMS, choose_by_macs, deploy_factors
from edgeprune.prune.low_rank.factors import Factored, explain_dense_layers, factor_layers, get_factored
from edgeprune.prune.low_rank.hook import DprpHook

__all__ = [
    "FORMS",
    "DprpHook",
    "Factored",
    "NetCosts",
    "choose_by_macs",
    "count_form",
    "count_parameters",
    "deploy_factors",
    "describe_deployment",
    "explain_dense_layers",
    "factor_layers",
    "get_factored",
    "measure_costs",
]
