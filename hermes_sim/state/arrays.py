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
NEED_SCHEDULE = 2
"""A step of an engine under a Python policy is to be decided; the outbox's row is the engine."""

# What becomes of the KV of a request that is away between two passes (kv_cache.while_waiting).
WAIT_LRU, WAIT_KEEP, WAIT_DROP, WAIT_OFFLOAD, WAIT_AUTO = range(5)

NUM_SHARES = 6
"""Accumulated per row: seconds limited by compute, memory, network, host; joules; engine seconds (by tokens)."""
ENERGY = 4
ENGINE_TIME = 5

# What keeps the head of a token engine's line from joining (batching/line.py).
HELD_BY_KV, HELD_BY_BATCH, HELD_BY_BUDGET = range(3)
NUM_HOLDS = 3
NOT_HELD = -1
"""Nothing, or the step in flight."""

DEVICE_COLUMNS = 2
"""Columns of a demand vector for each set of devices that engines of a group share, compute and memory; after those of
all sets, one for each link that engines of the group, or transfers beside them, share. Shares of what there is."""

MAX_UNITS = 3
"""Device groups that one engine may span."""
UNIT_J = MAX_UNITS
"""Of an account by device group: seconds at work of each in the first columns, its joules above idle from here on."""
NUM_UNIT_COLUMNS = 2 * MAX_UNITS

BATCH_SIZE = 19
"""Numbers that describe a batch (batching/batch.py)."""

# Columns of the timeline: what an engine has done since the start.
(
    TIMELINE_BUSY_S,
    TIMELINE_COMPUTE_S,
    TIMELINE_MEMORY_S,
    TIMELINE_NETWORK_S,
    TIMELINE_HOST_S,
    TIMELINE_BATCH_INTEGRAL_S,
    TIMELINE_BLOCKS_INTEGRAL_S,
    TIMELINE_STEPS,
    TIMELINE_TOKENS,
    TIMELINE_SAMPLED,
    TIMELINE_DECODE_TOKENS,
    TIMELINE_DECODE_CONTEXT,
    TIMELINE_PREFILL_PAIRS,
    TIMELINE_PREFILL_CONTEXT,
    TIMELINE_PREEMPTIONS,
    TIMELINE_HIT_BLOCKS,
    TIMELINE_LOOKED_UP_BLOCKS,
    TIMELINE_DRAFTED,
    TIMELINE_ACCEPTED,
) = range(19)
TIMELINE_COLUMNS = 19
TIMELINE_POINTS = 512
"""Points kept per engine; when time runs over the last one, every second is dropped."""
TIMELINE_FIRST_INTERVAL_S = 2.0**-6

