"""The compiled engine takes the decisions of the plain-Python oracle, as integers, on random engines and workloads."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hermes_sim.batching.speculation import uniform
from hermes_sim.sim.advance import push
from hermes_sim.sim.ranks import ARRIVAL, TRANSFER
from hermes_sim.state.arrays import GRANTED, HAS_KV
from hermes_sim.state.hashes import block_content
from tests import reference_speculation
from tests.one_engine import CompiledEngine, Step
from tests.reference_clock import begin_together
from tests.reference_engine import ReferenceEngine
from tests.reference_line import order_key
from tests.reference_records import Arrival, BatchCounts, Options, Seconds, StepRecord
from tests.reference_workloads import Workload, workloads

STEP_S = 0.5
TOKEN_S = 1.0 / 64.0
HOST_S = 0.25
"""Binary fractions, so that steps and arrivals often meet, to the last bit."""


def linear_cost(counts: BatchCounts) -> Seconds:
    """A step of nothing is the host's time only."""
    device_s = STEP_S + TOKEN_S * counts.num_tokens if counts.num_tokens > 0 else 0.0
    return Seconds(device_s=device_s, host_s=HOST_S)


class Pair:
    """The oracle and the compiled engine side by side: the oracle's clock leads, both do the same at the same times.

    A visit with samples is two rows of the compiled engine, its prefill and its decode; the oracle's row is the decode,
    and so is the row that CompiledEngine tells.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        options = workload.options
        self.options = replace(options, full_sequence_gate=options.gates_whole_sequence)
        families = [arrival for arrival in workload.arrivals if arrival.samples]
        self.prefill_row = {arrival.row: arrival.row + workload.num_rows for arrival in families}
        self.compiled = CompiledEngine(
            self.options, workload.num_rows, workload.num_ranks, step_s=STEP_S, token_s=TOKEN_S, host_s=HOST_S
        )
        self.compiled.arrays.cost_decode_linear[0, 0] = 0.0
        self.compiled.arrays.seal_private_late[0] = not families
        self._name_contents()
        self.ranks = [
            ReferenceEngine(self.options, content=self._content, cost=linear_cost) for _ in range(workload.num_ranks)
        ]
        self.on_the_way: dict[int, Arrival] = {}
        self.transfers: list[tuple[float, int]] = []
        self.pairs: list[tuple[StepRecord, int]] = []
        """Each step of the oracle, and its number in the compiled engine's list."""
        self.has_carried = False
        """The last attempt came to nothing; what it decided stands in the oracle's next record."""
        self.num_swapped_blocks = 0

    def run(self) -> None:
        """Serve everything; raises AssertionError at the first difference."""
        due = deque(self.workload.arrivals)
        clock_s = 0.0
        while True:
            end_s = self.ranks[0].next_end_s
            start_s = max(clock_s, min(rank.next_start_s for rank in self.ranks))
            arrival_s = due[0].arrival_s if due else math.inf
            transfer_s = self.transfers[0][0] if self.transfers else math.inf
            clock_s = min(end_s, start_s, arrival_s, transfer_s)
            if math.isinf(clock_s):
                break
            if transfer_s == clock_s:
                self._receive(self.on_the_way[heapq.heappop(self.transfers)[1]], clock_s)
            elif end_s == clock_s:
                self._end(clock_s)
            elif arrival_s == clock_s:
                self._arrive(due.popleft())
            else:
                self._begin(clock_s)
            self._grant(clock_s)
        assert self.compiled.is_idle
        self._compare_ends()

    def _arrive(self, arrival: Arrival) -> None:
        rank = self.ranks[arrival.rank]
        self._describe(arrival)
        arrays = self.compiled.arrays
        if arrival.transfer_s is not None:
            self.on_the_way[arrival.row] = arrival
            if rank.reserve(arrival):
                arrays.row_generated[arrival.row] = 1
                has_it = self.compiled.reserve(
                    arrival.arrival_s, arrival.row, arrival.num_prompt, arrival.num_output, rank=arrival.rank
                )
                self._describe(arrival)
                assert has_it == (arrival.row in rank.granted)
        elif rank.push(arrival):
            row = self.prefill_row.get(arrival.row, arrival.row)
            push(arrays.handle, arrival.rank, arrival.rank, row, arrival.arrival_s, ARRIVAL)

    def _receive(self, arrival: Arrival, clock_s: float) -> None:
        self.ranks[arrival.rank].push(arrival, clock_s)
        self.compiled.arrays.row_flags[arrival.row] |= HAS_KV
        push(self.compiled.arrays.handle, arrival.rank, arrival.rank, arrival.row, clock_s, TRANSFER)

    def _grant(self, clock_s: float) -> None:
        arrays = self.compiled.arrays
        granted = [row for rank in self.ranks for row in rank.take_granted()]
        for row in granted:
            heapq.heappush(self.transfers, (clock_s + (self.on_the_way[row].transfer_s or 0.0), row))
        number = int(arrays.outbox_count[0])
        told = {int(row) for row in arrays.outbox_row[:number][arrays.outbox_kind[:number] == GRANTED]}
        assert told <= set(granted)
        arrays.outbox_count[0] = 0

    def _begin(self, clock_s: float) -> None:
        assert max(self.compiled.next_start_s, clock_s) == pytest.approx(clock_s, rel=1e-12)
        records = begin_together(self.ranks, clock_s)
        number = len(self.compiled.steps)
        steps = self.compiled.act()
        if not steps and self.compiled.next_start_s == clock_s:  # a static batch was closed first
            self.has_carried = True
            steps = self.compiled.act()
        assert len(steps) == len(records)
        for place, (record, step) in enumerate(zip(records, steps, strict=True)):
            self._compare(record, step)
            self.pairs.append((record, number + place))
            self.num_swapped_blocks += sum(blocks for _, blocks in record.swapped_out + record.swapped_in)
        self.has_carried = not records
        if records:
            arrays = self.compiled.arrays
            assert [int(each) for each in arrays.total_preemptions] == [rank.num_preemptions for rank in self.ranks]
            assert int(arrays.total_swapped_blocks.sum()) == self.num_swapped_blocks
            slots = [rank.scheduler.adapters for rank in self.ranks]
            assert [int(each) for each in arrays.total_adapter_loads] == [one.num_loads for one in slots]
            assert [int(each) for each in arrays.total_adapter_hits] == [one.num_hits for one in slots]

    def _end(self, clock_s: float) -> None:
        assert self.compiled.next_end_s == pytest.approx(clock_s, rel=1e-12)
        for rank in self.ranks:
            rank.end_step()
            assert not self.compiled.act()

    def _compare(self, record: StepRecord, step: Step) -> None:
        assert step.scheduled == record.scheduled
        if not self.has_carried:
            assert sorted(step.preempted) == sorted(record.preempted)
            assert step.admitted == record.admitted
            assert step.swapped_out == record.swapped_out
            assert step.swapped_in == record.swapped_in
        assert step.free_blocks == record.free_blocks
        assert step.num_layer_groups == record.num_layer_groups
        assert step.start_s == pytest.approx(record.start_s, rel=1e-12)
        assert step.end_s == pytest.approx(record.end_s, rel=1e-12)
        if len(self.ranks) == 1:
            assert step.counts == record.counts

    def _compare_ends(self) -> None:
        """What is known only when steps and visits have ended: accepted drafts, times of first and last tokens."""
        for record, number in self.pairs:
            assert self.compiled.steps[number].accepted == record.accepted
        finish_s = {row: time_s for rank in self.ranks for row, time_s in rank.finish_s.items()}
        first_token_s = {row: time_s for rank in self.ranks for row, time_s in rank.first_token_s.items()}
        ends = self.compiled.arrays.row_finish_s
        for arrival in self.workload.arrivals:
            family = [arrival.row, *(row for row, _ in arrival.samples)]
            if arrival.row not in finish_s:
                assert all(np.isnan(ends[row]) for row in family)
                continue
            assert ends[arrival.row] == pytest.approx(max(finish_s[row] for row in family), rel=1e-12)
            for row in family[1:]:
                assert ends[row] == pytest.approx(finish_s[row], rel=1e-12)
            if arrival.samples and arrival.transfer_s is None:
                assert ends[self.prefill_row[arrival.row]] == pytest.approx(first_token_s[arrival.row], rel=1e-12)

    def _describe(self, arrival: Arrival) -> None:
        """Into the compiled engine's rows."""
        arrays = self.compiled.arrays
        rows = [arrival.row, *(row for row, _ in arrival.samples)]
        outputs = [arrival.num_output, *(num_output for _, num_output in arrival.samples)]
        if arrival.row in self.prefill_row:
            prefill = self.prefill_row[arrival.row]
            arrays.row_continues_as[prefill] = arrival.row
            rows.append(prefill)
            outputs.append(min(arrival.num_output, 1))
            arrays.row_first_sample[arrival.row] = rows[1]
            arrays.row_num_samples[arrival.row] = arrays.row_open_samples[arrival.row] = len(arrival.samples) + 1
        for row, num_output in zip(rows, outputs, strict=True):
            arrays.row_prompt[row], arrays.row_output[row] = arrival.num_prompt, num_output
            arrays.row_priority[row], arrays.row_client[row] = arrival.priority, arrival.client
            arrays.row_adapter[row] = arrival.adapter
            arrays.row_key[row] = order_key(self.options.queue_order, arrival)
        for row, _ in arrival.samples:
            arrays.row_parent[row] = arrival.row
            arrays.row_text[row], arrays.row_common[row] = row, arrival.num_prompt

    def _name_contents(self) -> None:
        """Blocks are named as the compiled engine names them."""
        arrays = self.compiled.arrays
        for arrival, (group, num_tokens) in zip(self.workload.arrivals, self.workload.groups, strict=True):
            arrays.content_group[arrival.row], arrays.content_group_tokens[arrival.row] = group, num_tokens
            for row, _ in arrival.samples:
                arrays.row_request[row] = arrival.row
            if arrival.row in self.prefill_row:
                arrays.row_request[self.prefill_row[arrival.row]] = arrival.row

    def _content(self, row: int, index: int) -> int:
        return int(block_content(self.compiled.arrays.handle, row, index, self.options.block_tokens))


