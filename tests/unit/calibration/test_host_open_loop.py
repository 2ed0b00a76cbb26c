"""Which rows the host terms are fitted to: none that the split keeps out, none of overload."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hermes_sim.calibration.host_open_loop import (
    BESIDE_ENGINE,
    SERVING,
    SHORT_OUTPUT,
    STEPS,
    cold_and_warm,
    enough_requests,
    fit_serving,
    fit_steps,
    fitted_engines,
    fitted_experiments,
    measured_stages,
    terms_of,
    thinned,
)
from hermes_sim.replay.served_engine import ServedEngine
from hermes_sim.replay.split import FITTED_STAGE_RATE_MODELS, FITTED_STEP_TIME_TP


def test_a_folder_without_runs_gives_no_terms(tmp_path: Path) -> None:
    assert fit_serving(tmp_path) is None
    assert fit_steps(tmp_path) is None


@pytest.mark.parametrize("coefficients", [SERVING, STEPS])
def test_every_term_is_one_of_an_engine(coefficients: tuple) -> None:  # type: ignore[type-arg]
    values = {one.name: one.start for one in coefficients if one.name not in BESIDE_ENGINE}
    (engine,) = ServedEngine(device="h100_sxm", model="llama_3_1_8b", terms=terms_of(values)).scenario().cluster.engines
    for name, value in values.items():
        section, _, key = name.partition(".")
        part = getattr(engine, section)
        found = getattr(part, key, None) if hasattr(part, key) else getattr(part, f"{key}_s")
        assert found == pytest.approx(value)


@pytest.mark.data
def test_only_what_the_split_allows_is_fitted(data_folder: Path) -> None:
    experiments = fitted_experiments(data_folder)
    assert {one.engine.model for one in experiments} <= set(FITTED_STAGE_RATE_MODELS)
    assert all(stage.num_requests <= enough_requests(stage) for one in experiments for stage in thinned(one).stages)
    engines = fitted_engines(data_folder)
    assert {one.tp for one in engines} <= set(FITTED_STEP_TIME_TP)
    assert all(batch.num_output_tokens <= SHORT_OUTPUT for one in engines for batch in one.batches)


@pytest.mark.data
def test_thinned_requests_stand_for_the_measured_ones(data_folder: Path) -> None:
    for experiment in fitted_experiments(data_folder):
        stages = thinned(experiment).stages
        stage_of = np.repeat(np.arange(len(stages)), [stage.num_requests for stage in stages])
        weights = cold_and_warm(experiment, stage_of)
        measured = sum(stage.num_requests for stage in measured_stages(experiment))
        assert weights.sum() == pytest.approx(measured)
        assert (weights[: min(100, stages[0].num_requests)] == 1.0).all()  # ten groups of ten prompts, once


@pytest.mark.data
def test_stages_of_overload_are_not_fitted(data_folder: Path) -> None:
    (first, *_) = fitted_experiments(data_folder)
    given_up = tuple(replace(stage, num_failed=stage.num_requests) for stage in first.stages)
    assert thinned(replace(first, stages=given_up)).stages == ()
