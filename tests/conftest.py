"""What all tests share: the folder of measured data, if it is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from hermes_sim import plugins

# short: the same examples every time, on a machine however slow. nightly: new ones, HYPOTHESIS_PROFILE=nightly.
SLOW_MACHINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("short", deadline=None, derandomize=True, suppress_health_check=SLOW_MACHINE)
settings.register_profile("nightly", deadline=None, max_examples=500, suppress_health_check=SLOW_MACHINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

os.environ["HERMES_ROW_CACHE"] = "off"  # a test runs what it says it runs, also in processes that it starts

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Measured data and public traces: HERMES_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("HERMES_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no measured data at {folder} (set HERMES_DATA to run this test)")
    return folder


@pytest.fixture(autouse=True)
def _plug_ins_of_one_test() -> Iterator[None]:
    """What a test loads is not there for the next: rows of runs are told apart by the plug-ins too."""
    before = dict(plugins._loaded)
    yield
    plugins._loaded.clear()
    plugins._loaded.update(before)
