"""The wheel holds the library of files, and the program finds it there from any directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = ("hardware_profiles", "workloads", "traces/lengths")

LOADS_A_SCENARIO = """
import hermes_sim
from hermes_sim import load_scenario
from hermes_sim.scenario.library import library_root
from hermes_sim.workload.generate import generate_requests

scenario = load_scenario("a100x8.yaml", "rag.yaml")
requests = generate_requests(scenario.workload.traffic, scenario.seed)
print(hermes_sim.__file__, library_root(), requests.num_requests, sep="\\n")
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel's content, built from the source tree without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--wheel-dir", str(folder), str(REPOSITORY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("hermes_sim-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def python(unpacked: Path, folder: Path, *arguments: str) -> str:
    """Output of Python in `folder`, with the unpacked wheel before anything installed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_below(folder: Path, pattern: str = "*") -> set[str]:
    """Paths relative to the folder, of files that belong to the project."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("folder", SHIPPED)
def test_the_library_is_inside(folder: str, unpacked: Path) -> None:
    shipped = unpacked / "hermes_sim" / "_library" / folder
    assert files_below(shipped) == files_below(REPOSITORY / folder)
    for name in files_below(shipped):
        assert (shipped / name).read_bytes() == (REPOSITORY / folder / name).read_bytes()


def test_the_code_is_inside_and_nothing_else(unpacked: Path) -> None:
    assert files_below(unpacked / "hermes_sim", "*.py") == files_below(REPOSITORY / "hermes_sim", "*.py")
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"hermes_sim"}


def test_metadata(unpacked: Path) -> None:
    (information,) = unpacked.glob("hermes_sim-*.dist-info")
    assert "hermes-sim = hermes_sim.cli:main" in (information / "entry_points.txt").read_text(encoding="utf-8")
    metadata = (information / "METADATA").read_text(encoding="utf-8")
    assert "Requires-Python: >=3.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert list((information / "licenses").glob("LICENSE"))


def test_it_works_from_another_directory(unpacked: Path, tmp_path: Path) -> None:
    code, library, num_requests = python(unpacked, tmp_path, "-c", LOADS_A_SCENARIO).splitlines()
    assert Path(code).is_relative_to(unpacked)
    assert Path(library) == unpacked / "hermes_sim" / "_library"
    assert num_requests == "2000"
    clusters = python(unpacked, tmp_path, "-m", "hermes_sim", "list", "clusters").splitlines()
    shipped = {path.stem for path in (REPOSITORY / "hardware_profiles" / "clusters").glob("*.yaml")}
    assert shipped <= {word for line in clusters for word in line.split()}
    for kind in ("devices", "links", "models", "workloads"):
        assert python(unpacked, tmp_path, "-m", "hermes_sim", "list", kind).count("\n") > 10
    assert list(tmp_path.iterdir()) == []
