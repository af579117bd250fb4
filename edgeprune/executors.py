"""What runs a program: our numpy reference, LiteRT, TFLite Micro, ONNX Runtime, behind one method.

An executor takes a batch for each input of its program, (N, ...) in the tensor's own dtype, and gives a batch for
each output. The TFLite interpreters are fed sample by sample: every model is written with a batch of 1, that is what a
device runs, and LiteRT's optimized kernels may take another path for a bigger one. It costs nothing that matters: of
six MLPerf Tiny and time series nets on LiteRT, looping took 0.4 to 1.9 times the time of one resized batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeprune.errors import EdgepruneError, InputError, MeasurementUnavailableError, UnsupportedModelError
from edgeprune.graph import DTYPES, Graph, Quant
from edgeprune.native_log import NativeLog, capture_native_log
from edgeprune.reference import dequantize_values, quantize_values, run_graph

try:
    from tflite_micro.python.tflite_micro import runtime as _micro
except ImportError:
    _micro = None

MICRO_AVAILABLE = _micro is not None
MICRO_INSTALL = "pip install --pre tflite-micro"

LITERT_KERNELS = ("reference", "builtin", "xnnpack")


class Executor(ABC):
    """Runs one program.

    name: for reports.
    input_quant, output_quant: of each input and output; None where it is not quantized.
    """

    name: str
    input_quant: tuple[Quant | None, ...] = (None,)
    output_quant: tuple[Quant | None, ...] = (None,)

    @abstractmethod
    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Outputs (N, ...) for inputs (N, ...), one array each, in the program's order and dtypes.

        Raises InputError if the inputs are not what the program takes.
        """


def run_on_floats(executor: Executor, samples: np.ndarray) -> tuple[np.ndarray, ...]:
    """Real-valued outputs for real-valued samples (N, ...), whatever the program's own type is.

    samples: float32 in the executor's layout (ONNX: PyTorch's, all others: NHWC).
    """
    quant = executor.input_quant[0]
    outputs = executor.run(samples if quant is None else quantize_values(samples, quant))
    return tuple(
        output if quant is None else dequantize_values(output, quant)
        for output, quant in zip(outputs, executor.output_quant, strict=True)
    )


class ReferenceExecutor(Executor):
    """The meaning of a `Graph`, by `edgeprune.reference`."""

    name = "reference"

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.input_quant = tuple(graph.tensors[name].quant for name in graph.inputs)
        self.output_quant = tuple(graph.tensors[name].quant for name in graph.outputs)

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        tensors = [self._graph.tensors[name] for name in self._graph.inputs]
        check_inputs(self.name, inputs, [(tensor.shape, np.dtype(DTYPES[tensor.dtype])) for tensor in tensors])
        outputs = run_graph(self._graph, dict(zip(self._graph.inputs, inputs, strict=True)))
        return tuple(outputs[name] for name in self._graph.outputs)


class LiteRTExecutor(Executor):
    """A .tflite in LiteRT on this machine.

    kernels: 'reference' (BUILTIN_REF: plain loops), 'builtin' (optimized kernels without delegates) or 'xnnpack' (the
        default delegates: what LiteRT runs on a Cortex-A).
    Raises UnsupportedModelError if LiteRT refuses the model.
    """

    def __init__(self, tflite: bytes, kernels: str = "reference", threads: int = 1) -> None:
        self.name = f"litert-{kernels}"
        self._interpreter = open_litert(tflite, kernels, threads)
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.input_shapes = tuple(tuple(int(size) for size in detail["shape"]) for detail in self._inputs)
        types = [np.dtype(detail["dtype"]) for detail in self._inputs]
        self._allowed = list(zip(self.input_shapes, types, strict=True))
        self.input_quant = tuple(read_quant(detail) for detail in self._inputs)
        self.output_quant = tuple(read_quant(detail) for detail in self._outputs)

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        count = check_inputs(self.name, inputs, self._allowed)
        interpreter = self._interpreter
        places = [detail["index"] for detail in self._inputs]
        results = [detail["index"] for detail in self._outputs]

        def run_sample(sample: int) -> list[np.ndarray]:
            for place, values in zip(places, inputs, strict=True):
                interpreter.set_tensor(place, values[sample : sample + 1])
            interpreter.invoke()
            return [interpreter.get_tensor(result) for result in results]

        return _run_each(self.name, count, run_sample)

    def prepare(self, *inputs: np.ndarray) -> Callable[[], object]:
        """A call that runs the model once on these inputs (batch 1), already in place: for timing."""
        check_inputs(self.name, inputs, self._allowed)
        for detail, values in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], values)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke


