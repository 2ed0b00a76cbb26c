"""Bulk transfers and the collectives of steps on the same links.

Steps are many and short, transfers few and long. So a link is divided anew when a transfer on it starts, ends or is
re-routed: max-min fairly among the transfers and the engines, each engine wanting what its steps in flight send at that
moment. Until the next change the transfers keep their rates, and each step that begins has what they leave of the link
(sim/pricing.link_wait_s), or its even share if that is more: it may send more than the step that was looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.sim.advance import pull_all

if TYPE_CHECKING:
    from hermes_sim.sim.clock import Clock
    from hermes_sim.sim.lower import Lowered

NO_DEMANDS: Mapping[int, list[float]] = {}


class StepTraffic:
    """What the engines of a run send over links that transfers may use too."""

    def __init__(self, lowered: Lowered, clock: Clock, *, is_exact: bool) -> None:
        self._state, self._handle = lowered.state, lowered.state.handle
        self._clock = clock
        self._is_exact = is_exact
        shared = lowered.shared_links
        group_of = lowered.state.group_of
        self._users: dict[int, list[tuple[int, int]]] = {}
        """Link -> (engine, its column)."""
        for e, loads in enumerate(shared.loads):
            for link_id in loads:
                self._users.setdefault(link_id, []).append((e, shared.column(int(group_of[e]), link_id)))

    def uses(self, link_id: int) -> bool:
        """Whether steps send anything over the link."""
        return link_id in self._users

    def demands(self, link_ids: Iterable[int]) -> dict[int, list[float]]:
        """Share of each link that each of its engines wants now, of those that are used by any."""
        users = {link_id: self._users[link_id] for link_id in link_ids if link_id in self._users}
        if not users:
            return {}
        engines = sorted({e for pairs in users.values() for e, _ in pairs})
        if not self._is_exact:
            pull_all(self._handle, np.array(engines), float(self._clock.now), self._clock.rank)
        tokens_per_s = {e: self._tokens_per_s(e) for e in engines}
        token_s = self._state.link_token_s
        return {
            link_id: [min(tokens_per_s[e] * float(token_s[e, column]), 1.0) for e, column in pairs]
            for link_id, pairs in users.items()
        }

    def _tokens_per_s(self, e: int) -> float:
        """Of the steps in flight."""
        state = self._state
        ends_s = state.lane_end_s[e]
        total = 0.0
        for lane in np.flatnonzero(np.isfinite(ends_s)):
            total += float(state.lane_num_tokens[e, lane]) / float(ends_s[lane] - state.lane_start_s[e, lane])
        return total

    def leave(self, link_id: int, share_frac: float) -> None:
        """From the next step on engines have this share of the link."""
        state = self._state
        for e, column in self._users[link_id]:
            state.link_share_frac[e, column] = share_frac
            state.links_limited[e] = int(share_frac < 1.0 or bool((state.link_share_frac[e] < 1.0).any()))
