"""Served workloads, replayed: recorded requests, stages of constant rate, step times. Nothing here was fitted to them.

The bounds are a little above what is reached, so that a change which loses accuracy fails; docs/accuracy.md has the
bars.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from hermes_sim.calibration.power import fit_power
from hermes_sim.core.errors import Problem
from hermes_sim.replay.closed_loop import READER as CLOSED_LOOP
from hermes_sim.replay.closed_loop import replay_run
from hermes_sim.replay.experiment import Comparison, Unexpressed
from hermes_sim.replay.per_request import READER as PER_REQUEST
from hermes_sim.replay.served_engine import library_device
from hermes_sim.replay.silicon_table import ServingRun, read_silicon_table
from hermes_sim.replay.splitwise_steps import READER as STEP_TIMES
from hermes_sim.replay.stage_rate import experiments_in, replay_experiment
from hermes_sim.replay.stage_rate_setup import Experiment

pytestmark = pytest.mark.data


def errors(found: Iterable[Comparison | Unexpressed | Problem], metric: str) -> np.ndarray:
    """Signed errors of the rows that count and were kept out of every fit."""
    kept = [one for one in found if isinstance(one, Comparison) and one.metric == metric]
    return np.array([one.error_frac for one in kept if one.side == "held_out" and one.left_out is None])


@pytest.mark.parametrize("name", ["1T", "3T", "5T"])
def test_recorded_requests(name: str, data_folder: Path) -> None:
    (table,) = (data_folder / "serving" / "vllm_h100_qwen3_14b").glob(f"*_{name}_*.csv.gz")
    found = list(PER_REQUEST.replay(table, table.name))
    assert abs(errors(found, "tpot_mean_s")[0]) < 0.06
    assert abs(errors(found, "e2e_mean_s")[0]) < 0.06
    assert abs(errors(found, "ttft_mean_s")[0]) < 0.08


def test_stages_of_a_model_that_was_kept_out(data_folder: Path) -> None:
    table = data_folder / "serving" / "blis_inferenceperf" / "metrics.csv"
    found = [one for one in experiments_in(table, "metrics") if isinstance(one, Experiment)]
    chosen = [one for one in found if one.engine.model == "llama_2_7b" and one.stages[0].rate_per_s > 4.0]
    rows = [row for one in chosen for row in replay_experiment(one, "metrics")]
    assert len(errors(rows, "itl_mean_s")) == 5
    assert np.median(np.abs(errors(rows, "itl_mean_s"))) < 0.05
    assert np.median(np.abs(errors(rows, "e2e_mean_s"))) < 0.05
    assert np.median(np.abs(errors(rows, "ttft_mean_s"))) < 0.12


def test_step_times_at_another_degree_of_parallelism(data_folder: Path) -> None:
    (table,) = STEP_TIMES.tables(data_folder)
    found = list(STEP_TIMES.replay(table, table.name))
    assert len(errors(found, "token_s")) > 50
    assert np.mean(np.abs(errors(found, "token_s"))) < 0.10
    assert np.mean(np.abs(errors(found, "prompt_s"))) < 0.14


def test_power_at_another_degree_of_parallelism(data_folder: Path) -> None:
    (fit,) = [fit for fit in fit_power(data_folder) if fit.device == "a100_sxm_80gb"]
    assert library_device(fit.device).power.memory_bound_frac == fit.memory_bound_frac
    assert fit.errors["fitted"].median_frac < 0.04
    assert fit.errors["held_out"].median_frac < 0.09


def test_a_renamed_copy_with_a_bad_row(data_folder: Path, tmp_path: Path) -> None:
    (table,) = (data_folder / "serving" / "llmservingsim_bench").glob("*/requests.csv")
    shutil.copy(table.with_name("meta.json"), tmp_path / "about.json")
    lines = table.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[1], "many")
    (tmp_path / "other name.csv").write_text("\n".join(lines) + "\n")
    assert PER_REQUEST.tables(tmp_path) == [tmp_path / "other name.csv"]
    found = list(PER_REQUEST.replay(tmp_path / "other name.csv", "other name.csv"))
    assert [str(one) for one in found if isinstance(one, Problem)] == [
        "other name.csv:6 input_tokens: must be a number above zero, got 'many'"
    ]
    assert len(errors(found, "e2e_mean_s")) == 2


def test_a_closed_loop_of_a_model_that_was_kept_out(data_folder: Path) -> None:
    tables = {table.name: table for table in CLOSED_LOOP.tables(data_folder)}
    runs = [run for run in read_silicon_table(tables["agg.csv.gz"], "agg") if isinstance(run, ServingRun)]
    chosen = [
        run
        for run in runs
        if run.model.endswith("Llama-3.1-70B") and (run.system, run.backend) == ("h200_sxm", "vllm")
        and (run.isl, run.osl) == (1024, 1024) and run.concurrency <= 16
    ]  # fmt: skip
    assert len(chosen) >= 6
    means = [replay_run(run)[1] for run in chosen]
    assert np.mean([abs(mean.tpot_s / run.tpot_s - 1.0) for mean, run in zip(means, chosen, strict=True)]) < 0.06
    assert np.mean([abs(mean.ttft_s / run.ttft_s - 1.0) for mean, run in zip(means, chosen, strict=True)]) < 0.15
