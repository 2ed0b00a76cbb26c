"""Prefill in one engine, decode in another: blocks are reserved there, then the prompt's KV is sent (rule 18)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_sim.sim.advance import release_kv, reserve
from hermes_sim.sim.flows import Flows
from hermes_sim.sim.plans import NO_ENGINE, StagePlan
from hermes_sim.sim.ranks import HAND_OFF, TRANSFER
from hermes_sim.sim.replicas import kv_transfer_bytes
from hermes_sim.state.arrays import HAS_KV, HOLDS_KV, WATCHED

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


class HandOver:
    """KV on its way from prefill to decode engines."""

    def __init__(self, coordinator: Coordinator, flows: Flows) -> None:
        self._coordinator = coordinator
        self._lowered = coordinator.lowered
        self._state = coordinator.state
        self._handle = coordinator.handle
        self._flows = flows
        self._under_way: dict[int, tuple[int, int]] = {}
        """Decode row -> (prefill row, engine that reserved) while it waits for blocks or bytes."""

    def join_or_split(self, plan: StagePlan, engine: int, row: int, decode_row: int) -> None:
        """Decode goes on in this engine if it serves decode; else the prompt's KV is sent to one that does."""
        state = self._state
        if engine in plan.same_engine:
            state.row_continues_as[row] = decode_row
            return
        state.row_flags[row] |= WATCHED
        if state.row_output[decode_row] > 1:
            state.row_flags[row] |= HOLDS_KV

    def start_decode(self, request: int, prefill_row: int, decode: int, time_s: float) -> None:
        """Prefill has ended elsewhere: choose an engine, reserve blocks there, send the KV, then decode."""
        state, coordinator = self._state, self._coordinator
        row = int(self._lowered.first_row[request]) + decode
        stages = self._lowered.pipelines[self._lowered.request_pipeline[request]].stages
        if state.row_output[row] <= 1:
            last: int | None = decode
            while last is not None:
                place, last = last, stages[last].more_decode
                self._end_with_first_token(row - decode + place, time_s)
            coordinator.ends.end_visit(request, place, time_s, HAND_OFF)
            return
        plan = stages[decode]
        engine = coordinator.dispatch.choose(request, plan, decode, row, time_s, HAND_OFF)
        if engine == NO_ENGINE:
            coordinator.dispatch.wait_for_engine(lambda up_s: self.start_decode(request, prefill_row, decode, up_s))
            return
        state.row_generated[row] = 1
        state.row_last_token_s[row] = time_s
        if not coordinator.admission.fits(plan, engine, row):
            self._release(prefill_row, time_s, HAND_OFF)
            coordinator.ends.reject(request, time_s)
            return
        coordinator.admission.set_key(request, engine, row, decodes=True)
        self._under_way[row] = (prefill_row, engine)
        if reserve(self._handle, engine, row, time_s, HAND_OFF):
            self.send(row)
        coordinator.after_push(engine)

    def _end_with_first_token(self, row: int, time_s: float) -> None:
        """No token is left to decode, in no sample."""
        state = self._state
        first = int(state.row_first_sample[row])
        for ended in (row, *range(first, first + int(state.row_num_samples[row]) - 1)):
            state.row_arrival_s[ended] = state.row_start_s[ended] = state.row_finish_s[ended] = time_s
            state.row_generated[ended] = state.row_output[ended]
        state.row_open_samples[row] = 0

    def send(self, row: int) -> None:
        """Blocks are reserved: the prompt's KV sets out."""
        coordinator, replicas = self._coordinator, self._lowered.replicas
        prefill_row, engine = self._under_way[row]
        source, target = replicas[int(self._state.row_engine[prefill_row])], replicas[engine]
        sent_s = float(coordinator.clock.now)
        num_bytes = kv_transfer_bytes(source, int(self._state.row_prompt[row]))

        def arrived(time_s: float) -> None:
            coordinator.row_transfer_s[row] = time_s - sent_s
            self._release(prefill_row, time_s, TRANSFER)
            del self._under_way[row]
            self._state.row_flags[row] |= HAS_KV
            coordinator.visits.push(engine, int(self._state.first_queue[engine]), row, time_s, TRANSFER)

        route = self._lowered.network.group_route(source.kv_endpoints, target.kv_endpoints)
        coordinator.row_link_energy_j[row] += self._flows.energy_j(route, num_bytes)
        self._flows.start(route, num_bytes, arrived)

    def _release(self, prefill_row: int, time_s: float, rank: int) -> None:
        """The prefill side's blocks are free."""
        engine = int(self._state.row_engine[prefill_row])
        release_kv(self._handle, engine, prefill_row, time_s, rank)
        self._coordinator.after_push(engine)
