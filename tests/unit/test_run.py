"""Several scenarios in processes give what one process gives, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_sim import run
from hermes_sim.analysis.results import Results
from hermes_sim.core.errors import SimulationError
from hermes_sim.run import map_scenarios, run_replications
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.scenario import Scenario
from tests import scenarios

CLUSTER = scenarios.cluster(scenarios.llm(replicas=2), scenarios.workers(["embed", "retrieve"]))


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario(CLUSTER, scenarios.workload(*scenarios.RAG, slo={"ttft": {"p50": "6 x"}}))


def files(folder: Path) -> dict[str, bytes]:
    """All that a run writes, without the wall time."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run_info.json"}


def finish(results: Results) -> list[float]:
    return results.requests["finish_s"].tolist()


def test_replications_are_the_same_for_any_number_of_jobs(scenario: Scenario, tmp_path: Path) -> None:
    one, two = (run_replications(scenario, 3, jobs=jobs).save(tmp_path / str(jobs)) for jobs in (1, 2))
    assert files(one) == files(two)
    replications = Results.load(two).replications
    assert replications is not None
    assert replications["seed"].tolist() == [1, 2, 3]


def test_scenarios_come_back_in_their_order(scenario: Scenario) -> None:
    several = [scenario.model_copy(update={"seed": seed}) for seed in (4, 2, 7, 2)]
    alone = [finish(run.run_scenario(one)) for one in several]
    together = list(map_scenarios(several, finish, jobs=2))
    assert together == alone
    assert together[1] == together[3] != together[0]


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_is_that_of_all_runs(scenario: Scenario, jobs: int) -> None:
    reports: list[tuple[float, int, int]] = []
    run_replications(scenario, 3, jobs=jobs, progress=lambda *report: reports.append(report))
    assert reports[-1][1:] == (180, 180)
    assert [done for _, done, _ in reports] == sorted(done for _, done, _ in reports)
    assert {total for _, _, total in reports} == {180}


def test_an_error_of_a_run_is_raised_here(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_scenario: Callable[..., object] = run.simulate_scenario

    def stuck_at_seed_2(one: Scenario, **keys: object) -> object:
        if one.seed == 2:
            raise SimulationError("request 0 waits")
        return simulate_scenario(one, **keys)

    monkeypatch.setattr(run, "simulate_scenario", stuck_at_seed_2)
    for jobs in (1, 2):
        with pytest.raises(SimulationError, match="request 0 waits"):
            run_replications(scenario, 3, jobs=jobs)
