"""Whether an engine can take a sequence at all, and where it stands in line there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_sim.sim.lower import planned_outputs
from hermes_sim.sim.plain import plain
from hermes_sim.sim.plans import StagePlan
from hermes_sim.sim.queue_keys import QueueKeys
from hermes_sim.sim.replicas import most_tokens

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


class Admission:
    """Prepares sequences for the engines chosen for them."""

    def __init__(self, coordinator: Coordinator) -> None:
        lowered = coordinator.lowered
        self._coordinator = coordinator
        self._first_row = plain(lowered.first_row)
        self._prompt, self._final = plain(coordinator.state.row_prompt), plain(planned_outputs(lowered))
        slos = [slo for _, slo in lowered.scenario.workload.promises()]
        self._keys = QueueKeys(lowered.state, lowered.replicas, slos, lowered.request_class)
        self.capacity = [most_tokens(replica) for replica in lowered.replicas]
        """[num_engines] tokens of the longest sequence that each can hold."""

    @property
    def any_sorted(self) -> bool:
        """Whether any line is sorted by a key that a visit brings."""
        return self._keys.any_sorted

    def admits(self, request: int, plan: StagePlan, engine: int, row: int, time_s: float) -> bool:
        """Prepare a prompt for the engine chosen; False: it can never hold the sequence, and the request is out."""
        if not self.fits(plan, engine, row):
            self._coordinator.ends.reject(request, time_s)
            return False
        if plan.decode is not None and plan.may_split:
            decode_row = self._first_row[request] + plan.decode
            self._coordinator.hand_over.join_or_split(plan, engine, row, decode_row)
        self.set_key(request, engine, row, decodes=False)
        return True

    def fits(self, plan: StagePlan, engine: int, row: int) -> bool:
        """Whether the engine could ever hold the whole sequence."""
        decodes_here = plan.decode is None or engine in plan.same_engine
        num_tokens = self._prompt[row] + max((self._final[row] if decodes_here else 1) - 1, 0)
        return bool(num_tokens <= self.capacity[engine])

    def set_key(self, request: int, engine: int, row: int, *, decodes: bool) -> None:
        """Where the visit stands in a line that is sorted."""
        if self._keys.any_sorted:
            self._keys.set(engine, row, float(self._coordinator.arrival_s[request]), decodes)
