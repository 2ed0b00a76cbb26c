"""Which requests are taken in: buckets of tokens, places inside, first tokens that would come in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_sim.scenario.admission import Admission, EarlyRejection, RateLimit
from hermes_sim.sim.first_token import has_first_token, seen_prefills
from hermes_sim.sim.prompt_estimate import num_cached_tokens, prompt_seconds
from hermes_sim.sim.queue_keys import Deadline
from hermes_sim.sim.ranks import ARRIVAL
from hermes_sim.sim.status import (
    NO_REASON,
    QUEUE_FULL,
    RATE_LIMIT,
    REJECTED,
    SHED,
    TOO_LATE,
    UNFINISHED,
)

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


class Bucket:
    """Tokens that come at a constant rate; full at the start."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._filled_s = 0.0

    def take(self, time_s: float) -> bool:
        """One token, if there is one."""
        grown = self._tokens + (time_s - self._filled_s) * self._limit.rate_per_s
        self._tokens = min(grown, float(self._limit.burst))
        self._filled_s = time_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class FrontDoor:
    """Asked once for each request, when it arrives."""

    def __init__(self, coordinator: Coordinator, admission: Admission) -> None:
        lowered = coordinator.lowered
        self._coordinator = coordinator
        self._lowered = lowered
        self._admission = admission
        self._buckets: dict[int, Bucket] = {}
        self._inside: dict[int, list[int]] = {}
        """Priority -> requests that were taken in, in order of arrival; some may have ended."""
        self._num_inside = 0
        promises = lowered.scenario.workload.promises()
        given = admission.early_rejection.ttft if admission.early_rejection is not None else None
        self._deadlines = [Deadline((given,) if given is not None else tuple(slo.ttft.values())) for _, slo in promises]
        self._prefills = [seen_prefills(plan)[:1] for plan in lowered.pipelines]

    def takes_in(self, request: int, time_s: float) -> bool:
        """Take the request in, or reject it. Others may be turned out for it."""
        reason = self._reason(request, time_s)
        if reason != NO_REASON:
            self._coordinator.ends.end_request(request, REJECTED, time_s, reason)
            return False
        self._num_inside += 1
        if self._admission.when_full == "shed":
            self._inside.setdefault(int(self._lowered.requests.priority[request]), []).append(request)
        return True

    def ended(self) -> None:
        """A request that was taken in is out."""
        self._num_inside -= 1

    def _reason(self, request: int, time_s: float) -> int:
        """Why not; what is refused for a later reason has taken no token of a bucket."""
        admission = self._admission
        if admission.early_rejection is not None and self._is_late(request, admission.early_rejection, time_s):
            return TOO_LATE
        limit = admission.rate_limit
        is_full = admission.max_outstanding is not None and self._num_inside >= admission.max_outstanding
        victim = self._victim(request, time_s) if is_full and admission.when_full == "shed" else None
        if is_full and victim is None:
            return QUEUE_FULL
        if limit is not None and not self._bucket(request, limit).take(time_s):
            return RATE_LIMIT
        if victim is not None:
            self._coordinator.recall.cancel(victim, REJECTED, SHED, time_s, ARRIVAL)
        return NO_REASON

    def _bucket(self, request: int, limit: RateLimit) -> Bucket:
        owner = 0
        if limit.per == "class":
            owner = int(self._lowered.request_class[request])
        elif limit.per == "client" and self._lowered.requests.client is not None:
            owner = int(self._lowered.requests.client[request])
        return self._buckets.setdefault(owner, Bucket(limit))

    def _victim(self, request: int, time_s: float) -> int | None:
        """The last that came of the lowest class below the newcomer's, and has no token yet."""
        status = self._coordinator.status
        own = int(self._lowered.requests.priority[request])
        for priority in sorted((one for one in self._inside if one > own), reverse=True):
            inside = self._inside[priority] = [one for one in self._inside[priority] if status[one] == UNFINISHED]
            for other in reversed(inside):
                if not has_first_token(self._coordinator, other, time_s, ARRIVAL):
                    return other
        return None

    def _is_late(self, request: int, early: EarlyRejection, time_s: float) -> bool:
        """Whether the first token would come after the deadline, on the engine where it would come first."""
        pipeline = int(self._lowered.request_pipeline[request])
        if not self._prefills[pipeline]:
            return False
        row = int(self._lowered.first_row[request]) + self._prefills[pipeline][0]
        candidates = self._lowered.pipelines[pipeline].stages[self._prefills[pipeline][0]].candidates
        if self._coordinator.fleet is not None:
            candidates = self._coordinator.fleet.usable(candidates)
        self._coordinator.dispatch.bring_up(candidates, time_s, ARRIVAL)
        predicted = [self._predicted(int(e), row) for e in candidates]
        if not predicted:
            return False
        ttft_s, alone_s = min(predicted)
        deadline = self._deadlines[int(self._lowered.request_class[request])]
        return early.margin * ttft_s > deadline.loosest_s(alone_s)

    def _predicted(self, e: int, row: int) -> tuple[float, float]:
        """Seconds to the first token: the prompts before it in line and its own, at the speed of a prompt alone; and
        its own without prefix cache.

        Decodes that run beside them, and stages before the prefill, are left out, as in Mooncake's prediction by load.
        """
        state, handle = self._coordinator.state, self._coordinator.handle
        num_tokens = int(state.row_prompt[row])
        if num_tokens == 0:
            return 0.0, 0.0
        alone_s = float(prompt_seconds(handle, e, 0, num_tokens))
        num_ahead = max(int(state.load_tokens[e] - state.load_output_tokens[e]), 0)
        own_s = float(prompt_seconds(handle, e, int(num_cached_tokens(handle, e, row)), num_tokens))
        return alone_s * num_ahead / num_tokens + own_s, alone_s


def door_of(coordinator: Coordinator) -> FrontDoor | None:
    """None where every request is taken in."""
    admission = coordinator.lowered.scenario.cluster.admission
    return None if admission is None else FrontDoor(coordinator, admission)
