"""A working directory with the cluster `box` and the workload `traffic`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from tests import scenarios

LONGEST_S = 240


@pytest.fixture
def ends_in_time() -> Iterator[None]:
    """A cluster that is waited for in vain is a failed test."""

    def too_late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {LONGEST_S} s")

    former = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


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
