"""Graph -> what runs on devices: TFLite files, and the rules that a model must keep for a target.

`write_tflite` and `read_tflite` are inverse to each other on graphs that edgeprune makes. `check_supported` holds a
graph against the rules of a target; `describe_constraints` is the manual's page of them. `CONVERTERS` are the ways from
the float graph to an int8 file: ours, and TensorFlow's where it is installed.
"""

from edgeprune.lower.constraints import Violation, check_supported, describe_constraints
from edgeprune.lower.converters import CONVERTERS
from edgeprune.lower.legalize import legalize
from edgeprune.lower.tflite_reader import read_tflite
from edgeprune.lower.tflite_writer import write_tflite

__all__ = [
    "CONVERTERS",
    "Violation",
    "check_supported",
    "describe_constraints",
    "legalize",
    "read_tflite",
    "write_tflite",
]
