"""Tokenisers in front of an engine, detokenisers and streaming behind it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.front_end import Workers
from hermes_sim.sim.lower import lower
from hermes_sim.workload.requests import ClosedLoop, RequestTable, request_table
from tests import scenarios as s

TIMES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=40)
"""(gap to the next job, service), in units of a quarter: sums are exact."""


def run(requests: RequestTable, *engines: s.Document, exact: bool = False, **cluster: Any) -> Coordinator:
    scenario = load_scenario(s.cluster(*engines, **cluster), s.workload(), exact_steps=exact)
    coordinator = Coordinator(lower(scenario, requests))
    coordinator.run()
    return coordinator


def prefills(coordinator: Coordinator, column: str) -> list[float]:
    """Column of the rows of all prefills, request by request."""
    values: list[float] = getattr(coordinator.state, column)[0 : coordinator.lowered.num_visits : 2].tolist()
    return values


def host(**keys: Any) -> s.Document:
    return {"host": keys}


class TestWorkers:
    @given(jobs=TIMES)
    def test_one_worker_keeps_lindleys_recursion(self, jobs: list[tuple[int, int]]) -> None:
        """W(n + 1) = max(0, W(n) + S(n) - A(n)) (Lindley, 1952)."""
        workers = Workers(1)
        time_s, waits = 0.0, []
        for gap, service in jobs:
            waits.append(workers.serve(time_s, service / 4) - time_s)
            time_s += gap / 4
        assert waits[0] == 0.0
        for (wait, after), (gap, service) in zip(pairwise(waits), jobs, strict=False):
            assert after == max(0.0, wait + service / 4 - gap / 4)
        assert workers.busy_s == sum(service for _, service in jobs) / 4

    @given(jobs=TIMES, num_workers=st.integers(1, 4))
    def test_several_workers_keep_the_recursion_of_kiefer_and_wolfowitz(
        self, jobs: list[tuple[int, int]], num_workers: int
    ) -> None:
        """Sorted remaining work of the workers: the first is the wait; it grows by S, all shrink by A."""
        workers = Workers(num_workers)
        left = [0.0] * num_workers
        time_s = 0.0
        for gap, service in jobs:
            assert workers.serve(time_s, service / 4) - time_s == left[0]
            left = sorted(max(0.0, work - gap / 4) for work in (left[0] + service / 4, *left[1:]))
            time_s += gap / 4


class TestTokenizers:
    def test_a_visit_joins_the_line_when_it_is_tokenised(self) -> None:
        # 10 ms and 0.1 ms a token: 20, 30 and 15 ms, the second and the third arrive while the first is at work
        requests = request_table([1.0, 1.005, 1.04], [100, 200, 50], [5, 5, 5])
        tokenize = {"per_request": "10 ms", "per_token": "0.1 ms"}
        coordinator = run(requests, s.llm(**host(tokenize=tokenize)))
        front_end = coordinator.front_end
        assert front_end.tokenize_s[::2] == pytest.approx([0.020, 0.030, 0.015], rel=1e-9)
        assert front_end.tokenize_queue_s[::2] == pytest.approx([0.0, 0.015, 0.010], abs=1e-9)
        assert prefills(coordinator, "row_arrival_s") == pytest.approx([1.020, 1.050, 1.065], rel=1e-12)
        assert (front_end.tokenize_s[1::2] == 0.0).all()  # a decode has its tokens
        assert front_end.tokenizer_utilization_frac(2.0).tolist() == pytest.approx([0.065 / 2.0])

    def test_of_several_workers_a_short_prompt_may_overtake(self) -> None:
        requests = request_table([1.0, 1.0], [1000, 10], [5, 5])
        coordinator = run(requests, s.llm(**host(tokenize={"per_token": "1 ms", "num_workers": 2})))
        assert prefills(coordinator, "row_arrival_s") == pytest.approx([2.0, 1.01])
        assert (coordinator.front_end.tokenize_queue_s == 0.0).all()
        assert coordinator.front_end.tokenizer_utilization_frac(1.01).tolist() == pytest.approx([0.5])

    def test_pictures_are_no_text(self) -> None:
        requests = request_table([1.0], [676], [5], num_image_tokens=[576])
        coordinator = run(requests, s.llm(**host(tokenize={"per_token": "1 ms"})))
        assert coordinator.front_end.tokenize_s[0] == pytest.approx(0.1)

    def test_routers_see_what_is_being_tokenised(self) -> None:
        # alone, the first engine would be chosen each time, as nothing has arrived there yet
        requests = request_table([1.0, 1.001, 1.002, 1.003], [100] * 4, [5] * 4)
        engine = s.llm(replicas=2, **host(tokenize={"per_request": "50 ms", "num_workers": 4}))
        coordinator = run(requests, engine, routing={"kind": "least_outstanding_requests"})
        assert prefills(coordinator, "row_engine") == [0, 1, 0, 1]
        assert (coordinator.state.load_tokens == 0).all()

    def test_only_prefills_are_tokenised_where_decode_is_elsewhere(self) -> None:
        tokenize = host(tokenize={"per_request": "10 ms"})
        engines = [s.llm("prefiller", serves=["prefill"], **tokenize), s.llm("decoder", serves=["decode"], **tokenize)]
        coordinator = run(request_table([1.0, 1.0], [100, 100], [5, 5]), *engines)
        assert coordinator.front_end.tokenize_s.tolist() == [0.01, 0.0, 0.01, 0.0]

    def test_no_time_of_their_own_changes_nothing(self) -> None:
        requests = request_table(np.arange(20) * 0.01, [100] * 20, [5] * 20)
        plain, idle = run(requests, s.llm()), run(requests, s.llm(**host(tokenize={})))
        np.testing.assert_array_equal(plain.state.row_finish_s, idle.state.row_finish_s)

    def test_one_event_a_step_gives_the_same_times(self) -> None:
        rng = np.random.default_rng(3)
        requests = request_table(
            np.cumsum(rng.exponential(0.02, 80)), rng.integers(1, 900, 80), rng.integers(0, 60, 80)
        )
        engine = s.llm(replicas=2, **host(tokenize={"per_request": "1 ms", "per_token": "20 us"}))
        fast, exact = (run(requests, engine, exact=exact) for exact in (False, True))
        np.testing.assert_array_equal(fast.state.row_finish_s, exact.state.row_finish_s)
        np.testing.assert_array_equal(fast.state.row_engine, exact.state.row_engine)
        np.testing.assert_array_equal(fast.front_end.tokenize_queue_s, exact.front_end.tokenize_queue_s)


class TestDetokenizers:
    def test_a_user_of_a_closed_loop_waits_for_the_last_message(self) -> None:
        loop = ClosedLoop(concurrency=1, think_time_s=np.array([0.0, 0.25, 0.25]))
        requests = request_table([np.nan] * 3, [100] * 3, [5] * 3, closed_loop=loop)
        coordinator = run(requests, s.llm(**host(detokenize={"per_message": "30 ms"})))
        finish_s = coordinator.state.row_finish_s[1::2]
        assert coordinator.front_end.detokenize_s.tolist() == [0.03]
        np.testing.assert_array_equal(coordinator.arrival_s[1:], finish_s[:-1] + 0.03 + 0.25)

    def test_how_busy_they_are(self) -> None:
        # 2 requests of 5 messages at 30 ms on 3 workers: 0.1 s of each
        detokenize = {"per_message": "30 ms", "num_workers": 3}
        coordinator = run(request_table([0.0, 0.0], [100, 100], [5, 5]), s.llm(**host(detokenize=detokenize)))
        shares = coordinator.front_end.detokenizer_utilization_frac(coordinator.state, 0.4)
        assert shares.tolist() == pytest.approx([0.25])
        assert np.isnan(coordinator.front_end.tokenizer_utilization_frac(0.4)).all()


class TestStreaming:
    @pytest.mark.parametrize("apart", [False, True])
    @pytest.mark.parametrize(
        ("interval", "messages"),
        [
            (1, [0, 1, 2, 10]),
            (4, [0, 1, 2, 4]),  # of ten tokens: after 1, 5, 9 and the last
            (9, [0, 1, 2, 2]),
            (100, [0, 1, 2, 2]),
        ],
    )
    def test_messages_come_at_the_first_token_every_few_and_at_the_last(
        self, interval: int, messages: list[int], apart: bool
    ) -> None:
        engines = [s.llm(**host(stream_interval=interval))]
        if apart:
            engines = [
                s.llm("prefiller", serves=["prefill"], **host(stream_interval=interval)),
                s.llm("decoder", serves=["decode"], **host(stream_interval=interval)),
            ]
        coordinator = run(request_table([0.0] * 4, [50] * 4, [0, 1, 2, 10]), *engines)
        sent = coordinator.front_end.num_messages(coordinator.state)
        assert sent.reshape(4, 2).sum(axis=1).tolist() == messages
