"""Steps that Python decides, as events of the clock: the same run as the compiled policy that decides alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hermes_sim.batching.python_batching import BatchingView, PythonBatching
from hermes_sim.routing.python_routing import Candidate, PythonRouting, RoutingView
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.python_policies import with_policies
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import lower
from hermes_sim.sim.status import FINISHED
from hermes_sim.workload.requests import ClosedLoop, RequestTable, request_table
from tests import scenarios as s


class OneByOne(PythonBatching):
    """Decodes first, then one whole prompt."""

    def schedule(self, view: BatchingView) -> Sequence[tuple[int, int]]:
        """Prompts fit the budget in these tests, and blocks are never short."""
        running = [(sequence.row, 1) for sequence in view.running]
        prompt = [(sequence.row, sequence.num_to_do) for sequence in view.waiting[:1]]
        return running + (prompt if len(running) < view.max_num_seqs else [])


class Emptiest(PythonRouting):
    """As least_outstanding_requests."""

    def choose(self, view: RoutingView) -> Candidate:
        """The first of the emptiest."""
        return min(view.candidates, key=lambda candidate: candidate.num_requests)


def requests(number: int = 40, closed: bool = False) -> RequestTable:
    rng = np.random.default_rng(8)
    lengths = rng.integers(1, 500, number), rng.integers(0, 40, number)
    if closed:
        loop = ClosedLoop(concurrency=6, think_time_s=np.zeros(number))
        return request_table(np.full(number, np.nan), *lengths, closed_loop=loop)
    return request_table(np.cumsum(rng.exponential(0.05, number)), *lengths)


def run(
    batching: PythonBatching | None, *, exact: bool = False, closed: bool = False, routing: PythonRouting | None = None
) -> Coordinator:
    cluster = s.cluster(
        s.llm(replicas=2, batching={"max_num_seqs": 12, "max_num_batched_tokens": 520}),
        routing={"kind": "least_outstanding_requests"},
    )
    scenario = load_scenario(cluster, s.workload(), exact_steps=exact)
    scenario = with_policies(scenario, {"llm": batching} if batching else None, routing)
    coordinator = Coordinator(lower(scenario, requests(closed=closed)))
    coordinator.run()
    return coordinator


class TestBatching:
    @pytest.mark.parametrize("closed", [False, True])
    def test_all_requests_are_served(self, closed: bool) -> None:
        coordinator = run(OneByOne(), closed=closed)
        state = coordinator.state
        assert (coordinator.status == FINISHED).all()
        outputs = coordinator.lowered.requests.num_output_tokens
        np.testing.assert_array_equal(state.row_generated[1::2], outputs)
        np.testing.assert_array_equal(state.num_free_blocks, state.num_blocks)

    @pytest.mark.parametrize("closed", [False, True])
    def test_one_event_a_step_gives_the_same_times(self, closed: bool) -> None:
        fast, exact = (run(OneByOne(), exact=exact, closed=closed) for exact in (False, True))
        np.testing.assert_array_equal(fast.state.row_finish_s, exact.state.row_finish_s)
        np.testing.assert_array_equal(fast.state.num_steps, exact.state.num_steps)


class TestRouting:
    def test_a_router_in_python_is_told_what_compiled_ones_are(self) -> None:
        compiled, python = run(None), run(None, routing=Emptiest())
        np.testing.assert_array_equal(compiled.state.row_engine, python.state.row_engine)
        np.testing.assert_array_equal(compiled.state.row_finish_s, python.state.row_finish_s)
