"""Workers, whichever they are: lazily drawn items, errors, deaths, and rows that are the same."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator

import pytest

from hermes_sim import processes
from hermes_sim.core.errors import ConfigError, HermesError, Problem, TraceError
from hermes_sim.explore import runner
from hermes_sim.explore.plan import PlannedRun, plan_sweep
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.explore.runner import planned_rows, run_planned
from hermes_sim.explore.workers.workers import WAIT, InProcess, LocalProcesses, Wait, Workers, workers_of
from hermes_sim.processes import WorkerEnded, can_fork
from tests.unit.explore.conftest import Box
from tests.unit.explore.studies import axes, study

KINDS = [1, pytest.param(3, marks=pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here"))]


@pytest.fixture(params=KINDS)
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    with workers_of(request.param) as made:
        yield made
    assert multiprocessing.active_children() == []


def square(number: int) -> int:
    return number * number


def die_at_four(number: int) -> int:
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail_at_four(number: int) -> int:
    if number == 4:
        raise TraceError("row 4")
    return number


def test_kinds_of_workers() -> None:
    with workers_of(1) as one, workers_of(3) as three:
        assert isinstance(one, InProcess)
        assert isinstance(three, LocalProcesses)
        assert (one.num, three.num) == (1, 3)


def test_every_item_has_its_outcome(workers: Workers) -> None:
    for _ in range(2):  # the same workers again
        assert dict(workers.outcomes(square, range(9))) == {number: number * number for number in range(9)}
    assert list(workers.outcomes(square, [])) == []


def test_items_are_drawn_when_a_worker_is_free(workers: Workers) -> None:
    """Never more of them than workers are without an outcome."""
    told: list[int] = []
    ahead: list[int] = []

    def items() -> Iterator[int]:
        for number in range(8):
            ahead.append(number - len(told))
            yield number

    for number, _ in workers.outcomes(square, items()):
        told.append(number)
    assert sorted(told) == list(range(8))
    assert max(ahead) <= workers.num - (workers.num > 1)


def test_a_generator_may_wait_for_an_outcome(workers: Workers) -> None:
    told: list[int] = []

    def squares() -> Iterator[int | Wait]:
        """Each item is the outcome before it."""
        for number in range(4):
            while len(told) < number:
                yield WAIT
            yield told[-1] if told else 2

    for _, outcome in workers.outcomes(square, squares()):
        told.append(outcome)
    assert told == [4, 16, 256, 65536]


def test_an_exception_is_raised_and_the_workers_go_on(workers: Workers) -> None:
    with pytest.raises(TraceError, match="row 4"):
        list(workers.outcomes(fail_at_four, range(20)))
    assert dict(workers.outcomes(square, [5])) == {0: 25}


@pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")
def test_a_worker_that_dies_costs_its_item() -> None:
    with workers_of(2) as workers:
        found = dict(workers.outcomes(die_at_four, range(9), lost=lambda item, why: -item))
        assert found == {number: number if number != 4 else -4 for number in range(9)}
        with pytest.raises(HermesError, match=r"ended while it ran item 4 \(signal 9\)"):
            list(workers.outcomes(die_at_four, range(9)))


def test_stopping_early_gives_up_what_was_begun(workers: Workers) -> None:
    outcomes = workers.outcomes(square, range(1000))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert workers.num_begun == 0


def test_errors_travel_whole() -> None:
    problem = Problem("a.yaml", 3, "seed", "must be >= 0")
    for error in (ConfigError([problem, problem]), TraceError("row 2"), WorkerEnded("died", 4)):
        error.add_note("seen in a worker")
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.__notes__) == (type(error), str(error), error.__notes__)
        assert vars(back) == vars(error)


def without_time(row: dict[str, object]) -> dict[str, object]:
    """NaN compares as its name."""
    return {
        name: "nan" if isinstance(value, float) and math.isnan(value) else value
        for name, value in row.items()
        if name != "wall_time_s"
    }


def test_rows_come_from_a_plan_that_decides_on_the_way(workers: Workers, box: Box) -> None:
    """The next rate is chosen by the last row; a run that was had before is not run again."""
    by_rate = {run.point["rate"]: run for run in plan_sweep(study(axes=axes()[1:])).runs}
    rows: list[dict[str, object]] = []

    def plan() -> Iterator[PlannedRun | Wait]:
        for rate in ("8 /s", "1 /s", "8 /s"):
            asked = len(rows)
            yield by_rate[rate]
            while len(rows) == asked:
                yield WAIT

    for _, row in planned_rows(plan(), workers):
        rows.append(row)
    assert [row["rate"] for row in rows] == ["8 /s", "1 /s", "8 /s"]
    assert rows[0] == rows[2]
    assert rows[0]["status"] == DONE


def test_equal_runs_are_run_once(workers: Workers, box: Box) -> None:
    twice = [{"name": "twice", "values": [{"name": name, "set": {"workload.seed": 3}} for name in ("one", "two")]}]
    planned = plan_sweep(study(axes=twice)).runs
    first, second = run_planned(planned, workers=workers)
    assert (first["twice"], second["twice"]) == ("one", "two")
    assert first["wall_time_s"] == second["wall_time_s"]


def test_rows_are_the_same_wherever_they_are_run(box: Box) -> None:
    planned = plan_sweep(study()).runs
    tables = []
    for jobs in (1, 2):
        with workers_of(jobs) as workers:
            tables.append([without_time(row) for row in run_planned(planned, workers=workers)])
    assert tables[0] == tables[1]


@pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")
def test_a_run_that_kills_its_worker_is_a_row(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(scenario: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(runner, "run_scenario", deadly)
    rows = run_planned(plan_sweep(study()).runs, jobs=2)
    assert {row["status"] for row in rows} == {FAILED}
    assert all("signal 9" in str(row["error"]) for row in rows)


def test_what_was_there_before_the_runs_is_not_looked_through_after_each() -> None:
    with workers_of(1) as workers:
        kept = [[number] for number in range(10_000)]
        assert dict(workers.outcomes(num_apart, [0])) == {0: True}
        assert len(kept) == 10_000
    assert gc.get_freeze_count() == 0


def num_apart(_: int) -> bool:
    """Whether the lists of the test are set apart."""
    return gc.get_freeze_count() > 10_000


def test_tidying_up_takes_a_tenth_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    collected: list[float] = []

    def collect() -> None:
        collected.append(clock[0])
        clock[0] += 1.0

    monkeypatch.setattr(processes.gc, "collect", collect)
    monkeypatch.setattr(processes.time, "perf_counter", lambda: clock[0])
    garbage = processes.Garbage()
    for _ in range(100):
        clock[0] += 2.0
        garbage.collect()
    assert 100.0 <= clock[0] <= 300.0
    assert len(collected) <= clock[0] * garbage.SHARE
    assert len(collected) >= 15
