"""Datasets in numpy's .npz: x_train, y_train, x_test, y_test, or x and y to be split; x_train and x_test alone are
samples without labels (for --method none and --train).

Layouts, told by the number of dimensions, or by an entry `layout` in the file (or the option `layout`):

    NT      (samples, length)                    one channel; the reading of 2 dimensions
    NCT     (samples, channels, length)          the reading of 3 dimensions
    NTC     (samples, length, channels)          only when said
    NHW     (samples, height, width)             only when said
    NCHW, NHWC                                   4 dimensions: where 1 or 3 channels stand; else it must be said

Images of dtype uint8 become value / 255, as torchvision's ToTensor does; every other number keeps its value.
`class_names` (strings) may name the classes 0..C-1 of integer labels.

A file from elsewhere is not trusted: nothing is unpickled, and the sizes that the zip directory and the array headers
claim are checked before anything is read.
"""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeprune.errors import InputError
from edgeprune.load.data_checks import HOW_TO_PAD, RawData, check_size

LAYOUTS = ("NT", "NCT", "NTC", "NHW", "NHWC", "NCHW")
OPTIONS = ("layout",)
PIXEL_NOTE = "pixels 0..255 were divided by 255; whoever calls the model must do the same"

# Deflate packs noise-like measurements 1:1 to 20:1; only an array of one repeated value comes near 1000:1.
_SUSPICIOUS_BYTES = 64 * 1024**2
_SUSPICIOUS_RATIO = 200

