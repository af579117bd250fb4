"""What a gate reads of a report.json, as pydantic checks it. Imported when a report is read: pydantic takes a moment.

Less than `schema.json` says, on purpose: sections that no comparison reads may grow, and old reports stay readable.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Figure = Annotated[float, Field(allow_inf_nan=False)]


class _Section(BaseModel):
    """Types as JSON has them, no conversions; what is not named here is let through."""

    model_config = ConfigDict(strict=True, extra="allow")


class Model(_Section):
    name: str
    sha256: str


class Data(_Section):
    name: str
    sha256: str
    class_names: list[str]


class Target(_Section):
    name: str


class Metric(_Section):
    name: str
    value: Figure | None
    unit: str
    method: Literal["device", "emulated_instructions", "modelled_cycles", "host", "static"] | None
    reason: str
    better: Literal["lower", "higher"]


class Budget(_Section):
    name: str
    limit: Figure
    state: Literal["met", "missed", "unavailable"]


class Variant(_Section):
    accuracy: Figure | None
    macro_f1: Figure | None
    test_samples: Count = 0
    correct: str | None = None
    test_sha256: str | None = None


class Layer(_Section):
    name: str
    kind: str
    macs: Count | None
    parameters: Count | None


class ProfileLayer(_Section):
    name: str
    kind: str
    macs: Count
    parameters: Count
    weight_bytes: Count
    live_bytes: Count


class Profile(_Section):
    layers: list[ProfileLayer]


class FirmwareLayer(_Section):
    name: str
    kind: str
    kernel: str
    instructions: Count | None
    cycles: Count | None
    constant_bytes: Count | None = None
    live_bytes: Count | None = None


class Firmware(_Section):
    layers: list[FirmwareLayer] = []
    measured: dict[str, Any] | None = None
    arena_bytes: Count | None = None


class Check(_Section):
    name: str
    passed: bool


class Parity(_Section):
    passed: bool = True
    checks: list[Check] = []


class Report(_Section):
    """The sections of a report that comparisons and histories read."""

    edgeprune_version: str
    model: Model
    data: Data
    target: Target
    settings: dict[str, Any]
    pruning: dict[str, Any]
    variants: dict[str, Variant]
    layers: list[Layer]
    profiles: dict[str, Profile]
    parity: Parity
    latency: list[dict[str, Any]]
    firmware: Firmware
    metrics: dict[str, Metric]
    budgets: list[Budget]
    tools: dict[str, str]
    notes: list[str]
    exit_code: Annotated[int, Field(ge=0, le=7)]
    outcome: str
    baseline: dict[str, Any] = {}
