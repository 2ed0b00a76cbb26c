"""Every measured kernel of a folder beside its prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.hardware.device import Device
from hermes_sim.measured import KernelTables, read_kernels
from hermes_sim.measured.columns import OPERATORS, SOURCE_FILE, SOURCE_ROW
from hermes_sim.measured.names import Names
from hermes_sim.validation.errors import SIDES, FloatArray, grouped, rounded
from hermes_sim.validation.kernel_predictors import known_devices, predict
from hermes_sim.validation.reasons import special
from hermes_sim.validation.sides import sides_of

LABELS: Final = ("device", "dtype", "model", "engine", "timing")
GROUPINGS: Final[dict[str, tuple[str, ...]]] = {
    "operator": ("operator", "side"),
    "device": ("operator", "device", "side"),
    "dtype": ("operator", "device", "dtype", "side"),
    "model": ("operator", "model", "side"),
    "engine": ("operator", "engine", "side"),
    "timing": ("operator", "timing", "side"),
    "table": ("table", "operator", "side"),
}
"""Name of a list in the report -> what its records are grouped by."""
NUM_WORST: Final = 5
"""Rows shown for each operator."""
MOST_POINTS: Final = 600
"""Rows of one operator and side that a plot shows."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class KernelAccuracy:
    """Measured kernels, predicted and scored."""

    tables: KernelTables
    scored: pd.DataFrame
    """One row a predicted measurement: operator, table, row, LABELS, side, measured, predicted, analytic, low, high.

    analytic: without residual tables.
    """
    unexpressed: Counter[tuple[str, str, str, str]]
    """(table, operator, device, reason) -> rows."""

    num_present: int
    """Rows asked for, those that the tables cannot hold included."""

    def coverage(self) -> list[dict[str, Any]]:
        """Per table and operator: rows present, expressible, predicted, and why others are not."""
        present: Counter[tuple[str, str]] = Counter()
        for operator, table in self.tables.items():
            for name, count in table[SOURCE_FILE].value_counts().items():
                present[str(name), operator] += int(count)
        predicted = Counter(self.scored.groupby(["table", "operator"], observed=True).size().to_dict())
        return [
            {
                "table": name,
                "operator": operator,
                "rows": count,
                "predicted": int(predicted[name, operator]),
                "unexpressed": count - int(predicted[name, operator]),
            }
            for (name, operator), count in sorted(present.items())
        ]

    def reasons(self) -> list[dict[str, Any]]:
        """Why rows have no prediction: those the tables cannot hold, and those the models cannot express."""
        found: Counter[tuple[str, str]] = Counter()
        for (_, operator, device, why), count in self.unexpressed.items():
            found[operator, why if device in why else f"{device}: {why}"] += count
        for skip in self.tables.skipped:
            found[skip.operator, skip.reason] += skip.num_rows
        return [
            {"operator": operator, "reason": why, "rows": count}
            for (operator, why), count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
        ]

    def worst(self) -> list[dict[str, Any]]:
        """The rows furthest off, of each operator, one a shape, with what is special about them."""
        records = []
        for operator, rows in self.scored.groupby("operator", observed=True, sort=True):
            ratio = np.abs(np.log(rows["predicted"].to_numpy() / rows["measured"].to_numpy()))
            table = self.tables[str(operator)]
            for place in np.argsort(-ratio, kind="stable")[:NUM_WORST]:
                row = rows.iloc[int(place)]
                records.append(_worst(row, table.loc[row["index"]], table))
        return records

    def points(self) -> dict[str, dict[str, dict[str, list[float | None]]]]:
        """Operator -> side -> seconds measured and predicted of every k-th row, for plots."""
        found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
        for (operator, side), rows in self.scored.groupby(["operator", "side"], observed=True, sort=True):
            thinned = rows.iloc[:: -(-len(rows) // MOST_POINTS)]
            found.setdefault(str(operator), {})[str(side)] = {
                f"{name}_s": [rounded(value) for value in thinned[name].tolist()] for name in ("measured", "predicted")
            }
        return found

    def as_dict(self) -> dict[str, Any]:
        """The part `kernels` of the report."""
        return {
            "rows": {
                "present": self.num_present,
                "expressible": len(self.scored),
                "predicted": len(self.scored),
                "malformed": self.tables.num_malformed,
            },
            "files": self.tables.num_files,
            **{f"by_{name}": grouped(self.scored, keys) for name, keys in GROUPINGS.items()},
            "tables": self.coverage(),
            "unexpressed": self.reasons(),
            "worst": self.worst(),
            "points": self.points(),
        }


def validate_kernels(folder: Path, only: str | None = None, progress: Progress | None = None) -> KernelAccuracy:
    """Predicts every kernel under the folder. only: an operator, a device by any name, or a part of a file's path."""
    operators = [only] if only in OPERATORS else None
    device_name = None if only is None else Names(folder).device(only)
    tables = read_kernels(folder, operators=operators)
    names = sorted({str(name) for table in tables.values() for name in table["device"].unique()})
    devices = known_devices(names)
    num_present = sum(skip.num_rows for skip in tables.skipped) if only is None else 0
    parts: list[pd.DataFrame] = []
    unexpressed: Counter[tuple[str, str, str, str]] = Counter()
    for operator, table in tables.items():
        chosen = table if only is None or operators else table[_named(table, only, device_name)]
        num_present += len(chosen)
        for name, rows in chosen.groupby("device", observed=True, sort=True):
            if progress is not None:
                progress(f"{operator} {name}")
            device = devices.get(str(name))
            if device is None:
                for file, count in rows[SOURCE_FILE].value_counts().items():
                    unexpressed[str(file), operator, str(name), f"no device file has the name '{name}'"] += int(count)
                continue
            parts.append(_scored(operator, device, rows, unexpressed))
    scored = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)
    for column in ("operator", "table", *LABELS):
        scored[column] = scored[column].astype("category")
    scored["side"] = pd.Categorical(scored["side"], categories=list(SIDES), ordered=True)
    return KernelAccuracy(tables, scored, unexpressed, num_present)


_COLUMNS: Final = (
    "index",
    "operator",
    "table",
    "row",
    *LABELS,
    "side",
    "measured",
    "predicted",
    "analytic",
    "low",
    "high",
)


def _named(table: pd.DataFrame, only: str, device_name: str | None) -> pd.Series:
    return (table["device"] == device_name) | table[SOURCE_FILE].str.contains(only, regex=False)


def _scored(
    operator: str, device: Device, rows: pd.DataFrame, unexpressed: Counter[tuple[str, str, str, str]]
) -> pd.DataFrame:
    found = predict(operator, device, rows)
    expressed = np.isfinite(found.seconds)
    if not expressed.all():
        files = rows[SOURCE_FILE].to_numpy()[~expressed].tolist()
        for (file, why), count in Counter(zip(files, found.reason[~expressed].tolist(), strict=True)).items():
            unexpressed[file, operator, device.name, why] += count
    kept = rows[expressed]
    return pd.DataFrame(
        {
            "index": kept.index.to_numpy(),
            "operator": operator,
            "table": kept[SOURCE_FILE].to_numpy(),
            "row": kept[SOURCE_ROW].to_numpy(),
            **{label: kept[label].to_numpy() for label in LABELS},
            "side": sides_of(operator, kept, device),
            "measured": kept["measured_s"].to_numpy(),
            "predicted": found.seconds[expressed],
            "analytic": _analytic(operator, device, rows, found.seconds)[expressed],
            "low": found.low[expressed],
            "high": found.high[expressed],
        }
    )


def _analytic(operator: str, device: Device, rows: pd.DataFrame, predicted_s: FloatArray) -> FloatArray:
    """The same without the device's residual tables."""
    if device.residuals is None:
        return predicted_s
    return predict(operator, device.model_copy(update={"residuals": None}), rows).seconds


def _worst(row: pd.Series, origin: pd.Series, table: pd.DataFrame) -> dict[str, Any]:
    operator = str(row["operator"])
    shape = {
        column.name: origin[column.name].item() if hasattr(origin[column.name], "item") else origin[column.name]
        for column in OPERATORS[operator]
        if not pd.isna(origin[column.name]) and origin[column.name] != ""
    }
    return {
        "operator": operator,
        "table": str(row["table"]),
        "row": int(row["row"]),
        **{label: str(row[label]) for label in LABELS},
        "side": str(row["side"]),
        "shape": shape,
        "measured_s": float(row["measured"]),
        "predicted_s": float(row["predicted"]),
        "error_frac": round(float(row["predicted"] / row["measured"] - 1.0), 4),
        "special": special(operator, origin, table),
    }
