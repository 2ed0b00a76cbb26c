"""Columns of the result tables: written by sim, read by analysis, saved as Parquet.

Times are seconds of simulated time from the start of the run; NaN where a thing did not happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[Any]
Table = dict[str, Column]

REQUESTS: dict[str, str] = {
    "request": "int64",
    "pipeline": "category",
    "status": "category",  # finished | rejected | unfinished | failed | left
    "reason": "category",  # why not finished: too_long | lost | rate_limit | queue_full | shed | too_late |
    # no_first_token | no_end; "" else
    "service_class": "category",  # "" where the workload has none
    "session": "int64",  # -1: none
    "client": "int64",  # -1: unknown
    "adapter": "int64",  # low-rank adapter that it names, -1: none
    "arrival_s": "float64",
    "first_token_s": "float64",  # absolute, as the client receives it
    "engine_first_token_s": "float64",  # absolute, end of the engine's step
    "first_answer_token_s": "float64",  # absolute, as the client receives it: thoughts come before it
    "finish_s": "float64",  # absolute, as the client receives the last token
    "decode_s": "float64",  # from first to last token of every pass whose tokens the client sees, added up
    "num_prompt_tokens": "int64",  # longest that a language model read: documents and images included, after clipping
    "num_image_tokens": "int64",  # of these, tokens that stand for images or sound
    "num_images": "int64",  # images or clips of sound that it brought for an encoder
    "num_cached_images": "int64",  # of these, found in the encoder's cache
    "num_drawn_images": "int64",  # images that were made for it
    "num_denoising_steps": "int64",  # that they took, those that a cache saved left out
    "num_output_tokens": "int64",  # that the client sees, thoughts included, of all samples together
    "num_thought_tokens": "int64",  # of these, reasoning before the answer
    "num_note_tokens": "int64",  # generated for the system's own use, beside them
    "num_passes": "int64",  # passes of a language model whose tokens the client sees
    "num_samples": "int64",  # answers generated from the one prompt
    "num_longest_sample_tokens": "int64",  # output tokens of the longest of them
    "num_candidates": "int64",  # steps and answers that verifiers have scored
    "num_discarded_tokens": "int64",  # of the output, those of candidates that are not on the path kept, and lookahead
    "num_saved_tokens": "int64",  # that a reduction or an early exit has left unwritten
    "num_probe_tokens": "int64",  # of the output, trial answers at the checkpoints of early exits
    "num_cached_tokens": "int64",  # prompt tokens found in the prefix cache
    "num_reloaded_tokens": "int64",  # prompt tokens whose KV a store has sent, or the host has sent back
    "num_refusals": "int64",  # guards that have refused it
    "num_clipped_tokens": "int64",  # cut off because of the model's limit
    "num_retries": "int64",  # passes and jobs that a failure lost and that began anew
    "num_hedges": "int64",  # copies of it that were sent to a second engine
    "num_preemptions": "int64",
    "energy_j": "float64",  # share of the energy of the steps it was in, by tokens
    "idle_energy_j": "float64",  # share of what else its engines used, by engine_s: idle time, dummy steps
    "link_energy_j": "float64",  # of its transfers between engines
    "engine_s": "float64",  # share of the time of the steps it was in, by tokens
    "quality": "float64",  # proxy that the model which gave the answer states; NaN: none
    "cost_usd": "float64",  # share of all engines' rent over the whole run, by engine_s, and of their electricity
    "carbon_g": "float64",  # of its energy, idle and on links too, at the facility: CO2 equivalent
}
"""Metrics derived in analysis: ttft_s, engine_ttft_s, tpot_s, e2e_s, slo_met, measured."""

VISITS: dict[str, str] = {
    "request": "int64",
    "stage": "category",
    "round": "int64",  # of the repeat that the stage is in, from 0
    "kind": "category",
    "engine": "category",  # "llm[0]", of a KV retrieval the store; "" where the visit was skipped or found nothing
    "arrival_s": "float64",
    "start_s": "float64",  # first step that scheduled it
    "finish_s": "float64",
    "transfer_s": "float64",  # before arrival_s: moving its input here
    "tokenize_s": "float64",  # before arrival_s: in the front end, waiting for a tokeniser included
    "queue_s": "float64",  # in the engine but in no step
    "kv_wait_s": "float64",  # of the wait for the first step: the head of the line lacked KV blocks
    "batch_wait_s": "float64",  # the batch was full: max_num_seqs, adapter slots, a static batch under way
    "budget_wait_s": "float64",  # prompts ahead took the step's token budget; what is left: the step in flight
    "service_s": "float64",  # = compute_s + memory_s + network_s + host_s
    "compute_s": "float64",
    "memory_s": "float64",
    "network_s": "float64",
    "host_s": "float64",
    "preempted_s": "float64",  # from a preemption to the step that scheduled it again
    "draft_wait_s": "float64",  # while other devices drafted for it, messages to and fro included
    "energy_j": "float64",  # share of the energy of its steps, by tokens
}

ENGINES: dict[str, str] = {
    "engine": "category",
    "kind": "category",  # llm | batch
    "serves": "category",  # "prefill+decode"
    "devices": "category",  # "4 x a100_sxm_80gb"
    "num_devices": "int64",
    "num_steps": "int64",
    "busy_s": "float64",
    "compute_s": "float64",
    "memory_s": "float64",
    "network_s": "float64",
    "host_s": "float64",
    "duration_s": "float64",  # of the run
    "on_s": "float64",  # of the run, that it was paid for
    "up_frac": "float64",  # of the run, in which it took requests
    "utilization_frac": "float64",  # busy / (duration x lanes)
    "flops": "float64",
    "bytes": "float64",
    "mfu_frac": "float64",  # flops / (dense peak x duration)
    "mbu_frac": "float64",  # bytes / (bandwidth x duration)
    "num_prompt_tokens": "int64",  # computed, cache hits not included
    "num_output_tokens": "int64",
    "num_recomputed_tokens": "int64",
    "num_cached_tokens": "int64",
    "num_preemptions": "int64",
    "num_looked_up_blocks": "int64",  # full prompt blocks that the prefix cache was asked for
    "num_hit_blocks": "int64",  # of these, found
    "prefix_hit_frac": "float64",  # hit / looked up
    "num_swapped_blocks": "int64",  # KV blocks copied to the host and back, each way counted
    "num_copied_blocks": "int64",  # copied on write, for samples that share a prompt
    "num_adapter_loads": "int64",  # low-rank adapters copied into a slot
    "num_adapter_hits": "int64",  # sequences that joined the running ones and found theirs in a slot
    "adapter_hit_frac": "float64",  # hits / (hits + loads)
    "num_kept_waits": "int64",  # times that a request was away between two passes and its KV was kept for it
    "num_dropped_waits": "int64",  # the same, dropped
    "num_offloaded_waits": "int64",  # the same, sent to the host and back
    "kept_block_s": "float64",  # KV blocks times the seconds they were kept for requests that were away
    "num_drafted_tokens": "int64",  # proposed by speculative decoding
    "num_accepted_tokens": "int64",  # of these, kept
    "acceptance_frac": "float64",  # accepted / drafted
    "tokens_per_decode": "float64",  # output tokens per sequence and decode step, 1 without speculation
    "speculation_speedup": "float64",  # of decoding, at the mean batch; NaN without speculation
    "draft_devices": "category",  # of their own that make its drafts: "16 x jetson_agx_orin_64gb"; "" where none do
    "num_draft_devices": "int64",
    "num_draft_rounds": "int64",  # result to those devices, drafts back
    "draft_round_s": "float64",  # mean wait for drafts, from a step's end until they are there; 0 without such rounds
    "num_sent_drafts": "int64",
    "num_pre_drafts": "int64",  # rounds in which they drafted ahead while the last drafts were verified
    "num_pre_drafts_right": "int64",  # of these, of use
    "draft_busy_s": "float64",  # of all of them added up
    "draft_utilization_frac": "float64",  # busy / (devices x on_s); NaN without such devices
    "draft_energy_j": "float64",  # part of energy_j, idle time included
    "num_blocks": "int64",
    "mean_batch": "float64",  # sequences (or jobs) per step, time-weighted
    "mean_kv_used_frac": "float64",  # blocks with an owner, time-weighted
    "peak_kv_used_frac": "float64",
    "tokenizer_utilization_frac": "float64",  # NaN without tokenisers
    "detokenizer_utilization_frac": "float64",
    "energy_j": "float64",  # idle time included
    "cost_usd": "float64",  # rent, or capital written off and electricity, while it was on
    "electricity_usd": "float64",  # of that, electricity of owned devices
    "carbon_g": "float64",  # CO2 equivalent of its energy at the facility
}

LINKS: dict[str, str] = {
    "link": "category",
    "bytes": "float64",
    "num_transfers": "int64",
    "energy_j": "float64",
    "carbon_g": "float64",
    "busy_s": "float64",
    "utilization_frac": "float64",
}

OPERATORS: dict[str, str] = {
    "engine": "category",
    "stage": "category",  # kind: prefill, decode, embed ...
    "operator": "category",
    "flops": "float64",
    "bytes": "float64",
    "time_s": "float64",
    "bound": "category",  # compute | memory | network | host
    "provenance": "category",  # measured | interpolated | analytic | estimate
}
"""One representative step or batch per engine and stage (its mean), operator by operator."""

TIMELINE: dict[str, str] = {
    "engine": "category",
    "start_s": "float64",
    "end_s": "float64",
    "up_frac": "float64",  # of the interval, in which it took requests
    "busy_s": "float64",
    "compute_s": "float64",
    "memory_s": "float64",
    "network_s": "float64",
    "host_s": "float64",
    "utilization_frac": "float64",  # busy / (length x lanes)
    "mfu_frac": "float64",
    "mbu_frac": "float64",
    "mean_batch": "float64",  # over the busy time, 0 where idle
    "mean_kv_used_frac": "float64",  # over the busy time, 0 where idle
    "num_waiting": "float64",  # mean number of visits that wait for their first step
    "num_running": "float64",  # mean number of visits between first and last step, preempted ones left out
    "num_preempted": "float64",  # mean number of visits that wait to go on after a preemption
    "num_steps": "float64",  # a step across the edge of an interval counts in both by its time in each, also below
    "num_tokens": "float64",  # computed: prompt tokens and decoded ones
    "num_output_tokens": "float64",
    "num_preemptions": "float64",
    "num_looked_up_blocks": "float64",
    "num_hit_blocks": "float64",
    "prefix_hit_frac": "float64",
    "num_drafted_tokens": "float64",
    "num_accepted_tokens": "float64",
    "acceptance_frac": "float64",
}
"""One row per engine and interval of the run. Sums over the intervals are the engine's totals."""

