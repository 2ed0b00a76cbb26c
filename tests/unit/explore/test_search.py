"""Searches: what they find and at which cost, what is not run, going on after a kill, the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from hermes_sim import cli
from hermes_sim.core.errors import ConfigError, HermesError
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.explore.search.ranking import front_of, hypervolume
from hermes_sim.explore.search.record import INFEASIBLE, STOPPED, SearchRecord
from hermes_sim.explore.search.results import SearchResults
from hermes_sim.explore.search.search import JOURNAL_FILE, load_search, search
from hermes_sim.explore.search.space import SearchSpace
from hermes_sim.explore.search.trial import shortened
from hermes_sim.explore.search.words import WIDTH, result_lines
from hermes_sim.run import run_scenario
from hermes_sim.scenario.load import load_scenario
from tests.unit.explore.conftest import Box
from tests.unit.explore.search_stub import COST, LATENCY, SPACE, Formula, measured, small

RUNGS = ["1/9", "1/3", 1]
AXES = [axis["name"] for axis in SPACE]
NAMES = [[str(value) for value in axis["values"]] for axis in SPACE]
POINTS = [dict(zip(AXES, names, strict=True)) for names in product(*NAMES)]
LOSSES = np.array([[measured(point, 1.0)[metric] for metric in (LATENCY, COST)] for point in POINTS])


def without_time(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="wall_time_s")


def whole_runs(results: SearchResults) -> pd.DataFrame:
    return results.trials[results.trials["status"] == DONE]


@pytest.mark.parametrize(("rungs", "trials"), [([1], 16), (RUNGS, 28)])
def test_the_best_of_80_points_is_found_in_a_fifth_of_their_runs(box: Box, rungs: list[Any], trials: int) -> None:
    num_found = 0
    for seed in range(3):
        results = search(small(trials=trials, rungs=rungs, seed=seed, replications=1), workers=Formula())
        assert results.num_runs <= len(POINTS) / 5
        num_found += whole_runs(results)[LATENCY].min() == LOSSES[:, 0].min()
    assert num_found >= 2


@pytest.mark.parametrize(("rungs", "trials"), [([1], 16), (RUNGS, 28)])
def test_most_of_a_front_is_found_in_a_fifth_of_the_runs(box: Box, rungs: list[Any], trials: int) -> None:
    reference = LOSSES.max(axis=0)
    shares = []
    for seed in range(2):
        one = small(trials=trials, rungs=rungs, seed=seed, replications=1, objectives=[LATENCY, COST])
        results = search(one, workers=Formula())
        found = whole_runs(results)[[LATENCY, COST]].to_numpy()
        shares.append(hypervolume(found, reference) / hypervolume(LOSSES, reference))
    assert min(shares) >= 0.9
    assert max(shares) >= 0.95


@pytest.mark.parametrize("sampler", ["gp", "tpe", "nsga2", "random"])
def test_a_search_that_is_long_enough_goes_through_all_points_once(box: Box, sampler: str) -> None:
    workers = Formula()
    axes = [SPACE[0], {**SPACE[1], "values": [512, 1024]}, {**SPACE[2], "values": SPACE[2]["values"][:2]}]
    results = search(small(axes=axes, sampler=sampler, trials=99, replications=1), workers=workers)
    points = [tuple(point.items()) for point, _, seed in workers.asked if seed == 1]
    assert len(points) == len(set(points)) == results.num_points == 16
    assert results.num_runs == 16


def test_points_behind_on_a_rung_are_not_run_on_the_next(box: Box) -> None:
    results = search(small(trials=27, rungs=RUNGS, sampler="random", replications=2), workers=(workers := Formula()))
    trials = results.trials
    stopped = trials[trials["status"] == STOPPED]
    assert len(stopped) > 9
    assert set(stopped["requests_frac"]) <= {1 / 9, 1 / 3}
    assert (whole_runs(results)["requests_frac"] == 1).all()
    shares = sum(share for _, share, seed in workers.asked if seed == 1)
    assert results.num_runs == pytest.approx(shares)
    assert results.num_runs < 27 * 0.7
    again = [seed for _, _, seed in workers.asked if seed != 1]
    assert sorted(again) == sorted([2, 3] * len(results.front))


def test_what_does_not_fit_is_told_and_not_run(box: Box) -> None:
    """Three GPUs do not divide the heads, eight replicas of two do not fit, and a constraint leaves out a third."""
    axes = [
        {"name": "tp", "key": ["cluster.engines.llm.parallel.tp", "cluster.engines.llm.placement.gpu"],
         "values": [1, 2, 3]},
        {"name": "replicas", "key": "cluster.engines.llm.replicas", "values": [1, 4, 8]},
    ]  # fmt: skip
    constraints = [{"require": "tp < 2 or replicas != 4", "because": "no such rack"}]
    workers = Formula(lambda point, share: {LATENCY: float(point["tp"]) / float(point["replicas"])})
    results = search(small(axes=axes, constraints=constraints, trials=20), workers=workers)
    assert {(point["tp"], point["replicas"]) for point, _, _ in workers.asked} == {
        ("1", "1"), ("1", "4"), ("1", "8"), ("2", "1"),
    }  # fmt: skip
    wrong = results.trials[results.trials["status"] == INFEASIBLE]
    assert wrong["num_runs"].tolist() == [0.0] * 3
    assert any("attention heads" in reason for reason in wrong["reason"])
    assert results.num_left_out == 2
    text = "\n".join(result_lines(results))
    assert "3 points cannot be run, and cost nothing" in text
    assert "2 points more are left out by constraints" in text


def test_an_axis_is_there_only_when_it_should_be(box: Box) -> None:
    axes = [SPACE[2], {**SPACE[0], "when": {"kind": ["a", "b"]}}]
    workers = Formula(lambda point, share: {LATENCY: float(point.get("seqs", 3))})
    results = search(small(axes=axes, trials=99, sampler="tpe", replications=1), workers=workers)
    assert results.num_points == len(results.trials) == 10
    absent = results.trials["seqs"].isna()
    assert set(results.trials.loc[absent, "kind"]) == {"c", "d"}
    assert "seqs" not in _sentence(results, results.trials[absent].iloc[0])


def _sentence(results: SearchResults, row: Any) -> str:
    from hermes_sim.explore.search.words import point_of_row

    return point_of_row(results.search, row.to_dict())


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_a_number_between_two_ends_is_found(box: Box, sampler: str) -> None:
    """The gap from 1,234 on a logarithmic scale; a quarter of random searches as long would come as near."""
    axes = [{**SPACE[1], "values": [], "range": {"from": 64, "to": 65536, "scale": "log"}}]
    axes = [{key: value for key, value in axis.items() if key != "values"} for axis in axes]
    workers = Formula(lambda point, share: {LATENCY: 0.1 + abs(np.log(float(point["budget"]) / 1234))})
    results = search(small(axes=axes, trials=25, sampler=sampler, replications=1), workers=workers)
    assert results.num_points is None
    best = whole_runs(results).sort_values(LATENCY).iloc[0]
    assert 1234 / 1.15 < best["budget"] < 1234 * 1.15


def test_limits_come_first(box: Box) -> None:
    """The cheapest of the points that are fast enough; cheaper ones are too slow."""
    limit = float(np.quantile(LOSSES[:, 0], 0.2))
    within = LOSSES[LOSSES[:, 0] <= limit]
    results = search(small(objectives=[COST], within={LATENCY: limit}, trials=24), workers=Formula())
    best = results.front.iloc[0]
    assert best["excess"] == 0
    assert best[COST] <= np.sort(within[:, 1])[1]
    assert results.trials[COST].min() < best[COST]


def test_the_nearest_is_told_where_nothing_keeps_the_limits(box: Box) -> None:
    results = search(small(within={COST: "0.001 USD/h"}), workers=Formula())
    assert results.best is None
    assert results.front.empty
    assert result_lines(results)[0].startswith("No point keeps the limits. Nearest: rent")


def test_the_front_is_that_of_other_seeds(box: Box) -> None:
    """Under the search's seed one point looks far better than it is; run again it is not the best."""
    lucky = POINTS[int(np.argsort(LOSSES[:, 0])[40])]

    class Lucky(Formula):
        def wait(self) -> list[Any]:
            _, run = self._runs[0]
            is_lucky = run.point == lucky and run.seed == 1
            (end,) = super().wait()
            return [end._replace(value={**end.value, LATENCY: 1e-3})] if is_lucky else [end]

    results = search(small(trials=80), workers=Lucky())
    assert whole_runs(results)[LATENCY].min() == 1e-3
    assert results.front[LATENCY].min() == LOSSES[:, 0].min()
    assert results.front["num_seeds"].tolist() == [5] * 5
    assert (results.front[f"{LATENCY}_half_width_95"] == 0).all()


