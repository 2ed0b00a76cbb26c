"""What all tests share: the folder of measured data, if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Measured data and public traces: HERMES_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("HERMES_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no measured data at {folder} (set HERMES_DATA to run this test)")
    return folder
