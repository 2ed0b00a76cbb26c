"""Prefill in one engine, decode in another: blocks are reserved there, then the prompt's KV is sent (rule 18).

Blocks may be reserved before the prompt is computed; it waits for them then, and its KV may set out layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.hardware.network import Route
from hermes_sim.sim.advance import release_kv, reserve
from hermes_sim.sim.flows import Flow, Flows
from hermes_sim.sim.kv_wire import Wire, shown_s, wire
from hermes_sim.sim.plans import NO_ENGINE, StagePlan
from hermes_sim.sim.ranks import HAND_OFF, TRANSFER
from hermes_sim.sim.status import UNFINISHED
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
        self._transfer = coordinator.lowered.scenario.cluster.kv_transfer
        self._wires: dict[tuple[int, int], Wire] = {}
        """(prefill engine, decode engine)"""
        self._routes: dict[tuple[int, int], Route] = {}
        """The same, where there are no equal paths to choose from."""
        self._under_way: dict[int, tuple[int, int]] = {}
        """Decode row -> (prefill row, engine that reserved) while it waits for blocks or bytes."""
        self._transfers: dict[int, Flow] = {}
        """Decode row -> its KV on the way."""
        self._prompts: dict[int, Callable[[float, int], None]] = {}
        """Decode row -> lets its prompt go on, which waits for blocks on the decode side."""
        self.first_token_delay_s = np.zeros(coordinator.lowered.num_visits)
        """[num_visits] of a prefill: from its end until the decode engine sends the first token, if it does."""

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
        if coordinator.status[request] != UNFINISHED:  # nobody wants it any more
            if state.row_slot[prefill_row] >= 0:
                self._release(prefill_row, time_s, HAND_OFF)
            return
        row = int(self._lowered.first_row[request]) + decode
        stages = self._lowered.pipelines[self._lowered.request_pipeline[request]].stages
        if state.row_output[row] <= 1:
            last: int | None = decode
            while last is not None:
                place, last = last, stages[last].more_decode
                self._end_with_first_token(row - decode + place, time_s)
            coordinator.ends.end_visit(request, place, time_s, HAND_OFF)
            return
        state.row_last_token_s[row] = time_s
        if row in self._under_way:  # there has been room for it since before the prompt was computed
            self._send(row)
            return

        def again(up_s: float) -> None:
            self.start_decode(request, prefill_row, decode, up_s)

        if self._reserve(request, prefill_row, decode, time_s, HAND_OFF, again):
            self._send(row)

    def waits_for_room(
        self,
        request: int,
        plan: StagePlan,
        prefill_row: int,
        time_s: float,
        rank: int,
        go_on: Callable[[float, int], None],
    ) -> bool:
        """Reserve blocks for a prompt that has not been computed. True: it has to wait, `go_on(time_s, rank)` is called
        when there is room, or it is out."""
        if self._transfer.reserve == "after_prefill" or not self._state.row_flags[prefill_row] & HOLDS_KV:
            return False
        assert plan.decode is not None
        decode = plan.decode
        row = int(self._lowered.first_row[request]) + decode
        self._prompts[row] = go_on

        def again(up_s: float) -> None:
            if self._reserve(request, prefill_row, decode, up_s, HAND_OFF, again):
                self._prompts.pop(row)(up_s, HAND_OFF)

        if not self._reserve(request, prefill_row, decode, time_s, rank, again):
            return True
        del self._prompts[row]
        return False

    def _reserve(
        self, request: int, prefill_row: int, decode: int, time_s: float, rank: int, again: Callable[[float], None]
    ) -> bool:
        """Choose an engine and ask it for blocks. False: they are granted later, or `again` is called when an engine
        comes up, or the request is out."""
        state, coordinator = self._state, self._coordinator
        row = int(self._lowered.first_row[request]) + decode
        plan = self._lowered.pipelines[self._lowered.request_pipeline[request]].stages[decode]
        engine = coordinator.dispatch.choose(request, plan, decode, row, time_s, rank)
        if engine == NO_ENGINE:
            coordinator.dispatch.wait_for_engine(row, again)
            return False
        state.row_generated[row] = 1
        if not coordinator.admission.fits(plan, engine, row):
            if self._prompts.pop(row, None) is None:
                self._release(prefill_row, time_s, rank)
            coordinator.ends.reject(request, time_s)
            return False
        coordinator.admission.set_key(request, engine, row, decodes=True)
        self._under_way[row] = (prefill_row, engine)
        granted = reserve(self._handle, engine, row, time_s, rank)
        coordinator.after_push(engine)
        return granted

    def on_granted(self, row: int, time_s: float) -> None:
        """Blocks have come free for a sequence that waited for them."""
        if row in self._prompts:
            self._prompts.pop(row)(time_s, HAND_OFF)
        else:
            self._send(row)

    def _end_with_first_token(self, row: int, time_s: float) -> None:
        """No token is left to decode, in no sample."""
        state = self._state
        first = int(state.row_first_sample[row])
        for ended in (row, *range(first, first + int(state.row_num_samples[row]) - 1)):
            state.row_arrival_s[ended] = state.row_start_s[ended] = state.row_finish_s[ended] = time_s
            state.row_generated[ended] = state.row_output[ended]
        state.row_open_samples[row] = 0

    def _send(self, row: int) -> None:
        """Blocks are reserved and the prompt has been computed: its KV, or what has not been sent yet, sets out."""
        if row not in self._under_way:  # a failure came between
            return
        coordinator, state = self._coordinator, self._state
        prefill_row, engine = self._under_way[row]
        source = int(state.row_engine[prefill_row])
        sent_s = float(coordinator.clock.now)
        route = self._route(source, engine, row)
        wire_ = self._wire(source, engine)
        num_tokens = int(state.row_prompt[row])
        num_bytes = wire_.num_bytes(num_tokens)

        def arrived(time_s: float) -> None:
            coordinator.row_transfer_s[row] = time_s - sent_s
            if self._transfer.first_token == "decode":
                self.first_token_delay_s[prefill_row] = time_s - state.row_finish_s[prefill_row]
                state.row_last_token_s[row] = time_s
            self._release(prefill_row, time_s, TRANSFER)
            del self._under_way[row], self._transfers[row]
            state.row_flags[row] |= HAS_KV
            coordinator.visits.push(engine, int(state.first_queue[engine]), row, time_s, TRANSFER)

        coordinator.row_link_energy_j[row] += self._flows.energy_j(route, num_bytes)
        convert_s = num_tokens * wire_.convert_s_per_token
        if self._transfer.mode == "layerwise":
            left_bytes, extra_s = self._left(prefill_row, route, num_bytes, convert_s, wire_.num_pieces(num_tokens))
            self._flows.count_sent(route, num_bytes - left_bytes)
        else:
            left_bytes, extra_s = num_bytes, self._transfer.message_overhead_s + convert_s
        extra_s += self._transfer.handshake_s
        if extra_s > 0.0:
            route = replace(route, latency_s=route.latency_s + extra_s)
        self._transfers[row] = self._flows.start(route, left_bytes, arrived)

    def forget(self, rows: Sequence[int]) -> set[int]:
        """Passes that were taken back: transfers stop. Returns the engines that have promised them blocks."""
        holding = set()
        for row in rows:
            self._prompts.pop(row, None)
            if row in self._under_way:
                holding.add(self._under_way.pop(row)[1])
            if row in self._transfers:
                self._flows.cancel(self._transfers.pop(row))
        return holding

    def _left(
        self, prefill_row: int, route: Route, num_bytes: float, convert_s: float, num_pieces: int
    ) -> tuple[float, float]:
        """(bytes that were not sent beside the compute, seconds beside theirs) at the end of a prompt.

        What was sent beside it went at the rate that the whole would have now.
        """
        state = self._state
        now_s = float(self._coordinator.clock.now)
        wire_s = self._flows.estimated_s([(route, num_bytes)], now_s) - route.latency_s
        if wire_s <= 0.0:
            return num_bytes, 0.0
        computed_s = now_s - float(state.row_start_s[prefill_row])
        left_frac = shown_s(computed_s, wire_s, num_pieces) / wire_s
        all_s = wire_s + num_pieces * self._transfer.message_overhead_s
        more_s = shown_s(computed_s, all_s, num_pieces) - left_frac * wire_s
        return left_frac * num_bytes, max(more_s, 0.0) + convert_s / num_pieces

    def _route(self, source: int, target: int, row: int) -> Route:
        """From engine to engine; the row chooses among equal paths."""
        network, replicas = self._lowered.network, self._lowered.replicas
        key = (source, target)
        if key in self._routes:
            return self._routes[key]
        route = network.group_route(replicas[source].kv_endpoints, replicas[target].kv_endpoints, row)
        if not network.has_choices:
            self._routes[key] = route
        return route

    def _wire(self, source: int, target: int) -> Wire:
        key = (source, target)
        if key not in self._wires:
            replicas = self._lowered.replicas
            self._wires[key] = wire(replicas[source], replicas[target], self._transfer)
        return self._wires[key]

    def _release(self, prefill_row: int, time_s: float, rank: int) -> None:
        """The prefill side's blocks are free."""
        engine = int(self._state.row_engine[prefill_row])
        release_kv(self._handle, engine, prefill_row, time_s, rank)
        self._coordinator.after_push(engine)
