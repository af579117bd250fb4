"""A folder of images per class: `<class>/*.png` (a test set is split off), or `train/<class>/*` and `test/<class>/*`.

Read with pillow (extra `images`) from .png, .jpg, .jpeg, .bmp; all of one size. Samples are (C, H, W) with value / 255,
as torchvision's ToTensor gives. One channel if every file is grey, three if every file is RGB (or has a palette).

Option `mode=grey` or `mode=rgb` converts every image, also those with an alpha channel (which is dropped).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import InputError
from edgeprune.load.data_checks import RawData, check_size
from edgeprune.load.data_npz import PIXEL_NOTE

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
OPTIONS = ("mode",)
MODES = {"grey": "L", "rgb": "RGB"}
# what a file's own mode becomes when no option says otherwise
_NATURAL = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB"}


def read_image_folder(folder: Path, options: Mapping[str, str]) -> RawData:
    """Read every image below `folder`; raises InputError naming the file that does not fit."""
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"{folder.name}: image folders need pillow: pip install 'edgeprune[images]'") from error
    mode = options.get("mode")
    if mode is not None and mode not in MODES:
        raise InputError(f"{folder.name}: mode is {mode!r}; allowed: {', '.join(MODES)}")
    train = _list_images(folder / "train" if _is_split(folder) else folder)
    test = _list_images(folder / "test") if _is_split(folder) else []
    loader = _ImageLoader(Image, folder, MODES.get(mode) if mode else None)
    x_train, y_train = loader.load(train)
    if not test:
        return RawData(
            folder.name,
            folder.name,
            x_train,
            y_train,
            names=("images", "labels", "images", "labels"),
            notes=(PIXEL_NOTE,),
        )
    x_test, y_test = loader.load(test)
    names = ("train images", "train labels", "test images", "test labels")
    return RawData(folder.name, folder.name, x_train, y_train, x_test, y_test, names=names, notes=(PIXEL_NOTE,))


def _is_split(folder: Path) -> bool:
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def _list_images(folder: Path) -> list[tuple[str, Path]]:
    """(class, file) of every image in the class folders, in the order of their names."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    images = [
        (path.name, image)
        for path in classes
        for image in sorted(path.iterdir())
        if image.suffix.lower() in SUFFIXES and not image.name.startswith(".")
    ]
    if not images:
        found = ", ".join(path.name for path in classes[:8]) or "no folder"
        raise InputError(
            f"{folder.name} holds no images (class folders found: {found}); expected {folder.name}/<class>/*.png, "
            f"or .jpg, .bmp; or a UCR pair X_TRAIN.ts, X_TEST.ts"
        )
    return images


class _ImageLoader:
    """Reads images that must agree with the first one in size and colour."""

    def __init__(self, pillow: Any, root: Path, mode: str | None) -> None:
        self.pillow, self.root, self.mode = pillow, root, mode
        self.asked = mode is not None
        self.size: tuple[int, int] | None = None
        self.first = ""

    def load(self, files: list[tuple[str, Path]]) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, C, H, W) float32 in 0..1 and labels (N,)."""
        pixels: list[np.ndarray] = []
        for _, path in files:
            pixels.append(self._load_one(path, len(files)))
        samples = np.stack(pixels).astype(np.float32) / np.float32(255)
        samples = samples[:, None] if samples.ndim == 3 else np.moveaxis(samples, -1, 1)
        return samples, np.array([label for label, _ in files], dtype=str)

    def _load_one(self, path: Path, count: int) -> np.ndarray:
        name = path.relative_to(self.root)
        try:
            with self.pillow.open(path) as image:
                self._check(name, image, count)
                return np.asarray(image.convert(self.mode))
        except InputError:
            raise
        except Exception as error:  # pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
            raise InputError(
                f"{self.root.name}: {name} cannot be read as an image ({type(error).__name__}); it is damaged or of "
                "another format. Replace or remove it"
            ) from error

    def _check(self, name: Path, image: Any, count: int) -> None:
        """Size and colour come from the header, before any pixel is decoded."""
        if self.size is None:
            self.size, self.first = image.size, str(name)
            check_size(self.root.name, image.size[0] * image.size[1] * 3 * 4 * count)
        if image.size != self.size:
            raise InputError(
                f"{self.root.name}: {name} is {image.size[0]}x{image.size[1]}, {self.first} "
                f"{self.size[0]}x{self.size[1]}; "
                "all images must have one size. Resize or crop them"
            )
        if self.asked:
            return
        natural = _NATURAL.get(image.mode)
        if natural is None:
            raise InputError(
                f"{self.root.name}: {name} has pixel mode {image.mode}; grey and RGB are read as they are. For the "
                "others add ?mode=grey or ?mode=rgb to the folder's name"
            )
        if self.mode is None:
            self.mode = natural
        if natural != self.mode:
            raise InputError(
                f"{self.root.name}: {name} is {natural}, {self.first} {self.mode}; grey and colour are mixed. Add "
                "?mode=grey "
                "or ?mode=rgb to the folder's name"
            )
