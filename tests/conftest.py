"""What all tests share: the folder of measured data, if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
