"""Measured serving runs of a folder beside their replays, scored like kernels."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.core.errors import Problem
from hermes_sim.replay.experiment import Comparison, Replays, Unexpressed, readers
from hermes_sim.validation.errors import grouped, rounded
from hermes_sim.validation.served_bands import fill_bands

LABELS: Final = (
    "device",
    "model",
    "engine",
    "tp",
    "concurrency",
    "rate",
    "workload",
    "mode",
    "precision",
    "isl",
    "osl",
)
"""Labels that reports group by; a row without one has an empty text there."""
GROUPINGS: Final[dict[str, tuple[str, ...]]] = {
    "experiment": ("experiment", "metric", "side"),
    **{label: ("experiment", "metric", label, "side") for label in LABELS},
    "table": ("experiment", "table", "metric", "side"),
}
NUM_WORST: Final = 5
"""Rows shown for each experiment and metric."""

COMPARISONS_BETWEEN_COLLECTIONS: Final = 10
"""A run that has ended is a few objects in a circle with tens of megabytes: too few for Python to look for them."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ServingAccuracy:
    """Replayed runs, scored."""

    scored: pd.DataFrame
    """One row a compared number: experiment, table, row, metric, LABELS, side, measured, predicted, low, high."""
    left_out: pd.DataFrame
    """The same of rows that were replayed but count in no mean; `why` says the reason."""
    unexpressed: tuple[tuple[str, Unexpressed], ...]
    """(experiment, row)."""
    problems: tuple[Problem, ...]

    def reasons(self) -> list[dict[str, Any]]:
        """Why rows are in no mean: not replayed, or known to be another experiment than stated."""
        found: Counter[tuple[str, str, str]] = Counter()
        for experiment, row in self.unexpressed:
            found[experiment, "not replayed", row.reason] += 1
        rows = self.left_out.drop_duplicates(["experiment", "table", "row"])
        for experiment, why in zip(rows["experiment"], rows["why"], strict=True):
            found[str(experiment), "replayed, not counted", str(why)] += 1
        return [
            {"experiment": experiment, "kind": kind, "reason": why, "rows": count}
            for (experiment, kind, why), count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
        ]

    def tables(self) -> list[dict[str, Any]]:
        """Per table: rows replayed, counted in means, not replayed."""
        keys = ["experiment", "table"]
        counted = self.scored.drop_duplicates([*keys, "row"]).groupby(keys, observed=True).size()
        beside = self.left_out.drop_duplicates([*keys, "row"]).groupby(keys, observed=True).size()
        missing = Counter((experiment, row.table) for experiment, row in self.unexpressed)
        names = sorted({*counted.index, *beside.index, *missing})
        return [
            {
                "experiment": experiment,
                "table": table,
                "counted": int(counted.get((experiment, table), 0)),
                "left_out": int(beside.get((experiment, table), 0)),
                "not_replayed": missing[experiment, table],
            }
            for experiment, table in names
        ]

    def worst(self) -> list[dict[str, Any]]:
        """The rows furthest off of each experiment and metric, with their labels."""
        records = []
        for (experiment, metric), rows in self.scored.groupby(["experiment", "metric"], observed=True, sort=True):
            ratio = np.abs(np.log(rows["predicted"].to_numpy() / rows["measured"].to_numpy()))
            for place in np.argsort(-ratio, kind="stable")[:NUM_WORST]:
                row = rows.iloc[int(place)]
                records.append(
                    {
                        "experiment": str(experiment),
                        "metric": str(metric),
                        "table": str(row["table"]),
                        "row": str(row["row"]),
                        "side": str(row["side"]),
                        "labels": row["labels"],
                        "measured": float(row["measured"]),
                        "predicted": float(row["predicted"]),
                        "error_frac": round(float(row["predicted"] / row["measured"] - 1.0), 4),
                    }
                )
        return records

    def runs(self) -> list[dict[str, Any]]:
        """Every replayed run with its labels: metric -> measured, predicted, and the ends of its band if it has one."""
        rows = pd.concat([self.scored.assign(why=""), self.left_out], ignore_index=True)
        found: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        for row in rows.to_dict("records"):
            key = (row["experiment"], row["table"], row["row"], row["why"])
            run = found.setdefault(
                key,
                {
                    **dict(zip(("experiment", "table", "row"), key, strict=False)),
                    "side": str(row["side"]),
                    "labels": row["labels"],
                    **({"left_out": row["why"]} if row["why"] else {}),
                    "metrics": {},
                },
            )
            band = [] if np.isnan(row["low"]) else [row["low"], row["high"]]
            run["metrics"][row["metric"]] = [rounded(value) for value in (row["measured"], row["predicted"], *band)]
        return list(found.values())

    def as_dict(self) -> dict[str, Any]:
        """The part `serving` of the report."""
        return {
            "rows": {
                "compared": len(self.scored),
                "left_out": len(self.left_out),
                "not_replayed": len(self.unexpressed),
                "malformed": len(self.problems),
            },
            **{f"by_{name}": grouped(self.scored, keys) for name, keys in GROUPINGS.items()},
            "tables": self.tables(),
            "unexpressed": self.reasons(),
            "worst": self.worst(),
            "runs": self.runs(),
        }


