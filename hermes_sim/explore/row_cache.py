"""Rows of all runs of this machine's user, by their hash: a sweep, a search and a capacity run share what they have.

The hash covers the program (explore/run_key.py), so that no row outlives an edit. The oldest are given up.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any, Final, Self

from hermes_sim.core.compiled import cache_folder

PLACE_VARIABLE: Final = "HERMES_ROW_CACHE"
"""Names another file, or `off`."""
MAX_NUM_ROWS: Final = 100_000
"""About a kilobyte each."""
KEPT_FRAC: Final = 0.9
"""Of them, when there are more."""
SECONDS_BETWEEN_WRITES: Final = 1.0
"""New rows are written together: the file is locked for the others for as long as that takes, not while runs go on."""
WAIT_S: Final = 10.0
"""For another process that is writing."""


class RowCache:
    """Never a reason to fail: where the file cannot be read or written, nothing is known and nothing is kept."""

    def __init__(self, path: Path) -> None:
        self._used: set[str] = set()
        self._new: dict[str, dict[str, Any]] = {}
        self._written_s = time.monotonic()
        self._rows: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(path, timeout=WAIT_S)
            self._rows.execute("create table if not exists rows (key text primary key, row blob, used_s real)")
        except (OSError, sqlite3.Error):
            self._give_up()

    def get(self, key: str) -> dict[str, Any] | None:
        """What the run of this hash added to its row; None if it is not known."""
        if self._rows is None:
            return None
        if key in self._new:
            return dict(self._new[key])
        try:
            found = self._rows.execute("select row from rows where key = ?", (key,)).fetchone()
        except sqlite3.Error:
            self._give_up()
            return None
        if found is None:
            return None
        self._used.add(key)
        row: dict[str, Any] = json.loads(zlib.decompress(found[0]))
        return row

    def put(self, key: str, row: dict[str, Any]) -> None:
        if self._rows is None:
            return
        self._new[key] = dict(row)
        if time.monotonic() - self._written_s <= SECONDS_BETWEEN_WRITES:
            return
        try:
            self._write(self._rows)
            self._rows.commit()
            self._written_s = time.monotonic()
        except sqlite3.Error:
            self._give_up()

    def _write(self, rows: sqlite3.Connection) -> None:
        listed = [
            (key, zlib.compress(json.dumps(row, default=float).encode()), time.time()) for key, row in self._new.items()
        ]
        rows.executemany("insert or replace into rows values (?, ?, ?)", listed)
        self._new.clear()

    def close(self) -> None:
        if self._rows is None:
            return
        try:
            self._write(self._rows)
            used = [(time.time(), key) for key in self._used]
            self._rows.executemany("update rows set used_s = ? where key = ?", used)
            (number,) = self._rows.execute("select count(*) from rows").fetchone()
            if number > MAX_NUM_ROWS:
                oldest = "select key from rows order by used_s limit ?"
                num_given_up = number - int(KEPT_FRAC * MAX_NUM_ROWS)
                self._rows.execute(f"delete from rows where key in ({oldest})", (num_given_up,))
            self._rows.commit()
        except sqlite3.Error:
            pass
        self._give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give_up(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None


def row_cache() -> RowCache | None:
    """The user's: `rows.sqlite` in the folder of HERMES_CACHE, beside the machine code. None if it is off."""
    place = os.environ.get(PLACE_VARIABLE)
    if place == "off":
        return None
    if place:
        return RowCache(Path(place))
    folder = cache_folder()
    return None if folder is None else RowCache(folder.parents[1] / "rows.sqlite")