def test_a_run_that_fails_is_a_row_and_no_answer(box: Box) -> None:
    def formula(point: Any, share: float) -> dict[str, float]:
        return {} if point["kind"] == "c" else measured(point, share)

    results = search(small(trials=30), workers=Formula(formula))
    failed = results.trials[results.trials["status"] == FAILED]
    assert set(failed["kind"]) == {"c"}
    assert set(failed["reason"]) == {"has no ttft_p99_s"}
    assert "c" not in set(results.front["kind"])


@pytest.mark.parametrize("sampler", ["gp", "tpe", "nsga2"])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not(box: Box, sampler: str) -> None:
    one = small(trials=14, rungs=RUNGS, sampler=sampler, objectives=[LATENCY, COST], replications=2)
    whole = search(one, workers=(alone := Formula()))
    folder = box.folder / "out"
    num_asked = 0
    for most in (3, 6, 50):
        workers = Formula(most=most)
        if most < 50:
            with pytest.raises(KeyboardInterrupt):
                search(one, folder=folder, workers=workers)
            with (folder / JOURNAL_FILE).open("a") as journal:
                journal.write('{"op_code":4,"trial_')  # what a killed process had half written
        else:
            results = search(one, folder=folder, workers=workers)
        num_asked += len(workers.asked)
    assert num_asked == len(alone.asked)
    pd.testing.assert_frame_equal(without_time(results.trials), without_time(whole.trials))
    pd.testing.assert_frame_equal(results.front, whole.front)
    assert results.num_former > 0
    reread = search(one, folder=folder, workers=(none := Formula()))
    assert none.asked == []
    pd.testing.assert_frame_equal(reread.front, whole.front)


