"""A run of measurements: what is done is skipped, a budget ends it, every few seconds it is saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal, Protocol

import numpy as np

from hermes_sim.core.errors import HermesError
from hermes_sim.profile.backend import Backend, Timing
from hermes_sim.profile.case import Case
from hermes_sim.profile.columns import FACTS, FACTS_FOLDER, columns, key_columns
from hermes_sim.profile.table_file import TableFile

Statistic = Literal["median", "fastest"]

SECONDS_BETWEEN_SAVES = 3.0
NUM_REPEATS = 15
REPEATS_BUDGET_S = 0.15
"""Repeats of one case end after this long, once there are three."""
MEMORY_FRAC = 0.6
"""Share of the free memory that one case may take."""
FAILURES_IN_A_ROW = 5
"""An operator that fails so often in a row is given up: it is the device or the library, not the shape."""


class Progress(Protocol):
    """Told what is measured."""

    def __call__(self, done: int, total: int, words: str) -> None: ...


@dataclass(slots=True)
class NotMeasured:
    """Shapes of one operator left out for one reason."""

    operator: str
    kernel: str
    reason: str
    num_shapes: int
    first_shape: dict[str, object]


@dataclass(slots=True)
class Session:
    """Tables in a folder that grow case by case."""

    backend: Backend
    folder: Path
    device: str
    """Name in the tables."""
    end_s: float
    """When the budget ends, by `perf_counter`."""
    statistic: Statistic = "median"
    not_measured: list[NotMeasured] = field(default_factory=list)
    num_measured: int = 0
    num_found: int = 0
    num_unreached: int = 0
    _tables: dict[str, TableFile] = field(default_factory=dict)
    _in_a_row: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _last_save_s: float = field(default_factory=perf_counter)
    _version: str = ""

    def __post_init__(self) -> None:
        self._version = self.backend.versions()[self.backend.name]

    @property
    def in_time(self) -> bool:
        """Whether the budget has time left."""
        return perf_counter() < self.end_s

    def run(self, cases: Sequence[Case], progress: Progress | None = None) -> None:
        """Measure until all is done or the time is up; what was measured is on disk in every case."""
        try:
            for done, case in enumerate(cases):
                if progress is not None:
                    progress(done, len(cases), f"{case.operator} {case.dtype}")
                if not self.in_time:
                    self.num_unreached += len(cases) - done
                    break
                self.measure(case)
        finally:
            self.save()

    def measure(self, case: Case, *, graph: bool = True) -> None:
        """One row, or a reason why there is none."""
        row = self._row(case.operator, case.kernel, case.dtype, case.shape)
        table = self.table(case.operator)
        if table.holds(row):
            self.num_found += 1
            return
        kind = (case.operator, case.kernel, case.dtype)
        if self._in_a_row.get(kind, 0) >= FAILURES_IN_A_ROW:
            self._leave_out(case, f"left out after {FAILURES_IN_A_ROW} failures in a row")
            return
        if case.needed_bytes(self.backend.cache_bytes) > MEMORY_FRAC * self.backend.free_bytes():
            self._leave_out(case, "does not fit into the free memory")
            return
        try:
            timing = self._time(case, graph)
        except (RuntimeError, NotImplementedError, MemoryError, ValueError) as error:
            self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1
            self._leave_out(case, first_line(error))
            return
        self._in_a_row[kind] = 0
        table.add({**row, **self.results(timing)})
        self.num_measured += 1
        if perf_counter() - self._last_save_s > SECONDS_BETWEEN_SAVES:
            self.save()

    def add(self, operator: str, kernel: str, dtype: str, shape: dict[str, object], timing: Timing) -> None:
        """A row that was timed elsewhere."""
        self.table(operator).add({**self._row(operator, kernel, dtype, shape), **self.results(timing)})
        self.num_measured += 1

    def holds(self, operator: str, kernel: str, dtype: str, shape: dict[str, object]) -> bool:
        """Whether the row is there already."""
        return self.table(operator).holds(self._row(operator, kernel, dtype, shape))

    def save(self) -> None:
        """Write the tables that grew."""
        for table in self._tables.values():
            table.save()
        self._last_save_s = perf_counter()

    def table(self, operator: str) -> TableFile:
        """The operator's file, opened when it is first asked for."""
        if operator not in self._tables:
            folder = self.folder / FACTS_FOLDER if operator in FACTS else self.folder
            path = open_folder(folder) / f"{operator}.csv"
            self._tables[operator] = TableFile(path, columns(operator), key_columns(operator))
        return self._tables[operator]

    def num_rows(self) -> dict[str, int]:
        """Rows by table."""
        return {operator: len(table.rows) for operator, table in self._tables.items() if table.rows}

    def results(self, timing: Timing) -> dict[str, object]:
        """Columns of the result; all repeats count."""
        samples = np.array(timing.samples_s)
        fastest_s, median_s = float(samples.min()), float(np.median(samples))
        return {
            "timing": timing.kind,
            "measured_s": fastest_s if self.statistic == "fastest" else median_s,
            "fastest_s": fastest_s,
            "p90_s": float(np.quantile(samples, 0.9)),
            "num_repeats": len(samples),
        }

    def _time(self, case: Case, graph: bool) -> Timing:
        """Captured where it can be; a kernel that cannot be captured is timed eagerly."""
        calls = case.prepare(self.backend, case.num_buffers(self.backend.cache_bytes))
        try:
            try:
                return self.backend.measure(calls, num_repeats=NUM_REPEATS, budget_s=REPEATS_BUDGET_S, graph=graph)
            except RuntimeError:
                if not (graph and self.backend.captures):
                    raise
                self.backend.synchronize()
                return self.backend.measure(calls, num_repeats=NUM_REPEATS, budget_s=REPEATS_BUDGET_S, graph=False)
        finally:
            del calls
            self.backend.release()

    def _row(self, operator: str, kernel: str, dtype: str, shape: dict[str, object]) -> dict[str, object]:
        return {
            "fact" if operator in FACTS else "operator": operator,
            "device": self.device,
            "engine": self.backend.name,
            "engine_version": self._version,
            "kernel": kernel,
            "dtype": dtype,
            **shape,
        }

    def leave_out(
        self, operator: str, kernel: str, dtype: str, shape: dict[str, object], reason: str, num_shapes: int = 1
    ) -> None:
        """Shapes that are not measured, and why."""
        for left in self.not_measured:
            if (left.operator, left.kernel, left.reason) == (operator, kernel, reason):
                left.num_shapes += num_shapes
                return
        self.not_measured.append(NotMeasured(operator, kernel, reason, num_shapes, {"dtype": dtype, **shape}))

    def _leave_out(self, case: Case, reason: str) -> None:
        self.leave_out(case.operator, case.kernel, case.dtype, case.shape, reason)


def first_line(error: BaseException) -> str:
    """An error in one line, for a table of reasons."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def open_folder(folder: Path) -> Path:
    """The folder to write to, made if need be; HermesError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HermesError(f"--out {folder}: {error.strerror}") from error
    return folder


@contextmanager
def progress_bar(shown: bool) -> Iterator[Progress | None]:
    """A bar on stderr where that is a terminal and rich is there; nothing otherwise."""
    if not shown:
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield None
        return
    parts = (
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Bar(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, words="")

        def update(done: int, total: int, words: str) -> None:
            bar.update(task, completed=done, total=total, words=words)

        yield update
