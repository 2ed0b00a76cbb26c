"""One compiled token engine without clock or scenario, for tests that drive it step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_sim.perf.step_cost import NUM_ATTENTION_COEFFICIENTS
from hermes_sim.sim.advance import push
from hermes_sim.sim.ranks import ARRIVAL
from hermes_sim.sim.steps import begin_step, end_step
from hermes_sim.state.arrays import EngineArrays, allocate, empty_blocks

MAX_TOKENS = 4096
SECONDS_PER_TOKEN = 3.2e-5
SECONDS_PER_STEP = 0.012


@dataclass(frozen=True)
class Options:
    """As ReferenceEngine takes them."""

    num_blocks: int
    block_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    policy: str = "chunked_prefill"
    prefix_caching: bool = True
    full_sequence_gate: bool = True
    watermark_frac: float = 0.0
    long_prefill_token_threshold: int = 0
    queue_order: str = "fcfs"


def linear_cost(num_tokens: int) -> float:
    """Seconds of a step that holds so many tokens."""
    return SECONDS_PER_STEP + SECONDS_PER_TOKEN * num_tokens


def make_arrays(options: Options, num_rows: int, num_engines: int = 1, max_tokens: int = MAX_TOKENS) -> EngineArrays:
    """Equal token engines, empty, each a group of its own."""
    hash_slots = 2
    while hash_slots < 2 * options.num_blocks:
        hash_slots *= 2
    arrays = allocate({
        "engines": num_engines, "groups": num_engines, "queues": num_engines, "lanes": 1,
        "slots": options.max_num_seqs, "jobs": 1, "cost_kinds": 1, "step_tokens": max_tokens + 1,
        "step_seqs": options.max_num_seqs + 1, "attention_coefficients": NUM_ATTENTION_COEFFICIENTS, "curve_points": 1,
        "table_blocks": options.num_blocks + 1, "blocks": options.num_blocks,
        "blocks_and_sentinel": options.num_blocks + 1, "hash_slots": hash_slots, "rows": num_rows,
        "requests": num_rows, "requests_and_one": num_rows + 1, "hash_ids": 1,
        "outbox": 4 * options.max_num_seqs + 8, "phases": options.block_tokens + 1,
    })  # fmt: skip
    arrays.row_request[:] = np.arange(num_rows)
    arrays.cost_linear[0, :, 0] = linear_cost(0) + SECONDS_PER_TOKEN * np.arange(max_tokens + 1)
    arrays.cost_decode_linear[0, :, 0] = arrays.cost_linear[0, : options.max_num_seqs + 1, 0]
    for e in range(num_engines):
        arrays.group_first[e] = arrays.group_members[e] = arrays.group_of[e] = arrays.first_queue[e] = e
        arrays.max_num_seqs[e] = options.max_num_seqs
        arrays.max_num_batched_tokens[e] = options.max_num_batched_tokens
        arrays.prefill_threshold[e] = options.long_prefill_token_threshold
        arrays.block_tokens[e] = options.block_tokens
        arrays.watermark_blocks[e] = int(options.watermark_frac * options.num_blocks)
        arrays.chunk_prefill[e] = options.policy == "chunked_prefill"
        arrays.full_sequence_gate[e] = options.full_sequence_gate
        arrays.by_priority[e] = options.queue_order == "priority"
        arrays.prefix_caching[e] = options.prefix_caching
        empty_blocks(arrays, e, options.num_blocks, options.max_num_seqs)
    return arrays


@dataclass(frozen=True)
class Step:
    """What one compiled step decided."""

    start_s: float
    end_s: float
    scheduled: tuple[tuple[int, int], ...]
    num_preemptions: int
    free_blocks: int
    batch: tuple[int, ...]


class CompiledEngine:
    """The compiled engine behind the interface of ReferenceEngine."""

    def __init__(self, options: Options, num_rows: int) -> None:
        self.options = options
        self.arrays = make_arrays(options, num_rows)
        self.rejected: list[int] = []

    def push(self, time_s: float, row: int, num_prompt: int, num_output: int, priority: int = 0) -> None:
        arrays = self.arrays
        needed = -(-(num_prompt + max(num_output, 1) - 1) // self.options.block_tokens)
        if needed > self.options.num_blocks:
            self.rejected.append(row)
            return
        arrays.row_prompt[row], arrays.row_output[row], arrays.row_priority[row] = num_prompt, num_output, priority
        push(arrays.handle, 0, 0, row, time_s, ARRIVAL)

    @property
    def next_start_s(self) -> float:
        return float(self.arrays.next_start_s[0])

    def step(self, time_s: float) -> Step:
        """Begin a step, note what it decided, end it."""
        arrays = self.arrays
        before = int(arrays.total_preemptions[0])
        begin_step(arrays.handle, 0, time_s)
        slots = [int(slot) for slot in arrays.running[0, : arrays.num_running[0]] if arrays.slot_scheduled[0, slot] > 0]
        record = Step(
            start_s=time_s,
            end_s=float(arrays.lane_end_s[0, 0]),
            scheduled=tuple((int(arrays.slot_row[0, slot]), int(arrays.slot_scheduled[0, slot])) for slot in slots),
            num_preemptions=int(arrays.total_preemptions[0]) - before,
            free_blocks=int(arrays.num_free_blocks[0]),
            batch=tuple(int(count) for count in arrays.scratch_batch),
        )
        end_step(arrays.handle, 0, 0)
        return record
