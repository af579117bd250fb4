"""How far modelled cycles are from boards: what is known, as data for reports.

Validated is the Cortex-M4 model only, and only on kernels of others: CMSIS-NN 4.0.0 (convolutions, dense layers and
additions; without pooling and softmax), modelled, against the published times of microTVM with CMSIS-NN on ST's
NUCLEO-L4R5ZI at 120 MHz (MLPerf Tiny v1.0, closed division, int8 reference models). Those times hold flash wait states
and more than the kernels alone. No firmware of edgeprune has run on silicon yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Validation:
    """One network: milliseconds published for a board, and modelled."""

    network: str
    measured_ms: float
    modelled_ms: float

    @property
    def ratio(self) -> float:
        """Measured over modelled: above 1 the model is optimistic."""
        return self.measured_ms / self.modelled_ms


SOURCE = "MLPerf Tiny v1.0, microTVM with CMSIS-NN, NUCLEO-L4R5ZI at 120 MHz; kernels of CMSIS-NN 4.0.0 modelled"
VALIDATION: tuple[Validation, ...] = (
    Validation("kws_dscnn", 99.8, 91.2),
    Validation("ic_resnet8", 389.6, 349.2),
    Validation("vww_mbv1", 301.2, 287.4),
    Validation("ad_ae", 8.6, 6.4),
)


@dataclass(frozen=True)
class CycleModelError:
    """What may be said of a core's modelled cycles.

    status: 'validated' or 'indicative' (never compared with silicon). conv, fully_connected: what modelled cycles are
    multiplied by before they are compared with a board's, for convolutional and for dense nets; None: not known.
    """

    status: str
    conv: float | None
    fully_connected: float | None
    note: str


_INDICATIVE = "indicative: this core's model was never compared with silicon"
CYCLE_MODEL_ERROR: Mapping[str, CycleModelError] = {
    "cortex-m4": CycleModelError(
        "validated",
        1.10,
        1.25,
        "a board took 5 to 12 % longer than modelled on three convolutional nets and 34 % longer on the one dense net, "
        "with CMSIS-NN's kernels",
    ),
    **{
        core: CycleModelError("indicative", None, None, _INDICATIVE)
        for core in ("cortex-m0plus", "cortex-m3", "cortex-m7", "cortex-m33", "cortex-m55")
    },
}
