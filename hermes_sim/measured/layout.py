"""A layout of tables: the columns that tell it, and how its rows become those of operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from hermes_sim.measured.names import FileName, Names
from hermes_sim.measured.tables import Log

Part = tuple[str, pd.DataFrame]
"""Operator, and rows with columns of its table; the index is the row of the source."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a known layout, its sound rows, and what its name says."""

    table: pd.DataFrame
    name: str
    """Relative to the folder."""
    file: FileName
    names: Names
    log: Log
    notes: Mapping[str, str] = field(default_factory=dict)
    """What a file beside the table says of it: engine_version, model, device, repeats."""

    def skip(self, operator: str, why: str, num_rows: int) -> None:
        """Counts rows that cannot be expressed."""
        self.log.skip(self.name, operator, why, num_rows)


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of one origin's tables; a file has this layout if it has all of them."""

    name: str
    operators: frozenset[str]
    convert: Callable[[Source], Iterator[Part]]
    numbers: Mapping[str, float]
    """Column of numbers -> least value; -inf: its cells may be empty; 0 and not whole: above zero."""
    whole: frozenset[str] = frozenset()
    """Those that hold whole numbers."""
    texts: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    may_lack: frozenset[str] = frozenset()
    """Columns of `numbers` that a file may be without."""
    states_device: bool = False
    """A column names the device, not the name of the file."""

    @property
    def needed(self) -> frozenset[str]:
        """Columns that tell the layout."""
        return (frozenset(self.numbers) | self.texts | self.flags) - self.may_lack


def whole_numbers(*columns: str, least: float = 1.0) -> dict[str, float]:
    """Columns of whole numbers of at least `least`."""
    return dict.fromkeys(columns, least)
