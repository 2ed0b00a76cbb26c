"""Closed-loop tables of benchmark_serving runs: medians and tails of every concurrency, one server a file.

Columns: model, parallel (tp8, tp4ep4, dp8 ...), isl, osl, concurrency, hardware (8x H200), server (engine and how it
was started), and any of median_ttft_s, median_tpot_s, median_e2e_s, output_throughput. Lengths are as stated: outputs
of these runs are all of the nominal length, and prompts are taken to be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

import pandas as pd

from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.replay.closed_loop import columns_of, csv_files, labels_of, replay_run
from hermes_sim.replay.closed_loop_models import UnknownModelError, is_fitted
from hermes_sim.replay.closed_loop_run import Means
from hermes_sim.replay.closed_loop_setup import SetupError
from hermes_sim.replay.experiment import Comparison, Progress, Side, Unexpressed
from hermes_sim.replay.silicon_table import Layout, ServingRun

NEEDED: Final = frozenset({"model", "parallel", "isl", "osl", "concurrency", "hardware", "server"})

METRICS: Final[Mapping[str, tuple[str, str]]] = {
    # column: metric, field of Means
    "median_ttft_s": ("ttft_p50_s", "ttft_p50_s"),
    "median_tpot_s": ("tpot_p50_s", "tpot_p50_s"),
    "median_e2e_s": ("e2e_p50_s", "e2e_p50_s"),
    "output_throughput": ("throughput_tokens_per_s", "output_tokens_per_s"),
}


@dataclass(frozen=True, slots=True)
class InferencexReader:
    """Such tables, found by their columns."""

    name: str = "inferencex"

    def tables(self, folder: Path) -> Sequence[Path]:
        """Files below the folder with these columns and at least one measured one."""
        return [path for path in csv_files(folder) if columns_of(path) >= NEEDED and columns_of(path) & METRICS.keys()]

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterator[Comparison | Unexpressed | Problem]:
        """A comparison for every measured column of every row."""
        try:
            rows = pd.read_csv(table, dtype=str, keep_default_na=False).to_dict("records")
        except (OSError, ValueError, EOFError) as error:
            yield Problem(name, None, "", f"cannot be read: {error}")
            return
        for number, values in enumerate(rows):
            row = {str(key): str(value).strip() for key, value in values.items()}
            yield from _compare(row, number, name)
            if progress is not None:
                progress(name, number + 1, len(rows))


READER: Final = InferencexReader()


def _compare(row: Mapping[str, str], number: int, table: str) -> Iterator[Comparison | Unexpressed | Problem]:
    called = f"row {number + 1}"
    try:
        run = _run(row, called)
        measured = {metric: _number(row, column) for column, (metric, _) in METRICS.items() if row.get(column)}
    except ValueError as error:
        yield Problem(table, number + 2, "", f"{error} ({called})")
        return
    try:
        model, means = replay_run(run)
    except (SetupError, UnknownModelError) as missing:
        yield Unexpressed(table, called, str(missing))
        return
    except HermesError as error:
        yield Unexpressed(table, called, f"cannot be simulated: {error}")
        return
    labels = labels_of(run, model)
    side: Side = "fitted" if is_fitted(model) else "held_out"
    for metric, value in measured.items():
        yield Comparison(table, called, metric, value, _predicted(means, metric), labels, side)


def _predicted(means: Means, metric: str) -> float:
    field = next(field for name, field in METRICS.values() if name == metric)
    return float(getattr(means, field))


def _run(row: Mapping[str, str], called: str) -> ServingRun:
    """Raises ValueError for what cannot be read."""
    found = re.fullmatch(r"\s*(?:(\d+)\s*x\s*)?(\S.*)", row["hardware"])
    if found is None:
        raise ValueError(f"hardware {row['hardware']!r} names no device")
    degrees = {key: int(value) for key, value in re.findall(r"(tp|pp|dp|ep)\s*(\d+)", row["parallel"].casefold())}
    if not degrees:
        raise ValueError(f"parallel {row['parallel']!r} names no degree, such as tp8")
    layout = Layout(
        tp=degrees.get("tp", 1),
        pp=degrees.get("pp", 1),
        dp=degrees.get("dp", 1),
        ep=degrees.get("ep", 1),
        num_workers=1,
    )
    return ServingRun(
        row=called,
        model=row["model"],
        system=found[2].strip(),
        backend=re.split(r"[\s,/]", row["server"].strip().casefold())[0],
        precision=row.get("precision", "").casefold(),
        gemm_mode="",
        moe_mode="",
        isl=_count(row, "isl"),
        osl=_count(row, "osl"),
        concurrency=_count(row, "concurrency"),
        engines=(layout,),
        ttft_s=0.0,
        tpot_s=0.0,
        is_drawn=False,
        series=(row["server"],),
    )


def _number(row: Mapping[str, str], key: str) -> float:
    try:
        value = float(row[key])
    except ValueError:
        raise ValueError(f"{key} needs a number, got {row[key]!r}") from None
    if not isfinite(value) or value <= 0.0:
        raise ValueError(f"{key} needs a number above 0, got {row[key]}")
    return value


def _count(row: Mapping[str, str], key: str) -> int:
    value = _number(row, key)
    if value != int(value):
        raise ValueError(f"{key} needs a whole number, got {row[key]}")
    return int(value)
