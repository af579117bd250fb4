"""Between PyTorch's channels-first samples and the program's NHWC tensors.

| one sample | PyTorch | program |
|---|---|---|
| series | (C, T) | (1, T, C): height 1 |
| image | (C, H, W) | (H, W, C) |
| vector | (C,) | (C,) |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.errors import InputError


def to_nhwc(samples: np.ndarray) -> np.ndarray:
    """Channels-first samples as the program takes them; values and dtype stay.

    samples: (N, C, T), (N, C, H, W) or (N, C). Returns a contiguous (N, 1, T, C), (N, H, W, C) or (N, C).
    Raises InputError for another rank.

    >>> to_nhwc(np.zeros((5, 2, 24), np.float32)).shape
    (5, 1, 24, 2)
    """
    if samples.ndim == 2:
        return np.ascontiguousarray(samples)
    if samples.ndim == 3:
        return np.ascontiguousarray(samples.transpose(0, 2, 1)[:, None])
    if samples.ndim == 4:
        return np.ascontiguousarray(samples.transpose(0, 2, 3, 1))
    raise InputError(
        f"samples of shape {samples.shape}: found {samples.ndim} axes; allowed are (N, C), (N, C, T) and (N, C, H, W)"
    )


def from_nhwc(samples: np.ndarray, input_shape: Sequence[int]) -> np.ndarray:
    """The inverse of `to_nhwc` for samples whose PyTorch shape is `input_shape`: (C,), (C, T) or (C, H, W).

    Raises InputError if the samples are not of that shape.

    >>> from_nhwc(np.zeros((5, 1, 24, 2), np.float32), (2, 24)).shape
    (5, 2, 24)
    """
    expected = nhwc_shape(input_shape)
    if tuple(samples.shape[1:]) != expected[1:]:
        raise InputError(
            f"samples of shape {samples.shape} are not {tuple(input_shape)} per sample in NHWC; expected (N, "
            f"{', '.join(map(str, expected[1:]))})"
        )
    if len(input_shape) == 1:
        return np.ascontiguousarray(samples)
    channels_first = np.moveaxis(samples, -1, 1)
    return np.ascontiguousarray(channels_first.reshape(len(samples), *input_shape))


def nhwc_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """The program's shape, batch of 1, of a sample whose PyTorch shape is (C,), (C, T) or (C, H, W).

    >>> nhwc_shape((2, 24)), nhwc_shape((3, 32, 16))
    ((1, 1, 24, 2), (1, 32, 16, 3))
    """
    channels, *positions = (int(size) for size in input_shape)
    if len(positions) > 2:
        raise InputError(f"a sample of shape {tuple(input_shape)}: allowed are (C,), (C, T) and (C, H, W)")
    if len(positions) == 1:
        positions = [1, *positions]
    return 1, *positions, channels
