"""A working directory of its own for every test of the loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.scenario.files import Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)
