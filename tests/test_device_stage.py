"""A whole small model on a device over ssh: the generated C, ONNX Runtime and LiteRT, held against this host.

The device is this machine, behind a real sshd on the loopback interface; the static program is built for it by the
system's gcc, from the same C and the same bench.c that zig builds for Arm.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.codegen import generate_firmware
from edgeprune.errors import MeasurementUnavailableError
from edgeprune.export import read_onnx
from edgeprune.layout import to_nhwc
from edgeprune.lower import legalize, write_tflite
from edgeprune.measure.linux.device import MACHINES, check_device, list_threads
from edgeprune.measure.linux.device_address import DeviceAddress
from edgeprune.measure.linux.executable import Executable, read_bench
from edgeprune.progress import SILENT
from edgeprune.quantize import calibrate, quantize_graph, write_qdq_onnx
from edgeprune.reference import quantize_values, run_graph
from edgeprune.report import load_schema
from edgeprune.report.device_figures import draw_device_times
from edgeprune.report.device_tables import list_device, list_device_runs
from edgeprune.report.pictures import draw_picture
from edgeprune.stages.build import Programs
from edgeprune.stages.device import DeviceResult, describe_failure, measure_device
from edgeprune.target import load_target
from tests.measure.ssh_server import SshServer, needs_sshd, run_sshd

HERE = MACHINES.get(platform.machine(), platform.machine())
CHANNELS, LENGTH, CLASSES, SAMPLES = 2, 32, 3, 16
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def make_onnx(random: np.random.Generator) -> onnx.ModelProto:
    """Convolution, ReLU, mean over time, fully connected; weights are random."""
    weights = {
        "conv/weight": random.normal(0, 0.4, (8, CHANNELS, 5)),
        "conv/bias": random.normal(0, 0.2, 8),
        "head/weight": random.normal(0, 0.5, (CLASSES, 8)),
        "head/bias": random.normal(0, 0.2, CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["input", "conv/weight", "conv/bias"], ["mapped"], "conv", pads=[2, 2]),
        helper.make_node("Relu", ["mapped"], ["bent"], "relu"),
        helper.make_node("GlobalAveragePool", ["bent"], ["mean"], "pool"),
        helper.make_node("Flatten", ["mean"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head/weight", "head/bias"], ["output"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", CHANNELS, LENGTH])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@dataclasses.dataclass(frozen=True)
class Case:
    job: Any
    programs: Programs
    expected: np.ndarray


@pytest.fixture(scope="module")
def case() -> Case:
    random = np.random.default_rng(5)
    samples = random.normal(0, 1, (SAMPLES, CHANNELS, LENGTH)).astype(np.float32)
    model = make_onnx(random)
    float_graph = legalize(read_onnx(model, input_shape=(CHANNELS, LENGTH)))
    graph = quantize_graph(float_graph, calibrate(float_graph, to_nhwc(samples)))
    programs = Programs(
        int8_graph=graph,
        int8_tflite=write_tflite(graph),
        calibration_nhwc=to_nhwc(samples),
        float_graph=float_graph,
        float32_onnx=model.SerializeToString(),
        int8_onnx=write_qdq_onnx(graph, (CHANNELS, LENGTH)).SerializeToString(),
        float32_tflite=write_tflite(float_graph),
    )
    job = SimpleNamespace(
        data=SimpleNamespace(x_test=samples),
        target=load_target("cortex-a53"),
        tested_on="test samples",
        progress=SILENT,
    )
    quant = graph.tensors[graph.inputs[0]].quant
    outputs = run_graph(graph, quantize_values(to_nhwc(samples), quant))
    return Case(job, programs, outputs[graph.outputs[0]].reshape(SAMPLES, -1))


@pytest.fixture(scope="module")
def executables(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Executable]:
    folder = tmp_path_factory.mktemp("bench")
    firmware = generate_firmware(case.programs.int8_graph, case.job.target, portable=True)
    sources = {**firmware.compiled_files, "bench.c": read_bench()}
    for name, text in sources.items():
        (folder / name).write_text(text)
    units = sorted(name for name in sources if name.endswith(".c"))
    subprocess.run(["gcc", "-std=c99", "-O1", *units, "-o", "bench"], cwd=folder, check=True)
    return {HERE: Executable((folder / "bench").read_bytes(), HERE, "gcc", ())}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with run_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def address(server: SshServer) -> DeviceAddress:
    """The Python of these tests is the device's: it has ONNX Runtime and LiteRT."""
    return dataclasses.replace(server.address, python=sys.executable)


@pytest.fixture(scope="module")
def result(case: Case, executables: Mapping[str, Executable], address: DeviceAddress) -> DeviceResult:
    return measure_device(case.job, case.programs, executables, case.expected, address=address, warmup=2, runs=20)


pytestmark = [needs_sshd, needs_gcc]


def test_every_form_runs_with_each_number_of_threads(result: DeviceResult) -> None:
    forms = ("ONNX Runtime float32", "ONNX Runtime int8", "LiteRT float32", "LiteRT int8")
    expected = [("static C on the device", 1)]
    for form in forms:
        for threads in list_threads(os.cpu_count()):
            several = "" if threads == 1 else f", {threads} threads"
            expected.append((f"{form} on the device{several}", threads))
    assert [(row["name"], row["threads"]) for row in result.latency] == expected
    for row in result.latency:
        assert row["method"] == "device"
        assert row["n"] == 20
        assert 0 < row["min_us"] <= row["p50_us"] <= row["p90_us"] <= row["p99_us"]
    assert result.latency_us == result.latency[0]["p50_us"]