class MicroExecutor(Executor):
    """A .tflite in TFLite Micro: the same kernels as the interpreter on a microcontroller, built for this machine.

    Raises MeasurementUnavailableError without the tflite-micro package, UnsupportedModelError if it refuses the model.
    """

    name = "tflite-micro"

    def __init__(self, tflite: bytes) -> None:
        if _micro is None:
            raise MeasurementUnavailableError(
                f"TFLite Micro is not installed, so int8 results cannot be checked against it: {MICRO_INSTALL}"
            )
        # TFLite Micro trusts its bytes and crashes the process on a damaged file; LiteRT verifies them. Its optimized
        # kernels, because the set of reference kernels has no ELU.
        checked = open_litert(tflite, "builtin", threads=1)
        self._inputs = checked.get_input_details()
        outputs = checked.get_output_details()
        self._output_count = len(outputs)
        self._allowed = [(tuple(detail["shape"]), np.dtype(detail["dtype"])) for detail in self._inputs]
        self.input_quant = tuple(read_quant(detail) for detail in self._inputs)
        self.output_quant = tuple(read_quant(detail) for detail in outputs)
        # Room for every tensor at once, scratch buffers and bookkeeping: the pages it does not touch cost nothing.
        tensors = checked.get_tensor_details()
        tensor_bytes = sum(int(np.prod(detail["shape"])) * np.dtype(detail["dtype"]).itemsize for detail in tensors)
        arena_bytes = 4 * tensor_bytes + 4096 * len(tensors) + (1 << 18)
        log = NativeLog()
        try:
            with capture_native_log() as log:
                self._interpreter = _micro.Interpreter.from_bytes(tflite, arena_size=arena_bytes)
        except (RuntimeError, ValueError) as error:
            raise UnsupportedModelError(f"TFLite Micro refuses the model: {log.reason or error}") from error

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        count = check_inputs(self.name, inputs, self._allowed)
        interpreter = self._interpreter

        def run_sample(sample: int) -> list[np.ndarray]:
            for place, values in enumerate(inputs):
                interpreter.set_input(np.ascontiguousarray(values[sample : sample + 1]), place)
            interpreter.invoke()
            return [interpreter.get_output(place) for place in range(self._output_count)]

        return _run_each(self.name, count, run_sample)


