"""The compile decorator: edits of callees are seen, the cache folder is ours, JIT can be switched off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hermes_sim
from hermes_sim.core import compiled as compiled_module

PACKAGE = Path(hermes_sim.__file__).parent if hermes_sim.__file__ else Path(next(iter(hermes_sim.__path__)))

CALLEE = """
from hermes_sim.core.compiled import compiled

@compiled
def callee(x: float) -> float:
    return x + {term}
"""
CALLER = """
from hermes_sim.core.compiled import compiled
from hermes_sim.perf.callee import callee

@compiled
def caller(x: float) -> float:
    return callee(x) * 2.0
"""
PROGRAM = """
from hermes_sim.core.compiled import cache_folder, jit_enabled
from hermes_sim.perf.caller import caller
value = caller(1.0)
print(jit_enabled(), value, sum(caller._entry.stats.cache_hits.values()) if jit_enabled() else 0, cache_folder())
"""


@pytest.fixture
def copied_package(tmp_path: Path) -> Path:
    """A package with only the decorator, a callee and a caller in two files."""
    package = tmp_path / "source" / "hermes_sim"
    for folder in ("core", "perf"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    for name in ("compiled.py", "parts.py"):
        (package / "core" / name).write_text(Path(compiled_module.__file__).with_name(name).read_text())
    (package / "perf" / "callee.py").write_text(CALLEE.format(term="1.0"))
    (package / "perf" / "caller.py").write_text(CALLER)
    return package


def run(package: Path, cache: Path, **environment: str) -> tuple[bool, float, int, str]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(package.parent), "HERMES_CACHE": str(cache), **environment},
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    enabled, value, num_hits, folder = result.stdout.split()
    return enabled == "True", float(value), int(num_hits), folder


def test_an_edited_callee_in_another_file_changes_the_result(copied_package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _, first, first_hits, first_folder = run(copied_package, cache)
    _, again, again_hits, again_folder = run(copied_package, cache)
    assert (first, again) == (4.0, 4.0)
    assert (first_hits, again_hits) == (0, 1)
    assert first_folder == again_folder
    (copied_package / "perf" / "callee.py").write_text(CALLEE.format(term="2.0"))
    _, edited, edited_hits, edited_folder = run(copied_package, cache)
    assert edited == 6.0
    assert edited_hits == 0
    assert edited_folder != first_folder
    assert Path(edited_folder).parent == cache / "compiled"


def test_unwritable_cache_works_without_one(copied_package: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.touch()
    enabled, value, _, folder = run(copied_package, blocked)
    assert (enabled, value, folder) == (True, 4.0, "None")
    assert not list(copied_package.rglob("*.nbi"))


def test_jit_can_be_switched_off(copied_package: Path, tmp_path: Path) -> None:
    enabled, value, _, _ = run(copied_package, tmp_path / "cache", NUMBA_DISABLE_JIT="1")
    assert (enabled, value) == (False, 4.0)


def test_only_the_most_recently_used_folders_are_kept(tmp_path: Path) -> None:
    for age in range(7):
        folder = tmp_path / f"key{age}"
        folder.mkdir()
        os.utime(folder, (1e9 - age, 1e9 - age))
    compiled_module._prune(tmp_path, tmp_path / "key6")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key0", "key1", "key2", "key6"]


def test_decorator_is_light_until_used() -> None:
    program = "import sys, hermes_sim.core.compiled; print('numba' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "False"


def test_division_by_zero_follows_numpy() -> None:
    divide = compiled_module.compiled(lambda x, y: x / y)
    if compiled_module.jit_enabled():
        assert divide(1.0, 0.0) == float("inf")
