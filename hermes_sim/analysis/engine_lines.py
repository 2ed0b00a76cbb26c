"""The engines' timeline as lines: one an engine, or one for all replicas of a name where there are many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.analysis.trust import engine_name

MOST_LINES = 8
"""With more engines, replicas of one name are drawn as their mean."""


@dataclass(frozen=True, eq=False, slots=True)
class EngineLine:
    """One line of every quantity: an engine, or the mean of its replicas."""

    label: str
    rows: pd.DataFrame
    """Of the timeline."""

    @property
    def edges_s(self) -> FloatArray:
        """[num_intervals + 1]"""
        ends_s = np.unique(floats(self.rows, "end_s"))
        return np.append(np.unique(floats(self.rows, "start_s")), ends_s[-1:])

    def mean(self, column: str) -> FloatArray:
        """[num_intervals] over the engines of the line."""
        found: FloatArray = self.rows.groupby("start_s", sort=True)[column].mean().to_numpy(dtype=np.float64)
        return found


def engine_lines(timeline: pd.DataFrame) -> Iterator[EngineLine]:
    """In the order of the engines; none for a run that took no time."""
    names = [str(name) for name in timeline["engine"].cat.categories]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name if len(names) <= MOST_LINES else engine_name(name), []).append(name)
    for name, members in groups.items():
        rows = timeline[timeline["engine"].isin(members)]
        if not rows.empty:
            label = name if len(members) == 1 else f"{name} (mean of {len(members)})"
            yield EngineLine(label, rows)
