"""What travels between the rooms: a loaded model, a dataset, how its values were normalised.

Layouts: PyTorch's, channels first. A sample is (C, T) for a series and (C, H, W) for an image; batches add axis 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import InputError

if TYPE_CHECKING:
    from torch import fx

NORMALIZATION_KINDS = ("none", "per_series", "per_channel")


@dataclass(frozen=True)
class Normalization:
    """What the caller of the model must do to raw values first; recorded with every artifact.

    none: nothing.
    per_series: each channel of each sample minus its mean, divided by its standard deviation (population; z-normalised
        as in the UCR archive). A constant channel becomes all zeros.
    per_channel: (x - mean[c]) / std[c] with figures fitted on the training samples.

    mean, std: one float per channel for per_channel, else empty.
    """

    kind: str = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in NORMALIZATION_KINDS:
            raise InputError(f"normalization is {self.kind!r}; allowed: {', '.join(NORMALIZATION_KINDS)}")

    def apply(self, samples: np.ndarray) -> np.ndarray:
        """Normalise a batch (N, C, ...) of float32; returns a new array of the same shape."""
        samples = np.asarray(samples, np.float32)
        if self.kind == "none":
            return samples
        if self.kind == "per_series":
            axes = tuple(range(2, samples.ndim))
            wide = samples.astype(np.float64)
            mean = wide.mean(axis=axes, keepdims=True)
            std = wide.std(axis=axes, keepdims=True)
            # a constant channel has std 0 but for rounding; below this bound it is noise of float32, not signal
            constant = std <= 1e-7 * np.maximum(1.0, np.abs(mean))
            return np.where(constant, 0.0, (wide - mean) / np.where(constant, 1.0, std)).astype(np.float32)
        if len(self.mean) != samples.shape[1]:
            raise InputError(
                f"the normalization holds {len(self.mean)} channels, the data {samples.shape[1]}; "
                "use the data that the model was trained on, or train again"
            )
        shape = (1, -1, *(1,) * (samples.ndim - 2))
        mean_c = np.asarray(self.mean, np.float64).reshape(shape)
        std_c = np.asarray(self.std, np.float64).reshape(shape)
        return ((samples - mean_c) / std_c).astype(np.float32)


def fit_normalization(kind: str, samples: np.ndarray) -> Normalization:
    """The normalization of this kind for raw training samples (N, C, ...); only per_channel reads them."""
    if kind != "per_channel":
        return Normalization(kind)
    axes = (0, *range(2, samples.ndim))
    wide = samples.astype(np.float64)
    std = wide.std(axis=axes)
    return Normalization(
        kind,
        tuple(float(value) for value in wide.mean(axis=axes)),
        tuple(float(value) if value > 0 else 1.0 for value in std),
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples as read, before normalization.

    x_train, x_test: float32 (N, C, T) or (N, C, H, W), finite.
    y_train, y_test: int64 (N,), indices into class_names.
    class_names: as they stood in the data, sorted; empty for samples without labels (y_train and y_test are zeros).
    source: what was read, without the path of a machine (a file's name, 'ucr:GunPoint').
    notes: what a reader of the report should know (a test set that was split off, pixels divided by 255, ...).
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, T) or (C, H, W)."""
        return tuple(self.x_train.shape[1:])

    @cached_property
    def sha256(self) -> str:
        """Digest of the values, for caches and reports."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(repr((array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def normalized(self, normalization: Normalization) -> Dataset:
        """The same samples, normalised: what goes into the network."""
        return Dataset(
            self.name,
            normalization.apply(self.x_train),
            self.y_train,
            normalization.apply(self.x_test),
            self.y_test,
            self.class_names,
            self.source,
            self.notes,
        )


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says of itself besides its weights (`save_model` writes it; all of it may be missing).

    architecture, architecture_options: a name and keyword arguments of `edgeprune.models.build_model`, so that training
        from scratch can draw new weights; None for other people's models.
    """

    normalization: Normalization | None = None
    class_names: tuple[str, ...] = ()
    architecture: str | None = None
    architecture_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model file, read.

    module: the raised, trainable program (eval mode), or None for an ONNX or TFLite file.
    onnx_bytes: the ONNX file's content, or None.
    input_shape: of one sample, (C, T) or (C, H, W).
    format: 'torch.export', 'state_dict', 'pickle', 'onnx' or 'tflite'.
    sha256: of the file.
    """

    name: str
    format: str
    sha256: str
    input_shape: tuple[int, ...]
    module: fx.GraphModule | None
    onnx_bytes: bytes | None
    info: ModelInfo
    notes: tuple[str, ...] = ()
