"""Tests of `edgeprune.quantize`: observers, scales, the int8 program, QDQ ONNX."""
