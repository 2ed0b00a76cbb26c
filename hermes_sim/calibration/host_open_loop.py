"""Host, launch and front-end terms of vLLM, fitted to served runs with the kernels frozen.

Two fits, each of a handful of named and bounded numbers. vLLM V1: what the host, the sampler and the front end add,
from stage-rate runs of the models that replay/split.py lists as fitted. vLLM 0.2: host and launches of an eager engine,
from step times at the degrees of tensor parallelism that it lists. The simulator itself predicts and nothing is drawn
by chance, so a fit gives the same numbers again. The results stand in scenario/engine_presets.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize
from hermes_sim.replay.served_engine import ServedEngine
from hermes_sim.replay.simulated_requests import simulate_requests
from hermes_sim.replay.split import FITTED_STAGE_RATE_MODELS
from hermes_sim.replay.splitwise_steps import (
    CAPPED,
    LoneEngine,
    lone_engines,
    members_of,
    simulate_batches,
    step_engine,
)
from hermes_sim.replay.splitwise_steps import READER as STEP_TIMES
from hermes_sim.replay.stage_rate import READER as STAGE_RATES
from hermes_sim.replay.stage_rate import experiments_in, planned_arrivals, stage_requests, why_left_out
from hermes_sim.replay.stage_rate_setup import Experiment, Stage

FloatArray = npt.NDArray[np.float64]
Terms = tuple[tuple[str, str | float | None], ...]

NUM_REQUESTS: Final = 400
"""Of a stage, for the fit, where few are in flight."""

NUM_LIFETIMES: Final = 8.0
"""... and as many more as arrive in so many times the E2E latency: then the stage is steady."""

QUEUEING_TTFT_FACTOR: Final = 6.0
"""TTFT above so many token gaps is a queue, which says nothing of a front end."""

SERVING: Final = (
    Coefficient("host.per_step", 5e-4, 0.0, 2e-3, 1e-4),
    Coefficient("host.per_sequence", 4e-6, 0.0, 3e-5, 2e-6),
    Coefficient("host.sort_bytes_per_logit", 100.0, 0.0, 400.0, 20.0),
    Coefficient("host.sort_cycles_per_logit", 2.0, 0.0, 20.0, 1.0),
    Coefficient("host.captured_frac", 0.5, 0.2, 1.0, 0.2),
    Coefficient("front_end_s", 6e-3, 0.0, 3e-2, 1e-3),
    Coefficient("network_s", 1e-2, 0.0, 5e-2, 1e-3),
)
"""vLLM V1. front_end_s is `host.detokenize.per_message`, network_s is stage_rate.CLIENT_NETWORK_S. The scales are
the widths of the secants."""

BESIDE_ENGINE: Final = ("front_end_s", "network_s")
"""Terms that are added to what the simulator says, and change nothing in it."""

STEPS: Final = (
    Coefficient("host.per_step", 8e-3, 0.0, 3e-2, 1e-3),
    Coefficient("host.per_sequence", 3e-4, 0.0, 1e-3, 1e-4),
    Coefficient("host.launch_factor", 7.0, 1.0, 50.0, 1.0),
    Coefficient("host.prompt_launch_factor", 1.8, 1.0, 5.0, 0.1),
    Coefficient("parallel.compute_slowdown", 1.25, 1.0, 2.0, 0.1),
)
"""vLLM 0.2."""

REFERENCE_LAUNCH_S: Final = 4e-6
"""Bare launch on the host of the fastest device, to which launch_factor refers; slower hosts are fitted against it."""

STEP_BUDGET_TOKENS: Final = 2560
"""Prompts of one step that vLLM 0.2 was made for (max_num_batched_tokens); larger ones are in no fit."""

SHORT_OUTPUT: Final = 128
"""Outputs of the batches that are fitted; longer ones repeat their steps."""

NO_FRONT_END: Final[Terms] = (("host.tokenize", None), ("host.detokenize", None))

UNITS: Final = {"host.per_step": " s", "host.per_sequence": " s"}


@dataclass(frozen=True, slots=True)
class HostFit:
    """Fitted terms by name, and the errors of the rows that were fitted."""

    terms: dict[str, float]
    errors: dict[str, ErrorSummary]


def fit_serving(data_folder: Path) -> HostFit | None:
    """Terms of vLLM V1 from the stage-rate runs below a folder; None where it has none of a fitted model."""
    experiments = [experiment for experiment in fitted_experiments(data_folder) if measured_stages(experiment)]
    if not experiments:
        return None
    rows = [row for experiment in experiments for row in _stage_rows(experiment)]
    measured_s = np.array([row.measured_s for row in rows])

    def predict(values: dict[str, float]) -> FloatArray:
        inside = {name: value for name, value in values.items() if name not in BESIDE_ENGINE}
        engine_s = np.concatenate([_stage_latencies(experiment, terms_of(inside)) for experiment in experiments])
        beside_s = [row.front_ends * values["front_end_s"] + row.networks * values["network_s"] for row in rows]
        return np.asarray(engine_s + np.array(beside_s))

    terms = fit_coefficients(SERVING, predict, measured_s, num_starts=1, secants=True)
    predicted_s = predict(terms)
    kinds = np.array([row.metric for row in rows])
    errors = {kind: summarize(predicted_s[kinds == kind], measured_s[kinds == kind]) for kind in ("ttft", "itl")}
    return HostFit(terms, errors)


def fit_steps(data_folder: Path) -> HostFit | None:
    """Terms of vLLM 0.2, and `kernel_launch` of the devices but the fastest; None where no table has fitted rows."""
    groups = fitted_engines(data_folder)
    if not groups:
        return None
    devices = sorted({_device(group) for group in groups})
    slower = [name for name in devices if name != _fastest(groups)]
    launches = tuple(Coefficient(f"kernel_launch {name}", 5e-6, 1e-6, 3e-5, 1e-6) for name in slower)
    fits = np.concatenate([_within_budget(group) for group in groups])
    measured_s = np.concatenate([_measured_steps(group) for group in groups])

    def predict(values: dict[str, float]) -> FloatArray:
        terms = terms_of({term.name: values[term.name] for term in STEPS})
        return np.concatenate([
            _simulated_steps(group, terms, values.get(f"kernel_launch {_device(group)}", REFERENCE_LAUNCH_S))
            for group in groups
        ])  # fmt: skip

    terms = fit_coefficients(
        (*STEPS, *launches),
        lambda values: predict(values)[fits],
        measured_s[fits],
        num_starts=1,
        secants=True,
    )
    predicted_s = predict(terms)
    errors = {
        kind: summarize(predicted_s[fits[:, place], place], measured_s[fits[:, place], place])
        for place, kind in enumerate(("prompt", "token"))
    }
    return HostFit(terms, errors)


def terms_of(values: dict[str, float]) -> Terms:
    """As a served engine takes them, with units."""
    return tuple((name, f"{value:.9g}{UNITS[name]}" if name in UNITS else value) for name, value in values.items())


def fitted_experiments(data_folder: Path) -> list[Experiment]:
    """Stage-rate experiments of the models that may be fitted."""
    return [
        experiment
        for table in STAGE_RATES.tables(data_folder)
        for experiment in experiments_in(table, table.name)
        if isinstance(experiment, Experiment) and experiment.engine.model in FITTED_STAGE_RATE_MODELS
    ]


def measured_stages(experiment: Experiment) -> list[Stage]:
    """Without those of overload."""
    return [stage for number, stage in enumerate(experiment.stages) if why_left_out(experiment, stage, number) is None]


def thinned(experiment: Experiment) -> Experiment:
    """With fewer requests a stage, and without the stages of overload."""
    stages = [
        replace(stage, num_requests=min(stage.num_requests, enough_requests(stage)))
        for stage in measured_stages(experiment)
    ]
    return replace(experiment, stages=tuple(stages))


def has_queue(stage: Stage) -> bool:
    """Its TTFT is mostly waiting."""
    return stage.measured["ttft_mean_ms"] > QUEUEING_TTFT_FACTOR * stage.measured["tpot_corrected_mean_ms"]


def enough_requests(stage: Stage) -> int:
    """For steady latencies."""
    in_flight = stage.rate_per_s * stage.measured["e2e_mean_ms"] * 1e-3
    return max(NUM_REQUESTS, round(NUM_LIFETIMES * in_flight))


@dataclass(frozen=True, slots=True)
class _StageRow:
    metric: str
    measured_s: float
    front_ends: float
    """How often the front end is in it."""
    networks: float


def _stage_rows(experiment: Experiment) -> list[_StageRow]:
    rows = []
    for stage in measured_stages(experiment):
        ttft_s, itl_s = stage.measured["ttft_mean_ms"] * 1e-3, stage.measured["tpot_corrected_mean_ms"] * 1e-3
        if not has_queue(stage):
            rows.append(_StageRow("ttft", ttft_s, 1.0, float(experiment.remote_client)))
        rows.append(_StageRow("itl", itl_s, 0.0, 0.0))
    return rows


def _stage_latencies(experiment: Experiment, terms: Terms) -> FloatArray:
    """What the simulator says of the same rows, without a front end."""
    return np.array(_cached_latencies(_Key(experiment), (*terms, *NO_FRONT_END)))


@dataclass(frozen=True, slots=True)
class _Key:
    """Equal where the simulations are: the same engine, prompts and stages."""

    experiment: Experiment

    @property
    def _setup(self) -> tuple[object, ...]:
        stages = measured_stages(self.experiment)
        sizes = tuple((stage.number, stage.rate_per_s, stage.num_requests, enough_requests(stage)) for stage in stages)
        queueing = tuple(has_queue(stage) for stage in stages)
        return self.experiment.engine, self.experiment.prompts, sizes, queueing

    def __hash__(self) -> int:
        return hash(self._setup)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other._setup == self._setup


@lru_cache(maxsize=256)
def _cached_latencies(key: _Key, terms: Terms) -> tuple[float, ...]:
    """Terms beside the engine vary without another simulation."""
    experiment = key.experiment
    stages = thinned(experiment).stages
    stage_of, planned_s = planned_arrivals(stages)
    engine = replace(experiment.engine, terms=terms)
    simulated = simulate_requests(engine, stage_requests(experiment, planned_s)).latencies
    weights = cold_and_warm(experiment, stage_of)
    found = []
    for number, stage in enumerate(stages):
        latencies, share = simulated.rows(stage_of == number), weights[stage_of == number]
        if not has_queue(stage):
            found.append(weighted_mean(latencies.ttft_s, share))
        found.append(weighted_mean(latencies.tpot_s, share))
    return tuple(found)


def cold_and_warm(experiment: Experiment, stage_of: npt.NDArray[np.int64]) -> FloatArray:
    """[num_requests] how many measured requests each simulated one stands for.

    The first turn of the prompts finds a cold prefix cache, and is as long in the thinned run as in the measured one;
    all others stand for the rest of their stage.
    """
    weights = np.ones(len(stage_of))
    num_cold = min(experiment.prompts.num_groups * experiment.prompts.num_per_group, int((stage_of == 0).sum()))
    for number, stage in enumerate(measured_stages(experiment)):
        members = np.flatnonzero(stage_of == number)[num_cold if number == 0 else 0 :]
        cold = num_cold if number == 0 else 0
        weights[members] = max(stage.num_requests - cold, 0) / max(len(members), 1)
    return weights


def weighted_mean(values: FloatArray, weights: FloatArray) -> float:
    """Of the values that are there."""
    there = ~np.isnan(values)
    return float(np.average(values[there], weights=weights[there]))


def fitted_engines(data_folder: Path) -> list[LoneEngine]:
    """Engines whose step times may be fitted: batches of short outputs, no cap on power."""
    found = []
    for table in STEP_TIMES.tables(data_folder):
        groups, _ = lone_engines(table, table.name)
        for group in groups:
            if group.side != "fitted" or group.hardware.endswith(CAPPED):
                continue
            batches = tuple(batch for batch in group.batches if batch.num_output_tokens <= SHORT_OUTPUT)
            if batches:
                found.append(replace(group, batches=batches))
    return found


def _device(group: LoneEngine) -> str:
    return _engine(group).device


def _engine(group: LoneEngine) -> ServedEngine:
    return step_engine(group.hardware, group.tp, group.model)


def _fastest(groups: Sequence[LoneEngine]) -> str:
    """Device of the shortest decode step."""
    return _device(min(groups, key=lambda group: min(batch.token_s for batch in group.batches)))


def _within_budget(group: LoneEngine) -> npt.NDArray[np.bool_]:
    """[num_batches, 2] prompt steps that the engine was made for; token steps all are."""
    return np.array([
        [batch.batch_size * batch.num_prompt_tokens <= STEP_BUDGET_TOKENS, True] for batch in group.batches
    ])  # fmt: skip


def _measured_steps(group: LoneEngine) -> FloatArray:
    """[num_batches, 2] prompt and token step."""
    return np.array([[batch.prompt_s, batch.token_s] for batch in group.batches])


def _simulated_steps(group: LoneEngine, terms: Terms, kernel_launch_s: float) -> FloatArray:
    engine = replace(_engine(group), terms=terms, kernel_launch_s=kernel_launch_s)
    latencies = simulate_batches(engine, group.batches).latencies
    return np.array([
        [latencies.ttft_s[members].max(), np.nanmean(latencies.tpot_s[members])]
        for _, members in members_of(group.batches)
    ])  # fmt: skip


FITS: Final[dict[str, Callable[[Path], HostFit | None]]] = {"vllm_v1": fit_serving, "vllm_0_2": fit_steps}
"""Preset -> the fit of its terms."""