def can_be_compiled(workload: Workload) -> bool:
    """What the scenario's checks let through."""
    options = workload.options
    slides_in_a_tree = options.prefix_cache == "radix" and options.all_layers_slide
    switches = options.switches
    is_own_of_one_rank = switches.by_layers or switches.padding != "none"
    layers_while_in_flight = options.async_scheduling and switches.by_layers
    return not (slides_in_a_tree or layers_while_in_flight or (is_own_of_one_rank and workload.num_ranks > 1))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(workloads())
def test_decisions_agree(workload: Workload) -> None:
    assume(can_be_compiled(workload))
    Pair(workload).run()


SETUPS: dict[str, dict[str, Any]] = {
    "chunked prefill": {"policy": "chunked_prefill"},
    "continuous": {"policy": "continuous"},
    "prefill first, chunks": {"policy": "prefill_first", "chunk_prompts": True, "queue_order": "longest_prefix"},
    "decode first, drafts": {
        "policy": "decode_first", "draft_tokens": 3, "acceptance_values": (0.7,), "queue_order": "fair_share",
    },
    "mixed pool, swap": {"policy": "mixed_pool", "preemption": "swap", "swap_blocks": 60, "swap_block_s": 0.125},
    "padded, radix": {"policy": "padded", "prefix_cache": "radix", "insert_at": "step_end", "queue_order": "sjf"},
    "layered prefill": {"policy": "layered_prefill", "layer_group_tokens": 64, "num_layers": 4},
    "asynchronous": {"async_scheduling": True, "victim": "fewest_generated"},
    "pipeline": {"num_stages": 4, "stage_interval_frac": 0.25, "insert_at": "step_end"},
}  # fmt: skip


