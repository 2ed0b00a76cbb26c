"""Hedged visits: who answers first, what becomes of the other, that nothing is lost or made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from hermes_sim.core.errors import ConfigError
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s
from tests.properties.test_exact_steps import FRONT_END, SHARED, TWO_SAMPLES, assert_equal, recalled, with_stores

SLOW = {"outages": [{"engine": "llm", "replica": 0, "kind": "slow", "speed": 0.2, "at": "0 s", "lasts": "1000 s"}]}
HEDGED = {"kind": "round_robin", "hedge": {"after": "200 ms"}}
SMALL = {"full_sequence_gate": False, "max_num_seqs": 16}
BUSY = s.workload(traffic={**s.traffic(rate="20 /s", num_requests=150), **SHARED})
FAILURES = {"failures": [{"engine": "llm", "mtbf": "2 s", "repair": "200 ms"}], "max_retries": 9, "detection": "50 ms"}
SPLIT = [s.llm("llm", serves=["prefill"], replicas=2), s.llm("d", serves=["decode"], kv_cache={"num_gpu_blocks": 400})]
BY_JOBS = s.cluster(
    s.llm(), s.workers(["embed", "retrieve"], cores=2, num_workers=1),
    s.workers(["embed", "retrieve"], "more", cores=2, num_workers=1),
    routing_per_stage={"retrieve": {"kind": "random", "hedge": {"after": "5 ms"}}},
)  # fmt: skip
CASES: dict[str, tuple[s.Document, s.Document]] = {
    "a slow replica": (s.cluster(s.llm(replicas=2, batching=SMALL), availability=SLOW, routing=HEDGED), BUSY),
    "async": (
        s.cluster(s.llm(replicas=2, batching={**SMALL, "async_scheduling": True}), availability=SLOW, routing=HEDGED),
        BUSY,
    ),
    "percentile": (
        s.cluster(
            s.llm(replicas=3, batching=SMALL), availability=SLOW,
            routing={"kind": "least_outstanding_tokens", "hedge": {"after_percentile": 80}},
        ),
        BUSY,
    ),
    "halves": (s.cluster(*SPLIT, availability=SLOW, routing_per_stage={"prefill": HEDGED}), BUSY),
    "failures": (s.cluster(s.llm(replicas=3, batching=SMALL), availability=FAILURES, routing=HEDGED), BUSY),
    "clients hang up": (
        s.cluster(s.llm(replicas=2, batching=SMALL), availability=SLOW, routing=HEDGED),
        {**BUSY, "patience": {"first_token": "1 s", "end": "6 s"}},
    ),
    "thoughts": (
        s.cluster(s.llm(replicas=2, batching=SMALL), availability=SLOW, routing=HEDGED),
        s.workload(
            s.PREFILL,
            {**s.DECODE, "name": "think", "writes": "thought", "num_output_tokens": 40},
            {**s.DECODE, "after": ["think"]},
            traffic=s.traffic(rate="10 /s", num_requests=100),
        ),
    ),
    "jobs": (BY_JOBS, s.workload(*s.RAG, traffic=s.traffic(rate="30 /s", num_requests=150))),
}  # fmt: skip


def run(case: tuple[s.Document, s.Document], *, exact: bool = False) -> RunTables:
    return simulate_scenario(load_scenario(*case, exact_steps=exact))


@pytest.mark.parametrize("case", CASES)
def test_one_event_a_step_is_the_same_run(case: str) -> None:
    fast = run(CASES[case])
    assert_equal(fast, run(CASES[case], exact=True))
    assert fast.requests["num_hedges"].sum() > 5
    if case != "clients hang up":
        assert (fast.requests["status"] == "finished").mean() > 0.95


def two(availability: dict[str, Any], hedge: dict[str, Any] | None) -> Results:
    """One request on two replicas, the first of which it goes to."""
    lengths = {"kind": "fixed", "num_prompt_tokens": 8000, "num_output_tokens": 40}
    traffic = {"arrivals": {"kind": "constant", "rate": "1 /s"}, "num_requests": 1, "lengths": lengths}
    routing = {"kind": "round_robin", **({} if hedge is None else {"hedge": hedge})}
    engine = s.llm(replicas=2, batching={"max_num_batched_tokens": 512})
    return simulate(s.cluster(engine, availability=availability, routing=routing), s.workload(traffic=traffic))


def test_the_copy_is_first_by_hand() -> None:
    """Its first token comes `after` + the prefill of a replica at full speed; the slow one makes none."""
    calm, results = two({}, None), two(SLOW, {"after": "300 ms"})
    assert results.requests["ttft_s"].iloc[0] == pytest.approx(0.3 + calm.requests["ttft_s"].iloc[0], rel=1e-9)
    assert results.requests["e2e_s"].iloc[0] == pytest.approx(0.3 + calm.requests["e2e_s"].iloc[0], rel=1e-9)
    assert set(results.visits["engine"]) == {"llm[1]"}
    engines = results.engines.set_index("engine")
    assert engines.loc["llm[0]", "num_output_tokens"] == 0
    assert engines.loc["llm[0]", "busy_s"] > 0.3
    assert engines.loc["llm[1]", "num_output_tokens"] == 40
    assert results.requests["num_hedges"].tolist() == [1]


def test_the_first_answers_and_its_copy_goes() -> None:
    results = two({}, {"after": "300 ms"})
    assert results.requests["ttft_s"].iloc[0] == pytest.approx(two({}, None).requests["ttft_s"].iloc[0], rel=1e-12)
    assert set(results.visits["engine"]) == {"llm[0]"}
    engines = results.engines.set_index("engine")
    assert engines.loc["llm[1]", "num_output_tokens"] == 0
    assert engines.loc["llm[1]", "busy_s"] > 0.0


def test_no_copy_where_the_answer_is_quick() -> None:
    assert two({}, {"after": "30 s"}).requests["num_hedges"].sum() == 0


def test_it_cuts_the_tail() -> None:
    cluster, workload = CASES["a slow replica"]
    plain = simulate({**cluster, "routing": {"kind": "round_robin"}}, workload).requests
    hedged = simulate(cluster, workload).requests
    assert hedged["ttft_s"].quantile(0.95) < 0.7 * plain["ttft_s"].quantile(0.95)
    np.testing.assert_array_equal(hedged["num_output_tokens"], plain["num_output_tokens"])


def test_energy_of_both_is_paid() -> None:
    results = simulate(*CASES["a slow replica"])
    of_requests = results.requests[["energy_j", "idle_energy_j", "link_energy_j"]].to_numpy().sum()
    assert of_requests == pytest.approx(results.engines["energy_j"].sum() + results.links["energy_j"].sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("cluster", "workload", "message"),
    [
        (s.cluster(s.llm(), routing={"hedge": {}}), BUSY, "needs after or after_percentile"),
        (s.cluster(s.llm(host=FRONT_END), routing=HEDGED), BUSY, "tokenised again"),
        (with_stores(s.llm(), routing=HEDGED), s.workload(*recalled()), "is not sent twice"),
        (s.cluster(s.llm(), routing=HEDGED), s.workload(s.PREFILL, TWO_SAMPLES), "several samples"),
    ],
)
def test_mistakes(cluster: s.Document, workload: s.Document, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(cluster, workload)
