"""The table of a grid's runs on disk: one row a run, whole at any moment, and what of it may be used again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hermes_sim import __version__
from hermes_sim.core.errors import HermesError

RUNS_FILE = "runs.parquet"
DONE, FAILED = "done", "failed"
FIRST_COLUMNS = ("seed", "status", "error", "scenario", "wall_time_s")
"""Behind those of the axes, before the metrics. `scenario`: hash of what was run."""

Row = Mapping[str, Any]


def run_table(axes: Mapping[str, Sequence[str]], rows: Iterable[Row]) -> pd.DataFrame:
    """axes: their values in order, which become ordered categories. Metrics that a run does not have are NaN."""
    listed = list(rows)
    metrics = sorted({name for row in listed for name in row} - {*axes, *FIRST_COLUMNS})
    columns: dict[str, Any] = {
        name: pd.Categorical([row[name] for row in listed], categories=list(values), ordered=True)
        for name, values in axes.items()
    }
    columns["seed"] = pd.array([row["seed"] for row in listed], dtype="Int64")
    columns |= {name: pd.Categorical([row[name] for row in listed]) for name in ("status", "error")}
    columns["scenario"] = [row["scenario"] for row in listed]
    columns["wall_time_s"] = [float(row["wall_time_s"]) for row in listed]
    columns |= {name: [float(row.get(name, math.nan)) for row in listed] for name in metrics}
    return pd.DataFrame(columns)


def save_table(table: pd.DataFrame, path: Path) -> None:
    """The old file or the new one, whenever the process dies. Raises OSError."""
    import pyarrow as pa
    from pyarrow import parquet

    partial = path.with_name(f".{path.name}.partial")
    content = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), b"hermes_sim": __version__.encode()}
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


def known_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of runs that ended well, by their hash; empty without a file."""
    if not path.is_file():
        return {}
    table = read_table(path)
    done = table[table["status"] == DONE]
    return {str(row["scenario"]): {str(name): value for name, value in row.items()} for row in done.to_dict("records")}
