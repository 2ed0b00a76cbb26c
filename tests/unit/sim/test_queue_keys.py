"""Lines sorted by what a visit brings: shortest job first, least slack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.perf.step_cost import StepBatch
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import lower
from hermes_sim.sim.queue_keys import prefill_seconds
from hermes_sim.workload.requests import RequestTable, request_table
from tests import scenarios as s


def run(requests: RequestTable, order: str, *, slo: Any = None, exact: bool = False) -> Coordinator:
    """One sequence at a time."""
    engine = s.llm(batching={"max_num_seqs": 1, "queue_order": order})
    workload = s.workload(slo={"ttft": slo} if slo else {})
    coordinator = Coordinator(lower(load_scenario(s.cluster(engine), workload, exact_steps=exact), requests))
    coordinator.run()
    return coordinator


def served(coordinator: Coordinator) -> list[int]:
    """Requests in the order in which they were begun."""
    order: list[int] = np.argsort(coordinator.state.row_start_s[::2], kind="stable").tolist()
    return order


class TestShortestJobFirst:
    def test_prompt_and_output_count(self) -> None:
        # the first is under way when the others come: 500 + 1, 100 + 300, 100 + 200 tokens
        requests = request_table([0.0, 0.001, 0.002, 0.003], [1000, 500, 100, 100], [50, 1, 300, 200])
        coordinator = run(requests, "sjf")
        assert served(coordinator) == [0, 3, 2, 1]
        assert coordinator.state.row_key[::2].tolist() == [1050, 501, 400, 300]
        assert served(run(requests, "fcfs")) == [0, 1, 2, 3]


class TestLeastSlack:
    def test_the_longer_prefill_is_the_more_urgent(self) -> None:
        # all come within 3 ms, prefills of 8,000 and 100 tokens are far more than that apart
        requests = request_table([0.0, 0.001, 0.002, 0.003], [500, 100, 8000, 200], [5] * 4)
        coordinator = run(requests, "least_slack", slo={"p99": "2 s"})
        assert served(coordinator) == [0, 2, 3, 1]

    def test_a_deadline_is_arrival_plus_objective_less_the_prefill_alone(self) -> None:
        requests = request_table([0.0, 0.001], [500, 900], [5, 5])
        coordinator = run(requests, "least_slack", slo={"p99": "2 s", "p50": "1 s"})
        cost = coordinator.lowered.replicas[0].cost
        assert cost is not None
        batch = StepBatch(900, 1, num_prefill=1, prefill_token_pairs=900 * 901 // 2, prefill_context_sum=900)
        assert coordinator.state.row_key[2] == pytest.approx(0.001 + 1.0 - cost.seconds(batch).sum(), rel=1e-12)

    def test_an_objective_in_multiples_gives_long_prefills_more_time(self) -> None:
        # six times the time alone less the time alone: five times; now the shortest goes first
        requests = request_table([0.0, 0.001, 0.002, 0.003], [500, 3000, 8000, 200], [5] * 4)
        assert served(run(requests, "least_slack", slo={"p99": "6 x"})) == [0, 3, 1, 2]

    def test_the_same_with_one_event_a_step(self) -> None:
        rng = np.random.default_rng(5)
        requests = request_table(
            np.cumsum(rng.exponential(0.05, 40)), rng.integers(1, 4000, 40), rng.integers(0, 30, 40)
        )
        fast, exact = (run(requests, "least_slack", slo={"p99": "1 s"}, exact=exact) for exact in (False, True))
        np.testing.assert_array_equal(fast.state.row_finish_s, exact.state.row_finish_s)


def test_a_prompt_in_chunks_is_the_sum_of_its_steps() -> None:
    # 1,000 tokens in steps of 400: pairs 400 x 401 / 2, then 400 x 400 more, then 200 x 800 + 200 x 201 / 2
    cost = run(request_table([0.0], [10], [1]), "fcfs").lowered.replicas[0].cost
    assert cost is not None
    steps = [
        StepBatch(400, 0, num_prefill=1, prefill_token_pairs=80_200, prefill_context_sum=400),
        StepBatch(400, 0, num_prefill=1, prefill_token_pairs=240_200, prefill_context_sum=800),
        StepBatch(200, 1, num_prefill=1, prefill_token_pairs=180_100, prefill_context_sum=1000),
    ]
    by_hand = sum(float(cost.seconds(step).sum()) for step in steps)
    assert prefill_seconds(cost, 1000, 400) == pytest.approx(by_hand, rel=1e-12)
