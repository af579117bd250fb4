"""A report's artifacts made again from the same model, data and settings, and held against it by digest.

A report holds no path: the model and the data are looked for by name beside the report, above it and in the working
folder, and must have the content that the report names. Everything is computed anew, without the cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune import __version__
from edgeprune.cache import list_package_versions
from edgeprune.errors import InputError, UntrustedInputError
from edgeprune.pipeline import compile_model
from edgeprune.progress import SILENT, Progress
from edgeprune.report.document import read_report
from edgeprune.settings import CompileSettings
from edgeprune.stages.record import PRUNED_MODEL

# what names code of the user's, which a report alone must not start
CODE_SETTINGS = ("factory", "train", "allow_pickle")
# what says where and against what, and changes no artifact
LEFT_OUT = (
    *("model", "data", "config", "output", "cache", "use_cache"),
    *("budgets", "device", "baseline", "tolerances"),
)


@dataclass(frozen=True)
class Reproduction:
    """What came out. states: artifact -> 'same', 'differs', 'missing', 'new' or 'not compared'.

    versions: package -> (recorded, present), of those that differ. folder: where the new artifacts lie.
    """

    states: Mapping[str, str]
    versions: Mapping[str, tuple[str | None, str | None]]
    folder: Path

    @property
    def is_same(self) -> bool:
        """Whether every artifact that can be compared has the recorded digest."""
        return set(self.states.values()) <= {"same", "not compared"}


def reproduce_report(
    path: Path,
    folder: Path,
    *,
    model: Path | None = None,
    data: str | None = None,
    allow_code: bool = False,
    progress: Progress = SILENT,
) -> Reproduction:
    """Compile again what a report describes, into `folder`, and compare the digests.

    path: of the report.json, or its folder. model, data: where they are, if not near the report. allow_code: whether
    functions of the user's that the report names may run.

    Raises InputError where the model or the data cannot be found or are others, UntrustedInputError for a report that
    names code, and what `compile_model` raises.
    """
    document = read_report(path)
    settings = rebuild_settings(document, path, folder, model, data, allow_code=allow_code)
    made = compile_model(settings, progress).document
    recorded, found = document["data"]["sha256"], made["data"]["sha256"]
    if found != recorded:
        raise InputError(
            f"{path}: the data {settings.data or 'that belongs to the model'} has digest {found[:12]}, the report was "
            f"made from {recorded[:12]}; name the right data with --data"
        )
    before = {artifact["path"]: artifact["sha256"] for artifact in document["artifacts"]}
    after = {artifact["path"]: artifact["sha256"] for artifact in made["artifacts"]}
    names = [*before, *(name for name in after if name not in before)]
    return Reproduction({name: _compare(name, before, after) for name in names}, _compare_versions(document), folder)


def rebuild_settings(
    document: Mapping[str, Any], path: Path, folder: Path, model: Path | None, data: str | None, *, allow_code: bool
) -> CompileSettings:
    """The settings of the compile that wrote a report, with the files found again."""
    recorded = dict(document["settings"])
    named = [name for name in CODE_SETTINGS if recorded.get(name)]
    if named and not allow_code:
        listed = ", ".join(f"{name} {recorded[name]}" for name in named)
        raise UntrustedInputError(
            f"{path}: the report names code of its own ({listed}); if you trust it, say --allow-code"
        )
    places = list(_list_places(path))
    source = find_model(document, places, model)
    known = {item.name for item in dataclasses.fields(CompileSettings)} - set(LEFT_OUT)
    values = {name: value for name, value in recorded.items() if name in known}
    values["training"] = {name: value for name, value in recorded["training"].items() if name != "seed"}
    values["allow_pickle"] = tuple(recorded.get("allow_pickle") or ())
    if str(recorded["target"]).endswith(".toml"):
        values["target"] = str(_find(recorded["target"], places, "the target description", "beside the report"))
    if data is None and recorded.get("data"):
        data = find_data(str(recorded["data"]), places)
    return CompileSettings(**values, model=source, data=data, output=folder, use_cache=False)


def find_model(document: Mapping[str, Any], places: list[Path], named: Path | None) -> Path:
    """The file that the report was made from; raises InputError if it is not there or another."""
    path = named or _find(document["settings"]["model"], places, "the model", "with --model-file")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); name the model file") from error
    recorded = document["model"]["sha256"]
    if digest != recorded:
        raise InputError(
            f"{path} has digest {digest[:12]}, the report was made from {recorded[:12]}; name the right file with "
            "--model-file"
        )
    return path


def find_data(spec: str, places: list[Path]) -> str:
    """The dataset that a report names, with its path."""
    if spec.startswith("ucr:"):
        return spec
    name, mark, options = spec.partition("?")
    return f"{_find(name, places, 'the data', 'with --data')}{mark}{options}"


def _list_places(path: Path) -> Iterator[Path]:
    """Where files are looked for: the working folder, the report's and those above it, and their calibration_data."""
    start = (path if path.is_dir() else path.parent).resolve()
    for place in (Path.cwd(), start, *list(start.parents)[:3]):
        yield from (place, place / "calibration_data")


def _find(name: str, places: list[Path], what: str, how: str) -> Path:
    for place in places:
        # a stem such as folder/X of X_TRAIN.ts is a name too
        if (place / name).exists() or any(place.glob(f"{name}_TRAIN.*")):
            return place / name
    raise InputError(f"{what} {name} is neither in the working folder nor near the report; name it {how}")


def _compare(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    if name not in after:
        return "missing"
    if name not in before:
        return "new"
    if name == PRUNED_MODEL:
        return "not compared"  # torch.export writes a fresh id into every archive
    return "same" if before[name] == after[name] else "differs"


def _compare_versions(document: Mapping[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    recorded = {"edgeprune": document["edgeprune_version"], **document["tools"]}
    present = {"edgeprune": __version__, **list_package_versions()}
    return {
        name: (recorded.get(name), present.get(name))
        for name in sorted({*recorded, *present})
        if recorded.get(name) != present.get(name)
    }
