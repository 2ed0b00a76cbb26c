"""Residual tables of a device: the file that its `residuals` key names, or the shipped one of a shipped device."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.words import shown
from hermes_sim.hardware.residual import Residuals
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.library import kind_of_folder, library_root
from hermes_sim.scenario.validate import validate
from hermes_sim.scenario.yaml_reader import read_yaml

RESIDUALS_FOLDER: Final = "hardware_profiles/residuals"
KEY: Final = "residuals"


def attach_residuals(document: Document) -> None:
    """Puts the tables where the key names their file; `residuals: null` leaves a shipped device without.

    Raises ConfigError for a file that is not there or cannot be read.
    """
    if KEY not in document.data:
        shipped = _shipped_file(document)
        if shipped is not None:
            status = shipped.stat()
            document.data[KEY] = _read_once(shipped, status.st_mtime_ns, status.st_size)
        return
    path = _named_file(document)
    if path is None:
        return
    tables = read_yaml(path)
    document.data[KEY] = tables.data
    for key_path, origin in tables.origins.items():
        document.origins[KEY, *key_path] = origin


@lru_cache(maxsize=32)
def _read_once(path: Path, changed_ns: int, num_bytes: int) -> Residuals:
    """Tables of a shipped file: tens of thousands of numbers that every scenario with the device would read again."""
    return validate(Residuals, read_yaml(path))


def _named_file(document: Document) -> Path | None:
    written = document.data[KEY]
    if not isinstance(written, str):
        return None  # tables in place, or nothing
    folder = document.path.parent if document.path is not None else Path()
    path = folder / written
    if not path.is_file():
        raise ConfigError([document.problem((KEY,), f"there is no file {shown(written)} beside the device's")])
    return path


def _shipped_file(document: Document) -> Path | None:
    if document.path is None or kind_of_folder(document.path) != "device":
        return None
    path = library_root() / RESIDUALS_FOLDER / document.path.name
    return path if path.is_file() else None
