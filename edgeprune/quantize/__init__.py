"""Float program -> int8 program: observers, calibration, scales, and the same scales as QDQ ONNX.

`calibrate` notes what every tensor holds, `quantize_graph` turns that into the int8 `Graph` from which TFLite, QDQ ONNX
and C are all written. `measure_sqnr` says what it cost, layer by layer.
"""

from edgeprune.quantize.calibration import calibrate
from edgeprune.quantize.observers import OBSERVERS
from edgeprune.quantize.qdq_onnx import write_qdq_onnx, write_qdq_op
from edgeprune.quantize.quantizer import quantize_graph
from edgeprune.quantize.sqnr import LayerNoise, measure_sqnr

__all__ = [
    "OBSERVERS",
    "LayerNoise",
    "calibrate",
    "measure_sqnr",
    "quantize_graph",
    "write_qdq_onnx",
    "write_qdq_op",
]
