"""Lines and rows of a trace file, and what happens to those that make no sense."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import TraceError
from hermes_sim.core.schema import LARGEST_COUNT
from hermes_sim.core.words import did_you_mean, shown
from hermes_sim.workload.requests import RequestTable, concatenate_hashes, request_table, select_requests

OnBadRow = Literal["error", "skip"]

_GZIP_MAGIC = b"\x1f\x8b"


class BadRows:
    """Malformed rows of one file: the first raises TraceError, or all are counted."""

    def __init__(self, path: Path, on_bad_row: OnBadRow) -> None:
        self.path = path
        self.on_bad_row = on_bad_row
        self.num_bad_rows = 0

    def report(self, line: int, reason: str) -> None:
        """A row is malformed. Raises TraceError with file, line and reason unless rows are skipped."""
        if self.on_bad_row == "error":
            raise TraceError(f"{self.path}:{line}: {reason}")
        self.num_bad_rows += 1


def lines(path: Path) -> Iterator[str]:
    """Lines of a text file, gzip or plain. Raises TraceError where the file cannot be read."""
    line = 0
    try:
        with _open(path) as file:
            for text in file:
                line += 1
                yield text
    except UnicodeDecodeError:
        raise TraceError(f"{path}:{line + 1}: not text in UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise TraceError(f"{path}:{line + 1}: damaged gzip file") from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None


def text_of(path: Path) -> str:
    """The whole file as text, gzip or plain."""
    return "".join(lines(path))


def _open(path: Path) -> IO[str]:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
    if compressed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def csv_rows(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, list[str | None]]]:
    """(line, cells) of a CSV file with a header; cells in the order of needed + optional.

    None where a row ends early or an optional column is absent. Raises TraceError if a needed column is missing.
    """
    reader = csv.reader(lines(path))
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in needed:
            if name not in header:
                near = did_you_mean(name, header)
                raise TraceError(f"{path}:1: no column '{name}' (columns: {', '.join(header) or 'none'}).{near}")
        places = [header.index(name) if name in header else -1 for name in (*needed, *optional)]
        for row in reader:
            if row:
                width = len(row)
                yield reader.line_num, [row[place] if 0 <= place < width else None for place in places]
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: {error}") from None


def tokens(cell: object, name: str) -> int:
    """A count of tokens from a CSV cell or a JSON value; '12.0' counts as 12. Raises ValueError with the reason."""
    count: float
    if isinstance(cell, str) and cell.isdecimal():  # the common case first: it is most of the time of a reader
        count = int(cell)
    elif isinstance(cell, int) and not isinstance(cell, bool):
        count = cell
    else:
        count = _number(cell, name, "a whole number")
        if not count.is_integer():
            raise ValueError(f"{name} needs a whole number, got {shown_cell(cell)}")
    if not 0 <= count <= LARGEST_COUNT:
        raise ValueError(f"{name} is {'negative' if count < 0 else 'not a plausible number of tokens'}: {cell}")
    return int(count)


def seconds(cell: object, name: str) -> float:
    """A time >= 0 from a CSV cell or a JSON value. Raises ValueError with the reason."""
    value = _number(cell, name, "a number")
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} needs a time >= 0, got {shown_cell(cell)}")
    return value


def recorded(
    arrival_s: npt.ArrayLike,
    num_prompt_tokens: Sequence[int],
    num_output_tokens: Sequence[int],
    bad_rows: BadRows,
    *,
    notes: tuple[str, ...] = (),
    **columns: Any,
) -> RequestTable:
    """Table of rows in any order of time: sorted (ties keep the order of the file), with a note where they were not.

    `columns`: further columns of request_table, hash_ids as one list of ids per row.
    """
    times_s = np.asarray(arrival_s, np.float64)
    hash_ids = columns.pop("hash_ids", None)
    if hash_ids is not None:
        columns["hash_offsets"], columns["hash_ids"] = concatenate_hashes(hash_ids)
    order = np.argsort(times_s, kind="stable")
    if (np.diff(times_s) < 0.0).any():
        notes = (*notes, f"{bad_rows.path.name}: rows were not in order of time and have been sorted")
    unsorted = request_table(
        np.zeros(len(times_s)),
        num_prompt_tokens,
        num_output_tokens,
        num_bad_rows=bad_rows.num_bad_rows,
        notes=notes,
        **columns,
    )
    return select_requests(unsorted, order, times_s[order])


def _number(cell: object, name: str, wanted: str) -> float:
    if isinstance(cell, str | int | float) and not isinstance(cell, bool):
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isnan(value):
            return value
    raise ValueError(f"{name} needs {wanted}, got {shown_cell(cell)}")


def shown_cell(cell: object) -> str:
    """The cell as its writer would recognise it."""
    return "nothing" if cell is None or cell == "" else shown(cell)
