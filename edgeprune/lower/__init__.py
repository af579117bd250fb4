"""Graph -> what runs on devices: TFLite files, and the rules that a model must keep for a target.

`write_tflite` and `read_tflite` are inverse to each other on graphs that edgeprune makes.
"""

from edgeprune.lower.tflite_reader import read_tflite
from edgeprune.lower.tflite_writer import write_tflite

__all__ = ["read_tflite", "write_tflite"]