def test_outputs_of_the_device_are_those_of_this_host(result: DeviceResult) -> None:
    checks = {check["name"]: check for check in result.checks}
    assert result.passed
    assert checks["static C on the device"]["difference"] == "0 LSB"
    assert checks["static C on the device"]["what"] == f"{SAMPLES} test samples"
    for runtime in ("ONNX Runtime", "LiteRT"):
        # the same runtime on the same machine: not a bit of difference
        assert checks[f"{runtime} float32 on the device, against this host"]["difference"] == "0.0e+00"
        # one rounding instead of two: see parity.LIMITS
        assert checks[f"{runtime} int8 on the device"]["difference"].split(",")[0] in ("0 LSB", "1 LSB")


def test_a_wrong_output_fails_the_parity(
    case: Case, executables: Mapping[str, Executable], address: DeviceAddress
) -> None:
    wrong = case.expected.copy()
    wrong[3, 1] ^= 1
    only_int8 = Programs(case.programs.int8_graph, case.programs.int8_tflite, case.programs.calibration_nhwc)
    found = measure_device(case.job, only_int8, executables, wrong, address=address, warmup=0, runs=1)
    check = next(check for check in found.checks if check["name"] == "static C on the device")
    assert (check["difference"], check["passed"]) == ("1 output values differ", False)
    assert not found.passed


def test_the_section_keeps_the_schema_and_names_no_host(result: DeviceResult, address: DeviceAddress) -> None:
    schema = load_schema()
    section = json.loads(json.dumps(result.section))
    jsonschema.validate(section, {"$defs": schema["$defs"], **schema["$defs"]["device"]})
    latency = {"$defs": schema["$defs"], **schema["properties"]["latency"]}
    jsonschema.validate(json.loads(json.dumps(list(result.latency))), latency)
    text = json.dumps([section, list(result.latency), list(result.checks)])
    for secret in (address.host, str(address.port), f"{address.user}@", platform.node(), "/tmp"):
        assert secret not in text
    assert section["removed"]
    assert any("the target is cortex-a53" in note for note in section["notes"]) == (HERE != "aarch64")


def test_the_tables_show_device_and_times(result: DeviceResult) -> None:
    document = {"device": result.section}
    device, runs = list_device(document), list_device_runs(document)
    assert device is not None
    assert runs is not None
    shown = dict(row[:2] for row in device.rows)
    assert shown["CPU"] == result.section["facts"]["cpu"]
    assert "onnxruntime" in shown["Python packages there"]
    assert len(runs.rows) == len(result.section["runs"])
    assert runs.head[:5] == ("form", "run by", "threads", "p50", "p90")
    assert list_device({"device": {}}) is None
    assert list_device_runs({}) is None


def test_the_picture_has_a_bar_for_each_number_of_threads(result: DeviceResult) -> None:
    figure = draw_device_times({"device": result.section})
    assert figure is not None
    counts = list_threads(os.cpu_count())
    assert [trace["name"] for trace in figure["data"]] == [f"{count} thread{'s'[: count - 1]}" for count in counts]
    assert figure["data"][0]["y"][0] == "static C"
    assert all(value is None or value > 0 for trace in figure["data"] for value in trace["x"])
    picture = draw_picture(figure)
    assert picture is not None
    assert "static C" in picture.body
    assert draw_device_times({"device": {}}) is None


def test_a_device_of_another_kind_says_what_is_needed(case: Case, address: DeviceAddress) -> None:
    others = {name: Executable(b"", name, "", ()) for name in ("aarch64", "armv7", "x86_64") if name != HERE}
    with pytest.raises(MeasurementUnavailableError, match=r"programs are built for .* and "):
        measure_device(case.job, case.programs, others, case.expected, address=address)


def test_a_failure_is_reported_without_host_and_user(case: Case, executables: Mapping[str, Executable]) -> None:
    address = DeviceAddress("somebody", "secret-host.invalid")
    with pytest.raises(MeasurementUnavailableError) as caught:
        measure_device(case.job, case.programs, executables, case.expected, address=address)
    result = describe_failure(address, caught.value)
    assert "secret-host" in str(caught.value)
    assert "somebody" not in json.dumps([result.section, result.latency])
    assert "secret-host" not in json.dumps([result.section, result.latency])
    assert result.reason == "no such host name is known here; check the name, or give its IP address"
    assert result.latency_us is None
    document = {"device": result.section}
    jsonschema.validate(result.section, {"$defs": load_schema()["$defs"], **load_schema()["$defs"]["device"]})
    assert list_device(document) is None
    assert list_device_runs(document) is None


def test_a_device_is_checked_before_anything_is_built(address: DeviceAddress, server: SshServer) -> None:
    assert check_device(address, [HERE]).machine == platform.machine()
    with pytest.raises(MeasurementUnavailableError, match="programs are built for mips"):
        check_device(address, ["mips"])
    with pytest.raises(MeasurementUnavailableError, match="lacks asimd-of-tomorrow"):
        check_device(address, [HERE], requires={HERE: ["asimd-of-tomorrow"]})
    assert server.left_behind() == []


def test_nothing_stays_on_the_device(result: DeviceResult, server: SshServer) -> None:
    assert result.section["removed"]
    assert server.left_behind() == []
