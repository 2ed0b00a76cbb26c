"""How a path in a traffic description becomes a file: decided by whoever read the description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ResolvePath = Callable[[str], Path]
"""A path as written in a workload file -> the file. Relative ones are tried beside the naming file too."""


def shipped_traces() -> Path:
    """Folder `traces/` of the source tree if the package runs from one, else the copy inside the wheel."""
    package = Path(__file__).resolve().parents[1]
    source_tree = package.parent / "traces"
    return source_tree if (package.parent / "pyproject.toml").is_file() else package / "_library" / "traces"
