"""A working directory with the cluster `box` and the workload `traffic`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import scenarios


class Box:
    """The folder, and files in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, document: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump({**document, "name": path.stem}, sort_keys=False))
        return path

    def workload(self, output: int = 20) -> dict[str, Any]:
        return scenarios.workload(traffic=scenarios.traffic(num_requests=12, output=output))


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """Two replicas of a small model, a dozen short requests."""
    made = Box(tmp_path)
    made.write("box.yaml", scenarios.cluster(scenarios.llm(replicas=2)))
    made.write("traffic.yaml", made.workload())
    monkeypatch.chdir(tmp_path)
    return made
