"""One op with its operands in hand, and what the kernels share: quantization, activation ranges, refusals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.errors import EdgepruneError, UnsupportedModelError
from edgeprune.fixedpoint import round_half_away
from edgeprune.graph import GraphError, Op, Quant, Tensor
from edgeprune.ops import AttributeValue

FLOAT_ACTIVATION_RANGES = {
    "none": (-np.inf, np.inf),
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class Call:
    """An op, the declared tensors it reads and writes, and the values it reads (activations: any number of samples)."""

    op: Op
    inputs: tuple[Tensor, ...]
    output: Tensor
    values: tuple[np.ndarray, ...]

    def __getitem__(self, attribute: str) -> AttributeValue:
        return self.op.attrs[attribute]

    @property
    def where(self) -> str:
        """How messages name the op."""
        return f"{self.op.name} ({self.op.kind})"

    @property
    def x(self) -> np.ndarray:
        """The first operand's values."""
        return self.values[0]

    def fault(self, message: str) -> GraphError:
        """The graph breaks a rule: a fault of the pass that made it."""
        return GraphError(f"{self.where}: {message}")

    def unsupported(self, message: str) -> EdgepruneError:
        """The graph is sound, but asks for something that is not supported."""
        return UnsupportedModelError(f"{self.where}: {message}")

    def scale(self, tensor: Tensor) -> np.float32:
        """The per-tensor scale."""
        return self._per_tensor(tensor)[0]

    def zero_point(self, tensor: Tensor) -> int:
        """The per-tensor zero point."""
        return int(self._per_tensor(tensor)[1])

    def quant(self, tensor: Tensor) -> Quant:
        """The tensor's quantization, which must be there."""
        if tensor.quant is None:
            raise self.fault(f"{tensor.name} is {tensor.dtype} without quantization; give the tensor a `quant`")
        return tensor.quant

    def _per_tensor(self, tensor: Tensor) -> tuple[np.float32, np.int32]:
        quant = self.quant(tensor)
        if quant.axis is not None:
            raise self.unsupported(
                f"{tensor.name} is quantized per channel; only weights of convolutions may be. Use one scale"
            )
        return quant.scale[0], quant.zero_point[0]

    def require_same_quantization(self, *tensors: Tensor) -> None:
        """Raise unless each tensor has the output's scale and zero point: the kernel copies stored values."""
        wanted = self._per_tensor(self.output)
        for tensor in tensors:
            found = self._per_tensor(tensor)
            if found != wanted:
                raise self.fault(
                    f"{tensor.name} has scale {found[0]:.9g}, zero point {found[1]}; the output {self.output.name} has "
                    f"{wanted[0]:.9g}, {wanted[1]}. They must be equal: this op copies stored values"
                )

    def require_output(self, scale: float, zero_point: int) -> None:
        """Raise unless the output has the quantization that TFLite's kernel has built in."""
        found = self._per_tensor(self.output)
        if found != (np.float32(scale), zero_point):
            raise self.fault(
                f"{self.output.name} has scale {found[0]:.9g}, zero point {found[1]}; "
                f"the kernel writes scale {scale:.9g}, zero point {zero_point}"
            )

    def activation(self) -> str:
        """The fused activation's name."""
        name = self["activation"]
        if name not in FLOAT_ACTIVATION_RANGES:
            raise self.fault(f"activation is {name!r}; allowed: {', '.join(FLOAT_ACTIVATION_RANGES)}")
        return str(name)

    def clamp_float(self, values: np.ndarray) -> np.ndarray:
        """Apply the fused activation to float32 values."""
        low, high = FLOAT_ACTIVATION_RANGES[self.activation()]
        if (low, high) == (-np.inf, np.inf):
            return values
        return np.clip(values, np.float32(low), np.float32(high))

    def clamp_int8(self, values: np.ndarray) -> np.ndarray:
        """Apply the fused activation to stored values of the output's scale, and narrow them to int8."""
        low, high = self.stored_range(self.activation())
        return np.clip(values, low, high).astype(np.int8)

    def stored_range(self, activation: str) -> tuple[int, int]:
        """The stored int8 values that the activation lets through (CalculateActivationRangeQuantized)."""
        scale, zero_point = self._per_tensor(self.output)
        bounds = np.array(FLOAT_ACTIVATION_RANGES[activation], np.float32)
        # bounds / scale beyond int32 would overflow in C++; clipped far outside int8, it is the bound that is meant
        steps = round_half_away(np.clip(bounds / scale, -1e6, 1e6)) + zero_point
        low, high = np.clip(steps, -128, 127)
        return int(low), int(high)