@pytest.mark.parametrize("setup", SETUPS)
def test_decisions_agree_under_pressure(setup: str) -> None:
    """Longer runs that surely preempt and hit the prefix cache, so that the agreement is about something."""
    rng = np.random.default_rng(5)
    options = Options(
        num_blocks=120, block_tokens=16, max_num_seqs=24, max_num_batched_tokens=256, full_sequence_gate=False,
        **SETUPS[setup],
    )  # fmt: skip
    arrivals = tuple(
        Arrival(
            float(number) / 2, number, int(rng.integers(20, 300)), int(rng.integers(2, 200)),
            client=number % 3, samples=((60 + number // 20, 40),) if number % 20 == 0 else (),
        )
        for number in range(60)
    )  # fmt: skip
    pair = Pair(Workload(options, 1, arrivals, tuple((int(rng.integers(0, 3)), 128) for _ in arrivals)))
    pair.run()
    assert int(pair.compiled.arrays.total_preemptions[0]) > 10
    assert int(pair.compiled.arrays.total_hit_blocks[0]) > 60


@given(st.integers(0, 2**62), st.integers(0, 2**31 - 1), st.integers(0, 2**20), st.integers(0, 63))
def test_uniform_numbers_agree(seed: int, row: int, num_generated: int, position: int) -> None:
    mine = reference_speculation.uniform(seed, row, num_generated, position)
    assert float(uniform(seed, row, num_generated, position)) == mine
    assert 0.0 <= mine < 1.0