def test_what_a_kill_has_left_half_done_is_ended(box: Box) -> None:
    """One point that cannot be run and was not told of yet, one asked for and never begun."""
    one = small(trials=8, constraints=[{"require": "seqs != 8 or budget != 512", "because": "it does not"}])
    folder = box.folder / "out"
    search(one, folder=folder, workers=Formula())
    described = load_search(one)
    space = SearchSpace(described.axes)
    record = SearchRecord(described, space, folder / JOURNAL_FILE, {})
    assert space.listed is not None
    tried = [tuple(space.point(known.parameters).items()) for known in record.tried]
    fresh = next(point for point in space.listed if tuple(space.point(point).items()) not in tried)
    record.add({"seqs": 3, "budget": 0, "kind": "a"})
    record._study.enqueue_trial(dict(fresh))
    results = search(one, trials=10, folder=folder, workers=(workers := Formula()))
    statuses = results.trials.set_index("trial")["status"]
    assert statuses[8] == INFEASIBLE
    assert statuses[9] == DONE
    assert statuses.tolist().count(DONE) == 10
    assert space.point(fresh) == workers.asked[0][0]


def test_more_trials_go_on_and_another_search_does_not(box: Box) -> None:
    folder = box.folder / "out"
    search(small(trials=8), folder=folder, workers=Formula())
    results = search(small(), trials=10, folder=folder, workers=(workers := Formula()))
    assert len([seed for _, _, seed in workers.asked if seed == 1]) == 2
    assert len(results.trials) == 10
    with pytest.raises(HermesError, match="is of another search: name a new folder, or start anew with --fresh"):
        search(small(seed=7), folder=folder, workers=Formula())
    with pytest.raises(HermesError, match="is of another search"):
        search(small(), folder=folder, overrides=["workload.seed=3"], workers=Formula())
    assert len(search(small(trials=5, seed=7), folder=folder, fresh=True, workers=Formula()).trials) == 5
    (other := box.folder / "other").mkdir()
    (other / "diary.txt").write_text("mine")
    with pytest.raises(HermesError, match="holds something else than a search"):
        search(small(), folder=other, workers=Formula())