def validate_serving(folder: Path, only: str | None = None, progress: Progress | None = None) -> ServingAccuracy:
    """Replays every serving table under the folder. only: an experiment's name, or a part of a file's path."""
    return score(replays(folder, only, [reader.name for reader in readers()], progress))


def replays(
    folder: Path, only: str | None, experiments: Collection[str], progress: Progress | None = None
) -> list[tuple[str, Replays]]:
    """By the name of their experiment, of the experiments named."""
    gc.collect()
    gc.freeze()  # what is there stays; looking through it again and again would take longer than the replays
    found: list[tuple[str, Replays]] = []
    for reader in readers():
        if reader.name not in experiments:
            continue
        comparisons: list[Comparison] = []
        unexpressed: list[Unexpressed] = []
        problems: list[Problem] = []
        for table in reader.tables(folder):
            name = table.relative_to(folder).as_posix()
            if only is not None and only not in (reader.name, "serving") and only not in name:
                continue
            if progress is not None:
                progress(f"{reader.name} {name}")
            for one in reader.replay(table, name):
                if isinstance(one, Comparison):
                    comparisons.append(one)
                    if len(comparisons) % COMPARISONS_BETWEEN_COLLECTIONS == 0:
                        gc.collect()
                elif isinstance(one, Unexpressed):
                    unexpressed.append(one)
                else:
                    problems.append(one)
        found.append((reader.name, Replays(tuple(comparisons), tuple(unexpressed), tuple(problems))))
    return found


def score(found: list[tuple[str, Replays]]) -> ServingAccuracy:
    """Replays by the name of their experiment, as rows."""
    rows = pd.DataFrame(
        [_row(experiment, one) for experiment, replays in found for one in replays.comparisons], columns=_COLUMNS
    )
    sound = rows["measured"].astype(float) > 0.0
    is_counted = (rows["why"] == "") & sound
    rows.loc[~sound & (rows["why"] == ""), "why"] = "the measured number is not above zero"
    return ServingAccuracy(
        scored=fill_bands(rows[is_counted].drop(columns="why").reset_index(drop=True)),
        left_out=rows[~is_counted].reset_index(drop=True),
        unexpressed=tuple((experiment, one) for experiment, replays in found for one in replays.unexpressed),
        problems=tuple(problem for _, replays in found for problem in replays.problems),
    )


_COLUMNS: Final = [
    "experiment", "table", "row", "metric", *LABELS, "labels", "side", "measured", "predicted", "low", "high", "why",
]  # fmt: skip


def _row(experiment: str, one: Comparison) -> list[Any]:
    band = (np.nan if one.low is None else one.low, np.nan if one.high is None else one.high)
    labels = [one.labels.get(label, "") for label in LABELS]
    return [
        experiment, one.table, one.row, one.metric, *labels, dict(one.labels), one.side, one.measured, one.predicted,
        *band, one.left_out or "",
    ]  # fmt: skip