STEPS: dict[str, str] = {
    "engine": "category",
    "step": "int64",  # of this engine, from 0
    "start_s": "float64",
    "end_s": "float64",
    "num_tokens": "int64",  # computed in the step: prompt tokens, one a decode, drafts
    "num_decode": "int64",  # sequences that decode
    "num_prefill": "int64",  # sequences with a prompt or a chunk of one
    "num_prefill_tokens": "int64",
    "decode_context_tokens": "int64",  # KV tokens that the decodes read, their new ones included
    "num_running": "int64",  # in the running list once the step was decided
    "num_waiting": "int64",  # in the line once the step was decided
    "num_preempted": "int64",
    "preempted": "category",  # requests, in order: "17 4"
    "num_admitted": "int64",
    "admitted": "category",  # request:tokens found in the prefix cache, in order: "18:0 21:512"
    "num_finished": "int64",
    "num_swapped_in_blocks": "int64",
    "num_swapped_out_blocks": "int64",
    "num_drafted_tokens": "int64",
    "num_accepted_tokens": "int64",
    "num_free_blocks": "int64",  # once the step was decided
    "kv_used_frac": "float64",
    "compute_s": "float64",
    "memory_s": "float64",
    "network_s": "float64",
    "host_s": "float64",
}
"""One row per step of a token engine, in the order in which they began; where recording was asked for."""

