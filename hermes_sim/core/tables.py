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
    "status": "category",  # finished | rejected | unfinished
    "session": "int64",  # -1: none
    "arrival_s": "float64",
    "first_token_s": "float64",  # absolute
    "finish_s": "float64",  # absolute
    "num_prompt_tokens": "int64",  # as the language model saw it: retrieved documents included, after clipping
    "num_output_tokens": "int64",
    "num_cached_tokens": "int64",  # prompt tokens found in the prefix cache
    "num_clipped_tokens": "int64",  # cut off because of the model's limit
    "num_preemptions": "int64",
    "energy_j": "float64",  # share of the energy of the steps it was in, by tokens
    "engine_s": "float64",  # share of the time of the steps it was in, by tokens
    "cost_usd": "float64",  # share of its engines' rent over the whole run, by engine_s
}
"""Metrics derived in analysis: ttft_s, tpot_s, e2e_s, slo_met."""

VISITS: dict[str, str] = {
    "request": "int64",
    "stage": "category",
    "kind": "category",
    "engine": "category",  # "llm[0]"; "" where the visit was skipped or never placed
    "arrival_s": "float64",
    "start_s": "float64",  # first step that scheduled it
    "finish_s": "float64",
    "transfer_s": "float64",  # before arrival_s: moving its input here
    "queue_s": "float64",  # in the engine but in no step
    "service_s": "float64",  # = compute_s + memory_s + network_s + host_s
    "compute_s": "float64",
    "memory_s": "float64",
    "network_s": "float64",
    "host_s": "float64",
    "preempted_s": "float64",  # from a preemption to the step that scheduled it again
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
    "num_blocks": "int64",
    "mean_batch": "float64",  # sequences (or jobs) per step, time-weighted
    "mean_kv_used_frac": "float64",  # blocks with an owner, time-weighted
    "peak_kv_used_frac": "float64",
    "energy_j": "float64",  # idle time included
    "cost_usd": "float64",
}

LINKS: dict[str, str] = {
    "link": "category",
    "bytes": "float64",
    "num_transfers": "int64",
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

SCHEMAS: dict[str, dict[str, str]] = {
    "requests": REQUESTS,
    "visits": VISITS,
    "engines": ENGINES,
    "links": LINKS,
    "operators": OPERATORS,
}


@dataclass(frozen=True, slots=True)
class RunTables:
    """What a run leaves behind. Categories are object arrays of str."""

    requests: Table
    visits: Table
    engines: Table
    links: Table
    operators: Table
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
