"""What each op of `ops.py` means, in numpy: float32, and int8 exactly as TensorFlow Lite Micro computes it. The oracle.

    call.py          one op with its operands in hand; quantization helpers; what is refused, and in which words
    values.py        float32 <-> int8
    layers.py        conv_2d, depthwise_conv_2d, fully_connected
    pooling.py       max_pool_2d, average_pool_2d, mean
    elementwise.py   add, sub, mul, prelu
    activations.py   relu to hard_swish: functions of one variable, tables of 256 entries in int8; softmax
    movement.py      concat, pad, reshape, transpose, strided_slice
    run.py           run_graph, run_op

Everything is vectorised over the batch, axis 0, which a Graph declares as 1.
"""

from edgeprune.reference.run import run_graph, run_joined, run_op
from edgeprune.reference.values import dequantize_values, quantize_values

__all__ = ["dequantize_values", "quantize_values", "run_graph", "run_joined", "run_op"]
