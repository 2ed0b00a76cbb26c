"""A router in Python sees what the compiled ones see, and chooses as they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from hermes_sim import PythonRouting
from hermes_sim.core.errors import SimulationError
from hermes_sim.routing.python_routing import Candidate, RoutingView, as_router
from hermes_sim.routing.table import ROUTERS
from hermes_sim.sim.advance import act, push
from hermes_sim.sim.ranks import ARRIVAL
from hermes_sim.state.arrays import EngineArrays
from tests.one_engine import make_arrays
from tests.unit.routing.test_routing import ENGINE, OPTIONS, four_engines

FOUR = np.arange(4, dtype=np.int64)


class By(PythonRouting):
    """The candidate with the least of something; keeps the views it was shown."""

    def __init__(self, key: Callable[[Candidate], float]) -> None:
        self.key = key
        self.views: list[RoutingView] = []

    def choose(self, view: RoutingView) -> Candidate:
        self.views.append(view)
        return min(view.candidates, key=self.key)


def choose(policy: PythonRouting, arrays: EngineArrays, *, row: int = 19, turn: int = 3, draw: float = 0.25) -> int:
    return int(as_router(policy).choose(arrays, FOUR, row, turn, draw, OPTIONS))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("least_outstanding_requests", lambda engine: engine.num_requests),
        ("least_outstanding_tokens", lambda engine: engine.num_tokens),
        ("least_tokens_left", lambda engine: engine.num_output_tokens),
        ("least_kv", lambda engine: engine.num_blocks - engine.num_free_blocks),
    ],
)
def test_it_chooses_as_the_compiled_one_does(kind: str, key: Callable[[Candidate], float]) -> None:
    arrays = four_engines()
    for e in range(4):
        act(arrays.handle, e)
    expected = int(ROUTERS[kind].choose(arrays.handle, FOUR, 19, 0, 0.3, OPTIONS))  # type: ignore[union-attr]
    assert choose(By(key), arrays) == expected


def test_what_a_view_says() -> None:
    """Engine 0 has three requests of 10 tokens in and 5 out, engine 3 one of 100 in and 50 out."""
    arrays = four_engines()
    arrays.row_prompt[19], arrays.row_priority[19], arrays.content_session[19] = 77, 2, 6
    policy = By(lambda engine: engine.engine)
    assert choose(policy, arrays) == 0
    (view,) = policy.views
    request = view.request
    assert (request.row, request.num_prompt, request.num_generated, request.priority) == (19, 77, 0, 2)
    assert (request.session, request.turn, request.draw) == (6, 3, 0.25)
    first, last = view.candidates[0], view.candidates[3]
    assert (first.engine, first.num_requests, first.num_output_tokens, first.num_running) == (0, 3, 15, 0)
    assert (last.engine, last.num_requests, last.num_output_tokens) == (3, 1, 50)
    assert (last.num_blocks, last.num_free_blocks) == (64, 64)
    arrays.content_session[19] = -1
    choose(policy, arrays)
    assert policy.views[1].request.session is None
    with pytest.raises(FrozenInstanceError):
        first.num_requests = 0  # type: ignore[misc]


def test_it_finds_the_warm_cache() -> None:
    """160 of 200 prompt tokens are shared with the one that engine 2 has computed: ten blocks of 16."""
    arrays = make_arrays(ENGINE, num_rows=20, num_engines=4)
    arrays.content_group[:2], arrays.content_group_tokens[:2] = 9, 160
    arrays.row_prompt[:], arrays.row_output[:] = 200, 1
    push(arrays.handle, 2, 2, 0, 0.0, ARRIVAL)
    act(arrays.handle, 2)
    act(arrays.handle, 2)
    policy = By(lambda engine: 0)
    choose(policy, arrays, row=1)
    choose(policy, arrays, row=2)
    hits = [[engine.prefix_hit_tokens(view.request) for engine in view.candidates] for view in policy.views]
    assert hits == [[0, 0, 160, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("answer", [None, 1, "llm[0]"])
def test_an_answer_that_is_no_candidate_ends_the_run(answer: object) -> None:
    class Wrong(PythonRouting):
        def choose(self, view: RoutingView) -> Candidate:
            return answer  # type: ignore[return-value]

    with pytest.raises(SimulationError, match="router Wrong: request 19 needs one of its 4 candidates, got "):
        choose(Wrong(), four_engines())


def test_a_candidate_of_another_stage_ends_the_run() -> None:
    arrays = four_engines()
    policy = By(lambda engine: -engine.engine)
    choose(policy, arrays)

    class Kept(PythonRouting):
        def choose(self, view: RoutingView) -> Candidate:
            return policy.views[0].candidates[3]

    router = as_router(Kept())
    with pytest.raises(SimulationError, match="router Kept: request 19 needs one of its 1 candidates, got Candidate"):
        router.choose(arrays, FOUR[:1], 19, 0, 0.5, OPTIONS)
