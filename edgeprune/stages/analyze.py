"""`edgeprune analyze redundancy`: the figures of one or two models on training samples, and a page with heat maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune import __version__
from edgeprune.artifacts import Dataset, LoadedModel
from edgeprune.config import load_config_beside
from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.load import find_dataset, load_dataset, load_model
from edgeprune.progress import SILENT, Progress
from edgeprune.prune.redundancy import HEAT_MAP_CHANNELS, HEAT_MAP_POSITIONS, describe_redundancy
from edgeprune.report import write_redundancy
from edgeprune.stages.prepare import check_fit, choose_normalization, probe_folder

BASE, PRUNED = "Base", "Pruned"


def analyze_redundancy(
    path: Path,
    pruned: Path | None = None,
    *,
    data: str | None = None,
    normalization: str | None = None,
    factory: str | None = None,
    allow_pickle: Sequence[str] = (),
    config: Path | None = None,
    output: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[dict[str, Any], Path]:
    """The analysis as plain values, and the page it was written to (in `output`, with redundancy.json).

    pruned: a second model of the same data, called "Pruned" beside "Base". factory, allow_pickle: for both.

    Raises InputError for what does not fit together, UnsupportedModelError for a file without a PyTorch program and for
    models without a feature map to look at.
    """
    output = output or Path("build") / f"{path.stem}-redundancy"
    probe_folder(output)
    raw = load_dataset(find_dataset(path, data, load_config_beside(path, config)))
    notes = list(raw.notes)
    paths = {BASE: path} if pruned is None else {BASE: path, PRUNED: pruned}
    models = {
        label: load_model(file, factory=factory, allow_pickle=tuple(allow_pickle), input_shape=raw.sample_shape)
        for label, file in paths.items()
    }
    samples, kind = _normalize(normalization, list(models.values()), raw, notes)
    forms = {}
    for label, model in models.items():
        notes += model.notes
        if model.module is None:
            raise UnsupportedModelError(
                f"{paths[label].name} holds no PyTorch program, whose feature maps could be looked at; "
                "give the model that it was made from (edgeprune.save_model, torch.export.save or a state_dict)"
            )
        check_fit(model, samples)
        forms[label] = model.module
    with progress.step("feature maps"):
        figures = describe_redundancy(forms, samples.x_train)
    if not any(figures["redundancy"]["forms"].values()):
        raise UnsupportedModelError(
            f"{path.name}: no activation in this model feeds a layer with channels and positions, so there is no "
            "feature map to look at; the analysis is for convolutional networks"
        )
    document = {
        "edgeprune_version": __version__,
        "models": [
            {"form": label, "name": paths[label].name, "sha256": model.sha256} for label, model in models.items()
        ],
        "data": {
            "name": raw.name,
            "source": raw.source,
            "sha256": samples.sha256,
            "samples": len(samples.x_train),
            "normalization": kind,
        },
        **figures,
        "heat_map_channels": HEAT_MAP_CHANNELS,
        "heat_map_positions": HEAT_MAP_POSITIONS,
        "notes": notes,
    }
    return document, write_redundancy(document, output)


def _normalize(
    wanted: str | None, models: Sequence[LoadedModel], raw: Dataset, notes: list[str]
) -> tuple[Dataset, str]:
    """The samples as they go into the models, which must agree on that; and the kind of normalization."""
    recorded = [model.info.normalization for model in models if model.info.normalization is not None]
    if any(dataclasses.astuple(other) != dataclasses.astuple(recorded[0]) for other in recorded[1:]):
        raise InputError(
            f"{' and '.join(model.name for model in models)} record different normalizations, so they cannot be "
            "compared on the same samples; analyze them one by one"
        )
    informed = next((model for model in models if model.info.normalization is not None), models[0])
    used = choose_normalization(wanted, informed, raw, notes)
    return raw.normalized(used), used.kind
