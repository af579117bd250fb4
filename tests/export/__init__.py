"""Tests of PyTorch -> ONNX -> program."""
