"""Where the files are that come with the package: hardware profiles, workloads, length tables."""

from __future__ import annotations

from pathlib import Path


def shipped_root(package: Path | None = None) -> Path:
    """Folder that holds `hardware_profiles/` and `workloads/`: the source tree, else the copy inside the wheel.

    package: folder of the package; this one's if not given.
    """
    package = package or Path(__file__).resolve().parents[1]
    source_tree = package.parent
    is_source_tree = (source_tree / "pyproject.toml").is_file() and (source_tree / "hardware_profiles").is_dir()
    return source_tree if is_source_tree else package / "_library"
