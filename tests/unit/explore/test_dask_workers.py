"""Runs on a Dask cluster of real processes on 127.0.0.1: nothing lost, nothing twice, whatever happens to a worker."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from hermes_sim import plugins
from hermes_sim.batching import TOKEN_POLICIES
from hermes_sim.core.errors import HermesError
from hermes_sim.explore.plan import plan_sweep
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.explore.runner import run_planned
from hermes_sim.explore.workers import dask_workers
from hermes_sim.explore.workers.dask_task import load_part, unparted
from hermes_sim.explore.workers.dask_workers import DaskWorkers, Parts
from hermes_sim.explore.workers.workers import workers_of
from hermes_sim.plugins import load_plugin
from hermes_sim.workload.paths import shipped_traces
from tests.unit.explore.conftest import Box
from tests.unit.explore.studies import study
from tests.unit.explore.test_workers import die_at_four, square, without_time

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.usefixtures("ends_in_time")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    dask = importlib.import_module("dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1, "distributed.logging.distributed": "critical"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
        ) as made,
    ):
        yield made


@pytest.fixture
def workers(cluster: Any) -> Iterator[DaskWorkers]:
    with workers_of(scheduler=cluster.scheduler_address) as made:
        assert isinstance(made, DaskWorkers)
        yield made


def processes_of(cluster: Any) -> list[int]:
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        return sorted(client.run(os.getpid).values())


def test_a_killed_worker_costs_nothing(cluster: Any, workers: DaskWorkers, box: Box) -> None:
    planned = plan_sweep(study(replications=7)).runs
    first, *_ = processes_of(cluster)
    told: Counter[int] = Counter()

    def on_row(index: int, row: dict[str, Any]) -> None:
        told[index] += 1
        if sum(told.values()) == 10:
            os.kill(first, signal.SIGKILL)

    rows = run_planned(planned, workers=workers, on_row=on_row)
    assert told == Counter(range(42))
    assert {row["status"] for row in rows} == {DONE}
    alone = run_planned(planned, jobs=1)
    assert [without_time(row) for row in rows] == [without_time(row) for row in alone]
    assert first not in processes_of(cluster)


def test_what_kills_every_worker_is_given_up(workers: DaskWorkers) -> None:
    found = dict(workers.outcomes(die_at_four, range(9), lost=lambda item, why: why))
    assert {number for number, outcome in found.items() if outcome != number} == {4}
    assert "2 workers ended while they ran it" in str(found[4])


def test_items_are_drawn_lazily_and_given_up(workers: DaskWorkers) -> None:
    drawn: list[int] = []
    outcomes = workers.outcomes(square, (drawn.append(number) or number for number in range(1000)))  # type: ignore[func-returns-value]
    assert next(outcomes)[1] in (0, 1)
    assert len(drawn) <= 3
    outcomes.close()  # type: ignore[attr-defined]
    assert dict(workers.outcomes(square, [5])) == {0: 25}


def test_another_program_is_refused(workers: DaskWorkers, box: Box) -> None:
    workers._setup = replace(workers._setup, program="0123456789")
    with pytest.raises(HermesError, match=r"the worker at tcp://127.0.0.1.* has another hermes-sim .*01234567"):
        workers.check()
    with pytest.raises(HermesError, match="a worker of the cluster has another hermes-sim"):
        run_planned(plan_sweep(study()).runs, workers=workers)


def test_a_file_that_a_worker_cannot_see_is_told(workers: DaskWorkers, box: Box) -> None:
    lengths = box.folder / "lengths.csv"
    lengths.write_bytes((shipped_traces() / "lengths" / "deepseek_r1.csv").read_bytes())
    sets = {"workload.traffic.lengths": {"kind": "empirical", "path": "lengths.csv"}}
    planned = plan_sweep(study(axes=[{"name": "law", "values": [{"name": "own", "set": sets}]}])).runs
    lengths.unlink()
    (row,) = run_planned(planned, workers=workers)
    assert row["status"] == FAILED
    assert f"every worker has to see {lengths} under this path" in row["error"]


def test_plug_ins_travel(
    cluster: Any, box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The workers have never heard of the module."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "one_by_one.py").write_text(textwrap.dedent("""
        from hermes_sim import PythonBatching, register_batching

        class OneByOne(PythonBatching):
            def schedule(self, view):
                running = [(one.row, one.num_to_do) for one in view.running if one.num_to_do]
                return running or [(one.row, min(one.num_to_do, view.budget)) for one in view.waiting][:1]

        register_batching("one_by_one", OneByOne)
    """))  # fmt: skip
    monkeypatch.syspath_prepend(folder)
    load_plugin("one_by_one")
    try:
        sets = {"cluster.engines.llm.batching": {"kind": "one_by_one"}}
        one = study(axes=[{"name": "own", "values": [{"name": "own", "set": sets}]}], replications=2)
        planned = plan_sweep(one).runs
        here = run_planned(planned, jobs=2)
        with workers_of(scheduler=cluster.scheduler_address) as workers:
            there = run_planned(planned, workers=workers)
        assert {row["status"] for row in here} == {DONE}
        assert [without_time(row) for row in there] == [without_time(row) for row in here]
    finally:
        TOKEN_POLICIES.pop("one_by_one")
        sys.modules.pop("one_by_one")
        plugins._loaded.pop("one_by_one")


def test_devices_with_their_tables_are_sent_once(box: Box) -> None:
    """Two runs on the same device: what is left of each is small."""
    first, second, *_ = plan_sweep(study()).runs
    parts = Parts()
    (text, found), (other_text, other_found) = parts.apart(first), parts.apart(second)
    assert found == other_found
    assert text != other_text
    assert len(text) < 0.1 * sum(map(len, found.values()))
    assert unparted(text, {hash_: load_part(part) for hash_, part in found.items()}) == first


def test_no_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_workers, "CONNECT_S", 0.2)
    with pytest.raises(HermesError, match=r"--scheduler tcp://127.0.0.1:9: no Dask scheduler answers there"):
        workers_of(scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1"])
def test_what_is_no_address_is_told_without_trying_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of one is half made, and waits for itself when it goes."""

    def client(*_: object, **__: object) -> None:
        raise AssertionError("a client was made")

    monkeypatch.setattr(distributed, "Client", client)
    with pytest.raises(HermesError, match=f"--scheduler {address}: no Dask scheduler answers there .*port"):
        workers_of(scheduler=address)