def test_a_saved_search_reads_back(box: Box) -> None:
    results = search(small(objectives=[LATENCY, COST], trials=12), workers=Formula())
    folder = box.folder / "out"
    assert results.save(folder) == ["trials.parquet", "front.parquet", "scenario.yaml", "front.png"]
    loaded = SearchResults.load(folder)
    pd.testing.assert_frame_equal(loaded.trials, results.trials)
    pd.testing.assert_frame_equal(loaded.front, results.front)
    assert loaded.search == results.search
    assert loaded.best == results.best
    on_front = front_of(results.trials[[LATENCY, COST]].to_numpy(), np.zeros(12))
    assert set(results.trials["trial"].iloc[on_front]) == set(results.front["trial"])
    with pytest.raises(HermesError, match="is not a finished search"):
        SearchResults.load(box.folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"objectives": ["ttft_p98_s"]}, "'ttft_p98_s' is not a metric"),
        ({"objectives": [LATENCY, {"metric": LATENCY}]}, "is an objective already"),
        ({"objectives": []}, "at least 1"),
        ({"within": {"ttft_p99": "2 s"}}, "'ttft_p99' is not a metric"),
        ({"within": {"ttft_p99_s": "2 W"}}, "'W' is not a unit of time"),
        ({"within": {"slo_met_frac": "much"}}, "needs a plain number"),
        ({"rungs": [1, 0.5]}, "rungs must rise and end with 1"),
        ({"rungs": ["1/9"]}, "rungs must rise and end with 1"),
        ({"sampler": "grid"}, "'grid' is not allowed; one of: gp, tpe, nsga2, random"),
        ({"zipped": [["seqs", "budget"]]}, "a search has no axes that move together"),
        ({"axes": [{**SPACE[0], "name": "excess"}]}, "'excess' is a column of the table"),
        ({"axes": [{**SPACE[0], "when": {"budget": [1]}}]}, "'budget' is not an axis"),
    ],
)
def test_wrong_files(box: Box, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_search(small(**keys))


def test_a_short_run_has_a_share_of_the_requests(box: Box) -> None:
    base = load_scenario("box", "traffic", overrides=["workload.traffic.num_requests=90"])
    assert shortened(base, 1.0) is base
    assert shortened(base, 1 / 3).workload.traffic.num_requests == 30
    assert shortened(base, 1 / 90).workload.traffic.num_requests == 4
    timed = load_scenario(
        "box", "traffic", overrides=["workload.traffic.num_requests=null", "workload.traffic.duration=90 s"]
    )
    assert shortened(timed, 1 / 3).workload.traffic.duration_s == pytest.approx(30)
    (box.folder / "code.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.680,374,44\n")
    trace = {"format": "azure", "path": "code.csv"}
    traced = {"name": "traced", "traffic": {"trace": trace}}
    with pytest.raises(ConfigError, match=r"set workload\.traffic\.trace\.limit, or leave out rungs"):
        shortened(load_scenario("box", traced), 1 / 3)
    limited = {"name": "traced", "traffic": {"trace": {**trace, "limit": 90}}}
    short = shortened(load_scenario("box", limited), 1 / 3).workload.traffic.trace
    assert short is not None
    assert short.limit == 30


REAL: dict[str, Any] = {
    "name": "real",
    "title": "Real",
    "base": {"cluster": "box", "workload": "traffic", "set": {"workload.traffic.arrivals.rate": "20 /s"}},
    "axes": [
        {"name": "replicas", "key": "cluster.engines.llm.replicas", "values": [1, 2, 4]},
        {"name": "budget", "key": "cluster.engines.llm.batching.max_num_batched_tokens", "values": [256, 1024, 4096]},
    ],
    "objectives": [LATENCY, COST],
    "trials": 6,
    "rungs": ["1/2", 1],
    "replications": 2,
}


def test_the_command_killed_and_run_again(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL while it runs; the second time it ends as a search that was never killed."""
    file = box.folder / "real.yaml"
    file.write_text(yaml.safe_dump(REAL))
    folder = box.folder / "killed"
    command = [sys.executable, "-m", "hermes_sim", "search", str(file), "--jobs", "1", "--out", str(folder), "-q"]
    process = subprocess.Popen(command)
    try:
        while process.poll() is None and _num_rows(folder / JOURNAL_FILE) < 3:
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "trials.parquet").exists()
    with pytest.raises(SystemExit) as ended:
        cli.main(command[3:-1])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(len(line) <= WIDTH for line in out.splitlines() if not line.startswith(("saved", "the best in full")))
    assert "knee of the front" in out
    assert " of them were there already" in out
    results, whole = SearchResults.load(folder), search(REAL, jobs=1)
    pd.testing.assert_frame_equal(without_time(results.trials), without_time(whole.trials))
    assert results.best is not None
    knee = results.front[results.front["is_knee"]].iloc[0]
    assert run_scenario(results.best).scenario.cluster.engines[0].replicas == knee["replicas"]
    with pytest.raises(SystemExit):
        cli.main([*command[3:-1], "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [row["trial"] for row in told["front"]] == results.front["trial"].tolist()


def _num_rows(journal: Path) -> int:
    return journal.read_text().count('"rows"') if journal.is_file() else 0


def test_several_workers_try_as_many_points(box: Box) -> None:
    results = search({**REAL, "replications": 1}, jobs=2)
    assert len(results.trials) == 6
    assert set(results.trials["status"]) <= {DONE, STOPPED}