class OnnxExecutor(Executor):
    """An ONNX model in ONNX Runtime's CPU provider; its inputs are in PyTorch's layout (N, C, ...).

    Raises UnsupportedModelError if ONNX Runtime refuses the model.
    """

    name = "onnxruntime"

    def __init__(self, model: bytes, threads: int = 1) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as native

        # what it raises for a model it cannot take; they share no base but Exception
        self._refusals = (
            *(native.Fail, native.InvalidArgument, native.InvalidGraph, native.InvalidProtobuf),
            *(native.NoModel, native.NotImplemented, native.RuntimeException, RuntimeError, ValueError),
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        # On x86 without VNNI, ONNX Runtime multiplies pairs of int8 into saturating int16: silently wrong for large
        # weights (43 LSB on the MLPerf Tiny keyword spotter, against 1). This asks for the exact kernels, which took 15
        # to 25 % longer there, and changes nothing elsewhere.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except self._refusals as error:
            raise UnsupportedModelError(f"ONNX Runtime refuses the model: {error}") from error
        self._allowed = [_describe_onnx_input(value) for value in self._session.get_inputs()]
        self._names = [value.name for value in self._session.get_inputs()]
        self.input_quant = (None,) * len(self._names)
        self.output_quant = (None,) * len(self._session.get_outputs())

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        count = check_inputs(self.name, inputs, self._allowed)
        fixed = next((shape[0] for shape, _ in self._allowed if shape and shape[0]), None)
        if fixed is None or fixed == count:
            return tuple(self._run(inputs))
        if fixed != 1:
            raise InputError(
                f"{self.name}: the model takes batches of {fixed}, found {count}; export it with a free one"
            )
        return _run_each(self.name, count, lambda index: self._run([values[index : index + 1] for values in inputs]))

    def prepare(self, *inputs: np.ndarray) -> Callable[[], object]:
        """A call that runs the model once on these inputs, already in place: for timing."""
        check_inputs(self.name, inputs, self._allowed)
        binding = self._session.io_binding()
        for name, values in zip(self._names, inputs, strict=True):
            binding.bind_cpu_input(name, values)
        for output in self._session.get_outputs():
            binding.bind_output(output.name)
        return lambda: self._session.run_with_iobinding(binding)

    def _run(self, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        try:
            return list(self._session.run(None, dict(zip(self._names, inputs, strict=True))))
        except self._refusals as error:
            raise EdgepruneError(f"{self.name} stopped while running the model: {error}") from error


def open_litert(tflite: bytes, kernels: str, threads: int) -> Any:
    """An allocated LiteRT interpreter; UnsupportedModelError if it refuses the model."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolvers = {
        "reference": OpResolverType.BUILTIN_REF,
        "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "xnnpack": OpResolverType.AUTO,
    }
    if kernels not in resolvers:
        raise InputError(f"LiteRT kernels {kernels!r}: allowed are {', '.join(LITERT_KERNELS)}")
    log = NativeLog()
    try:
        with capture_native_log() as log:
            interpreter = Interpreter(
                model_content=bytes(tflite), experimental_op_resolver_type=resolvers[kernels], num_threads=threads
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise UnsupportedModelError(f"LiteRT ({kernels}) refuses the model: {log.reason or error}") from error
    return interpreter


def read_quant(detail: dict[str, Any]) -> Quant | None:
    """The quantization in an interpreter's tensor details; None if there is none."""
    parameters = detail["quantization_parameters"]
    scales = np.asarray(parameters["scales"], np.float32)
    if len(scales) == 0:
        return None
    axis = int(parameters["quantized_dimension"]) if len(scales) > 1 else None
    return Quant(scales, np.asarray(parameters["zero_points"], np.int32), axis)


def check_inputs(
    executor: str, inputs: Sequence[np.ndarray], allowed: Sequence[tuple[tuple[int | None, ...], np.dtype]]
) -> int:
    """The number of samples in a batch; InputError unless shapes (but for axis 0) and dtypes are the allowed ones."""
    if len(inputs) != len(allowed):
        raise InputError(f"{executor}: the model has {len(allowed)} inputs, {len(inputs)} were given")
    for place, (values, (shape, dtype)) in enumerate(zip(inputs, allowed, strict=True)):
        fits = values.ndim == len(shape) and all(
            size in (found, None) for found, size in zip(values.shape[1:], shape[1:], strict=True)
        )
        if not fits or values.dtype != dtype or len(values) != len(inputs[0]) or len(values) == 0:
            wanted = ", ".join(["N", *("any" if size is None else str(size) for size in shape[1:])])
            raise InputError(
                f"{executor}: input {place} is {values.dtype} {values.shape}; the model takes {dtype} ({wanted})"
            )
    return len(inputs[0])


def _run_each(executor: str, count: int, run_sample: Callable[[int], Sequence[np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Join what `run_sample` gives for each of `count` samples along axis 0."""
    log = NativeLog()
    try:
        with capture_native_log() as log:
            rows = [run_sample(sample) for sample in range(count)]
    except (RuntimeError, ValueError, IndexError) as error:
        raise EdgepruneError(f"{executor} stopped while running the model: {log.reason or error}") from error
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


_ONNX_TYPES = {
    "tensor(float)": np.float32,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def _describe_onnx_input(value: Any) -> tuple[tuple[int | None, ...], np.dtype]:
    if value.type not in _ONNX_TYPES:
        raise UnsupportedModelError(f"input {value.name} is {value.type}; allowed: {', '.join(_ONNX_TYPES)}")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return shape, np.dtype(_ONNX_TYPES[value.type])
