"""The shipped model library, read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from hermes_sim.models.architecture import ModelArchitecture

FOLDER = Path(__file__).resolve().parents[3] / "workloads" / "models"


@cache
def models() -> dict[str, ModelArchitecture]:
    """Every shipped architecture by file name."""
    return {
        path.stem: ModelArchitecture.model_validate(yaml.safe_load(path.read_text()))
        for path in sorted(FOLDER.glob("*.yaml"))
    }
