"""Experiments of a load generator from small tables: stages, arrivals, prompts, what is left out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hermes_sim.replay.experiment import Unexpressed
from hermes_sim.replay.stage_rate import READER, experiments_in, planned_arrivals, stage_requests, why_left_out
from hermes_sim.replay.stage_rate_setup import Experiment

ROW = "experiment,stage,n_ok,n_fail,requested_rate,e2e_mean_ms,ttft_mean_ms,tpot_corrected_mean_ms\n"
CONFIG = {
    "run": {
        "model": "meta-llama/Llama-2-7b-hf",
        "hardware": "NVIDIA H100 80GB HBM3 (SXM)",
        "tp": 1,
        "engine": "vLLM ~0.15 (fork)",
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 128,
        "prefix_caching": True,
        "system_prompt_len": 100,
        "question_len": 400,
        "output_len": 50,
        "effective_num_groups": 2,
        "effective_prompts_per_group": 3,
        "stages": [{"rate_rps": 5, "duration_s": 60}, {"rate_rps": 10, "duration_s": 60}],
    }
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "setup.json").write_text(json.dumps(CONFIG))
    path = tmp_path / "renamed.csv"
    path.write_text(
        ROW
        + "run,-1,900,0,,1500,40,29\nrun,0,300,0,5,1000,30,19\nrun,1,600,0,10,2000,50,39\n"
        + "run,2,ten,0,20,1,1,1\nunknown,0,300,0,5,1000,30,19\n"
    )
    return path


def experiment(table: Path) -> Experiment:
    (found,) = [one for one in experiments_in(table, "renamed.csv") if isinstance(one, Experiment)]
    return found


class TestExperiments:
    def test_the_table_is_found_and_bad_rows_are_told(self, table: Path) -> None:
        assert READER.tables(table.parent) == [table]
        others = [one for one in experiments_in(table, "renamed.csv") if not isinstance(one, Experiment)]
        assert [str(one) for one in others if not isinstance(one, Unexpressed)] == [
            "renamed.csv:5 n_ok: must be a number, got 'ten'"
        ]
        (missing,) = [one for one in others if isinstance(one, Unexpressed)]
        assert (missing.row, missing.reason) == ("unknown stage 0", "nothing says system_prompt_len")

    def test_engine_and_stages(self, table: Path) -> None:
        found = experiment(table)
        assert (found.engine.device, found.engine.model) == ("h100_sxm", "llama_2_7b")
        assert found.engine.version == (0, 15)
        assert [(stage.num_requests, stage.rate_per_s) for stage in found.stages] == [(300, 5.0), (600, 10.0)]
        assert found.whole_run is not None

    def test_arrivals_keep_count_and_length_of_each_stage(self, table: Path) -> None:
        stage_of, planned_s = planned_arrivals(experiment(table).stages)
        first, second = planned_s[stage_of == 0], planned_s[stage_of == 1]
        assert (len(first), len(second)) == (300, 600)
        assert first[-1] == pytest.approx(60.0)
        assert second[0] > first[-1] + 1000.0
        gaps = np.diff(first)
        assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.15)  # Poisson

    def test_prompts_are_cycled_with_forced_outputs(self, table: Path) -> None:
        found = experiment(table)
        requests = stage_requests(found, planned_arrivals(found.stages)[1])
        assert requests.num_output_tokens.tolist() == [50] * 900
        assert len(set(requests.num_prompt_tokens.tolist())) <= 6
        assert abs(requests.num_prompt_tokens.mean() - 525.0) < 3.0
        blocks = np.diff(requests.hash_offsets)
        assert blocks[0] == requests.num_prompt_tokens[0] // 16

    def test_overload_counts_in_no_mean(self, table: Path) -> None:
        found = experiment(table)
        assert why_left_out(found, found.stages[0], 0) is None
        gave_up = replace(found.stages[0], num_failed=100)
        assert why_left_out(found, gave_up, 0) == "overload: 100 of 300 clients gave up"
        late = replace(found.stages[1], measured={**found.stages[1].measured, "e2e_mean_ms": 90_000.0})
        assert "requests in flight for 128 places" in str(why_left_out(found, late, 1))