# Kinds of decisions, recorded when somebody wants to read them.
(
    SCHEDULED,
    PREEMPTED,
    ADMITTED,
    SWAPPED_OUT,
    SWAPPED_IN,
    FINISHED_ROW,
    ACCEPTED,
    WITHDRAWN,
) = range(8)

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
    "receive_every_steps": (_I8, ("engines",), 1),
    "block_tokens": (_I8, ("engines",), 1),
    "num_blocks": (_I8, ("engines",), 0),
    "watermark_blocks": (_I8, ("engines",), 0),
    "chunk_prefill": (_I8, ("engines",), 1),
    "mix_steps": (_I8, ("engines",), 1),
    "waiting_first": (_I8, ("engines",), 0),
    "decodes_first": (_I8, ("engines",), 0),
    "static_batch": (_I8, ("engines",), 0),
    "prompt_padding": (_I8, ("engines",), 0),  # 0 none, 1 padded, 2 packed
    "by_layers": (_I8, ("engines",), 0),
    "layer_group_tokens": (_I8, ("engines",), 512),
    "num_layers": (_I8, ("engines",), 1),
    "full_sequence_gate": (_I8, ("engines",), 1),
    "queue_order": (_I8, ("engines",), 0),  # state/queues.py
    "output_reserve_frac": (_F8, ("engines",), 0.0),
    "fewest_generated": (_I8, ("engines",), 0),
    "async_scheduling": (_I8, ("engines",), 0),
    "python_policy": (_I8, ("engines",), 0),
    "share_by_sums": (_I8, ("engines",), 1),  # one lane, one token a decode: shares as differences of running sums
    "prefix_caching": (_I8, ("engines",), 1),
    "seal_at_schedule": (_I8, ("engines",), 1),
    "radix": (_I8, ("engines",), 0),
    "swap_blocks": (_I8, ("engines",), 0),  # room on the host; 0: preempted sequences are computed again
    "swap_block_s": (_F8, ("engines",), 0.0),
    "copy_block_s": (_F8, ("engines",), 0.0),
    "while_waiting": (_I8, ("engines",), 0),  # WAIT_LRU ...
    "offload_blocks": (_I8, ("engines",), 0),  # room on the host for the KV of requests that are away
    "full_layers": (_I8, ("engines",), 1),  # 0: every layer looks back over a window only
    "window_blocks": (_I8, ("engines",), 0),
    "window_groups": (_I8, ("engines",), 0),  # pool blocks that each of the first window_blocks costs beside its own
    "draft_tokens": (_I8, ("engines",), 0),
    "tree_width": (_I8, ("engines",), 1),
    "adaptive_drafts": (_I8, ("engines",), 0),
    "draft_max_seqs": (_I8, ("engines",), 0),
    "accept_kind": (_I8, ("engines",), 0),  # 0: probability per position, 1: a list of accepted counts
    "accept_size": (_I8, ("engines",), 0),
    "accept": (_F8, ("engines", "accept_table"), 0.0),
    "draft_cost_kind": (_I8, ("engines",), -1),
    "draft_step_s": (_F8, ("engines",), 0.0),
    "speculative_seed": (_I8, ("engines",), 0),
    "draft_nodes": (_I8, ("engines", "tree_depths"), 0),  # of a tree without a width: nodes up to each depth
    "draft_one_pass": (_I8, ("engines",), 0),  # all positions come from one pass
    # -- drafts made on devices of their own (sim/draft_rounds.py)
    "draft_devices": (_I8, ("engines",), 0),  # 0: the engine's own devices draft
    "draft_chunk_tokens": (_I8, ("engines",), 1),  # of a prompt, in one pass
    "draft_up_s": (_F8, ("engines",), 0.0),  # a message to the engine, and beside it
    "draft_up_per_token_s": (_F8, ("engines",), 0.0),
    "draft_down_s": (_F8, ("engines",), 0.0),
    "draft_stop_wrong": (_F8, ("engines",), 0.0),  # drafting stops before a position that will be rejected
    "draft_stop_right": (_F8, ("engines",), 0.0),  # before one that would be accepted
    "pre_drafting": (_I8, ("engines",), 0),  # batching/speculation.py
    "pre_draft_exit": (_F8, ("engines",), 1.0),  # share of a step after which its early result leaves
    "pre_draft_right": (_F8, ("engines",), 0.0),  # share of early results that are final
    "draft_power_w": (_F8, ("engines", "four"), 0.0),  # of one device
    "max_adapters": (_I8, ("engines",), 0),  # slots for low-rank adapters; 0: none
    "adapter_step_s": (_F8, ("engines",), 0.0),  # kernels of a step with adapters
    "adapter_weight_s": (_F8, ("engines",), 0.0),  # reading one adapter's weights
    "adapter_token_s": (_F8, ("engines",), 0.0),
    "adapter_load_s": (_F8, ("engines",), 0.0),
    "cost_kind": (_I8, ("engines",), 0),
    "stage_interval_frac": (_F8, ("engines",), 1.0),
    "power_w": (_F8, ("engines", "four"), 0.0),
    "is_slow": (_I8, ("engines",), 0),  # changed during a run, with slowdown: steps that begin take longer
    "slowdown": (_F8, ("engines", "four"), 1.0),  # time limited by each resource, over what it is at full speed
    "num_units": (_I8, ("engines",), 0),  # device groups with an account of their own; 0: one, power_w says it all
    "device_columns": (_I8, ("engines", "device_sets"), -1),  # compute of each set of devices; memory follows
    "compute_share_frac": (_F8, ("engines",), 0.0),  # of the devices, that a step has while compute limits it
    "memory_share_frac": (_F8, ("engines",), 1.0),  # of its devices' bandwidth, that a step has while memory limits it
    "link_token_s": (_F8, ("engines", "resources"), 0.0),  # a link's time for the collectives of one token
    "link_share_frac": (_F8, ("engines", "resources"), 1.0),  # what transfers leave of a link
    "links_limited": (_I8, ("engines",), 0),  # they take some of one
    "max_batch_size": (_I8, ("engines",), 1),
    "max_wait_s": (_F8, ("engines",), 0.0),
    "first_queue": (_I8, ("engines",), 0),
    "num_queues": (_I8, ("engines",), 1),
    # -- groups of engines that share a resource; a group keeps its members in time order
    "group_first": (_I8, ("groups",), 0),
    "group_size": (_I8, ("groups",), 1),
    "group_members": (_I8, ("engines",), 0),
    "group_contended": (_I8, ("groups",), 0),
    "group_first_link": (_I8, ("groups",), DEVICE_COLUMNS),  # column of a demand vector
    "group_num_columns": (_I8, ("groups",), DEVICE_COLUMNS),  # those that steps of the group compete for
    "group_num_links": (_I8, ("groups",), 0),  # theirs, and after them those shared with transfers only
    "group_lockstep": (_I8, ("groups",), 0),  # data-parallel ranks: all begin and end together
    "feeds": (np.uint8, ("groups", "groups"), 0),
    # -- cost tables
    "cost_linear": (_F8, ("cost_kinds", "step_tokens", "four"), 0.0),
    "cost_decode_linear": (_F8, ("cost_kinds", "step_seqs", "four"), 0.0),
    "cost_sampled": (_F8, ("cost_kinds", "step_seqs", "four"), 0.0),
    "cost_linear_units": (_F8, ("unit_kinds", "unit_tokens", "units"), 0.0),  # perf/unit_kernel.py
    "cost_decode_units": (_F8, ("unit_kinds", "unit_seqs", "units"), 0.0),
    "cost_sampled_units": (_F8, ("unit_kinds", "unit_seqs", "units"), 0.0),
    "cost_attention": (_F8, ("cost_kinds", "attention_coefficients"), 0.0),
    "curve_units": (_F8, ("queues", "curve_points"), 0.0),
    "curve_seconds": (_F8, ("queues", "curve_points", "four"), 0.0),
    "curve_demand": (_F8, ("queues", "curve_points"), 0.0),
    "curve_active_j": (_F8, ("queues", "curve_points"), 0.0),  # of engines with an account of their own
    "curve_num_points": (_I8, ("queues",), 1),
    # -- engines: running state
    "now_s": (_F8, ("engines",), 0.0),
    "next_start_s": (_F8, ("engines",), np.inf),
    "last_end_s": (_F8, ("engines",), 0.0),
    "num_in_flight": (_I8, ("engines",), 0),
    "num_running": (_I8, ("engines",), 0),
    "running": (_I4, ("engines", "slots"), 0),
    "num_free_slots": (_I8, ("engines",), 0),
    "free_slots": (_I4, ("engines", "slots"), 0),
    "num_pushed": (_I8, ("engines",), 0),
    "num_watched": (_I8, ("engines",), 0),
    "num_leaving": (_I8, ("engines",), 0),  # visits and samples that leave when the step in flight ends
    "steps_to_fetch": (_I8, ("engines",), 0),  # until new requests are fetched again
    "fetched_s": (_F8, ("engines",), 0.0),  # when they were
    "has_evicted": (_I8, ("engines",), 0),  # somebody was preempted while this step was decided
    "decodes_left_out": (_I8, ("engines",), 0),
    "wave_groups": (_I8, ("engines",), 0),  # layer groups of the prompts under way; 0: no wave
    "wave_done": (_I8, ("engines",), 0),
    "num_swapped_blocks": (_I8, ("engines",), 0),
    "pending_swaps": (_I8, ("engines",), 0),
    "num_kept": (_I8, ("engines",), 0),  # ended sequences whose KV is kept for the next pass of their requests
    "pending_copies": (_I8, ("engines",), 0),
    "draft_free_s": (_F8, ("engines", "draft_devices"), 0.0),  # when each is through with what it has to draft
    "pending_adapter_loads": (_I8, ("engines",), 0),
    "num_running_adapters": (_I8, ("engines",), 0),  # at the last count, and those that have joined since
    "adapter_count": (_I8, ("engines",), 0),  # number of the last count
    "adapter_mark": (_I8, ("engines", "adapters"), 0),  # number of the last count that has met the adapter
    "adapter_slot": (_I4, ("engines", "adapters"), 0),  # 1 + its slot; 0: not loaded
    "adapter_used_s": (_F8, ("engines", "adapters"), 0.0),  # when a sequence with it last stopped running
    "slot_adapter": (_I4, ("engines", "adapter_slots"), 0),  # 1 + the adapter in it; 0: empty
    "client_counter": (_I8, ("engines", "clients"), 0),
    "client_inside": (_I8, ("engines", "clients"), 0),
    "load_requests": (_I8, ("engines",), 0),
    "load_tokens": (_I8, ("engines",), 0),
    "load_output_tokens": (_I8, ("engines",), 0),
    # -- waiting lists, threaded through the rows
    "queue_head": (_I8, ("queues",), -1),
    "queue_tail": (_I8, ("queues",), -1),
    "queue_length": (_I8, ("queues",), 0),
    "queue_full_s": (_F8, ("queues",), 0.0),
    "line_held_by": (_I8, ("engines",), NOT_HELD),
    "line_stopped_by": (_I8, ("engines",), NOT_HELD),  # what the last admission stopped at
    "line_since_s": (_F8, ("engines",), 0.0),  # when line_held_by became so
    "line_held_s": (_F8, ("engines", "holds"), 0.0),  # until then, since the line was last empty
    "reserve_head": (_I8, ("engines",), -1),
    "reserve_tail": (_I8, ("engines",), -1),
    # -- lanes: steps in flight
    "lane_end_s": (_F8, ("engines", "lanes"), np.inf),
    "lane_start_s": (_F8, ("engines", "lanes"), 0.0),
    "lane_held_s": (_F8, ("engines", "lanes"), 0.0),
    "lane_seconds": (_F8, ("engines", "lanes", "four"), 0.0),
    "lane_units": (_F8, ("engines", "lanes", "units"), 0.0),  # perf/unit_kernel.py
    "lane_units_j": (_F8, ("engines", "lanes"), 0.0),  # their sum
    "lane_demand": (_F8, ("engines", "lanes", "resources"), 0.0),
    "lane_speed": (_F8, ("engines", "lanes"), 1.0),
    "lane_remaining_s": (_F8, ("engines", "lanes"), 0.0),
    "lane_updated_s": (_F8, ("engines", "lanes"), 0.0),
    "lane_retimed": (_I8, ("engines", "lanes"), 0),
    "lane_bound": (_I8, ("engines", "lanes"), 1),  # column of the resource that slowed it last
    "lane_num_tokens": (_I8, ("engines", "lanes"), 0),
    "lane_num_scheduled": (_I8, ("engines", "lanes"), 0),
    "lane_used_blocks": (_I8, ("engines", "lanes"), 0),
    "lane_jobs": (_I4, ("engines", "lanes", "jobs"), 0),
    "lane_slots": (_I4, ("engines", "lanes", "slots"), -1),  # -2 - row: preempted while in flight
    "lane_slot_tokens": (_I4, ("engines", "lanes", "slots"), 0),
    "lane_slot_kind": (np.uint8, ("engines", "lanes", "slots"), 0),  # batching/batch.py
    "lane_batch": (_I8, ("engines", "lanes", "batch"), 0),
    "lane_entry_s": (_F8, ("engines", "lanes"), 0.0),  # the next step may enter after so long
    "lane_exit_s": (_F8, ("engines", "lanes"), 0.0),  # and leaves no sooner than that after this one
    # -- a run of decode-only steps of unchanged members (sim/stretch.py); their own counters lag behind by the ticks
    "stretch_ticks": (_I8, ("engines",), -1),  # steps ended since it was opened; -1: none is open
    "stretch_number": (_I8, ("engines",), 0),
    "stretch_most": (_I8, ("engines",), 0),  # the step in which somebody ends
    "stretch_in_flight": (_I8, ("engines",), 0),
    "stretch_charged": (_I8, ("engines",), 0),
    "stretch_context_sum": (_I8, ("engines",), 0),
    "stretch_context_max": (_I8, ("engines",), 0),
    "stretch_adapter_s": (_F8, ("engines",), 0.0),  # what adapters add to each of its steps
    "stretch_crossing": (_I4, ("engines", "phases"), 0),  # members that need a block in step k, k + block, ...
    "stretch_offsets": (_I4, ("engines", "phases"), 0),  # their end in stretch_order
    "stretch_order": (_I4, ("engines", "slots"), 0),
    # -- sequences that hold KV blocks
    "slot_row": (_I4, ("engines", "slots"), -1),
    "slot_computed": (_I4, ("engines", "slots"), 0),
    "slot_blocks": (_I4, ("engines", "slots"), 0),
    "slot_done": (_I4, ("engines", "slots"), 0),  # computed in steps that have ended
    "slot_scheduled": (_I4, ("engines", "slots"), 0),  # in the step that is being decided
    "slot_drafted": (_I4, ("engines", "slots"), 0),  # of those, drafts
    "slot_in_flight": (_I4, ("engines", "slots"), 0),
    "slot_pending": (_I4, ("engines", "slots"), 0),
    "slot_sealed": (_I4, ("engines", "slots"), 0),
    "slot_private": (_I8, ("engines", "slots"), 0),  # index of the first block whose hash is entered when it is needed
    "slot_full": (_I4, ("engines", "slots"), 0),  # blocks that count as sealed
    "slot_first": (_I4, ("engines", "slots"), 0),
    "slot_extras": (_I4, ("engines", "slots"), 0),
    "slot_gone": (np.uint8, ("engines", "slots"), 0),  # leaves the running list at the end of this step
    "slot_drafts": (_I4, ("engines", "slots"), 0),
    "slot_ready_s": (_F8, ("engines", "slots"), 0.0),  # when its drafts are here
    "slot_ready_drafts": (_I4, ("engines", "slots"), 0),
    "slot_round_s": (_F8, ("engines", "slots"), 0.0),  # end of the step before them
    "slot_sent_s": (_F8, ("engines", "slots"), 0.0),  # when they left; before the first: when the prompt came
    "slot_pass_s": (_F8, ("engines", "slots"), 0.0),  # of the last drafting pass it was in
    "slot_pass_seqs": (_I4, ("engines", "slots"), 1),  # in that pass
    "slot_pass_j": (_F8, ("engines", "slots"), 0.0),  # its share of that pass
    "slot_pre_draft": (_I4, ("engines", "slots"), 0),  # 0: none; 1: of no use; 2: goes on from what was accepted
    "slot_passes_left": (_I4, ("engines", "slots"), 0),
    "slot_carry_s": (_F8, ("engines", "slots"), 0.0),  # of its next pass, spent already
    "slot_beside": (_I4, ("engines", "slots"), -1),  # next one that drafts on the same device
    "slot_hash": (np.uint64, ("engines", "slots"), 0),
    "slot_last_end_s": (_F8, ("engines", "slots"), 0.0),  # of its steps
    "slot_base": (_F8, ("engines", "slots", "shares"), 0.0),
    "block_table": (_I4, ("engines", "slots", "table_blocks"), 0),
    "window_table": (_I4, ("engines", "slots", "window_entries"), 0),
    # -- KV blocks: free queue (doubly linked, sentinel at num blocks), owners, hashes
    "block_next": (_I4, ("engines", "blocks_and_sentinel"), 0),
    "block_previous": (_I4, ("engines", "blocks_and_sentinel"), 0),
    "num_free_blocks": (_I8, ("engines",), 0),
    "block_owners": (_I4, ("engines", "blocks"), 0),
    "block_hash": (np.uint64, ("engines", "blocks"), 0),
    "block_parent": (_I4, ("engines", "radix_blocks"), -1),
    "block_children": (_I4, ("engines", "radix_blocks"), 0),
    "hash_keys": (np.uint64, ("engines", "hash_slots"), 0),
    "hash_blocks": (_I4, ("engines", "hash_slots"), 0),
    # -- accumulators
    "shares": (_F8, ("engines", "shares"), 0.0),
    "unit_sums": (_F8, ("engines", "units"), 0.0),  # of the device groups of an engine that spans several
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
    "total_hit_blocks": (_I8, ("engines",), 0),
    "total_looked_up_blocks": (_I8, ("engines",), 0),
    "total_drafted": (_I8, ("engines",), 0),
    "total_accepted": (_I8, ("engines",), 0),
    "total_rounds": (_I8, ("engines",), 0),
    "total_sent_drafts": (_I8, ("engines",), 0),
    "total_pre_drafts": (_I8, ("engines",), 0),  # rounds in which was drafted ahead
    "total_pre_drafts_right": (_I8, ("engines",), 0),
    "draft_busy_s": (_F8, ("engines",), 0.0),  # all devices added up
    "draft_energy_j": (_F8, ("engines",), 0.0),
    "total_swapped_blocks": (_I8, ("engines",), 0),
    "total_copied_blocks": (_I8, ("engines",), 0),
    "total_adapter_loads": (_I8, ("engines",), 0),
    "total_adapter_hits": (_I8, ("engines",), 0),
    "total_kept": (_I8, ("engines",), 0),
    "total_dropped": (_I8, ("engines",), 0),
    "total_offloaded": (_I8, ("engines",), 0),
    "kept_block_s": (_F8, ("engines",), 0.0),
    "timeline": (_F8, ("engines", "timeline_points", "timeline_columns"), 0.0),
    "timeline_filled": (_I8, ("engines",), 0),
    "timeline_next_s": (_F8, ("engines",), 0.0),
    "timeline_interval_s": (_F8, ("one",), TIMELINE_FIRST_INTERVAL_S),
    "total_units": (_F8, ("queues",), 0.0),
    "total_jobs": (_I8, ("queues",), 0),
    "total_batches": (_I8, ("queues",), 0),
    "itl_counts": (_I8, ("itl_bins",), 0),
    "itl_window_s": (_F8, ("two",), 0.0),
    # -- rows: one visit each
    "row_request": (_I4, ("rows",), 0),
    "row_prompt": (_I4, ("rows",), 0),
    "row_output": (_I4, ("rows",), 0),
    "row_text": (_I4, ("rows",), -1),
    "row_common": (_I4, ("rows",), 0),
    "row_text_before": (_I4, ("rows",), -1),  # row whose text the first row_common tokens are of; -1: the request's
    "row_generated": (_I4, ("rows",), 0),
    "row_priority": (_I4, ("rows",), 0),
    "row_order": (_I8, ("rows",), 0),
    "row_key": (_F8, ("rows",), 0.0),
    "row_client": (_I4, ("rows",), 0),
    "row_adapter": (_I4, ("rows",), 0),  # 1 + the number of its adapter; 0: none
    "row_swapped": (_I4, ("rows",), 0),  # tokens whose KV lies on the host
    "row_first_sample": (_I4, ("rows",), -1),
    "row_num_samples": (_I4, ("rows",), 1),
    # sequences that join the line together, the others from row_first_sample on; 0: the visit's own alone
    "row_num_branches": (_I4, ("rows",), 0),
    "row_parent": (_I4, ("rows",), -1),
    "row_open_samples": (_I4, ("rows",), 1),
    "row_units": (_F8, ("rows",), 0.0),
    "row_seconds": (_F8, ("rows",), 0.0),
    "row_draft_wait_s": (_F8, ("draft_rows",), 0.0),
    "row_rounds": (_I4, ("draft_rows",), 0),
    "row_sent_drafts": (_I4, ("draft_rows",), 0),
    "row_continues_as": (_I4, ("rows",), -1),
    # one entry only where all engines have while_waiting WAIT_LRU
    "row_returns_as": (
        _I4,
        ("returning_rows",),
        -1,
    ),  # visit that begins with all that this has read and written, later
    "row_came_from": (_I4, ("returning_rows",), -1),  # the same from its side
    "row_wait_s": (_F8, ("returning_rows",), 0.0),  # expected in between
    "row_flags": (np.uint8, ("rows",), 0),
    "row_next": (_I4, ("rows",), -1),
    "row_engine": (_I4, ("rows",), -1),
    "row_slot": (_I4, ("rows",), -1),
    "row_arrival_s": (_F8, ("rows",), np.nan),
    "row_start_s": (_F8, ("rows",), np.nan),
    "row_finish_s": (_F8, ("rows",), np.nan),
    "row_shares": (_F8, ("rows", "shares"), 0.0),
    "row_held_s": (_F8, ("rows", "holds"), 0.0),  # in line: the line's clocks when it came; then, how long it was held
    "row_preempted_s": (_F8, ("rows",), 0.0),
    "row_interrupted_s": (_F8, ("rows",), np.nan),
    "row_last_token_s": (_F8, ("rows",), np.nan),
    "row_cached": (_I4, ("rows",), 0),
    "row_loaded": (_I4, ("rows",), 0),  # tokens whose KV it has before its prompt is computed, most from a KV store
    "row_preemptions": (_I4, ("rows",), 0),
    # -- identity of prompt blocks, per request
    "content_group": (_I8, ("requests",), -1),
    "content_group_tokens": (_I8, ("requests",), 0),
    "content_session": (_I8, ("requests",), -1),
    "hash_offsets": (_I8, ("requests_and_one",), 0),
    "hash_ids": (_I8, ("hash_ids",), 0),
    "hash_block_tokens": (_I8, ("one",), 512),
    "seal_private_late": (_I8, ("one",), 0),  # no request has two visits or samples that could share its own text
    # -- arrivals that are known before the run and pushed many at a time (sim/bulk_arrivals.py)
    "bulk_row": (_I4, ("bulk",), 0),
    "bulk_time_s": (_F8, ("bulk",), 0.0),
    "bulk_plan": (_I4, ("bulk",), 0),
    "bulk_draw": (_F8, ("bulk",), 0.0),
    "plan_router": (_I8, ("plans",), 0),
    "plan_reads_loads": (_I8, ("plans",), 0),  # candidates are brought to the present before one is chosen
    "plan_turns": (_I8, ("plans",), 0),
    "plan_num_candidates": (_I8, ("plans",), 0),
    "plan_candidates": (_I8, ("plans", "engines"), 0),
    "plan_options": (_F8, ("plans", "router_options"), 0.0),
    "plan_queues": (_I8, ("plans", "engines"), 0),
    "row_plan": (_I4, ("chain_rows",), 0),  # one only, where no stage begins after another's end
    "row_draw": (_F8, ("chain_rows",), 0.0),
    "num_hand_offs": (_I8, ("one",), 0),  # visits that have ended, and whose next stage has not begun
    "hand_off_time_s": (_F8, ("hand_offs",), 0.0),
    "hand_off_row": (_I4, ("hand_offs",), 0),
    # -- outward events and scratch space
    "outbox_count": (_I8, ("one",), 0),
    "outbox_time_s": (_F8, ("outbox",), 0.0),
    "outbox_kind": (_I8, ("outbox",), 0),
    "outbox_row": (_I8, ("outbox",), 0),
    "scratch_order": (_I8, ("slots",), 0),
    "scratch_room": (_I8, ("slots",), 0),
    "scratch_seconds": (_F8, ("four",), 0.0),
    "scratch_batch": (_I8, ("batch",), 0),
    "scratch_device": (_I4, ("draft_devices",), -1),
    "record_decisions": (_I8, ("one",), 0),
    "decision_count": (_I8, ("one",), 0),
    "decision_engine": (_I4, ("decisions",), 0),
    "decision_kind": (_I4, ("decisions",), 0),
    "decision_row": (_I4, ("decisions",), 0),
    "decision_value": (_I8, ("decisions",), 0),
}

