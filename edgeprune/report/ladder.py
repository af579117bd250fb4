"""The parity ladder: each form of the model held against the one before it, from PyTorch to the device.

A rung is passed, failed, reported (a difference that is meant to be there, with its size) or not checked, and then it
says so: silence must not read as a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.report.plotting import Document
from edgeprune.report.tables import Table

PASS, FAIL, REPORTED, UNCHECKED = "pass", "FAIL", "reported", "not checked"
NO_DEVICE = "no device was given (--device ssh://user@host)"


@dataclass(frozen=True)
class Comparison:
    """One comparison of a rung: what was compared on what, the difference, its limit."""

    what: str
    samples: str
    difference: str
    limit: str
    state: str


@dataclass(frozen=True)
class Rung:
    """A form of the model, what it is held against, and every comparison; `reason` where there is none."""

    form: str
    against: str
    comparisons: tuple[Comparison, ...]
    reason: str = ""

    @property
    def state(self) -> str:
        """The worst state of its comparisons."""
        states = {item.state for item in self.comparisons}
        return next((state for state in (FAIL, PASS, REPORTED) if state in states), UNCHECKED)


# (form, what it is held against, whether a check is this rung's by its name in lower case)
_RUNGS: Sequence[tuple[str, str, Callable[[str], bool]]] = (
    ("ONNX float32", "PyTorch", lambda name: name.startswith("pytorch")),
    ("TFLite float32", "ONNX float32", lambda name: name.startswith("tflite float32")),
    ("int8 reference", "float32", lambda name: name.startswith("int8 reference")),
    ("TFLite Micro", "int8 reference", lambda name: name.startswith("tflite-micro") or name == "tflite micro"),
    ("LiteRT", "int8 reference", lambda name: name.startswith("litert") and "device" not in name),
    ("ONNX Runtime", "int8 reference", lambda name: name.startswith("onnxruntime") and "device" not in name),
    ("generated C in the emulator", "int8 reference", lambda name: "emulat" in name or "qemu" in name),
    ("device", "int8 reference", lambda name: "device" in name or "ssh" in name),
)


def climb_ladder(document: Document) -> tuple[Rung, ...]:
    """All rungs in order; checks that belong to none come last, each a rung of its own. Empty without a section."""
    parity = document["parity"]
    if not parity:
        return ()
    left = [(check, check["name"].lower()) for check in parity.get("checks", ())]
    reasons = _find_reasons(document)
    rungs = []
    for form, against, is_own in _RUNGS:
        own = [check for check, name in left if is_own(name)]
        left = [(check, name) for check, name in left if not is_own(name)]
        comparisons = tuple(_read_check(check) for check in own) or _find_other_evidence(document, form)
        rungs.append(Rung(form, against, comparisons, "" if comparisons else reasons.get(form, "")))
    rungs += [Rung(check["name"], "int8 reference", (_read_check(check),)) for check, _ in left]
    return tuple(rungs)


def list_lockstep(document: Document) -> Table | None:
    """Largest difference of each operation on each executor, in LSB."""
    rows = document["parity"].get("lockstep", ())
    if not rows:
        return None
    executors = list(dict.fromkeys(row["executor"] for row in rows))
    layers = list(dict.fromkeys((row["layer"], row["kind"]) for row in rows))
    found = {(row["layer"], row["kind"], row["executor"]): _format_lsb(row["max_lsb"]) for row in rows}
    table = tuple((*layer, *(found.get((*layer, executor), "") for executor in executors)) for layer in layers)
    title = "Each operation alone, fed the reference's inputs: largest difference in LSB"
    return Table(title, ("operation", "kind", *executors), table, (0, 1))


def _format_lsb(value: int | None) -> str:
    return "not run" if value is None else str(value)


def _read_check(check: Mapping[str, Any]) -> Comparison:
    if not check["passed"]:
        state = FAIL
    elif check["limit"] == "reported":
        state = REPORTED
    else:
        state = PASS
    return Comparison(check["name"], check["what"], check["difference"], check["limit"], state)


def _find_other_evidence(document: Document, form: str) -> tuple[Comparison, ...]:
    """What is known of a rung that has no check of its own: accuracies, and the noise of quantization."""
    variants = document["variants"]
    if form == "TFLite float32":
        return _compare_accuracy(variants.get("onnx_float32"), variants.get("tflite_float32"), "accuracy only")
    if form == "int8 reference":
        found = list(_compare_accuracy(variants.get("tflite_float32"), variants.get("int8"), "accuracy"))
        noise = next((row for row in document["sqnr"] if row["sqnr_db"] is not None), None)
        if noise is not None:
            difference = f"{noise['sqnr_db']:.1f} dB ({noise['layer']})"
            found.append(
                Comparison("signal to noise, worst layer", "calibration samples", difference, "reported", REPORTED)
            )
        return tuple(found)
    return ()


def _compare_accuracy(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, what: str
) -> tuple[Comparison, ...]:
    if before is None or after is None or before["accuracy"] is None or after["accuracy"] is None:
        return ()
    change = 100 * (after["accuracy"] - before["accuracy"])
    difference = f"{change:+.2f} pp".replace("-", "−") if change else "0 pp"
    samples = f"{after.get('test_samples', 0):,} test samples"
    return (Comparison(what, samples, difference, "reported", REPORTED),)


def _find_reasons(document: Document) -> dict[str, str]:
    """Why a rung has not been checked, where the report knows."""
    names = {"tflite-micro": "TFLite Micro", "onnxruntime": "ONNX Runtime"}
    reasons = {
        names.get(entry["executor"], "LiteRT"): f"not installed: {entry['remedy']}"
        for entry in document["parity"].get("unavailable", ())
    }
    if not document["firmware"]:
        reasons["generated C in the emulator"] = f"not run for {document['target'].get('name', 'this target')}"
    elif document["firmware"].get("reason"):
        reasons["generated C in the emulator"] = document["firmware"]["reason"]
    reasons["device"] = document.get("device", {}).get("reason") or NO_DEVICE
    if document["model"].get("format") in ("onnx", "tflite"):
        reasons["ONNX float32"] = reasons["TFLite float32"] = "the model did not come from PyTorch"
    return reasons
