#!/usr/bin/env python3
"""Make calibration_data/ from the datasets that aeon's package ships. Needs `pip install 'edgeprune[ucr]'`, no network.

The same bytes come out every time: zip entries carry no time, and are stored in one order. Run it again only when
aeon's copies changed; tests/load/test_data_calibration.py holds the files against manifest.toml.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from edgeprune.artifacts import Dataset
from edgeprune.load.data import load_dataset

FOLDER = Path(__file__).resolve().parent.parent / "calibration_data"

# name -> what the manifest says of it
DATASETS = {
    "ItalyPowerDemand": {
        "about": "one day of Italian power demand, 24 hourly values; class 1: October to March, class 2: April to "
        "September",
        "citation": (
            "E. Keogh, L. Wei, X. Xi, S. Lonardi, J. Shieh, S. Sirowy: Intelligent Icons: Integrating Lite-Weight Data "
            "Mining and Visualization into GUI Operating Systems, ICDM 2006"
        ),
    },
    "GunPoint": {
        "about": "x coordinate of a hand's centroid while drawing a gun (class 1) or pointing (class 2), 150 video "
        "frames",
        "citation": "C. A. Ratanamahatana, E. Keogh: Everything you know about dynamic time warping is wrong, SIGKDD "
        "workshop 2004",
    },
}

HEAD = """\
# What lies in this folder. Made by tools/make_calibration.py; do not edit by hand.
# The values and the train/test split are the UCR archive's; aeon (BSD-3-Clause, which covers its code) carries them.
"""

SOURCE = "UCR Time Series Classification Archive, https://www.cs.ucr.edu/~eamonn/time_series_data_2018/"
ARCHIVE = "H. A. Dau, E. Keogh, et al.: The UCR Time Series Archive, IEEE/CAA Journal of Automatica Sinica 6(6), 2019"
TERMS = (
    "we know of no licence text; the archive is published for research and asks to be cited. Ask its owners before "
    "shipping the values in a product"
)


def pack_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """A .npz whose bytes depend on the arrays alone (np.savez writes the time of day in some versions)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for key, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            # stored, not deflated: zlib's output differs from build to build, and git compresses anyway
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.getvalue())
    return stream.getvalue()


def describe(name: str, dataset: Dataset, content: bytes) -> str:
    """The dataset's table in manifest.toml."""
    channels, length = dataset.sample_shape
    classes = ", ".join(f'"{label}"' for label in dataset.class_names)
    return f"""
[{name}]
file = "{name}.npz"
about = "{DATASETS[name]["about"]}"
train_samples = {len(dataset.y_train)}
test_samples = {len(dataset.y_test)}
shape = [{channels}, {length}]
layout = "NT"  # (samples, length), float32; one channel
classes = [{classes}]  # y_train and y_test hold these numbers
normalized = "by the archive: each series has mean 0 and sample standard deviation 1 (n - 1 in the denominator)"
source = "{SOURCE}"
source_citation = "{ARCHIVE}"
dataset_citation = "{DATASETS[name]["citation"]}"
carried_by = "aeon, aeon/datasets/data/{name}"
terms = "{TERMS}"
sha256 = "{hashlib.sha256(content).hexdigest()}"
"""


def main() -> None:
    """Write the .npz files and manifest.toml."""
    manifest = HEAD
    FOLDER.mkdir(exist_ok=True)
    for name in DATASETS:
        dataset = load_dataset(f"ucr:{name}")
        labels = np.array([int(label) for label in dataset.class_names], np.int64)
        content = pack_arrays(
            {
                "x_train": dataset.x_train[:, 0],
                "y_train": labels[dataset.y_train],
                "x_test": dataset.x_test[:, 0],
                "y_test": labels[dataset.y_test],
            }
        )
        (FOLDER / f"{name}.npz").write_bytes(content)
        manifest += describe(name, dataset, content)
        print(f"{name}.npz: {len(content)} bytes")
    (FOLDER / "manifest.toml").write_text(manifest)


if __name__ == "__main__":
    main()
