"""What is special about a measured kernel that is predicted badly: facts of the row and its neighbours, no guesses."""

from __future__ import annotations

from typing import Final

import pandas as pd

from hermes_sim.calibration.expert_tables import shares_weights
from hermes_sim.measured.columns import OPERATORS

TICKS: Final = 5.0
"""Times below so many steps of the table's clock say little."""
VIDUR_RESOLUTION_S: Final = 1e-6
UNEVEN: Final = 1.5
"""A time this many times that of the nearest larger shape of the same table is no smooth function of the shape."""


def special(operator: str, row: pd.Series, table: pd.DataFrame) -> list[str]:
    """Facts that set the row apart; at least one entry."""
    same = table[(table["device"] == row["device"]) & (table["dtype"] == row["dtype"])]
    facts = []
    if row["timing"] == "eager":
        facts.append("timed with the launch from the host")
    if row["source_file"].endswith(".csv.gz") and row["measured_s"] < TICKS * VIDUR_RESOLUTION_S:
        facts.append("a few steps of the table's clock")
    kernels = same["kernel"].value_counts()
    if row["kernel"] and kernels.get(row["kernel"], 0) < 0.1 * len(same):
        facts.append(f"kernel {row['kernel']}: {kernels[row['kernel']]} of {len(same)} rows in {row['dtype']}")
    if operator == "moe" and _shares_weights(row, same):
        facts.append("another model's experts have the shape of its weights: an autotuner takes one for the other")
    facts += _edges(operator, row, same)
    slower = _slower_than_larger(operator, row, same)
    if slower:
        facts.append(slower)
    if row["engine"] and row["engine_version"]:
        facts.append(f"{row['engine']} {row['engine_version']}")
    return facts or ["nothing in its columns"]


def _shares_weights(row: pd.Series, same: pd.DataFrame) -> bool:
    """Whether another layer of the same table has as many experts of the same size on a device."""
    table = same[(same["source_file"] == row["source_file"]) & (same["kernel"] == row["kernel"])]
    alike = shares_weights(table)
    return bool(alike[table.index == row.name].any())


def _edges(operator: str, row: pd.Series, same: pd.DataFrame) -> list[str]:
    """Columns in which the row is the smallest or the largest of its device and dtype."""
    found = []
    for column in OPERATORS[operator]:
        if column.kind == "text" or column.name not in same or same[column.name].nunique() < 3:
            continue
        least, most = same[column.name].min(), same[column.name].max()
        if row[column.name] == most:
            found.append(f"largest {column.name}")
        elif row[column.name] == least:
            found.append(f"smallest {column.name}")
    return found


def _slower_than_larger(operator: str, row: pd.Series, same: pd.DataFrame) -> str:
    """A neighbour that is larger in one column, equal in the others, and much faster."""
    numbers = [column.name for column in OPERATORS[operator] if column.kind != "text" and column.name in same]
    texts = [name for name in ("kernel", "engine", "kv_dtype", "distribution", "source_file") if name in same]
    fixed = same[(same[texts] == row[texts]).all(axis=1)]
    for column in numbers:
        others = [name for name in numbers if name != column and not pd.isna(row[name])]
        near = fixed[(fixed[others] == row[others]).all(axis=1) & (fixed[column] > row[column])]
        if len(near):
            nearest = near.loc[near[column].idxmin()]
            if row["measured_s"] > UNEVEN * nearest["measured_s"]:
                times = row["measured_s"] / nearest["measured_s"]
                return f"{times:.1f} times as long as {column} {nearest[column]:g} in the same table"
    return ""
