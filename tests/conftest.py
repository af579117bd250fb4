"""What all tests share: a skip for a missing package must not read as a pass where the package belongs."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from edgeprune.cache import VARIABLE

# no time limit per example: the tests must not fail on a busy machine; the same examples in every run
hypothesis.settings.register_profile("edgeprune", deadline=None, derandomize=True)
hypothesis.settings.load_profile("edgeprune")

# `make install` brings tflite-micro, CI's image qemu and gcc for Arm, `make extras` all the others.
REQUIRED_IN_CI = (
    "tflite-micro",
    "qemu-system-arm",
    "qemu-aarch64",
    "qemu-arm",
    "arm-none-eabi-gcc",
    "chromium",
    "sshd",
)
NOT_INSTALLED = "is not installed"


def is_required(reason: str) -> bool:
    """Whether a skip for this reason counts as a failure in this run."""
    if NOT_INSTALLED not in reason:
        return False
    if os.environ.get("EDGEPRUNE_REQUIRE_EXTRAS") == "1":
        return True
    return os.environ.get("CI") == "true" and any(name in reason for name in REQUIRED_IN_CI)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the fixtures of modules compile is kept apart from the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test computes its own results: no test passes by what another one left."""
    folder = Path(tmp_path_factory.getbasetemp()) / f"cache-{os.urandom(6).hex()}"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and is_required(report.longrepr[2]):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: {report.longrepr[2]}, but this run requires it"
    return report
