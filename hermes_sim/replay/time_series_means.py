"""Runs of a known workload recorded as one row of means: mean TTFT, mean TPOT, generated tokens per second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.replay.experiment import Comparison, Progress, Unexpressed
from hermes_sim.replay.latency_metrics import Compared
from hermes_sim.replay.request_workloads import workload_named
from hermes_sim.replay.rows import POSITIVE, TEXT, read_rows, tables_with
from hermes_sim.replay.simulated_requests import simulate_requests
from hermes_sim.replay.time_series_setup import SETUP, engine_of, labels_of, requests_of

MEANS: Final = {
    **SETUP, "workload": TEXT, "mean_ttft_ms": POSITIVE, "mean_tpot_ms": POSITIVE, "throughput_tok_s": POSITIVE,
}  # fmt: skip


class MeansReader:
    """Replays rows that name their workload and hold its means."""

    name = "workload_means"

    def tables(self, folder: Path) -> Sequence[Path]:
        """Tables with one row per run."""
        return tables_with(folder, MEANS)

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterator[Comparison | Unexpressed | Problem]:
        """One simulation per row."""
        rows, problems = read_rows(table, name, MEANS, {"scenario": TEXT})
        yield from problems
        for number, (_, row) in enumerate(rows.iterrows()):
            try:
                yield from replay_means(table, name, f"line {row['line']}", row)
            except HermesError as error:
                yield Unexpressed(name, f"line {row['line']}", str(error))
            if progress is not None:
                progress(name, number + 1, len(rows))


READER: Final = MeansReader()


def replay_means(table: Path, name: str, line: str, row: pd.Series) -> Iterator[Comparison | Unexpressed]:
    """Mean latencies and throughput of one run."""
    workload = workload_named(table, str(row["workload"]))
    if workload is None:
        yield Unexpressed(name, line, f"no workload '{row['workload']}' in the requests of this folder")
        return
    setup = {str(column): value for column, value in row.items()}
    engine = engine_of(setup)
    simulated = simulate_requests(engine, requests_of(workload))
    compared = Compared(name, line, labels_of(engine, setup), "held_out")
    latencies = simulated.latencies
    yield compared.number("ttft_mean_s", float(row["mean_ttft_ms"]) * 1e-3, float(np.nanmean(latencies.ttft_s)))
    yield compared.number("tpot_mean_s", float(row["mean_tpot_ms"]) * 1e-3, float(np.nanmean(latencies.tpot_s)))
    predicted = simulated.num_output_tokens.sum() / float(np.nanmax(simulated.finish_s) - simulated.arrival_s.min())
    yield compared.number("throughput_tokens_per_s", float(row["throughput_tok_s"]), float(predicted))
