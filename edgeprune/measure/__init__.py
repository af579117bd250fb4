"""What the program costs: counted (`profile_graph`, `count_macs`), and timed on this machine (`measure_host_latency`).

Every figure names its method; a time of this machine is never given as a microcontroller's.
"""

from edgeprune.measure.host import Latency, measure_host_latency
from edgeprune.measure.static import LayerProfile, Profile, profile_graph
from edgeprune.measure.torch_counts import LayerMacs, MacCounts, ParameterCounts, count_macs, count_parameters
from edgeprune.measure.transport import Transport, measure_transport

__all__ = [
    "Latency",
    "LayerMacs",
    "LayerProfile",
    "MacCounts",
    "ParameterCounts",
    "Profile",
    "Transport",
    "count_macs",
    "count_parameters",
    "measure_host_latency",
    "measure_transport",
    "profile_graph",
]
