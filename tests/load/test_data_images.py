"""Folders of images per class."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.load.data import load_dataset

Image = pytest.importorskip("PIL.Image", reason="pillow (extra `images`) is not installed")


def save(folder: Path, name: str, size: tuple[int, int] = (4, 3), mode: str = "RGB", value: int = 100) -> Path:
    """An image of `size` (width, height), every value `value` but the first pixel's."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}.get(mode, (3,))
    pixels = np.full((size[1], size[0], *channels), value, np.uint8)
    pixels[0, 0] = 255
    image = Image.fromarray(pixels)
    (image if mode in ("L", "RGB", "RGBA") else image.convert(mode)).save(path)
    return path


def test_class_folders_are_split(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for index in range(10):
            save(tmp_path, f"{label}/{index}.png", value=index)
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"x")
    dataset = load_dataset(str(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.x_train.shape == (16, 3, 3, 4)
    assert dataset.x_test.shape == (4, 3, 3, 4)
    assert dataset.x_train.max() == 1
    assert np.bincount(dataset.y_test).tolist() == [2, 2]
    assert any("divided by 255" in note for note in dataset.notes)


def test_train_and_test_folders(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 1)):
        for label in ("a", "b"):
            for index in range(count):
                save(tmp_path, f"{part}/{label}/{index}.bmp", mode="L", value=51)
    dataset = load_dataset(str(tmp_path))
    assert dataset.x_train.shape == (6, 1, 3, 4)
    assert dataset.x_test.shape == (2, 1, 3, 4)
    assert dataset.x_test[0, 0, 1, 1] == np.float32(51) / np.float32(255)
    assert dataset.x_test[0, 0, 0, 0] == 1
    assert dataset.y_train.tolist() == [0, 0, 0, 1, 1, 1]


def test_palette_is_colour(tmp_path: Path) -> None:
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        save(tmp_path, name, mode="P")
    assert load_dataset(str(tmp_path)).sample_shape == (3, 3, 4)


@pytest.mark.parametrize(("mode", "channels"), [("grey", 1), ("rgb", 3)])
def test_mode_option_converts(tmp_path: Path, mode: str, channels: int) -> None:
    for name, kind in (("a/0.png", "RGB"), ("a/1.png", "L"), ("b/0.png", "RGBA"), ("b/1.png", "L")):
        save(tmp_path, name, mode=kind)
    assert load_dataset(f"{tmp_path}?mode={mode}").sample_shape == (channels, 3, 4)


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"holds no images \(class folders found: a\); expected"):
        load_dataset(str(tmp_path))
    save(tmp_path, "a/0.png")
    save(tmp_path, "a/1.png")
    with pytest.raises(InputError, match="one class only"):
        load_dataset(str(tmp_path))
    save(tmp_path, "b/0.png")
    with pytest.raises(InputError, match=r"class 'b' has 1 sample\(s\); a split"):
        load_dataset(str(tmp_path))
    with pytest.raises(InputError, match="mode is 'blue'; allowed: grey, rgb"):
        load_dataset(f"{tmp_path}?mode=blue")
    odd = save(tmp_path, "b/1.png", size=(5, 3))
    with pytest.raises(InputError, match=r"b/1.png is 5x3, a/0.png 4x3; all images must have one size"):
        load_dataset(str(tmp_path))
    save(tmp_path, "b/1.png", mode="L")
    with pytest.raises(InputError, match=r"b/1.png is L, a/0.png RGB; grey and colour are mixed"):
        load_dataset(str(tmp_path))
    save(tmp_path, "b/1.png", mode="RGBA")
    with pytest.raises(InputError, match=r"b/1.png has pixel mode RGBA.*mode=grey or"):
        load_dataset(str(tmp_path))
    for content in (b"", b"not an image", save(tmp_path, "c.png", size=(4, 3)).read_bytes()[:50]):
        odd.write_bytes(content)
        with pytest.raises(InputError, match=r"b/1.png cannot be read as an image"):
            load_dataset(str(tmp_path))


def test_claimed_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a/0.png")
    monkeypatch.setattr("edgeprune.load.data_checks.MAX_DATASET_BYTES", 100)
    with pytest.raises(InputError, match="GiB"):
        load_dataset(str(tmp_path))


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a/0.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"need pillow: pip install 'edgeprune\[images\]'"):
        load_dataset(str(tmp_path))
