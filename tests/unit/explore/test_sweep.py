"""Sweeps that run: the table, what follows from it, the command, Python."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import hermes_sim
from hermes_sim import cli
from hermes_sim.core.errors import ConfigError, HermesError
from hermes_sim.explore.plan import plan_sweep
from hermes_sim.explore.run_table import RUNS_FILE, number_columns, run_table, save_table
from hermes_sim.explore.runner import run_outcome
from hermes_sim.explore.sweep import last_words, load_sweep, sweep
from hermes_sim.explore.sweep_page import WIDTH
from hermes_sim.explore.sweep_results import SweepResults
from hermes_sim.run import run_scenario
from hermes_sim.scenario.load import load_scenario
from hermes_sim.workload.generate import generate_requests
from tests.unit.explore.conftest import Box
from tests.unit.explore.studies import RATE

SMALL: dict[str, Any] = {
    "name": "small",
    "title": "Small",
    "base": {"cluster": "box", "workload": "traffic"},
    "axes": [
        {
            "name": "batching",
            "values": [
                {"name": "chunked", "set": {"cluster.engines.llm.batching": {"kind": "chunked_prefill"}}},
                {"name": "whole", "set": {"cluster.engines.llm.batching": {"kind": "continuous"}}},
            ],
        },
        {"name": "rate", "key": RATE, "range": {"from": "2 /s", "to": "8 /s", "step": 2, "scale": "log"}},
        {"name": "budget", "key": "cluster.engines.llm.batching.max_num_batched_tokens", "values": [512, 2048],
         "when": {"batching": "chunked"}},
        {"name": "tp", "key": "cluster.engines.llm.parallel.tp", "values": [1, 3]},
    ],
    "constraints": [{"require": "rate < 8 or budget > 512", "because": "too slow"}],
    "by": ["ttft_p99_s"],
}  # fmt: skip


@pytest.fixture
def found(box: Box) -> SweepResults:
    """Two points of each half fail: three devices do not divide the heads."""
    return sweep(SMALL, jobs=1)


def test_one_row_a_run_with_numbers_as_numbers(found: SweepResults) -> None:
    runs = found.runs
    assert list(runs.columns[:9]) == [
        "batching", "rate", "budget", "tp", "seed", "status", "error", "scenario", "wall_time_s",
    ]  # fmt: skip
    assert len(runs) == 2 * (5 + 3)
    assert (runs["rate"].dtype, runs["budget"].dtype, runs["tp"].dtype) == (
        np.float64,
        pd.Int64Dtype(),
        pd.Int64Dtype(),
    )
    assert runs[runs["batching"] == "whole"]["budget"].isna().all()
    assert found.left_out == {"rate < 8 or budget > 512 (too slow)": 2}
    assert found.failures["tp"].tolist() == [3] * 8
    assert runs["status"].eq("done").sum() == 8
    row = runs[
        (runs["batching"] == "chunked") & (runs["rate"] == 4) & (runs["budget"] == 512) & (runs["tp"] == 1)
    ].iloc[0]
    same = load_scenario("box", "traffic", overrides=[
        "cluster.engines.llm.batching={kind: chunked_prefill}",
        f"{RATE}=4 /s",
        "cluster.engines.llm.batching.max_num_batched_tokens=512",
    ])  # fmt: skip
    assert row["ttft_p99_s"] == run_scenario(same).summary["latency"]["ttft"]["p99_s"]


def made(values: dict[str, list[float]], **columns: list[float]) -> SweepResults:
    """Runs made by hand: seeds of each point of the axis `a`."""
    axes = [{"name": "a", "key": RATE, "values": [float(name) for name in values]}]
    described = load_sweep({"name": "made", "base": {"cluster": "a100x8", "workload": "chat"}, "axes": axes})
    common = {"status": "done", "error": "", "scenario": "", "wall_time_s": 0.1}
    rows = [
        {**common, "a": name, "seed": seed, "ttft_p99_s": value, **{key: one[point] for key, one in columns.items()}}
        for point, (name, per_seed) in enumerate(values.items())
        for seed, value in enumerate(per_seed)
    ]  # fmt: skip
    return SweepResults(described, run_table(number_columns(described.axes), rows))


def test_the_table_is_read_without_the_program(tmp_path: Path) -> None:
    found = dataclasses.replace(made({"1.0": [1.0, 2.0], "2.5": [5.0, 6.0]}), left_out={"a > 9": 3}, num_twice=1)
    path = found.save(tmp_path / "kept")
    plain = pd.read_parquet(path)
    assert plain["a"].tolist() == [1.0, 1.0, 2.5, 2.5]
    assert plain["ttft_p99_s"].tolist() == [1.0, 2.0, 5.0, 6.0]
    again = SweepResults.load(tmp_path / "kept")
    pd.testing.assert_frame_equal(again.runs, found.runs)
    assert (again.sweep, again.left_out, again.num_twice) == (found.sweep, found.left_out, found.num_twice)
    pd.testing.assert_frame_equal(again.points, found.points)


def test_a_table_of_another_version_is_told(tmp_path: Path) -> None:
    rows = [{"rate": "1 /s", "seed": 1, "status": "done", "error": "", "scenario": "", "wall_time_s": 0.1}]
    about = {"sweep": {**SMALL, "unheard_of": 1}, "left_out": {}, "num_twice": 0}
    save_table(run_table({"rate": ("1 /s",)}, rows), tmp_path / RUNS_FILE, about=about)
    with pytest.raises(HermesError, match="of a sweep that this version does not read"):
        SweepResults.load(tmp_path)


def test_points_are_means_over_seeds_with_students_interval() -> None:
    found = made({"1.0": [1.0, 2.0, 3.0], "2.0": [5.0, 5.0, 5.0]})
    first, second = found.points.to_dict("records")
    assert (first["num_seeds"], first["ttft_p99_s"]) == (3, 2.0)
    assert first["ttft_p99_s_half_width_95"] == pytest.approx(4.302652730 * 1.0 / math.sqrt(3), rel=1e-8)
    assert second["ttft_p99_s_half_width_95"] == 0.0


def test_a_lead_is_tested_in_pairs_of_seeds() -> None:
    """Seeds that are far apart, and a difference that is the same in all of them; then one that is not."""
    found = made({"1.0": [1.0, 5.0, 9.0], "2.0": [1.1, 5.1, 9.11], "3.0": [9.0, 1.0, 6.0]})
    first, second, third = (found.points.iloc[index] for index in range(3))
    assert found.difference("ttft_p99_s", first, second).significant
    assert found.difference("ttft_p99_s", first, second).mean == pytest.approx(0.31 / 3)
    assert found.difference("ttft_p99_s", first, third).significant is False
    alone = made({"1.0": [1.0], "2.0": [2.0]})
    assert alone.difference("ttft_p99_s", alone.points.iloc[0], alone.points.iloc[1]).significant is None


def test_a_point_of_which_a_run_failed_is_none() -> None:
    found = made({"1.0": [1.0, 2.0], "2.0": [5.0, 5.0]})
    runs = found.runs.assign(status=["done", "failed", "done", "done"])
    assert SweepResults(found.sweep, runs).points["a"].tolist() == [2.0]


def test_the_best_by_a_metric_under_a_condition() -> None:
    found = made({"1.0": [1.0], "2.0": [2.0], "3.0": [3.0]}, requests_per_s=[1.0, 9.0, 5.0])
    assert found.best("ttft_p99_s")["a"] == 1.0
    assert found.best("requests_per_s")["a"] == 2.0
    assert found.best("requests_per_s", "ttft_p99_s > 2")["a"] == 3.0
    assert found.ranked("requests_per_s")["a"].tolist() == [2.0, 3.0, 1.0]
    with pytest.raises(HermesError, match="no point has a value of ttft_p99_s where a > 9"):
        found.best("ttft_p99_s", "a > 9")
    with pytest.raises(HermesError, match=r"'ttft_p98_s' is not a metric of these runs .* Did you mean 'ttft_p99_s'"):
        found.best("ttft_p98_s")
    with pytest.raises(HermesError, match="'b' is neither an axis nor a metric"):
        found.ranked("ttft_p99_s", "b > 9")


def test_the_front_is_all_that_nothing_else_beats() -> None:
    """By hand: (1, 1) (2, 9) (3, 5) in TTFT and throughput; the third is worse than the second in both."""
    found = made({"1.0": [1.0], "2.0": [2.0], "3.0": [3.0]}, requests_per_s=[1.0, 9.0, 5.0])
    assert found.pareto(["ttft_p99_s", "requests_per_s"])["a"].tolist() == [1.0, 2.0]
    assert found.pareto(["requests_per_s"])["a"].tolist() == [2.0]


def test_equal_seeds_draw_equal_requests_at_every_point(box: Box) -> None:
    """Common random numbers: other hardware meets the same requests, twice the rate the same ones in half the time."""
    replicas = {"name": "replicas", "key": "cluster.engines.llm.replicas", "values": [1, 2]}
    rate = {"name": "rate", "key": RATE, "values": ["2 /s", "4 /s"]}
    plan = plan_sweep(load_sweep({**SMALL, "axes": [replicas, rate], "constraints": [], "replications": 2}))
    drawn: dict[int, list[Any]] = {1: [], 2: []}
    for run in plan.runs:
        assert run.scenario is not None
        drawn[run.scenario.seed].append(generate_requests(run.scenario.workload.traffic, run.scenario.seed))
    for slow, fast, slow_again, fast_again in drawn.values():
        np.testing.assert_allclose(slow.arrival_s, 2 * fast.arrival_s, rtol=1e-12)
        np.testing.assert_array_equal(slow.arrival_s, slow_again.arrival_s)
        np.testing.assert_array_equal(fast.arrival_s, fast_again.arrival_s)
        for one in (fast, slow_again, fast_again):
            np.testing.assert_array_equal(one.num_prompt_tokens, slow.num_prompt_tokens)
            np.testing.assert_array_equal(one.num_output_tokens, slow.num_output_tokens)
    assert (drawn[1][0].num_prompt_tokens != drawn[2][0].num_prompt_tokens).any()


def test_overrides_win_over_the_axes(box: Box) -> None:
    for overrides in (["cluster.engines.llm.parallel.tp=1"], {"cluster.engines.llm.parallel.tp": 1}):
        plan = plan_sweep(load_sweep(SMALL), last=last_words(overrides))
        assert len(plan.runs) == 16
        assert not any(run.problem for run in plan.runs)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", *arguments])
    return int(ended.value.code or 0)


def test_the_command_prints_the_best_points_and_why_others_failed(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    (box.folder / "mine.yaml").write_text(yaml.safe_dump(SMALL))
    assert command("mine.yaml", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "16 points, 16 runs, 8 cannot be run" in out
    assert not Path("runs").exists()
    assert command("mine.yaml", "--jobs", "1", "--top", "2", "--csv", "--where", "rate <= 4") == 0
    out = capsys.readouterr().out
    assert "16 runs, 8 failed" in out
    assert "left out 2: rate < 8 or budget > 512 (too slow)" in out
    assert "failed 8: " in out
    assert "best by TTFT p99 where rate <= 4 (lower is better)" in out
    assert "one seed each: small leads may be chance" in out
    assert all(len(line) <= WIDTH for line in out.splitlines())
    assert sorted(path.name for path in Path("runs/sweep-small").iterdir()) == ["report.html", "runs.csv", RUNS_FILE]
    assert command("mine.yaml", "--jobs", "1", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["num_runs"], data["num_failed"], data["num_reused"]) == (16, 8, 8)
    assert data["best"]["ttft_p99_s"][0]["tp"] == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["mine.yaml", "--by", "ttft_p9_s"], "--by ttft_p9_s: is not a metric"),
        (["mine.yaml", "--where", "rate <"], "--where: 'rate <' is not an expression"),
        (["mine.yaml", "--where", "rat < 3"], "--where: 'rat' is neither an axis (batching, rate, budget, tp) nor a"),
        (["mine.yml"], "no sweep 'mine.yml' here or in the library"),
        (["mine.yaml", "--set", "traffic.rate=3"], "a key starts with 'cluster.' or 'workload.'"),
        (["mine.yaml", "--out", "."], "holds something else than a sweep"),
    ],
)
def test_a_wrong_command_runs_nothing(
    box: Box, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    (box.folder / "mine.yaml").write_text(yaml.safe_dump(SMALL))
    assert command(*arguments) == 2
    assert problem in capsys.readouterr().err
    assert not Path("runs").exists()


def test_it_is_a_public_function(box: Box) -> None:
    assert hermes_sim.sweep is sweep
    with pytest.raises(ConfigError, match=r"no sweep 'deploymets' here or in the library. Did you mean 'deployments'"):
        hermes_sim.sweep("deploymets")


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "workloads" / "sweeps").glob("*.yaml")), ids=str)
def test_shipped_sweeps_can_be_planned_and_begun(path: Path) -> None:
    """Every point makes a scenario; the first and the last of them run, in little."""
    described = load_sweep(path.stem)
    assert described.name == path.stem
    plan = plan_sweep(described, last={"workload.traffic.num_requests": 8})
    assert [run.problem for run in plan.runs if run.problem is not None] == []
    for run in (plan.runs[0], plan.runs[-1]):
        assert run_outcome(run)["error"] == ""
