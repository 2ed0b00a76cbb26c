"""Runs recorded as generated tokens per second: the workload that generates as many tokens through the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.replay.experiment import Comparison, Progress, Unexpressed
from hermes_sim.replay.latency_metrics import Compared
from hermes_sim.replay.request_workloads import workload_of_total
from hermes_sim.replay.rows import NUMBER, TEXT, read_rows, tables_with
from hermes_sim.replay.simulated_requests import Simulated, simulate_requests
from hermes_sim.replay.time_series_setup import SETUP, engine_of, labels_of, requests_of

FloatArray = npt.NDArray[np.float64]

SERIES: Final = {**SETUP, "time_s": NUMBER, "gen_throughput_tok_s": NUMBER}

STEADY_FRAC: Final = 0.5
"""A steady second is one with more than this share of the largest throughput."""


class SeriesReader:
    """Replays series of generated tokens per second."""

    name = "time_series"

    def tables(self, folder: Path) -> Sequence[Path]:
        """Tables with one row per second."""
        return tables_with(folder, SERIES)

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterator[Comparison | Unexpressed | Problem]:
        """One simulation per run, which are told apart by their columns."""
        rows, problems = read_rows(table, name, SERIES, {"scenario": TEXT})
        yield from problems
        keys = [*SETUP, *(["scenario"] if "scenario" in rows else [])]
        groups = list(rows.groupby(keys, sort=False))
        for number, (key, group) in enumerate(groups):
            row = " ".join(str(part) for part in key)
            try:
                yield from replay_series(table, name, row, group)
            except HermesError as error:
                yield Unexpressed(name, row, str(error))
            if progress is not None:
                progress(name, number + 1, len(groups))


READER: Final = SeriesReader()


def replay_series(table: Path, name: str, row: str, series: pd.DataFrame) -> Iterator[Comparison | Unexpressed]:
    """Mean throughput over the seconds in which the measured run was busy, and how long it took in all."""
    times_s = series["time_s"].to_numpy(float)
    measured = series["gen_throughput_tok_s"].to_numpy(float)
    interval_s = float(np.median(np.diff(np.sort(times_s)))) if len(times_s) > 1 else 1.0
    workload = workload_of_total(table, float(measured.sum() * interval_s))
    if workload is None:
        yield Unexpressed(
            name, row, "no workload in the requests of this folder generates as many tokens as the series"
        )
        return
    setup = {str(column): value for column, value in series.iloc[0].items()}
    engine = engine_of(setup)
    simulated = simulate_requests(engine, requests_of(workload))
    compared = Compared(name, row, labels_of(engine, setup), "held_out")
    predicted = throughput(simulated, times_s, interval_s)
    steady = measured > STEADY_FRAC * measured.max()
    yield compared.number("throughput_tokens_per_s", float(measured[steady].mean()), float(predicted[steady].mean()))
    busy = np.flatnonzero(measured > 0.0)
    makespan_s = float(times_s[busy[-1]] - times_s[busy[0]]) + interval_s
    first_s = float(np.nanmin(simulated.first_token_s))
    yield compared.number("makespan_s", makespan_s, float(np.nanmax(simulated.finish_s)) - first_s)


def throughput(simulated: Simulated, times_s: FloatArray, interval_s: float) -> FloatArray:
    """[num_seconds] tokens per second in (t - interval, t], those of a request evenly between its first and last."""
    edges = times_s[:, None] + np.array([[-interval_s, 0.0]])
    first, last = simulated.first_token_s, simulated.finish_s
    span = np.maximum(last - first, 1e-9)
    done = np.clip((edges[..., None] - first) / span, 0.0, 1.0) * (simulated.num_output_tokens - 1.0)
    done += edges[..., None] >= first
    tokens = np.nansum(done, axis=-1)
    return np.asarray((tokens[:, 1] - tokens[:, 0]) / interval_s)
