"""Graph -> what runs on devices: TFLite files, and the rules that a model must keep for a target.

`write_tflite` and `read_tflite` are inverse to each other on graphs that edgeprune makes. `check_supported` holds a
graph against the rules of a target; `describe_constraints` is the manual's page of them. `CONVERTERS` are the ways from
the float graph to an int8 file: ours, and TensorFlow's where it is installed. `read_int8_program` takes in a full-int8
file that others made, and checks it to the last scale.
"""

from edgeprune.lower.constraints import Violation, check_supported, describe_constraints
from edgeprune.lower.converters import CONVERTERS
from edgeprune.lower.int8_program import Int8Program, read_int8_program
from edgeprune.lower.legalize import legalize
from edgeprune.lower.tflite_reader import read_tflite
from edgeprune.lower.tflite_writer import write_tflite

__all__ = [
    "CONVERTERS",
    "Int8Program",
    "Violation",
    "check_supported",
    "describe_constraints",
    "legalize",
    "read_int8_program",
    "read_tflite",
    "write_tflite",
]
