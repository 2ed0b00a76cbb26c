"""Closed-loop serving tables: every row's experiment in the simulator, TTFT and TPOT beside the measured ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import pandas as pd

from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.processes import Report, map_in_processes, num_cores
from hermes_sim.replay.closed_loop_host import HostTerms
from hermes_sim.replay.closed_loop_models import UnknownModelError, is_fitted, serving_model
from hermes_sim.replay.closed_loop_run import Means, closed_loop
from hermes_sim.replay.closed_loop_setup import SetupError, board_of, cluster_of
from hermes_sim.replay.experiment import Comparison, Progress, Side, Unexpressed
from hermes_sim.replay.silicon_drafts import drafting_rows
from hermes_sim.replay.silicon_table import ServingRun, is_silicon_table, read_silicon_table
from hermes_sim.replay.silicon_twins import with_stated_layouts
from hermes_sim.replay.split import FITTED_CLOSED_LOOP_MODES

TABLES: Final = ("*.csv", "*.csv.gz")
RUNS_AT_A_TIME: Final = 32
"""Of a table, in one process: neighbours often state the same experiment, which is run once."""

DRAFTING: Final = "runs with multi-token prediction, which the table does not say: the same configuration is slower"


@dataclass(frozen=True, slots=True)
class ClosedLoopReader:
    """Aggregated and disaggregated rows, told apart by their columns."""

    name: str = "closed_loop"

    def tables(self, folder: Path) -> Sequence[Path]:
        """Tables below the folder with the columns of such runs."""
        return [path for path in csv_files(folder) if is_silicon_table(columns_of(path))]

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterator[Comparison | Unexpressed | Problem]:
        """Two comparisons a row that can be expressed."""
        runs: list[ServingRun] = []
        for found in read_silicon_table(table, name):
            if isinstance(found, Problem):
                yield found
            else:
                runs.append(found)
        runs = with_stated_layouts(runs)
        drafting = drafting_rows(runs)
        work = [(run, name, DRAFTING if number in drafting else None) for number, run in enumerate(runs)]
        parts = [work[first : first + RUNS_AT_A_TIME] for first in range(0, len(work), RUNS_AT_A_TIME)]
        jobs = num_cores() if len(parts) > 1 else 1
        done = map_in_processes(_compare_all, parts, jobs=jobs) if jobs > 1 else map(_compare_all, parts)
        for number, compared in enumerate(done):
            yield from compared
            if progress is not None:
                progress(name, min((number + 1) * RUNS_AT_A_TIME, len(runs)), len(runs))


READER: Final = ClosedLoopReader()


def csv_files(folder: Path) -> list[Path]:
    """Comma-separated files below a folder, plain or compressed, by path."""
    return sorted({path for pattern in TABLES for path in folder.rglob(pattern) if path.is_file()})


@lru_cache(maxsize=4096)
def columns_of(path: Path) -> frozenset[str]:
    """Column names of a comma-separated file; none where it cannot be read."""
    try:
        return frozenset(str(column) for column in pd.read_csv(path, nrows=0).columns)
    except (OSError, ValueError, EOFError):
        return frozenset()


def _compare_all(
    part: Sequence[tuple[ServingRun, str, str | None]], report: Report | None = None
) -> list[Comparison | Unexpressed]:
    return [one for run, table, left_out in part for one in _compare(run, table, left_out)]


def _compare(run: ServingRun, table: str, left_out: str | None) -> Iterator[Comparison | Unexpressed]:
    try:
        model, means = replay_run(run)
    except (SetupError, UnknownModelError) as missing:
        yield Unexpressed(table, run.row, str(missing))
        return
    except HermesError as error:
        yield Unexpressed(table, run.row, f"cannot be simulated: {error}")
        return
    labels = labels_of(run, model)
    may_fit = labels["mode"] in FITTED_CLOSED_LOOP_MODES and is_fitted(model)
    side: Side = "fitted" if may_fit else "held_out"
    of_metric = (("ttft_mean_s", run.ttft_s, means.ttft_s), ("tpot_mean_s", run.tpot_s, means.tpot_s))
    for metric, measured, predicted in of_metric:
        yield Comparison(table, run.row, metric, measured, predicted, labels, side, None, None, left_out)


def replay_run(run: ServingRun, terms: HostTerms | None = None) -> tuple[ModelArchitecture, Means]:
    """One row's experiment. Raises SetupError, UnknownModelError, HermesError.

    terms: of the engines' hosts, in place of the fitted ones.
    """
    if run.is_disaggregated and any(layout.num_workers is None for layout in run.engines):
        raise SetupError("prefill and decode run apart, but the numbers of their workers are not stated")
    device = board_of(run.system).device
    model = serving_model(run.model, run.precision, run.gemm_mode, run.moe_mode, device)
    cluster = cluster_of(run, model, terms)
    key = (cluster.model_dump_json(), run.isl, run.osl, run.concurrency, run.is_drawn, model.model_dump_json())
    if key not in _KNOWN:
        _KNOWN[key] = closed_loop(cluster, model, run.isl, run.osl, run.concurrency, is_drawn=run.is_drawn)
    return model, _KNOWN[key]


_KNOWN: dict[tuple[str, int, int, int, bool, str], Means] = {}
"""Rows that state the same experiment are run once."""


def labels_of(run: ServingRun, model: ModelArchitecture) -> dict[str, str]:
    """What reports group a row by."""
    last = run.engines[-1]
    quantization = model.quantization
    return {
        "device": board_of(run.system).device.name,
        "model": model.name,
        "engine": run.backend,
        "mode": "disaggregated" if run.is_disaggregated else "aggregated",
        "precision": run.precision or (quantization.weight_dtype if quantization is not None else model.weight_dtype),
        "concurrency": str(run.concurrency),
        "isl": str(run.isl),
        "osl": str(run.osl),
        "tp": str(last.tp),
        "dp": str(last.dp),
        "ep": str(last.ep),
        "num_devices": str(sum(layout.num_devices * (layout.num_workers or 1) for layout in run.engines)),
    }