# What numpy and zipfile raise on damaged files: fuzzing (tests/load/test_data_npz.py) found each of these.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    SyntaxError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def read_npz(path: Path, options: Mapping[str, str]) -> RawData:
    """Read a .npz; raises InputError with what was found and what is allowed."""
    source = path.name
    arrays = _read_arrays(path)
    layout = options.get("layout") or _read_text(source, arrays.get("layout"))
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"{source}: layout is {layout!r}; allowed: {', '.join(LAYOUTS)}")
    class_names = _read_names(source, arrays.get("class_names"))
    if {"x_train", "x_test"} <= arrays.keys():
        x_train, pixels = _to_channels_first(f"{source}: x_train", arrays["x_train"], layout)
        x_test, test_pixels = _to_channels_first(f"{source}: x_test", arrays["x_test"], layout)
        if pixels != test_pixels:
            raise InputError(
                f"{source}: x_train is {arrays['x_train'].dtype} and x_test {arrays['x_test'].dtype}; uint8 images are "
                "divided by 255, others are not, so both must be of one kind"
            )
        return RawData(
            path.stem,
            source,
            x_train,
            arrays.get("y_train"),
            x_test,
            arrays.get("y_test"),
            class_names,
            notes=(PIXEL_NOTE,) if pixels else (),
        )
    x, pixels = _to_channels_first(f"{source}: x", arrays["x"], layout)
    return RawData(
        path.stem,
        source,
        x,
        arrays["y"],
        class_names=class_names,
        names=("x", "y", "x", "y"),
        notes=(PIXEL_NOTE,) if pixels else (),
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays we know, read after their claimed sizes were checked."""
    source = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            keys = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
            wanted = _choose_keys(source, list(keys))
            for key in wanted:
                _check_member(source, key, archive, keys[key])
            _check_packing(source, [archive.getinfo(keys[key]) for key in wanted])
        with np.load(path, allow_pickle=False) as stored:
            return {key: np.asarray(stored[key]) for key in wanted}
    except (InputError, PermissionError):
        raise
    except (*_DAMAGE, MemoryError) as error:
        if path.stat().st_size == 0:
            raise InputError(f"{source} is empty (0 bytes); a .npz dataset is expected") from error
        raise InputError(
            f"{source} cannot be read as .npz: {_describe(error, path)}. It is damaged, truncated or another format; "
            "write it again with np.savez_compressed(file, x_train=..., y_train=..., x_test=..., y_test=...)"
        ) from error


def _describe(error: BaseException, path: Path) -> str:
    text = " ".join(str(error).replace(str(path), path.name).split())
    return text[:200] if text else type(error).__name__


def _choose_keys(source: str, keys: list[str]) -> list[str]:
    for wanted in (["x_train", "y_train", "x_test", "y_test"], ["x", "y"]):
        if set(wanted) <= set(keys):
            return wanted + [key for key in ("layout", "class_names") if key in keys]
    found = ", ".join(keys[:12]) or "nothing"
    if {"x_train", "x_test"} <= set(keys) and not {"y_train", "y_test"} & set(keys):
        return ["x_train", "x_test"] + [key for key in ("layout",) if key in keys]
    raise InputError(f"{source} holds {found}; needed are x_train, y_train, x_test and y_test, or x and y")


def _check_member(source: str, key: str, archive: zipfile.ZipFile, member: str) -> None:
    """Compare what the zip directory and the array's header claim, before numpy allocates for it."""
    info = archive.getinfo(member)
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise InputError(f"{source}: {key} is in .npy version {version}; allowed are plain arrays (version 1 or 2)")
        header_bytes = stream.tell()
    if dtype.hasobject:
        raise InputError(
            f"{source}: {key} holds Python objects, which can run code when read. If its series have different "
            "lengths, "
            f"{HOW_TO_PAD}; then save it as float32"
        )
    size = math.prod(shape) * dtype.itemsize
    check_size(f"{source}: {key}", size)
    if size != info.file_size - header_bytes:
        raise InputError(
            f"{source}: {key} claims shape {shape} of {dtype} ({size} bytes), but {info.file_size - header_bytes} "
            "bytes are "
            "stored; the file is damaged or truncated"
        )


def _check_packing(source: str, members: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(info.file_size for info in members)
    packed = max(1, sum(info.compress_size for info in members))
    check_size(source, unpacked)
    if unpacked > _SUSPICIOUS_BYTES and unpacked > _SUSPICIOUS_RATIO * packed:
        raise InputError(
            f"{source} unpacks from {packed} to {unpacked} bytes, which measurements never do; refused as a zip bomb. "
            "Save it with np.savez, uncompressed, if it is real"
        )


def _read_text(source: str, array: np.ndarray | None) -> str | None:
    if array is None:
        return None
    if array.dtype.kind not in "US" or array.size != 1:
        raise InputError(f"{source}: layout has dtype {array.dtype}, shape {array.shape}; a single string is expected")
    return str(array.astype(str).reshape(-1)[0])


def _read_names(source: str, array: np.ndarray | None) -> tuple[str, ...] | None:
    if array is None:
        return None
    if array.dtype.kind not in "US" or array.ndim != 1:
        raise InputError(
            f"{source}: class_names has dtype {array.dtype}, shape {array.shape}; a list of strings is expected"
        )
    names = tuple(str(name) for name in array.astype(str))
    if len(set(names)) != len(names):
        raise InputError(f"{source}: class_names lists a name twice; each class needs its own")
    return names


def _to_channels_first(where: str, x: np.ndarray, layout: str | None) -> tuple[np.ndarray, bool]:
    """(N, C, T) or (N, C, H, W), and whether these were uint8 pixels (now value / 255)."""
    layout = layout or _infer_layout(where, x)
    if layout is None:  # the common checks say what is wrong with the number of dimensions
        return x, False
    if x.ndim != len(layout):
        raise InputError(f"{where} has shape {x.shape}, but the layout {layout} has {len(layout)} dimensions")
    if layout in ("NT", "NHW"):
        x = x[:, None]
    elif layout in ("NTC", "NHWC"):
        x = np.moveaxis(x, -1, 1)
    if x.dtype == np.uint8 and "H" in layout:
        return x.astype(np.float32) / np.float32(255), True
    return x, False


def _infer_layout(where: str, x: np.ndarray) -> str | None:
    if x.ndim == 2:
        return "NT"
    if x.ndim == 3:
        if x.dtype == np.uint8:
            raise InputError(
                f"{where} is uint8 of shape {x.shape}: grey images or series? Add an entry layout='NHW' (images), "
                "'NCT' or "
                "'NTC' (series) to the file"
            )
        return "NCT"
    if x.ndim == 4:
        first, last = x.shape[1] in (1, 3), x.shape[3] in (1, 3)
        if first != last:
            return "NCHW" if first else "NHWC"
        raise InputError(
            f"{where} has shape {x.shape}: where the channels stand is not clear. Add an entry layout='NCHW' or "
            "'NHWC' to "
            "the file"
        )
    return None
