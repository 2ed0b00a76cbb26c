"""Policy objects made in Python take the place of what the files say, as far as that makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hermes_sim import PythonBatching, PythonRouting
from hermes_sim.batching.python_batching import BatchingView, GivenBatching
from hermes_sim.core.errors import ConfigError
from hermes_sim.routing.config import GivenRouting
from hermes_sim.routing.python_routing import Candidate, RoutingView
from hermes_sim.scenario.load import dump_scenario, load_scenario, read_scenario
from hermes_sim.scenario.python_policies import with_policies
from hermes_sim.scenario.scenario import Scenario
from tests import scenarios as s
from tests.unit.scenario.files import Folder


class Mine(PythonBatching):
    """Remembers what it has seen."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def schedule(self, view: BatchingView) -> Sequence[tuple[int, int]]:
        self.seen.append(view.time_s)
        return []


class Last(PythonRouting):
    """The last candidate."""

    def choose(self, view: RoutingView) -> Candidate:
        return view.candidates[-1]


@pytest.fixture
def scenario() -> Scenario:
    engine = s.llm(batching={"kind": "continuous", "max_num_seqs": 7, "queue_order": "sjf"})
    return load_scenario(s.cluster(engine, s.workers(["rerank"])), s.workload())


def test_an_engine_keeps_the_common_options_of_its_file(scenario: Scenario) -> None:
    llm, jobs = with_policies(scenario, {"llm": Mine()}, None).cluster.engines
    assert isinstance(llm.batching, GivenBatching)
    assert (llm.batching.max_num_seqs, llm.batching.queue_order) == (7, "sjf")
    assert jobs == scenario.cluster.engines[1]


def test_every_replica_and_run_has_a_policy_of_its_own(scenario: Scenario) -> None:
    given = with_policies(scenario, {"llm": Mine()}, None).cluster.engines[0].batching
    assert isinstance(given, GivenBatching)
    first, second = given.make(), given.make()
    assert isinstance(first, Mine)
    first.seen.append(1.0)
    assert isinstance(second, Mine)
    assert second.seen == []


def test_a_router_for_all_stages_or_for_one(scenario: Scenario) -> None:
    cluster = with_policies(scenario, None, Last()).cluster
    assert isinstance(cluster.routing, GivenRouting)
    assert cluster.routing.router().in_python
    cluster = with_policies(scenario, None, {"prefill": Last()}).cluster
    assert list(cluster.routing_per_stage) == ["prefill"]
    assert cluster.routing == scenario.cluster.routing


@pytest.mark.parametrize(
    ("batching", "routing", "message"),
    [
        ({"lm": Mine()}, None, "batching= lm: there is no engine 'lm' (llm, jobs). Did you mean 'llm'?"),
        (
            {"jobs": Mine()},
            None,
            "batching= jobs: serves rerank: only engines that serve prefill or decode take a batching policy",
        ),
        ({"llm": Mine}, None, "batching= llm: needs an object of a class derived from PythonBatching, got <class "),
        ({"llm": Last()}, None, "batching= llm: needs an object of a class derived from PythonBatching, got <"),
        (None, Mine(), "batching= "),
        (None, {"decod": Last()}, "routing= decod: the workload has no stage 'decod' (prefill, decode). Did you mean "),
    ],
)
def test_what_does_not_fit(scenario: Scenario, batching: Any, routing: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_policies(scenario, batching, routing)
    expected = (
        message if routing is None or isinstance(routing, dict) else "routing=: needs an object of a class derived"
    )
    assert str(caught.value).startswith(expected)


def test_what_a_policy_in_python_is_not_asked_about(scenario: Scenario) -> None:
    engine = s.llm(batching={"kind": "chunked_prefill", "async_scheduling": True})
    loaded = load_scenario(s.cluster(engine), s.workload())
    with pytest.raises(ConfigError) as caught:
        with_policies(loaded, {"llm": Mine()}, None)
    assert str(caught.value) == (
        "batching= llm.batching.async_scheduling: a policy in Python decides one step at a time, when the last one has "
        "ended: needs async_scheduling: false"
    )


def test_a_saved_run_says_that_it_needs_the_object(scenario: Scenario, folder: Folder) -> None:
    given = with_policies(scenario, {"llm": Mine()}, Last())
    text = dump_scenario(given)
    assert "kind: python" in text
    path = folder.write("scenario.yaml", text)
    with pytest.raises(ConfigError) as caught:
        read_scenario(path)
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        f"the policy '{__name__}.Mine' was passed from Python, and a file runs no code: pass it again with "
        "simulate(..., batching=...), or register_batching it in a module and load that with --plugin",
        f"the policy '{__name__}.Last' was passed from Python, and a file runs no code: pass it again with "
        "simulate(..., routing=...), or register_routing it in a module and load that with --plugin",
    ]


def test_a_changed_scenario_keeps_its_policies(scenario: Scenario) -> None:
    policy, router = Mine(), Last()
    one = with_policies(with_policies(scenario, {"llm": policy}, router), None, {"prefill": Last()})
    other = one.with_({"cluster.engines.llm.replicas": 2, "cluster.engines.llm.batching.max_num_seqs": 9})
    (llm, _), routing = other.cluster.engines, other.cluster.routing
    assert isinstance(llm.batching, GivenBatching)
    assert (llm.replicas, llm.batching.max_num_seqs, llm.batching.queue_order) == (2, 9, "sjf")
    assert llm.batching.given is policy
    assert isinstance(routing, GivenRouting)
    assert routing.given is router
    assert list(other.cluster.routing_per_stage) == ["prefill"]
    assert other.with_({"workload.traffic.num_requests": 3}).cluster == other.cluster


def test_another_policy_takes_the_place_of_one_from_python(scenario: Scenario) -> None:
    one = with_policies(scenario, {"llm": Mine()}, Last())
    changed = {"cluster.engines.llm.batching": {"kind": "continuous"}, "cluster.routing": {"kind": "round_robin"}}
    cluster = one.with_(changed).cluster
    assert (cluster.engines[0].batching.kind, cluster.routing.kind) == ("continuous", "round_robin")
