"""The names users import, and that importing them costs nothing until they are used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hermes_sim

REPOSITORY = Path(__file__).resolve().parents[2]


def test_public_names() -> None:
    assert hermes_sim.__all__ == [
        "CapacityResults", "Comparison", "ConfigError", "Decisions", "HermesError", "PythonBatching", "PythonRouting",
        "Results", "Scenario", "SearchResults", "SimulationError", "SweepResults", "TraceError", "__version__",
        "calibrate", "capacity", "compare", "device", "explain", "kernel_times", "load_plugin", "load_scenario",
        "register_batching", "register_routing", "run_scenario", "search", "simulate", "sweep",
    ]  # fmt: skip
    assert dir(hermes_sim) == sorted(hermes_sim.__all__)
    assert all(getattr(hermes_sim, name) is not None for name in hermes_sim.__all__)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'hermes_sim' has no attribute 'simulat'"):
        hermes_sim.simulat  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert hermes_sim.__version__ == project["version"]


@pytest.mark.parametrize("module", ["hermes_sim", "hermes_sim.cli"])
def test_an_import_loads_no_heavy_library(module: str) -> None:
    heavy = ["numba", "pandas", "numpy", "matplotlib", "scipy", "simpy", "pydantic", "networkx", "pyarrow"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
