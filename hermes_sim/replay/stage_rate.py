"""Stage-rate runs of a load generator: every stage sends at its own rate, and only means and percentiles are recorded.

One experiment is one simulation: its stages in their order, far enough apart that each begins with an empty engine but
a warm prefix cache. Arrivals of a stage are Poisson conditioned on their count (exponential gaps rescaled to the
stage's length), outputs are forced, prompts are few and cycled, and the client caps the requests in flight.

Tokens count two stream events each in the recorded TPOT and ITL: (E2E - TTFT) / (forced tokens - 1) is compared
instead, as `itl`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.core.rng import stream
from hermes_sim.replay.experiment import Comparison, Progress, Side, Unexpressed
from hermes_sim.replay.latency_metrics import Compared, statistic_of
from hermes_sim.replay.rows import NUMBER, POSITIVE, TEXT, descriptions_beside, read_rows, tables_with
from hermes_sim.replay.shared_prompts import BLOCK_TOKENS, cycled_prompts
from hermes_sim.replay.simulated_requests import Latencies, simulate_requests
from hermes_sim.replay.split import FITTED_STAGE_RATE_MODELS
from hermes_sim.replay.stage_rate_setup import SERVER_TTFT, Experiment, Stage, experiment_of, key_column
from hermes_sim.workload.requests import ClosedLoop, RequestTable, request_table

FloatArray = npt.NDArray[np.float64]

NEEDED: Final = {"stage": NUMBER, "e2e_mean_ms": POSITIVE, "ttft_mean_ms": POSITIVE, "tpot_corrected_mean_ms": POSITIVE}
OPTIONAL: Final = {
    "tp": POSITIVE, "n_ok": NUMBER, "n_fail": NUMBER, "requested_rate": NUMBER, "output_len_forced": POSITIVE,
    "e2e_p90_ms": POSITIVE, "e2e_p99_ms": POSITIVE, "ttft_p90_ms": POSITIVE, "ttft_p99_ms": POSITIVE,
    "e2e_median_ms": POSITIVE, "ttft_median_ms": POSITIVE, "prompt_len_mean": POSITIVE, "prompt_len_min": POSITIVE,
    "prompt_len_max": POSITIVE, "model": TEXT, "hardware": TEXT,
}  # fmt: skip
STATISTICS: Final = {"mean": "mean", "median": "p50", "p90": "p90", "p99": "p99"}
"""As the tables call them -> as metrics do."""

CLIENT_CAP: Final = 440
"""Requests in flight that the load generator (inference-perf) allows itself."""

CLIENT_NETWORK_S: Final = 10.85e-3
"""Of TTFT and E2E, where the load came over a network (calibration/host_open_loop.py fits it to such runs)."""

SERVER_WARM_UP: Final = "the server's mean is above the client's: requests before the stage are in it"

BETWEEN_STAGES_S: Final = 3600.0
"""From the last arrival of a stage to the first of the next: long enough to drain any queue."""

MOST_FAILED_FRAC: Final = 0.01
"""With more failures the answered requests are a choice of the lucky ones."""

OVERLOAD_FACTOR: Final = 2.0
"""Requests in flight (rate x mean E2E) over max_num_seqs from which on clients time out."""

SEED: Final = 1


class StageRateReader:
    """Replays stages of constant rate."""

    name = "stage_rate"

    def tables(self, folder: Path) -> Sequence[Path]:
        """Tables with one row per stage."""
        return [path for path in tables_with(folder, NEEDED) if {"experiment", "variant"} & _columns(path)]

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterator[Comparison | Unexpressed | Problem]:
        """Every stage, one simulation per experiment."""
        found = list(experiments_in(table, name))
        for number, experiment in enumerate(found):
            if not isinstance(experiment, Experiment):
                yield experiment
                continue
            try:
                yield from replay_experiment(experiment, name)
            except HermesError as error:
                stages = [*experiment.stages, *([experiment.whole_run] if experiment.whole_run else [])]
                yield from (Unexpressed(name, stage.row, str(error)) for stage in stages)
            if progress is not None:
                progress(name, number + 1, len(found))


READER: Final = StageRateReader()


def experiments_in(table: Path, name: str) -> Iterator[Experiment | Unexpressed | Problem]:
    """The experiments of a table, and what is wrong with its rows and with the files beside it."""
    key = key_column(_columns(table))
    rows, problems = read_rows(table, name, {key: TEXT, **NEEDED}, OPTIONAL)
    yield from problems
    descriptions, problems = descriptions_beside(table, name)
    yield from problems
    rows.index = pd.Index([f"{row[key]} stage {int(row['stage'])}" for _, row in rows.iterrows()])
    for experiment, group in rows.groupby(key, sort=False):
        try:
            yield experiment_of(str(experiment), group, _described(str(experiment), descriptions))
        except HermesError as error:
            yield from (Unexpressed(name, str(row), str(error)) for row in group.index)


def _columns(path: Path) -> set[str]:
    from hermes_sim.replay.rows import columns_of

    return set(columns_of(path))


def _described(experiment: str, descriptions: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the JSON files beside the table say of an experiment."""
    for data in descriptions:
        if isinstance(data.get(experiment), Mapping):
            described: Mapping[str, Any] = data[experiment]
            return described
    return {}


