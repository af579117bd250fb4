"""Graph -> what runs on devices: TFLite files, and the rules that a model must keep for a target.

`write_tflite` and `read_tflite` are inverse to each other on graphs that edgeprune makes. `check_supported` holds a
graph against the rules of a target; `describe_constraints` is the manual's page of them.
"""

from edgeprune.lower.constraints import Violation, check_supported, describe_constraints
from edgeprune.lower.tflite_reader import read_tflite
from edgeprune.lower.tflite_writer import write_tflite

__all__ = ["Violation", "check_supported", "describe_constraints", "read_tflite", "write_tflite"]
