"""Capacities as tables: one row a configuration over its seeds, one row a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import FloatArray
from hermes_sim.analysis.statistics import LEVEL, holm, mean_of_replications, paired_difference
from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.explore.capacity.probe import STOPPED, Row
from hermes_sim.explore.capacity.task import SeedCapacity

if TYPE_CHECKING:
    from hermes_sim.explore.capacity.capacity import Configuration

SORTS: Final[dict[str, bool]] = {
    "capacity": False,
    "per_usd": False,
    "per_watt": False,
    "per_device": False,
    "usd_per_million_output_tokens": True,
}
"""Columns that sort -> whether the lowest is best."""
MEANS: Final = (
    "requests_per_s", "output_tokens_per_s", "usd_per_million_output_tokens", "rent_usd_per_h", "power_w",
    "num_devices", "utilization_frac", "resource_frac", "ttft_p99_s", "tpot_mean_s", "e2e_p99_s",
)  # fmt: skip
"""Of the runs at the limit, over the seeds."""
PROBE_COLUMNS: Final = (
    "configuration", "seed", "rung", "load", "num_requests", "num_arrived", "outcome", "binding", "text", "observed",
    "bound", "excess", "growth_frac", "is_short", "reused", "wall_time_s", *MEANS, "engine", "resource", "key",
)  # fmt: skip
TEXTS: Final = ("outcome", "binding", "text", "engine", "resource", "key")


def capacity_table(
    axes: Sequence[str], chosen: Sequence[Configuration], found: Sequence[Sequence[SeedCapacity]]
) -> pd.DataFrame:
    """Columns: the axes; `capacity` in `unit` (mean over the seeds of the highest load that is sustained), `low` and
    `high` (under all seeds, under none), `lows` (seed by seed), `half_width_95`, `spread_frac`; what binds; what the
    machine does there; `per_usd` (load per USD/h of rent), `per_watt`, `per_device`; how many runs it took."""
    rows = [{**_axis_values(axes, one.point), **_row(one, seeds)} for one, seeds in zip(chosen, found, strict=True)]
    return pd.DataFrame(rows)


def _axis_values(axes: Sequence[str], point: Mapping[str, str]) -> dict[str, str | None]:
    return {axis: point.get(axis) for axis in axes}


def _row(one: Configuration, seeds: Sequence[SeedCapacity]) -> dict[str, Any]:
    failed = next((each for each in seeds if each.status == "failed"), None)
    if one.scenario is None or failed is not None or not seeds:
        text = one.problem or ("" if failed is None else failed.text)
        return {"status": "failed", "text": text, "capacity": math.nan, "unit": ""}
    first, lows = seeds[0], [each.low for each in seeds]
    mean = sum(lows) / len(lows)
    limits = [each.limit for each in seeds if each.limit]
    means = {name: _mean([float(row[name]) for row in limits]) for name in MEANS}
    probes = [row for each in seeds for row in each.probes]
    highs = [each.high for each in seeds if each.high is not None]
    return {
        "status": next((name for name in ("hopeless", "open") if any(each.status == name for each in seeds)), "done"),
        "capacity": mean,
        "unit": first.unit,
        "low": min(lows),
        "high": max(highs) if len(highs) == len(seeds) else math.nan,
        "lows": [float(low) for low in lows],
        "half_width_95": mean_of_replications(np.array(lows)).half_width_95,
        "spread_frac": max(lows) / min(lows) - 1.0 if min(lows) > 0 else math.nan,
        "num_seeds": len(seeds),
        "served_per_s": _mean([each.served_per_s for each in seeds if each.served_per_s is not None]),
        "binding": _most([each.binding for each in seeds]),
        "text": first.text,
        "at_limit": str(first.limit.get("text", "")),
        "engine": str(first.limit.get("engine", "")),
        "resource": str(first.limit.get("resource", "")),
        **means,
        "per_usd": _per(mean, means["rent_usd_per_h"]),
        "per_watt": _per(mean, means["power_w"]),
        "per_device": _per(mean, means["num_devices"]),
        "num_runs": len(probes),
        "num_stopped_early": sum(row["outcome"] == STOPPED for row in probes),
        "num_reused": sum(each.num_reused for each in seeds),
        "wall_time_s": sum(float(row["wall_time_s"]) for row in probes if not row["reused"]),
        "notes": "; ".join(dict.fromkeys(note for each in seeds for note in each.notes)),
    }


def probe_table(axes: Sequence[str], points: Sequence[Mapping[str, str]], probes: Sequence[Row]) -> pd.DataFrame:
    """Columns: the axes, then PROBE_COLUMNS; what a run does not have is NaN, or empty."""
    columns: dict[str, Any] = {axis: [points[row["configuration"]].get(axis) for row in probes] for axis in axes}
    for name in PROBE_COLUMNS:
        values = [row.get(name) for row in probes]
        if name in TEXTS:
            columns[name] = ["" if value is None else str(value) for value in values]
        elif name in ("is_short", "reused"):
            columns[name] = [bool(value) for value in values]
        elif name in ("configuration", "seed", "num_requests"):
            columns[name] = [int(value) for value in values if value is not None]
        else:
            columns[name] = [math.nan if value is None else float(value) for value in values]
    return pd.DataFrame(columns)


def require_sort(by: str) -> None:
    """Raises ConfigError for a column that does not sort."""
    if by not in SORTS:
        raise ConfigError([Problem("by", None, "", f"{by!r} is none of {listed(SORTS)}.{did_you_mean(by, SORTS)}")])


def sorted_by(table: pd.DataFrame, by: str, tolerance: float) -> pd.DataFrame:
    """The best first, those that failed last. Column `below_best`: whether a row is worse than the first by more than
    chance and tolerance allow (1, 0, NaN where nothing can be said)."""
    if by not in table:
        return table
    table = table.sort_values(by, ascending=SORTS[by], kind="stable", na_position="last").reset_index(drop=True)
    return table.assign(below_best=_below_best(table, by, tolerance))


def _below_best(table: pd.DataFrame, by: str, tolerance: float) -> list[float]:
    """By logarithms of the capacities, or of what the column makes of them, paired by seed; several rows after Holm."""
    logs = [_logs(row, by) for _, row in table.iterrows()]
    first = logs[0]
    pairs = [None if one is None or first is None or len(one) != len(first) else (first, one) for one in logs]
    found = [None if pair is None else paired_difference(*pair) for pair in pairs]
    raised = holm([math.nan if one is None or place == 0 else one.p_value for place, one in enumerate(found)])
    return [
        math.nan if one is None or math.isnan(p) else float(p < LEVEL and abs(one.mean) > math.log1p(tolerance))
        for one, p in zip(found, raised, strict=True)
    ]


def _logs(row: pd.Series, by: str) -> FloatArray | None:
    """[num_seeds]; None where some seed bears nothing."""
    lows = row["lows"]
    if not isinstance(lows, list) or len(lows) < 2 or min(lows) <= 0.0:
        return None
    logs = np.log(np.array(lows) / row["capacity"])
    return np.asarray(math.log(row[by]) + (-logs if SORTS[by] else logs))


def _most(names: Sequence[str]) -> str:
    """The most frequent; of equally frequent ones the first."""
    return max(dict.fromkeys(names), key=list(names).count)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _per(amount: float, number: float) -> float:
    return amount / number if number else math.nan
