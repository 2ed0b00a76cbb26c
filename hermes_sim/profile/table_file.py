"""A table of measurements as a CSV file: read again when a run resumes, and never half-written."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from hermes_sim.core.errors import HermesError
from hermes_sim.core.whole_file import write_whole


class TableFile:
    """Rows of one operator in one CSV file, told apart by their key columns."""

    def __init__(self, path: Path, columns: Sequence[str], key_columns: Sequence[str]) -> None:
        self.path = path
        self._columns = tuple(columns)
        self._key_columns = tuple(key_columns)
        self.rows = _read(path, self._columns)
        self._keys = {self._key(row) for row in self.rows}
        self._saved = len(self.rows)

    def holds(self, row: Mapping[str, object]) -> bool:
        """Whether this shape was measured before."""
        return self._key(row) in self._keys

    def add(self, row: Mapping[str, object]) -> None:
        """Columns that a row lacks stay empty."""
        self.rows.append({name: _cell(row.get(name, "")) for name in self._columns})
        self._keys.add(self._key(row))

    def save(self) -> None:
        """Write the file if rows were added."""
        if self._saved == len(self.rows):
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, text.getvalue())
        self._saved = len(self.rows)

    def _key(self, row: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(_cell(row.get(name, "")) for name in self._key_columns)


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != columns:
            raise HermesError(f"--out: {path} has other columns than this version writes; choose an empty folder")
        return list(reader)


def _cell(value: object) -> str:
    """Six significant digits of a float: a clock is not better."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