WATCHED = 1
"""Row flag: somebody waits for the end of this visit."""
HOLDS_KV = 2
"""Row flag: at its end the blocks stay, until they have been sent elsewhere."""
HAS_KV = 4
"""Row flag: it owns a slot with its KV already, from another engine or from the sequence that it was forked from."""
ENDED = 8
"""Row flag: it has all its tokens and keeps its place in a static batch."""
FORKED = 16
"""Row flag: a sample that shares the blocks of its prompt; the last one, if part full, is copied when it first runs."""
LOADED = 32
"""Row flag beside HAS_KV: a prompt, the first tokens of which a KV store has sent, or the pass before it has left."""
KEPT = 64
"""Row flag: it has ended, and its KV waits in its slot for the visit that goes on from it."""
LEAVING = 128
"""Row flag: nobody wants its tokens any more; it leaves when the step in flight ends."""

FIXED_SIZES = {
    "one": 1,
    "two": 2,
    "four": 4,
    "units": NUM_UNIT_COLUMNS,
    "batch": BATCH_SIZE,
    "shares": NUM_SHARES,
    "holds": NUM_HOLDS,
    "resources": DEVICE_COLUMNS,
    "device_sets": 1,
    "router_options": 3,
    "itl_bins": ITL_NUM_BINS,
    "timeline_points": TIMELINE_POINTS,
    "timeline_columns": TIMELINE_COLUMNS,
}


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
