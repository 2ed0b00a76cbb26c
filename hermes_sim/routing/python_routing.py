"""A routing policy written in Python: what it sees when a request arrives, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from hermes_sim.core.errors import SimulationError
from hermes_sim.routing.router import Router


@dataclass(frozen=True)
class RequestView:
    """The visit that is to be routed."""

    row: int
    num_prompt: int
    num_generated: int
    """Above 0 where the prompt was computed elsewhere."""
    priority: int
    """Smaller is more urgent."""
    session: int | None
    turn: int
    """How many visits of this stage were routed before."""
    draw: float
    """Uniform in [0, 1), the visit's own: use it for random choices, and runs stay repeatable."""


@dataclass(frozen=True)
class Candidate:
    """An engine that serves the stage, as it is now."""

    engine: int
    """Its place in the cluster, replicas counted."""
    num_requests: int
    """Inside, waiting or running."""
    num_tokens: int
    """Still to be processed: what is left of prompts and outputs inside."""
    num_output_tokens: int
    """Still to be generated."""
    num_running: int
    num_blocks: int
    """KV blocks; 0 for engines that run whole jobs."""
    num_free_blocks: int
    state: Any = field(repr=False, compare=False)

    def prefix_hit_tokens(self, request: RequestView) -> int:
        """Prompt tokens of a request that the engine's prefix cache holds now."""
        from hermes_sim.routing.prefix_aware import prefix_hit_tokens

        return int(prefix_hit_tokens(self.state.handle, self.engine, request.row))


@dataclass(frozen=True)
class RoutingView:
    """One arrival, and the engines it can go to, in the order of the cluster file."""

    request: RequestView
    candidates: tuple[Candidate, ...]


class PythonRouting(ABC):
    """Base of a router in Python: one instance per stage and run, so that it may keep what it likes.

    Pass one with simulate(..., routing=MyRouter()), or register_routing("my_router", MyRouter) in a module that is
    loaded with --plugin, and write `routing: {kind: my_router}`.
    """

    @abstractmethod
    def choose(self, view: RoutingView) -> Candidate:
        """One of the candidates."""


def as_router(policy: PythonRouting) -> Router:
    """The policy as the coordinator calls it; `state` is then the arrays themselves."""

    def choose(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
        view = RoutingView(_request(state, row, turn, draw), tuple(_candidate(state, int(e)) for e in candidates))
        chosen = policy.choose(view)
        if not isinstance(chosen, Candidate) or all(chosen.engine != one.engine for one in view.candidates):
            raise SimulationError(
                f"router {type(policy).__name__}: request {int(state.row_request[row])} needs one of its "
                f"{len(view.candidates)} candidates, got {chosen!r}"
            )
        return chosen.engine

    return Router(choose, reads_loads=True, in_python=True)


def _request(state: Any, row: int, turn: int, draw: float) -> RequestView:
    session = int(state.content_session[state.row_request[row]])
    return RequestView(
        row=row,
        num_prompt=int(state.row_prompt[row]),
        num_generated=int(state.row_generated[row]),
        priority=int(state.row_priority[row]),
        session=session if session >= 0 else None,
        turn=turn,
        draw=draw,
    )


def _candidate(state: Any, e: int) -> Candidate:
    return Candidate(
        engine=e,
        num_requests=int(state.load_requests[e]),
        num_tokens=int(state.load_tokens[e]),
        num_output_tokens=int(state.load_output_tokens[e]),
        num_running=int(state.num_running[e]),
        num_blocks=int(state.num_blocks[e]),
        num_free_blocks=int(state.num_free_blocks[e]),
        state=state,
    )
