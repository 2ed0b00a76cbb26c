"""Tables of a folder by their columns, and their rows checked: a row that cannot be read is named, the others go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hermes_sim.core.errors import Problem

SUFFIXES: Final = (".csv", ".csv.gz")

NUMBER: Final = "a number"
POSITIVE: Final = "a number above zero"
TEXT: Final = "text"


def tables_with(folder: Path, columns: Iterable[str]) -> list[Path]:
    """CSV files below a folder that have all these columns, whatever else they have; sorted."""
    wanted = frozenset(columns)
    files = (path for path in folder.rglob("*.csv*") if path.name.endswith(SUFFIXES) and path.is_file())
    return sorted(path for path in files if wanted <= columns_of(path))


def columns_of(path: Path) -> frozenset[str]:
    """Names in the first line; none of a file that is no table."""
    return _columns_at(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _columns_at(path: Path, changed_ns: int) -> frozenset[str]:
    """Cached until the file changes."""
    try:
        return frozenset(pd.read_csv(path, nrows=0).columns)
    except (OSError, ValueError, EOFError):  # empty, cut off, or no text
        return frozenset()


def read_rows(
    path: Path, name: str, needed: Mapping[str, str], optional: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, list[Problem]]:
    """The good rows of a table, and what is wrong with the others.

    needed, optional: column -> NUMBER, POSITIVE or TEXT; an optional column may be missing, its cells may be empty.
    The result has the further column `line`, the row's line in the file.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, on_bad_lines="error")
    except (OSError, ValueError, EOFError) as error:
        return pd.DataFrame(columns=[*needed, "line"]), [Problem(name, None, "", f"cannot be read: {error}")]
    frame["line"] = frame.index + 2
    bad: dict[int, Problem] = {}
    for column, kind in {**needed, **(optional or {})}.items():
        if column not in frame:
            if column in needed:
                return frame.iloc[:0], [Problem(name, 1, column, "the column is missing")]
            continue
        wrong = _wrong(frame, column, kind, may_be_empty=column not in needed)
        for line, cell in zip(frame["line"][wrong].tolist(), frame[column][wrong].tolist(), strict=True):
            bad.setdefault(line, Problem(name, line, column, f"must be {kind}, got {cell!r}"))
        if kind != TEXT:
            frame[column] = pd.to_numeric(frame[column], errors="coerce")
    good = frame[~frame["line"].isin(list(bad))].reset_index(drop=True)
    return good, [bad[line] for line in sorted(bad)]


def _wrong(frame: pd.DataFrame, column: str, kind: str, *, may_be_empty: bool) -> pd.Series:
    """Whether each cell is not what it must be."""
    empty = frame[column].str.strip() == ""
    if kind == TEXT:
        return empty & (not may_be_empty)
    numbers = pd.to_numeric(frame[column], errors="coerce")
    wrong = numbers.isna() | numbers.abs().eq(float("inf"))
    if kind == POSITIVE:
        wrong |= numbers <= 0.0
    return wrong & ~empty if may_be_empty else wrong


def read_json(path: Path, name: str) -> tuple[dict[str, Any], list[Problem]]:
    """A mapping in a JSON file, or why there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, [Problem(name, None, "", f"is no JSON: {error}")]
    if not isinstance(data, dict):
        return {}, [Problem(name, None, "", "must hold a mapping")]
    return data, []


def descriptions_beside(table: Path, name: str) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Every JSON mapping in the table's own folder, by file name, and those that cannot be read."""
    found, problems = [], []
    for path in sorted(table.parent.glob("*.json")):
        data, wrong = read_json(path, str(Path(name).parent / path.name))
        problems += wrong
        if data:
            found.append(data)
    return found, problems
