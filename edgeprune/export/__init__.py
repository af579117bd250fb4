"""PyTorch -> ONNX -> the program (`Graph`). NCHW becomes NHWC here and nowhere else.

`export_onnx` writes the float32 ONNX file, `read_onnx` reads it, or one that somebody else made, as a `Graph`.
"""

from edgeprune.export.onnx_export import export_onnx
from edgeprune.export.onnx_reader import read_onnx

__all__ = ["export_onnx", "read_onnx"]
