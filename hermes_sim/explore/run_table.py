"""The table of a grid's runs on disk: one row a run, whole at any moment, and what of it may be used again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from hermes_sim import __version__
from hermes_sim.core.errors import HermesError
from hermes_sim.scenario.axis import Axis, number_of

RUNS_FILE = "runs.parquet"
DONE, FAILED = "done", "failed"
FIRST_COLUMNS = ("seed", "status", "error", "scenario", "wall_time_s")
"""Behind those of the axes, before the metrics. `scenario`: hash of what was run."""

ABOUT: Final = b"hermes_sim_about"
"""Key of the file's metadata with what stands beside the table, as JSON."""

Row = Mapping[str, Any]
AxisColumns = Mapping[str, Sequence[str] | Literal["whole", "real"]]
"""Axis -> its values in order, which become ordered categories; or which kind of numbers its column holds."""


def number_columns(axes: Sequence[Axis]) -> AxisColumns:
    """Axes whose values are plain numbers, of one unit, as numbers; the others as categories."""
    return {axis.name: axis.kind_of_numbers or axis.names for axis in axes}


def run_table(axes: AxisColumns, rows: Iterable[Row]) -> pd.DataFrame:
    """One row a run. Metrics that a run does not have are NaN, and an axis that is not at its point is empty."""
    listed = list(rows)
    metrics = sorted({name for row in listed for name in row} - {*axes, *FIRST_COLUMNS})
    columns: dict[str, Any] = {
        name: _axis_column(kind, [row.get(name) for row in listed]) for name, kind in axes.items()
    }
    columns["seed"] = pd.array([row["seed"] for row in listed], dtype="Int64")
    columns |= {name: pd.Categorical([row[name] for row in listed]) for name in ("status", "error")}
    columns["scenario"] = [row["scenario"] for row in listed]
    columns["wall_time_s"] = [float(row["wall_time_s"]) for row in listed]
    columns |= {name: [float(row.get(name, math.nan)) for row in listed] for name in metrics}
    return pd.DataFrame(columns)


def _axis_column(kind: Sequence[str] | Literal["whole", "real"], names: Sequence[Any]) -> Any:
    there = [name if isinstance(name, str) else None for name in names]
    if kind not in ("whole", "real"):
        return pd.Categorical(there, categories=list(kind), ordered=True)
    numbers = [None if name is None else number_of(name) for name in there]
    if kind == "whole":
        return pd.array([None if number is None else round(number) for number in numbers], dtype="Int64")
    return pd.array([math.nan if number is None else number for number in numbers], dtype="float64")


def save_table(table: pd.DataFrame, path: Path, *, about: Mapping[str, Any] | None = None) -> None:
    """The old file or the new one, whenever the process dies. about: kept in its metadata. Raises OSError."""
    import pyarrow as pa
    from pyarrow import parquet

    partial = path.with_name(f".{path.name}.partial")
    content = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), b"hermes_sim": __version__.encode()}
    if about is not None:
        metadata[ABOUT] = json.dumps(about).encode()
    try:
        parquet.write_table(content.replace_schema_metadata(metadata), partial, compression="zstd")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_table(path: Path) -> pd.DataFrame:
    """Raises HermesError if it is no table of runs."""
    from pyarrow import ArrowException, parquet

    try:
        table: pd.DataFrame = parquet.read_table(path).to_pandas()
    except (OSError, ArrowException, json.JSONDecodeError) as error:
        raise HermesError(f"cannot read {path}: {error}") from error
    if not {*FIRST_COLUMNS} <= {*table.columns}:
        raise HermesError(f"{path} is not a table of runs")
    return table


def read_about(path: Path) -> dict[str, Any]:
    """What stands beside the table in its file; empty where nothing does. Raises HermesError if it is no table."""
    from pyarrow import ArrowException, parquet

    try:
        metadata = parquet.read_schema(path).metadata or {}
        about: dict[str, Any] = json.loads(metadata.get(ABOUT, b"{}"))
    except (OSError, ArrowException, json.JSONDecodeError) as error:
        raise HermesError(f"cannot read {path}: {error}") from error
    return about
