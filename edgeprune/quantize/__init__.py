"""Float program -> int8 program: observers, calibration, scales, and the same scales as QDQ ONNX.

`calibrate` notes what every tensor holds, `quantize_graph` turns that into the int8 `Graph` from which TFLite, QDQ ONNX
and C are all written. `measure_sqnr` says what it cost, layer by layer.
"""

from edgeprune.quantize.calibration import calibrate
from edgeprune.quantize.observers import OBSERVERS
from edgeprune.quantize.quantizer import quantize_graph

__all__ = ["OBSERVERS", "calibrate", "quantize_graph"]
