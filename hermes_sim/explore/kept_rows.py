"""Rows on disk while runs go on: a line each beside the table as they end, gathered into the table at last.

Nothing that has ended is lost when the process is killed; half a line, the last one, is not believed.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from hermes_sim.core.errors import HermesError
from hermes_sim.explore.run_table import DONE, FIRST_COLUMNS, read_table

JOURNAL_SUFFIX: Final = ".jsonl"
SECONDS_BETWEEN_SYNCS: Final = 5.0
"""Lines reach the operating system at once, and the disk after so long: what a power cut may cost."""

Row = Mapping[str, Any]

_locked: Final[set[Path]] = set()
"""By this process, which a lock on a file does not keep out."""


def journal_of(table: Path) -> Path:
    """The file of the lines beside a table of runs."""
    return table.with_suffix(JOURNAL_SUFFIX)


def known_rows(table: Path) -> dict[str, dict[str, Any]]:
    """What runs that ended well added to their rows, by their hash: of the table, and of the lines beside it that an
    interruption has left. Raises HermesError if the file is no table of runs."""
    known: dict[str, dict[str, Any]] = {}
    if table.is_file():
        rows = read_table(table)
        done = rows[rows["status"] == DONE]
        added = done[list(done.columns[list(done.columns).index(FIRST_COLUMNS[0]) + 1 :])]  # behind axes and seed
        known = {str(row["scenario"]): {str(name): row[name] for name in row} for row in added.to_dict("records")}
    return known | _lines(journal_of(table))


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    found = {}
    for line in text.split(b"\n"):
        with suppress(ValueError):
            row = json.loads(line)
            found[str(row["scenario"])] = row
    return found


class KeptRows:
    """The lines beside a table, written by one process at a time."""

    def __init__(self, table: Path) -> None:
        """Raises OSError."""
        self._path = journal_of(table)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._synced_s = time.monotonic()
        self._end_last_line()

    def add(self, row: Row, axes: Mapping[str, Any]) -> None:
        """Keeps what a run that has ended well added to its row. axes: columns that are not its own. Raises OSError."""
        added = {name: value for name, value in row.items() if name not in axes and name != FIRST_COLUMNS[0]}
        os.write(self._file, json.dumps(added, default=float).encode() + b"\n")
        if time.monotonic() - self._synced_s > SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file)
            self._synced_s = time.monotonic()

    def remove(self) -> None:
        """When the table has them all."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if not os.fstat(self._file).st_size:
            self.remove()
        os.close(self._file)

    def _end_last_line(self) -> None:
        """What a killed process was writing stays a line of its own."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


@contextmanager
def kept_rows(table: Path) -> Iterator[KeptRows]:
    """Inside, this process alone writes beside the table. Raises HermesError where another one does; OSError."""
    with held(table):
        kept = KeptRows(table)
        try:
            yield kept
        finally:
            kept.close()


@contextmanager
def held(table: Path) -> Iterator[None]:
    """Inside, no other process that holds the file too gets past this. Raises HermesError where another one does."""
    lock = table.with_name(f".{table.name}.lock")
    place = lock.absolute()
    if place in _locked:
        raise _taken(table, "this process")
    file = _lock(lock, table)
    _locked.add(place)
    try:
        yield
    finally:
        _locked.discard(place)
        lock.unlink(missing_ok=True)
        os.close(file)


def _lock(lock: Path, table: Path) -> int:
    """Held by this process alone, not by those forked from it, and no longer than it lives."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(file, 200, 0).decode(errors="replace")
            os.close(file)
            raise _taken(table, holder or "another process") from None
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == lock.stat().st_ino:  # not one that its last owner was just removing
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {platform.node()}".encode())
                return file
        os.close(file)


def _taken(table: Path, holder: str) -> HermesError:
    return HermesError(f"{table.parent}: {holder} is writing its runs here: wait for it, or name another folder")
