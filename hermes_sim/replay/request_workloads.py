"""Workloads that lie in the same folder as measurements of them: found by what they hold, not by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.replay.rows import NUMBER, POSITIVE, read_rows, tables_with

IntArray = npt.NDArray[np.int64]

WORKLOAD_COLUMNS: Final = {"arrival_s": NUMBER, "input_tokens": POSITIVE, "output_tokens": POSITIVE}
PREFIX_COLUMN: Final = "prompt_prefix_seen_before_tokens"

LEVELS: Final = 4
"""How far above a measurement its workload may lie."""

SAME_TOTAL_FRAC: Final = 0.015
"""A series of throughputs may miss this share of a workload's tokens at its ends."""


def workloads_near(table: Path) -> list[Path]:
    """Workloads in the folders above a measurement, the nearest folder that has any."""
    for folder in list(table.resolve().parents)[:LEVELS]:
        if (folder / "requests").is_dir():
            return tables_with(folder / "requests", WORKLOAD_COLUMNS)
    return []


def read_workload(path: Path) -> pd.DataFrame:
    """Its good rows, in order of arrival; bad rows are told where the workload itself is read."""
    rows, _ = read_rows(path, path.name, WORKLOAD_COLUMNS, {PREFIX_COLUMN: NUMBER})
    return rows.sort_values("arrival_s", kind="stable")


def seen_before_tokens(table: Path, num_prompt_tokens: IntArray, num_output_tokens: IntArray) -> IntArray | None:
    """[num_requests] prompt tokens that earlier prompts had, from the workload with the same lengths; None: unknown."""
    for path in workloads_near(table):
        rows = read_workload(path)
        if PREFIX_COLUMN not in rows or len(rows) != len(num_prompt_tokens):
            continue
        same = np.array_equal(rows["input_tokens"], num_prompt_tokens)
        if same and np.array_equal(rows["output_tokens"], num_output_tokens):
            return rows[PREFIX_COLUMN].fillna(0).to_numpy(np.int64)
    return None


def workload_named(table: Path, name: str) -> pd.DataFrame | None:
    """The workload of that file name."""
    for path in workloads_near(table):
        if path.name.split(".")[0] == Path(name).name.split(".")[0]:
            return read_workload(path)
    return None


def workload_of_total(table: Path, num_output_tokens: float) -> pd.DataFrame | None:
    """The workload that generates so many tokens, the nearest within SAME_TOTAL_FRAC."""
    best, best_frac = None, SAME_TOTAL_FRAC
    for path in workloads_near(table):
        rows = read_workload(path)
        frac = abs(float(rows["output_tokens"].sum()) / num_output_tokens - 1.0) if num_output_tokens > 0 else np.inf
        if frac < best_frac:
            best, best_frac = rows, frac
    return best