DECISIONS: dict[str, str] = {
    "engine": "category",
    "step": "int64",
    "request": "int64",
    "sample": "int64",  # 0 but for further samples of one prompt
    "kind": "category",  # scheduled | preempted | admitted | swapped_out | swapped_in | finished | accepted
    "amount": "int64",  # scheduled: tokens; preempted: computed tokens lost; admitted: tokens hit; swapped: blocks;
    # accepted: drafts; finished: output tokens
}
"""What the scheduler decided in each step, in its order: the long form of the steps."""

KV_STORES: dict[str, str] = {
    "store": "category",  # "host_dram[0]"
    "medium": "category",
    "num_asked_tokens": "int64",  # prompt tokens looked up that the engine's own cache did not hold
    "num_hit_tokens": "int64",  # of these, held here and by no store asked before
    "hit_frac": "float64",  # hit / asked
    "num_read_tokens": "int64",  # of the hit tokens, those sent: others were computed sooner
    "read_bytes": "float64",
    "written_bytes": "float64",
    "num_written_chunks": "int64",
    "num_evicted_chunks": "int64",  # given up for room
    "num_expired_chunks": "int64",  # given up because nobody used them for the store's ttl
    "read_utilization_frac": "float64",  # of the read bandwidth, over the run
    "write_utilization_frac": "float64",
    "capacity_bytes": "float64",
    "used_bytes": "float64",  # at the end
    "peak_used_bytes": "float64",
}
"""One row per instance of a KV store that a stage of the workload asks."""

