"""Looking at a run under way: it changes nothing, and what is seen is never more than what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.analysis.frames import floats, is_finished, run_frames
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.sim.so_far import NUM_LOOKS, RunStopped, SoFar
from tests import scenarios as s
from tests.shipped_pairs import CLUSTER_OF

BUSY = {"traffic": s.traffic(rate="40 /s", num_requests=300)}
SPLIT = [s.llm("prefill", serves=["prefill"]), s.llm("decode", serves=["decode"])]
CLOSED = {
    "closed_loop": {"concurrency": 20, "think_time": "200 ms", "think_time_cv": 1},
    "lengths": s.traffic()["lengths"],
    "num_requests": 200,
}
SESSIONS = {**s.traffic(num_requests=200), "sessions": {"mean_num_turns": 3, "think_time": "1 s"}}
SMALL: dict[str, tuple[Any, Any, list[str]]] = {
    "a language model": (s.cluster(s.llm(replicas=2)), s.workload(**BUSY), []),
    "behind jobs": (s.cluster(s.llm(), s.workers(["embed", "retrieve"])), s.workload(*s.RAG, **BUSY), []),
    "prefill and decode apart": (s.cluster(*SPLIT), s.workload(**BUSY), []),
    "closed loop": (s.cluster(s.llm()), s.workload(traffic=CLOSED), []),
    "sessions": (s.cluster(s.llm()), s.workload(traffic=SESSIONS), []),
    "one event a step": (s.cluster(s.llm()), s.workload(**BUSY), ["exact"]),
}
SHIPPED = {
    name: (CLUSTER_OF.get(name, "h100x8"), name, ["workload.traffic.num_requests=60"])
    for name in ("cascade", "tree_search", "vision", "long_prompts", "self_consistency", "tool_agent")
}


@pytest.mark.parametrize("name", [*SMALL, *SHIPPED])
def test_looking_changes_nothing_and_promises_nothing_false(name: str) -> None:
    cluster, workload, overrides = {**SMALL, **SHIPPED}[name]
    exact = overrides == ["exact"]
    scenario = load_scenario(cluster, workload, overrides=[] if exact else overrides, exact_steps=exact)
    looks: list[SoFar] = []
    watched = simulate_scenario(scenario, stop_when=looks.append)
    assert_equal(watched, simulate_scenario(scenario))
    requests = run_frames(watched)["requests"]
    num_looks = -(-len(requests) // max(8, -(-len(requests) // NUM_LOOKS)))
    assert len(looks) == num_looks
    assert looks[-1].num_arrived == len(requests)
    waited = 0.0
    for look in looks:
        for latency in ("ttft", "tpot", "e2e"):
            least_s, final_s = getattr(look, f"{latency}_s"), floats(requests, f"{latency}_s")
            known = ~np.isnan(final_s) & is_finished(requests)
            assert (least_s[known] <= final_s[known] * (1 + 1e-12)).all(), latency
        waited = max(waited, float(look.ttft_s.max()))
        late = floats(requests, "first_token_s") > look.time_s
        assert not (look.waits & ~late & ~np.isnan(floats(requests, "first_token_s")) & exact).any()
    assert waited > 0.0
    assert (looks[-1].e2e_s > 0).sum() >= 0.9 * len(requests)


def test_tpot_is_seen_of_those_that_are_over() -> None:
    cluster, workload = SMALL["behind jobs"][0], s.workload(*s.RAG, traffic=s.traffic(num_requests=300))
    looks: list[SoFar] = []
    tables = simulate_scenario(load_scenario(cluster, workload), stop_when=looks.append)
    requests = run_frames(tables)["requests"]
    seen = looks[-1].tpot_s > 0
    assert seen.sum() > 50
    assert looks[-1].tpot_s[seen] == pytest.approx(floats(requests, "tpot_s")[seen])


@pytest.mark.parametrize("name", SMALL)
def test_a_run_is_left_where_it_is_asked_to_be(name: str) -> None:
    cluster, workload, overrides = SMALL[name]
    scenario = load_scenario(cluster, workload, exact_steps=overrides == ["exact"])
    with pytest.raises(RunStopped, match="enough") as stopped:
        simulate_scenario(scenario, stop_when=lambda so_far: "enough" if so_far.num_arrived >= 40 else None)
    assert 40 <= stopped.value.num_arrived <= 60
    assert stopped.value.time_s > 0.0


def test_nobody_looks_where_requests_may_be_taken_back() -> None:
    scenario = load_scenario(s.cluster(s.llm()), s.workload(patience={"end": "1 s"}, **BUSY))
    looks: list[SoFar] = []
    simulate_scenario(scenario, stop_when=looks.append)
    assert looks == []


def assert_equal(one: RunTables, other: RunTables) -> None:
    for table in ("requests", "visits", "engines", "links", "timeline", "operators"):
        own, others = getattr(one, table), getattr(other, table)
        for column in own:
            assert np.array_equal(own[column], others[column], equal_nan=own[column].dtype.kind == "f"), (table, column)
