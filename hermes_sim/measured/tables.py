"""What a folder of measured kernels holds once it is read, and what of it could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

MOST_ROWS_NAMED = 20
"""Malformed rows of one column of one file that are named one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class TableProblem:
    """A file that cannot be read, or a row of it."""

    file: str
    """Relative to the folder."""
    row: int | None
    """0-based, the header not counted; None where the whole file or several rows are meant."""
    column: str
    reason: str
    num_rows: int = 1

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file} row {self.row}"
        return f"{where} {self.column}: {self.reason}" if self.column else f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Measurements that the tables of operators cannot express."""

    file: str
    operator: str
    """As the file names it."""
    reason: str
    num_rows: int


@dataclass(slots=True)
class Log:
    """Problems and skipped rows of one reading, as they are found."""

    problems: list[TableProblem] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def problem(self, file: str, reason: str, *, row: int | None = None, column: str = "", num_rows: int = 1) -> None:
        """Notes what cannot be read."""
        self.problems.append(TableProblem(file, row, column, reason, num_rows))

    def rows(self, file: str, rows: list[int], reasons: list[str], column: str) -> None:
        """Notes malformed rows: the first ones by their number, the others together."""
        for row, reason in list(zip(rows, reasons, strict=True))[:MOST_ROWS_NAMED]:
            self.problem(file, reason, row=row, column=column)
        rest = len(rows) - MOST_ROWS_NAMED
        if rest > 0:
            self.problem(file, f"{rest} more rows like these, the last is row {rows[-1]}", column=column, num_rows=rest)

    def skip(self, file: str, operator: str, reason: str, num_rows: int) -> None:
        """Counts rows that cannot be expressed."""
        if num_rows > 0:
            self.skipped.append(Skipped(file, operator, reason, num_rows))


class KernelTables(Mapping[str, pd.DataFrame]):
    """Operator -> table of its measurements, base units, columns of `hermes_sim.measured.columns`."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], log: Log, num_files: int) -> None:
        self._tables = dict(tables)
        self.problems = tuple(log.problems)
        self.skipped = tuple(log.skipped)
        self.num_files = num_files
        """Files of kernels that were read."""

    def __getitem__(self, operator: str) -> pd.DataFrame:
        return self._tables[operator]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def num_rows(self) -> int:
        """Measurements of all operators."""
        return sum(map(len, self._tables.values()))

    @property
    def num_malformed(self) -> int:
        """Rows that the problems name or count."""
        return sum(problem.num_rows for problem in self.problems if problem.row is not None or problem.num_rows > 1)
