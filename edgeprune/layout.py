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


def arrange_samples(samples: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Channels-first samples as the program of this input shape takes them: (N, *shape[1:]).

    Most programs take what `to_nhwc` gives. Those that others made may have axes of size 1 elsewhere or none: (1, T, C)
    and (1, T, 1, C) for a series, (1, T) for one of a single channel. Raises InputError if the samples don't fit.

    >>> arrange_samples(np.zeros((5, 2, 24), np.float32), (1, 24, 1, 2)).shape
    (5, 24, 1, 2)
    """
    nhwc = to_nhwc(samples)
    wanted = tuple(shape[1:])
    found = nhwc.shape[1:]
    sizes, target = ([size for size in sizes if size != 1] for sizes in (found, wanted))
    # a single channel or a single position: the order of the values is the same however they are counted
    is_flat = min(len(sizes), len(target)) <= 1 and (found[-1] == 1 or found[-1] == np.prod(found))
    if sizes == target or (is_flat and np.prod(found) == np.prod(wanted)):
        return nhwc.reshape(len(nhwc), *wanted)
    raise InputError(
        f"samples of shape {samples.shape[1:]} (channels first) do not fit the model's input {wanted} (channels last); "
        "give the data that the model was made for"
    )


def sample_shape_of(shape: Sequence[int]) -> tuple[int, ...]:
    """The channels-first shape of one sample for a program's input shape; the inverse of `arrange_samples`.

    >>> sample_shape_of((1, 1, 140, 3)), sample_shape_of((1, 96, 96, 3)), sample_shape_of((1, 640))
    ((3, 140), (3, 96, 96), (1, 640))
    """
    sizes = [int(size) for size in shape[1:]]
    if len(sizes) == 3 and 1 not in sizes[:2]:
        return sizes[2], sizes[0], sizes[1]
    if len(sizes) in (2, 3):
        return sizes[-1], int(np.prod(sizes[:-1]))
    return 1, int(np.prod(sizes))


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
