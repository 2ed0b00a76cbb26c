"""Tables in files: CSV (plain or compressed) and Parquet; their columns, and their rows as far as they are sound."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO, cast

import numpy as np
import pandas as pd

from hermes_sim.measured.tables import Log

SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")
_UNREADABLE: Final = (OSError, ValueError, EOFError, zlib.error, UnicodeError, csv.Error)
"""What a broken file raises: also pandas' ParserError and pyarrow's ArrowInvalid, which are ValueErrors."""

_TRUE: Final = frozenset({"true", "1", "yes", "1.0"})
_FALSE: Final = frozenset({"false", "0", "no", "0.0"})


def find_tables(folder: Path) -> Iterator[Path]:
    """Files of tables under the folder, in a fixed order."""
    for path in sorted(folder.rglob("*"), key=str):
        if path.name.endswith(SUFFIXES) and path.is_file():
            yield path


def column_names(path: Path) -> list[str]:
    """Of a file, without reading its rows. Raises what `reason` words."""
    if path.name.endswith(".parquet"):
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(path).names)
    with _open(path) as lines:
        return [name.strip() for name in next(csv.reader(lines), [])]


def is_unreadable(error: Exception) -> bool:
    """Whether the error says that the file is broken, not this program."""
    return isinstance(error, _UNREADABLE)


def reason(error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    text = str(error).strip().splitlines()
    return f"cannot be read: {text[0] if text else type(error).__name__}"


def read_table(path: Path, name: str, log: Log) -> pd.DataFrame | None:
    """All rows, the index their number; None and a problem where the file is broken. Blank lines are passed over."""
    try:
        if path.name.endswith(".parquet"):
            return pd.DataFrame(pd.read_parquet(path)).reset_index(drop=True)
        try:
            table = pd.read_csv(path, low_memory=False, skip_blank_lines=False, index_col=False)
        except pd.errors.ParserError:
            table = _read_lines(path, name, log)
    except Exception as error:
        if not is_unreadable(error):
            raise
        log.problem(name, reason(error))
        return None
    table.columns = [str(column).strip() for column in table.columns]
    return table[~table.isna().all(axis=1)]


def sound_rows(
    table: pd.DataFrame, name: str, log: Log, *, numbers: dict[str, float], whole: Iterable[str], flags: Iterable[str]
) -> pd.DataFrame:
    """The rows whose cells are what the columns hold; every other one is named in the log.

    numbers: column -> its least value, -inf for a column whose cells may be empty; `whole` of them hold whole numbers.
    A least value of 0 for a column that is not whole means above zero.
    """
    kept = np.ones(len(table), bool)
    columns: dict[str, pd.Series] = {}
    whole = set(whole)
    for column, least in numbers.items():
        values, wrong = _numbers(table[column], least, column in whole)
        columns[column] = values
        kept &= ~_report(table, column, wrong & kept, _wanted(least, column in whole), name, log)
    for column in flags:
        words = table[column].astype(str).str.strip().str.casefold()
        columns[column] = words.isin(_TRUE)
        wrong = np.asarray(~words.isin(_TRUE | _FALSE), bool)
        kept &= ~_report(table, column, wrong & kept, "needs true or false", name, log)
    sound = table.assign(**columns)
    return sound if kept.all() else sound[kept]


def _numbers(cells: pd.Series, least: float, whole: bool) -> tuple[pd.Series, np.ndarray]:
    optional = least == -np.inf
    values = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    array = values.to_numpy()
    wrong = ~np.isfinite(array)
    if optional:
        wrong &= ~np.asarray(cells.isna(), bool)
        with np.errstate(invalid="ignore"):
            wrong |= array < 0.0
    else:
        with np.errstate(invalid="ignore"):
            wrong |= (array < least) | ((array == 0.0) & (least == 0.0) & (not whole))
    if whole:
        with np.errstate(invalid="ignore"):
            wrong |= (array != np.floor(array)) & np.isfinite(array)
    return values, wrong


def _wanted(least: float, whole: bool) -> str:
    if least == -np.inf:
        return "needs a number of at least 0, or nothing"
    if whole:
        return f"needs a whole number of at least {least:g}"
    return "needs a number above 0" if least == 0.0 else f"needs a number of at least {least:g}"


def _report(table: pd.DataFrame, column: str, wrong: np.ndarray, wanted: str, name: str, log: Log) -> np.ndarray:
    if wrong.any():
        bad = table.loc[wrong, column]
        reasons = [f"{wanted}, got {'nothing' if pd.isna(value) else repr(str(value))}" for value in bad.tolist()]
        log.rows(name, [int(row) for row in bad.index], reasons, column)
    return wrong


def _open(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _read_lines(path: Path, name: str, log: Log) -> pd.DataFrame:
    """Line by line: a line with too many fields is named and left out."""
    with _open(path) as lines:
        reader = csv.reader(lines)
        header = next(reader)
        rows, index, bad = [], [], []
        for number, fields in enumerate(reader):
            if len(fields) > len(header):
                bad.append((number, f"has {len(fields)} fields, the header {len(header)}"))
            else:
                rows.append(fields + [""] * (len(header) - len(fields)))
                index.append(number)
    log.rows(name, [row for row, _ in bad], [why for _, why in bad], "")
    return pd.DataFrame(rows, columns=header, index=index).replace("", np.nan)
