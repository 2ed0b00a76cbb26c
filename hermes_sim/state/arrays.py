"""What changes during a run, as flat arrays: engines, lanes, sequences, KV blocks, result rows.

Python holds the arrays by name (`EngineArrays`); compiled code gets the same arrays in one structref, because one
argument costs about a microsecond per call whatever it holds, and fifty loose arrays cost ten.

Indices: e engine (one replica), l lane (a step in flight), q queue, slot (a sequence that holds KV), b block,
v row (one visit of one request), k kind of cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import jit_enabled

Array = npt.NDArray[Any]

TOKENS = 0
"""Engine kind: steps of a language model over sequences with KV blocks."""
JOBS = 1
"""Engine kind: whole jobs in batches."""

# Outward events, in the order in which equal times are handled.
DONE = 0
"""A watched visit has ended."""
GRANTED = 1
"""Blocks were reserved for a visit that waited for them."""

NUM_SHARES = 6
"""Accumulated per row: seconds limited by compute, memory, network, host; joules; engine seconds (by tokens)."""
ENERGY = 4
ENGINE_TIME = 5

NUM_RESOURCES = 3
"""Columns of a demand vector: compute, memory, network (shares of what the group has). Cores and in-engine links are
assigned, so only the memory column is ever above zero today."""

ITL_BINS_PER_OCTAVE_LOG2 = 6
ITL_LOWEST_EXPONENT = -20
ITL_NUM_OCTAVES = 33
ITL_NUM_BINS = ITL_NUM_OCTAVES << ITL_BINS_PER_OCTAVE_LOG2

_I8 = np.int64
_I4 = np.int32
_F8 = np.float64

# name -> (dtype, dimensions, initial value); dimensions are keys of `sizes`.
FIELDS: dict[str, tuple[Any, tuple[str, ...], float]] = {
    # -- engines: what they are (never changed during a run)
    "engine_kind": (_I8, ("engines",), 0),
    "group_of": (_I8, ("engines",), 0),
    "num_lanes": (_I8, ("engines",), 1),
    "max_num_seqs": (_I8, ("engines",), 1),
    "max_num_batched_tokens": (_I8, ("engines",), 1),
    "prefill_threshold": (_I8, ("engines",), 0),
    "block_tokens": (_I8, ("engines",), 1),
    "num_blocks": (_I8, ("engines",), 0),
    "watermark_blocks": (_I8, ("engines",), 0),
    "chunk_prefill": (_I8, ("engines",), 1),
    "full_sequence_gate": (_I8, ("engines",), 1),
    "by_priority": (_I8, ("engines",), 0),
    "prefix_caching": (_I8, ("engines",), 1),
    "cost_kind": (_I8, ("engines",), 0),
    "stage_interval_frac": (_F8, ("engines",), 1.0),
    "power_w": (_F8, ("engines", "four"), 0.0),
    "max_batch_size": (_I8, ("engines",), 1),
    "max_wait_s": (_F8, ("engines",), 0.0),
    "first_queue": (_I8, ("engines",), 0),
    "num_queues": (_I8, ("engines",), 1),
    # -- groups of engines that share a resource; a group keeps its members in time order
    "group_first": (_I8, ("groups",), 0),
    "group_size": (_I8, ("groups",), 1),
    "group_members": (_I8, ("engines",), 0),
    "group_contended": (_I8, ("groups",), 0),
    "feeds": (np.uint8, ("groups", "groups"), 0),
    # -- cost tables
    "cost_linear": (_F8, ("cost_kinds", "step_tokens", "four"), 0.0),
    "cost_decode_linear": (_F8, ("cost_kinds", "step_seqs", "four"), 0.0),
    "cost_sampled": (_F8, ("cost_kinds", "step_seqs", "four"), 0.0),
    "cost_attention": (_F8, ("cost_kinds", "attention_coefficients"), 0.0),
    "curve_units": (_F8, ("queues", "curve_points"), 0.0),
    "curve_seconds": (_F8, ("queues", "curve_points", "four"), 0.0),
    "curve_demand": (_F8, ("queues", "curve_points"), 0.0),
    "curve_num_points": (_I8, ("queues",), 1),
    # -- engines: running state
    "now_s": (_F8, ("engines",), 0.0),
    "next_start_s": (_F8, ("engines",), np.inf),
    "num_in_flight": (_I8, ("engines",), 0),
    "num_running": (_I8, ("engines",), 0),
    "running": (_I4, ("engines", "slots"), 0),
    "num_free_slots": (_I8, ("engines",), 0),
    "free_slots": (_I4, ("engines", "slots"), 0),
    "num_pushed": (_I8, ("engines",), 0),
    "num_watched": (_I8, ("engines",), 0),
    "load_requests": (_I8, ("engines",), 0),
    "load_tokens": (_I8, ("engines",), 0),
    "load_output_tokens": (_I8, ("engines",), 0),
    # -- waiting lists, threaded through the rows
    "queue_head": (_I8, ("queues",), -1),
    "queue_tail": (_I8, ("queues",), -1),
    "queue_length": (_I8, ("queues",), 0),
    "queue_full_s": (_F8, ("queues",), 0.0),
    "reserve_head": (_I8, ("engines",), -1),
    "reserve_tail": (_I8, ("engines",), -1),
    # -- lanes: steps in flight
    "lane_end_s": (_F8, ("engines", "lanes"), np.inf),
    "lane_start_s": (_F8, ("engines", "lanes"), 0.0),
    "lane_held_s": (_F8, ("engines", "lanes"), 0.0),
    "lane_seconds": (_F8, ("engines", "lanes", "four"), 0.0),
    "lane_demand": (_F8, ("engines", "lanes", "resources"), 0.0),
    "lane_speed": (_F8, ("engines", "lanes"), 1.0),
    "lane_remaining_s": (_F8, ("engines", "lanes"), 0.0),
    "lane_updated_s": (_F8, ("engines", "lanes"), 0.0),
    "lane_retimed": (_I8, ("engines", "lanes"), 0),
    "lane_num_tokens": (_I8, ("engines", "lanes"), 0),
    "lane_num_scheduled": (_I8, ("engines", "lanes"), 0),
    "lane_used_blocks": (_I8, ("engines", "lanes"), 0),
    "lane_jobs": (_I4, ("engines", "lanes", "jobs"), 0),
    # -- sequences that hold KV blocks
    "slot_row": (_I4, ("engines", "slots"), -1),
    "slot_computed": (_I4, ("engines", "slots"), 0),
    "slot_blocks": (_I4, ("engines", "slots"), 0),
    "slot_scheduled": (_I4, ("engines", "slots"), 0),
    "slot_lane": (_I4, ("engines", "slots"), -1),
    "slot_hash": (np.uint64, ("engines", "slots"), 0),
    "slot_base": (_F8, ("engines", "slots", "shares"), 0.0),
    "block_table": (_I4, ("engines", "slots", "table_blocks"), 0),
    # -- KV blocks: free queue (doubly linked, sentinel at num blocks), owners, hashes
    "block_next": (_I4, ("engines", "blocks_and_sentinel"), 0),
    "block_previous": (_I4, ("engines", "blocks_and_sentinel"), 0),
    "num_free_blocks": (_I8, ("engines",), 0),
    "block_owners": (_I4, ("engines", "blocks"), 0),
    "block_hash": (np.uint64, ("engines", "blocks"), 0),
    "hash_keys": (np.uint64, ("engines", "hash_slots"), 0),
    "hash_blocks": (_I4, ("engines", "hash_slots"), 0),
    # -- accumulators
    "shares": (_F8, ("engines", "shares"), 0.0),
    "num_steps": (_I8, ("engines",), 0),
    "busy_s": (_F8, ("engines",), 0.0),
    "batch_integral_s": (_F8, ("engines",), 0.0),
    "blocks_integral_s": (_F8, ("engines",), 0.0),
    "peak_used_blocks": (_I8, ("engines",), 0),
    "total_tokens": (_I8, ("engines",), 0),
    "total_sampled": (_I8, ("engines",), 0),
    "total_decode_context": (_I8, ("engines",), 0),
    "total_prefill_pairs": (_I8, ("engines",), 0),
    "total_prefill_context": (_I8, ("engines",), 0),
    "total_decode_tokens": (_I8, ("engines",), 0),
    "total_prefill_tokens": (_I8, ("engines",), 0),
    "total_recomputed_tokens": (_I8, ("engines",), 0),
    "total_cached_tokens": (_I8, ("engines",), 0),
    "total_preemptions": (_I8, ("engines",), 0),
    "total_units": (_F8, ("queues",), 0.0),
    "total_jobs": (_I8, ("queues",), 0),
    "total_batches": (_I8, ("queues",), 0),
    "itl_counts": (_I8, ("itl_bins",), 0),
    "itl_window_s": (_F8, ("two",), 0.0),
    # -- rows: one visit each
    "row_request": (_I4, ("rows",), 0),
    "row_prompt": (_I4, ("rows",), 0),
    "row_output": (_I4, ("rows",), 0),
    "row_generated": (_I4, ("rows",), 0),
    "row_priority": (_I4, ("rows",), 0),
    "row_order": (_I8, ("rows",), 0),
    "row_units": (_F8, ("rows",), 0.0),
    "row_seconds": (_F8, ("rows",), 0.0),
    "row_continues_as": (_I4, ("rows",), -1),
    "row_flags": (np.uint8, ("rows",), 0),
    "row_next": (_I4, ("rows",), -1),
    "row_engine": (_I4, ("rows",), -1),
    "row_slot": (_I4, ("rows",), -1),
    "row_arrival_s": (_F8, ("rows",), np.nan),
    "row_start_s": (_F8, ("rows",), np.nan),
    "row_finish_s": (_F8, ("rows",), np.nan),
    "row_shares": (_F8, ("rows", "shares"), 0.0),
    "row_preempted_s": (_F8, ("rows",), 0.0),
    "row_interrupted_s": (_F8, ("rows",), np.nan),
    "row_last_token_s": (_F8, ("rows",), np.nan),
    "row_cached": (_I4, ("rows",), 0),
    "row_preemptions": (_I4, ("rows",), 0),
    # -- identity of prompt blocks, per request
    "content_group": (_I8, ("requests",), -1),
    "content_group_tokens": (_I8, ("requests",), 0),
    "content_session": (_I8, ("requests",), -1),
    "hash_offsets": (_I8, ("requests_and_one",), 0),
    "hash_ids": (_I8, ("hash_ids",), 0),
    "hash_block_tokens": (_I8, ("one",), 512),
    # -- outward events and scratch space
    "outbox_count": (_I8, ("one",), 0),
    "outbox_time_s": (_F8, ("outbox",), 0.0),
    "outbox_kind": (_I8, ("outbox",), 0),
    "outbox_row": (_I8, ("outbox",), 0),
    "scratch_phase": (_I8, ("phases",), 0),
    "scratch_offsets": (_I8, ("phases",), 0),
    "scratch_order": (_I8, ("slots",), 0),
    "scratch_seconds": (_F8, ("four",), 0.0),
    "scratch_batch": (_I8, ("eight",), 0),
}

WATCHED = 1
"""Row flag: somebody waits for the end of this visit."""
HOLDS_KV = 2
"""Row flag: at its end the blocks stay, until they have been sent elsewhere."""
HAS_KV = 4
"""Row flag: its KV was computed elsewhere; blocks are reserved here."""

FIXED_SIZES = {"one": 1, "two": 2, "four": 4, "eight": 8, "shares": NUM_SHARES, "resources": NUM_RESOURCES,
               "itl_bins": ITL_NUM_BINS}  # fmt: skip


class EngineArrays(SimpleNamespace):
    """The arrays by name; `handle` is what compiled functions take."""

    handle: Any

    def __getattr__(self, name: str) -> Any:  # for type checkers: every field is an array
        raise AttributeError(name)


def allocate(sizes: Mapping[str, int]) -> EngineArrays:
    """New arrays of the given sizes, empty engines, no rows in them."""
    all_sizes = {**FIXED_SIZES, **sizes}
    arrays = EngineArrays()
    for name, (dtype, dimensions, initial) in FIELDS.items():
        shape = tuple(all_sizes[dimension] for dimension in dimensions)
        array = np.zeros(shape, dtype) if initial == 0 else np.full(shape, initial, dtype)
        setattr(arrays, name, array)
    arrays.handle = _handle(arrays)
    return arrays


def _handle(arrays: EngineArrays) -> Any:
    if not jit_enabled():
        return arrays
    from hermes_sim.state.struct import make_struct

    return make_struct([getattr(arrays, name) for name in FIELDS])


def empty_blocks(arrays: EngineArrays, engine: int, num_blocks: int, num_slots: int) -> None:
    """All blocks free, in order 0, 1, ...; all slots free."""
    sentinel = arrays.block_next.shape[1] - 1
    after, before = arrays.block_next[engine], arrays.block_previous[engine]
    order = np.concatenate(([sentinel], np.arange(num_blocks), [sentinel])).astype(np.int32)
    after[order[:-1]] = order[1:]
    before[order[1:]] = order[:-1]
    arrays.num_free_blocks[engine] = num_blocks
    arrays.num_blocks[engine] = num_blocks
    arrays.free_slots[engine, :num_slots] = np.arange(num_slots)[::-1]
    arrays.num_free_slots[engine] = num_slots
