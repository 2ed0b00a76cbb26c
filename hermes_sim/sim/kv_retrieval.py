"""Prompts whose first tokens come from KV stores: look-up, reservation, transfer, then the prefill (rule 18)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hermes_sim.core.rng import stream
from hermes_sim.sim.advance import pull_all, reserve
from hermes_sim.sim.flows import Flow, Flows
from hermes_sim.sim.kv_stores import Instance, KvStores
from hermes_sim.sim.plans import NO_ENGINE, StagePlan
from hermes_sim.sim.pricing import NETWORK
from hermes_sim.sim.prompt_estimate import num_cached_tokens, prompt_seconds
from hermes_sim.sim.ranks import ARRIVAL, CONTROL, HAND_OFF, TRANSFER
from hermes_sim.stages.kv_retrieval import KvRetrieval
from hermes_sim.stages.stage import Stage
from hermes_sim.state.arrays import HAS_KV, LOADED
from hermes_sim.state.kv_chunks import chain_keys, forget_chunks, num_in_a_row, use_chain

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

IntArray = npt.NDArray[np.int64]
NO_KEYS = np.zeros(0, np.uint64)
LOOKED_UP = 2
"""Kind of the event of a look-up: after the requests that arrive at the same time, and those tokenised."""


class Part(NamedTuple):
    """Tokens of a prompt that a store has."""

    instance: Instance
    first: int
    last: int
    """The first token that is not in it."""


@dataclass(slots=True)
class Reload:
    """One visit to the stage, while tokens, blocks or bytes are waited for."""

    request: int
    place: int
    row: int
    prefill_row: int
    engine: int
    parts: list[Part] = field(default_factory=list)
    sent_s: float = 0.0
    num_open: int = 0
    transfers: list[Flow] = field(default_factory=list)


class Retrievals:
    """All visits to stages of kind kv_retrieval."""

    def __init__(self, coordinator: Coordinator, flows: Flows, stores: KvStores) -> None:
        self._coordinator = coordinator
        self._lowered = coordinator.lowered
        self._state = coordinator.state
        self._handle = coordinator.handle
        self._flows = flows
        self.stores = stores
        self.row_store = np.full(self._lowered.num_visits, -1)
        """[num_visits] the instance that most of the visit's tokens came from."""
        self.row_tokens = np.zeros(self._lowered.num_visits, np.int64)
        """[num_visits] tokens that were sent for it."""
        self._under_way: dict[int, Reload] = {}
        """Prefill row -> the visit before it, until its KV has come."""
        self._engines: dict[int, int] = {}
        """Prefill row -> engine that was chosen for it."""
        self._given = self._given_hits()

    def waits(self, row: int) -> bool:
        """Whether this prefill waits for blocks that its KV will be sent to."""
        return row in self._under_way

    # ----- look-up

    def start(self, request: int, plan: StagePlan, place: int, row: int, time_s: float, rank: int) -> None:
        """A visit begins: choose the engine of the prefill behind it, then look its prompt up."""
        coordinator = self._coordinator
        assert plan.prefill is not None
        prefill_row = row - place + plan.prefill
        prefill = self._lowered.pipelines[self._lowered.request_pipeline[request]].stages[plan.prefill]
        if self._lowered.skipped[prefill_row]:
            state = self._state
            state.row_arrival_s[row] = state.row_start_s[row] = state.row_finish_s[row] = time_s
            coordinator.ends.end_visit(request, place, time_s, rank)
            return
        engine = coordinator.dispatch.choose(request, prefill, plan.prefill, prefill_row, time_s, rank)
        if engine == NO_ENGINE:
            coordinator.dispatch.wait_for_engine(row, lambda up_s: self.start(request, plan, place, row, up_s, CONTROL))
            return
        if not coordinator.admission.admits(request, prefill, engine, prefill_row, time_s):
            return
        self._engines[prefill_row] = engine

        reload = Reload(request, place, row, prefill_row, engine)
        ready_s = coordinator.tokenizing.ready_at_s(engine, row, prefill_row, time_s)
        if ready_s == time_s:
            self._look_up(plan.stage, reload, time_s, rank)
            return
        coordinator.tokenizing.wait(
            engine, row, prefill_row, ready_s, LOOKED_UP, lambda at_s: self._look_up(plan.stage, reload, at_s, ARRIVAL)
        )

    def _look_up(self, stage: Stage, reload: Reload, time_s: float, rank: int) -> None:
        """Ask the stores, decide, and reserve blocks for what will come."""
        assert isinstance(stage, KvRetrieval)
        state, engine, prefill_row = self._state, reload.engine, reload.prefill_row
        state.row_arrival_s[reload.row] = time_s
        pull_all(self._handle, np.array([engine]), time_s, rank)
        own = int(num_cached_tokens(self._handle, engine, prefill_row))
        most = int(state.row_prompt[prefill_row]) - 1
        instances = [self.stores.of_engine[name, engine] for name in stage.stores]
        keys = self._keys(stage, prefill_row, engine, most + 1) if stage.finds_content else NO_KEYS
        if stage.finds_content:
            reload.parts = found_parts([one for one in instances if not one.is_away], keys, own, most, time_s)
        else:
            reload.parts = self._given_parts(reload.row, instances, own, most)
        for instance in instances:
            instance.num_asked_tokens += max(most + 1 - own, 0)
        for part in reload.parts:
            part.instance.num_hit_tokens += part.last - part.first
        if not reload.parts or not self._is_worth_it(stage, reload, own, time_s):
            self._end(reload, time_s, time_s, rank)
            return
        if stage.finds_content:
            for part in reload.parts:
                size = part.instance.store.chunk_tokens
                use_chain(part.instance.chunks, keys, part.first // size, -(-part.last // size), time_s)
        state.row_loaded[prefill_row] = reload.parts[-1].last
        self._under_way[prefill_row] = reload
        if reserve(self._handle, engine, prefill_row, time_s, rank):
            self.send(prefill_row, rank)
        self._coordinator.after_push(engine)

    def _keys(self, stage: KvRetrieval, row: int, engine: int, num_tokens: int) -> npt.NDArray[np.uint64]:
        """Chained hashes of all whole chunks among the first tokens of a visit."""
        chunk_tokens = self.stores.of_engine[stage.stores[0], engine].store.chunk_tokens
        keys = np.zeros(num_tokens // chunk_tokens, np.uint64)
        chain_keys(self._handle, row, chunk_tokens, self.stores.kinds[engine], keys)
        return keys

    def _given_hits(self) -> dict[int, tuple[int, int]]:
        """Row -> (place of the store among those of the stage, tokens), where the stage states its hits."""
        lowered = self._lowered
        given: dict[int, tuple[int, int]] = {}
        number = lowered.requests.num_requests
        for pipeline, plan in enumerate(lowered.pipelines):
            members = np.flatnonzero(lowered.request_pipeline == pipeline)
            for place, one in enumerate(plan.stages):
                stage = one.stage
                if not isinstance(stage, KvRetrieval) or stage.hit_frac is None or stage.num_cached_tokens is None:
                    continue
                seed, name = lowered.scenario.seed, f"{plan.name}.{one.name} {one.round}"
                chances = 1.0 - np.cumprod(1.0 - np.array(stage.hit_frac))
                uniforms = stream(seed, f"kv hits {name}").random(number)[members]
                store = np.searchsorted(chances, uniforms, side="right")
                draws = stream(seed, f"kv tokens {name}").random(number)[members]
                tokens = stage.num_cached_tokens.quantiles(draws, lowered.requests.num_output_tokens[members])
                rows = lowered.first_row[members] + place
                hit = store < len(chances)
                hits = zip(store[hit].tolist(), tokens[hit].tolist(), strict=True)
                given.update(zip(rows[hit].tolist(), hits, strict=True))
        return given

    def _given_parts(self, row: int, instances: Sequence[Instance], own: int, most: int) -> list[Part]:
        store, tokens = self._given.get(row, (0, 0))
        last = min(tokens, most)
        return [Part(instances[store], own, last)] if last > own and not instances[store].is_away else []

    # ----- reload or recompute

    def _is_worth_it(self, stage: KvRetrieval, reload: Reload, own: int, time_s: float) -> bool:
        """Whether the KV is sent; `fastest`: whether the first token would come earlier than by computing it all.

        The line before the prompt takes as long for both, but the transfer goes on meanwhile.
        """
        if stage.policy != "fastest":
            return stage.policy == "reload"
        state, handle, engine, parts = self._state, self._handle, reload.engine, reload.parts
        num_tokens = int(state.row_prompt[reload.prefill_row])
        transfers = [
            (self.stores.read_route(part.instance, engine), (part.last - part.first) * self._bytes(part, engine))
            for part in parts
        ]
        transfer_s = self._flows.estimated_s(transfers, time_s)
        num_ahead = max(int(state.load_tokens[engine] - state.load_output_tokens[engine]), 0)
        whole_s = float(prompt_seconds(handle, engine, 0, num_tokens))
        line_s = whole_s * num_ahead / num_tokens
        rest_s = float(prompt_seconds(handle, engine, parts[-1].last, num_tokens))
        computed_s = float(prompt_seconds(handle, engine, own, num_tokens))
        return max(transfer_s, line_s) + rest_s < line_s + computed_s

    def _bytes(self, part: Part, engine: int) -> float:
        return self.stores.bytes_per_token[part.instance.store.name, engine]

    # ----- transfer

    def on_granted(self, row: int) -> None:
        """Blocks have come free for a prefill that waited for them."""
        self.send(row, HAND_OFF)

    def send(self, prefill_row: int, rank: int) -> None:
        """Blocks are reserved: what the engine does not have by now sets out."""
        reload = self._under_way[prefill_row]
        reload.sent_s = now_s = float(self._coordinator.clock.now)
        own = int(self._state.row_cached[prefill_row])
        parts = [part._replace(first=max(part.first, own)) for part in reload.parts if part.last > own]
        if not parts:
            self._arrived(prefill_row, now_s, rank)
            return
        reload.num_open = len(parts)
        largest = max(parts, key=lambda part: part.last - part.first)
        self.row_store[reload.row] = self.stores.instances.index(largest.instance)

        def one_arrived(time_s: float) -> None:
            reload.num_open -= 1
            if reload.num_open == 0:
                self._arrived(prefill_row, time_s, TRANSFER)

        self.row_tokens[reload.row] = sum(part.last - part.first for part in parts)
        for part in parts:
            num_tokens = part.last - part.first
            num_bytes = num_tokens * self._bytes(part, reload.engine)
            part.instance.num_read_tokens += num_tokens
            part.instance.read_bytes += num_bytes
            route = self.stores.read_route(part.instance, reload.engine)
            self.stores.row_link_energy_j[reload.row] += self._flows.energy_j(route, num_bytes)
            reload.transfers.append(self._flows.start(route, num_bytes, one_arrived))

    def _arrived(self, prefill_row: int, time_s: float, rank: int) -> None:
        reload = self._under_way.pop(prefill_row)
        self._state.row_flags[prefill_row] |= HAS_KV | LOADED
        self._state.row_shares[reload.row, NETWORK] = time_s - reload.sent_s
        self._end(reload, reload.sent_s, time_s, rank)

    def _end(self, reload: Reload, start_s: float, time_s: float, rank: int) -> None:
        """The prefill behind it is next."""
        self._state.row_start_s[reload.row], self._state.row_finish_s[reload.row] = start_s, time_s
        self._coordinator.ends.end_visit(reload.request, reload.place, time_s, rank)

    def engine_of(self, prefill_row: int) -> int | None:
        """The engine that was chosen for a prefill, told once; None if the stage before it was passed over."""
        return self._engines.pop(prefill_row, None)

    # ----- failures

    def forget(self, rows: Sequence[int]) -> None:
        """Passes that were taken back: transfers to their prefills stop."""
        for row in rows:
            self._engines.pop(row, None)
            reload = self._under_way.pop(row, None)
            for transfer in reload.transfers if reload is not None else ():
                self._flows.cancel(transfer)

    def lose(self, instances: Sequence[Instance], *, content: bool) -> list[int]:
        """Stores are gone; returns the prefills that waited for what they were sending. `content`: all they held is
        lost too, else it is there again when they are."""
        for instance in instances:
            instance.is_away = True
            if content:
                forget_chunks(instance.chunks)
                instance.num_losses += 1
        return [
            row
            for row, reload in self._under_way.items()
            if any(part.instance is instance for part in reload.parts for instance in instances)
        ]

    # ----- writing

    def write(self, plan: StagePlan, place: int, row: int, time_s: float) -> None:
        """A pass has ended: what it has computed goes to the stores of the stage before it."""
        state, stores = self._state, self.stores
        assert plan.written_by is not None
        retrieval, head = plan.written_by
        stages = self._lowered.pipelines[self._lowered.request_pipeline[state.row_request[row]]].stages
        stage = stages[retrieval].stage
        assert isinstance(stage, KvRetrieval)
        head_row = row - place + head
        engine = int(state.row_engine[row if state.row_engine[row] >= 0 else head_row])
        num_tokens = int(state.row_prompt[head_row])
        if state.row_num_samples[row] == 1 and row != head_row:
            num_tokens += max(int(state.row_generated[row]) - 1, 0)
        keys = self._keys(stage, head_row, engine, num_tokens)
        if len(keys) == 0:
            return
        for name in stage.stores if stage.write == "all" else stage.stores[:1]:
            stores.write(self._flows, stores.of_engine[name, engine], keys, engine, row, time_s)


def found_parts(
    instances: Sequence[Instance], keys: npt.NDArray[np.uint64], own: int, most: int, time_s: float
) -> list[Part]:
    """Tier walk: from the first token that the engine lacks, each chunk from the first store that has it, up to the
    first chunk that none has. Every store is asked anew behind what another had."""
    parts: list[Part] = []
    if not instances:
        return parts
    size = instances[0].store.chunk_tokens
    place = own // size
    first = own
    while place < len(keys):
        for instance in instances:
            number = int(num_in_a_row(instance.chunks, keys, place, time_s))
            if number > 0:
                break
        else:
            break
        place += number
        last = min(place * size, most)
        if last > first:
            parts.append(Part(instance, first, last))
        first = last
    return parts
