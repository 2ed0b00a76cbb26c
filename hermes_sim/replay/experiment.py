"""A measured serving run beside the same experiment in the simulator: what both say, and what could not be replayed.

Every kind of table has one reader, a module of READERS with an object `READER`; it finds its tables in a folder by
their columns, never by the names of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, Protocol, cast

from hermes_sim.core.errors import HermesError, Problem

Side = Literal["fitted", "held_out"]
"""Whether rows of this kind may fit coefficients (calibration/split.py), or are kept out of every fit."""

Progress = Callable[[str, int, int], None]
"""(table, rows done, rows in all), called now and then."""

READERS: Final[tuple[str, ...]] = (
    "hermes_sim.replay.closed_loop",
    "hermes_sim.replay.inferencex",
    "hermes_sim.replay.per_request",
    "hermes_sim.replay.stage_rate",
    "hermes_sim.replay.splitwise_steps",
    "hermes_sim.replay.time_series_means",
    "hermes_sim.replay.time_series",
    "hermes_sim.replay.power",
)
"""Modules with a `READER`, in the order of a report."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measured number of one run, and what the simulator says.

    In seconds, or tokens per second, as the end of `metric` says.
    """

    table: str
    """Path of the file in the folder."""
    row: str
    """Id of the row, or its number in the file where rows have no id."""
    metric: str
    """ttft_mean_s, tpot_mean_s, e2e_mean_s, itl_mean_s, their _p50_ _p90_ _p99_ variants, prompt_s, token_s,
    throughput_tokens_per_s."""
    measured: float
    predicted: float
    labels: Mapping[str, str]
    """What a report groups by: device, model, engine, tp, concurrency, rate, workload, ..."""
    side: Side
    low: float | None = None
    """Lower end of the band that holds nine measurements in ten, where there is one."""
    high: float | None = None
    left_out: str | None = None
    """Why the row counts in no mean though it was replayed: the experiment is known to be another one than stated."""

    @property
    def error_frac(self) -> float:
        """Signed: 0.1 says that the simulator is 10% too high."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class Unexpressed:
    """A row that the simulator cannot replay."""

    table: str
    row: str
    reason: str


@dataclass(frozen=True, slots=True)
class Replays:
    """All that one folder gave. Every row of its tables is in at least one of the three lists."""

    comparisons: tuple[Comparison, ...] = ()
    unexpressed: tuple[Unexpressed, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Malformed files and rows."""


@dataclass(slots=True)
class Collected:
    """Replays in the making."""

    comparisons: list[Comparison] = field(default_factory=list)
    unexpressed: list[Unexpressed] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, found: Comparison | Unexpressed | Problem) -> None:
        """Puts one finding in its list."""
        if isinstance(found, Comparison):
            self.comparisons.append(found)
        elif isinstance(found, Unexpressed):
            self.unexpressed.append(found)
        else:
            self.problems.append(found)

    def frozen(self) -> Replays:
        """As a result."""
        return Replays(tuple(self.comparisons), tuple(self.unexpressed), tuple(self.problems))


class Reader(Protocol):
    """Replays one kind of table."""

    @property
    def name(self) -> str:
        """One word for reports and for `only`."""

    def tables(self, folder: Path) -> Sequence[Path]:
        """Files (or folders of files) below `folder` that are of this kind, sorted."""

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterable[Comparison | Unexpressed | Problem]:
        """Every row of one table. `name`: what findings call the table."""


def replay_folder(folder: str | Path, only: str | None = None, progress: Progress | None = None) -> Replays:
    """Every serving table below a folder, replayed.

    only: readers of this name, or tables whose path has it somewhere. Raises HermesError for a folder that is none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise HermesError(f"no folder '{folder}'")
    collected = Collected()
    for reader in readers():
        for table in reader.tables(root):
            name = table.relative_to(root).as_posix()
            if only is not None and only != reader.name and only not in name:
                continue
            for found in reader.replay(table, name, progress):
                collected.add(found)
    return collected.frozen()


def readers() -> list[Reader]:
    """One of each kind."""
    return [cast(Reader, import_module(module).READER) for module in READERS]