DEVICE_GROUPS: dict[str, str] = {
    "engine": "category",
    "group": "category",  # device group of the node
    "device": "category",
    "operators": "category",  # classes of operators that lie there: "linear+rest"
    "num_devices": "int64",
    "busy_s": "float64",  # its operators at work; groups at work side by side count their seconds each
    "utilization_frac": "float64",  # of the run
    "active_energy_j": "float64",  # above idle: by operation where an array counts it, else by power while at work
    "energy_j": "float64",  # with idle power while the engine is on
    "cost_usd": "float64",  # rent (or capital written off, and electricity) while the engine is on
}
"""One row per device group of every engine whose operators lie on several, or in arrays."""

LINK_TIMELINE: dict[str, str] = {
    "link": "category",
    "start_s": "float64",
    "end_s": "float64",
    "bytes": "float64",  # a transfer's, by the time it was under way in the interval
    "utilization_frac": "float64",  # of its bandwidth
}
"""One row per link that carried a transfer and interval of the engines' timeline."""

SCHEMAS: dict[str, dict[str, str]] = {
    "requests": REQUESTS,
    "visits": VISITS,
    "engines": ENGINES,
    "links": LINKS,
    "operators": OPERATORS,
    "timeline": TIMELINE,
}
"""Tables of every run."""

RECORDED_SCHEMAS: dict[str, dict[str, str]] = {
    "steps": STEPS,
    "decisions": DECISIONS,
    "kv_stores": KV_STORES,
    "device_groups": DEVICE_GROUPS,
    "link_timeline": LINK_TIMELINE,
}
"""Tables of runs that record their steps, that retrieve KV from stores, whose engines span device groups, whose links
carry transfers."""


@dataclass(frozen=True, slots=True)
class RunTables:
    """What a run leaves behind. Categories are object arrays of str."""

    requests: Table
    visits: Table
    engines: Table
    links: Table
    operators: Table
    timeline: Table
    itl_edges_s: npt.NDArray[np.float64]
    """[num_bins + 1] edges of the histogram of gaps between tokens, ascending."""
    itl_counts: npt.NDArray[np.int64]
    """[num_bins] gaps between consecutive output tokens of one request that end in the measured window (of the whole
    run where arrivals depend on it: closed loops, sessions)."""
    duration_s: float
    """From 0 to the last event."""
    num_events: int
    num_steps: int
    notes: tuple[str, ...] = field(default=())
    """Things to be named before the user asks: saturated, rejected, clipped ..."""
    steps: Table | None = None
    """Where recording was asked for."""
    decisions: Table | None = None
    kv_stores: Table | None = None
    """Where a stage asks for them."""
    device_groups: Table | None = None
    """Where an engine spans several, or computes in arrays."""
    link_timeline: Table | None = None
    """Where a link carried a transfer."""