def replay_experiment(experiment: Experiment, name: str) -> Iterator[Comparison]:
    """Measured and simulated statistics of every stage; the row of the whole run is told, and counts in no mean."""
    stage_of, planned_s = planned_arrivals(experiment.stages)
    simulated = simulate_requests(experiment.engine, stage_requests(experiment, planned_s))
    network_s = CLIENT_NETWORK_S if experiment.remote_client else 0.0
    side: Side = "fitted" if experiment.engine.model in FITTED_STAGE_RATE_MODELS else "held_out"
    for number, stage in enumerate(experiment.stages):
        labels = {**experiment.labels, "rate": f"{stage.rate_per_s:g}"}
        compared = Compared(name, stage.row, labels, side, why_left_out(experiment, stage, number))
        latencies = simulated.latencies.rows(stage_of == number)
        yield from compare(compared, stage, latencies, network_s)
    whole = experiment.whole_run
    if whole is not None:
        labels = {**experiment.labels, "rate": "all"}
        told = "sums up the stages, which are compared one by one"
        yield from compare(Compared(name, whole.row, labels, side, told), whole, simulated.latencies, network_s)


def compare(compared: Compared, stage: Stage, simulated: Latencies, network_s: float) -> Iterator[Comparison]:
    """All statistics that the row has: the client's, and the server's own where the load came over a network."""
    for name, values in {"ttft": simulated.ttft_s + network_s, "e2e": simulated.e2e_s + network_s}.items():
        for column, statistic in STATISTICS.items():
            measured = stage.measured.get(f"{name}_{column}_ms")
            if measured is not None:
                yield compared.number(f"{name}_{statistic}_s", measured * 1e-3, statistic_of(values, statistic))
    measured = stage.measured["tpot_corrected_mean_ms"]
    if SERVER_TTFT in stage.measured:
        server_s = stage.measured[SERVER_TTFT] * 1e-3
        warm_up = None if server_s < stage.measured["ttft_mean_ms"] * 1e-3 else SERVER_WARM_UP
        server = replace(compared, left_out=compared.left_out or warm_up)
        yield server.number("server_ttft_mean_s", server_s, statistic_of(simulated.ttft_s, "mean"))
    yield compared.number("itl_mean_s", measured * 1e-3, statistic_of(simulated.tpot_s, "mean"))


def why_left_out(experiment: Experiment, stage: Stage, number: int) -> str | None:
    """The reason for which a row counts in no mean, if there is one."""
    if stage.num_failed > MOST_FAILED_FRAC * stage.num_requests:
        return f"overload: {stage.num_failed} of {stage.num_requests} clients gave up"
    in_flight = min(stage.rate_per_s * stage.measured["e2e_mean_ms"] * 1e-3, stage.num_requests)
    limit = experiment.engine.max_num_seqs or CLIENT_CAP
    if in_flight > max(OVERLOAD_FACTOR * limit, CLIENT_CAP) and not _is_capped(stage):
        return f"overload: {in_flight:.0f} requests in flight for {limit} places, so clients gave up"
    return None


def _is_capped(stage: Stage) -> bool:
    """Whether the row shows that the client held requests back: it sent more slowly than it was told to."""
    return stage.num_failed == 0 and SERVER_TTFT in stage.measured


def planned_arrivals(stages: Sequence[Stage]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """[num_requests] place of each request's stage, and when the load generator means to send it."""
    places, times, start_s = [], [], 0.0
    for place, stage in enumerate(stages):
        gaps = stream(SEED, "stage arrivals", stage.number).exponential(size=stage.num_requests)
        arrivals_s = np.cumsum(gaps) * (stage.num_requests / stage.rate_per_s / gaps.sum())
        places.append(np.full(stage.num_requests, place))
        times.append(start_s + arrivals_s)
        start_s = float(times[-1][-1]) + BETWEEN_STAGES_S
    return np.concatenate(places), np.concatenate(times)


def stage_requests(experiment: Experiment, planned_s: FloatArray) -> RequestTable:
    """Requests of all stages under the client's cap."""
    prompts = experiment.prompts
    lengths = prompts.num_tokens()
    number = len(planned_s)
    blocks = cycled_prompts(number, lengths, prompts.num_groups, prompts.system_tokens)
    return request_table(
        np.full(number, np.nan),
        np.resize(np.array(lengths), number),
        np.full(number, prompts.num_output_tokens),
        hash_offsets=blocks.offsets,
        hash_ids=blocks.ids,
        hash_block_tokens=BLOCK_TOKENS,
        closed_loop=ClosedLoop(CLIENT_CAP, np.zeros(number), planned_s),
    )
