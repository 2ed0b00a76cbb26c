"""A run small enough to compute by hand: five requests, one of them rejected, on one retriever and one LLM engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.frames import run_frames
from hermes_sim.core.tables import RECORDED_SCHEMAS, SCHEMAS, RunTables, Table

NAN = float("nan")


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Columns of a result table from rows; what a row leaves out is 0, NaN or ''."""
    schema = {**SCHEMAS, **RECORDED_SCHEMAS}[name]
    empty = {"int64": 0, "float64": 0.0, "category": ""}
    columns = {column: [row.get(column, empty[dtype]) for row in rows] for column, dtype in schema.items()}
    dtypes = {column: object if dtype == "category" else dtype for column, dtype in schema.items()}
    return {column: np.array(values, dtype=dtypes[column]) for column, values in columns.items()}


REQUESTS = [
    {"request": 0, "arrival_s": 0.0, "first_token_s": 1.0, "finish_s": 3.0, "num_prompt_tokens": 100,
     "num_output_tokens": 5},
    {"request": 1, "arrival_s": 1.0, "first_token_s": 3.0, "finish_s": 3.0, "num_prompt_tokens": 200,
     "num_output_tokens": 1},
    {"request": 2, "arrival_s": 2.0, "first_token_s": NAN, "finish_s": 4.0, "num_prompt_tokens": 50},
    {"request": 3, "arrival_s": 3.0, "first_token_s": NAN, "finish_s": NAN, "num_prompt_tokens": 9999,
     "num_output_tokens": 10, "status": "rejected"},
    {"request": 4, "arrival_s": 4.0, "first_token_s": 8.0, "finish_s": 10.0, "num_prompt_tokens": 100,
     "num_output_tokens": 3, "num_cached_tokens": 64},
]  # fmt: skip
"""TTFT 1, 2, -, -, 4; TPOT 0.5, -, -, -, 1; E2E 3, 2, 2, -, 6. 9 output tokens of finished requests."""

VISITS = [
    {"request": 0, "kind": "retrieve", "arrival_s": 0.0, "start_s": 0.1, "finish_s": 0.4, "queue_s": 0.1,
     "service_s": 0.3, "memory_s": 0.3},
    {"request": 0, "kind": "prefill", "arrival_s": 0.5, "start_s": 0.6, "finish_s": 1.0, "transfer_s": 0.1,
     "queue_s": 0.1, "service_s": 0.4, "compute_s": 0.3, "host_s": 0.1},
    {"request": 0, "kind": "decode", "arrival_s": 1.0, "start_s": 1.0, "finish_s": 3.0, "service_s": 2.0,
     "memory_s": 1.8, "host_s": 0.2},
    {"request": 1, "kind": "retrieve", "arrival_s": 1.0, "start_s": 1.0, "finish_s": 1.5, "service_s": 0.5,
     "memory_s": 0.5},
    {"request": 1, "kind": "prefill", "arrival_s": 1.5, "start_s": 2.5, "finish_s": 3.0, "queue_s": 1.0,
     "service_s": 0.5, "compute_s": 0.5},
    {"request": 1, "kind": "decode", "arrival_s": 3.0, "start_s": 3.0, "finish_s": 3.0},
    {"request": 2, "kind": "retrieve", "arrival_s": 2.0, "start_s": 2.0, "finish_s": 2.5, "service_s": 0.5,
     "memory_s": 0.5},
    {"request": 2, "kind": "prefill", "arrival_s": 2.5, "start_s": 3.5, "finish_s": 4.0, "queue_s": 1.0,
     "service_s": 0.5, "compute_s": 0.5},
    {"request": 4, "kind": "retrieve", "arrival_s": 4.0, "start_s": 4.0, "finish_s": 4.0, "engine": ""},
    {"request": 4, "kind": "prefill", "arrival_s": 6.0, "start_s": 7.0, "finish_s": 8.0, "transfer_s": 1.0,
     "queue_s": 1.0, "service_s": 1.0, "compute_s": 0.6, "network_s": 0.4},
    {"request": 4, "kind": "decode", "arrival_s": 8.0, "start_s": 8.0, "finish_s": 10.0, "service_s": 2.0,
     "memory_s": 2.0},
]  # fmt: skip

NO_SPECULATION = {"acceptance_frac": NAN, "tokens_per_decode": 1.0, "speculation_speedup": NAN}
NO_FRONT_END = {"tokenizer_utilization_frac": NAN, "detokenizer_utilization_frac": NAN}

ENGINES = [
    {"engine": "llm[0]", "kind": "llm", "serves": "prefill+decode", "devices": "4 x a100_sxm_80gb", "num_devices": 4,
     "num_steps": 12, "busy_s": 6.4, "compute_s": 1.9, "memory_s": 3.8, "network_s": 0.4, "host_s": 0.3,
     "duration_s": 10.0, "on_s": 10.0, "utilization_frac": 0.64,
     "flops": 1e15, "bytes": 1e12, "mfu_frac": 0.1, "mbu_frac": 0.3,
     "num_prompt_tokens": 386, "num_output_tokens": 9, "num_cached_tokens": 64, "num_blocks": 1000, "mean_batch": 1.25,
     "mean_kv_used_frac": 0.2, "peak_kv_used_frac": 0.4, "num_looked_up_blocks": 16, "num_hit_blocks": 4,
     "prefix_hit_frac": 0.25, "num_preemptions": 1, **NO_SPECULATION, **NO_FRONT_END, "energy_j": 7000.0,
     "cost_usd": 0.02},
    {"engine": "retriever[0]", "kind": "batch", "serves": "retrieve", "devices": "1 x epyc_7742", "num_devices": 1,
     "num_steps": 3, "busy_s": 1.3, "memory_s": 1.3, "duration_s": 10.0, "on_s": 10.0, "utilization_frac": 0.13,
     "mean_batch": 1.0,
     "prefix_hit_frac": NAN, **NO_SPECULATION, **NO_FRONT_END, "energy_j": 2000.0, "cost_usd": 0.007},
]  # fmt: skip

OPERATORS = [
    {"engine": engine, "stage": stage, "operator": operator, "time_s": time_s, "bound": bound, "provenance": provenance}
    for engine, stage, operator, time_s, bound, provenance in (
        ("llm[0]", "prefill", "linear", 0.3, "compute", "interpolated"),
        ("llm[0]", "prefill", "attention", 0.1, "compute", "analytic"),
        ("llm[0]", "decode", "linear", 0.02, "memory", "measured"),
    )
]


TIMELINE = [
    {"engine": "llm[0]", "start_s": start_s, "end_s": start_s + 2.0, "busy_s": busy_s, "utilization_frac": busy_s / 2.0,
     "memory_s": busy_s, "mean_batch": mean_batch, "mean_kv_used_frac": kv, "num_waiting": waiting, "num_running": 1.0,
     "num_steps": steps, "num_tokens": 40.0, "num_output_tokens": 2.0, "num_preemptions": preemptions,
     "num_looked_up_blocks": 4.0, "num_hit_blocks": hits, "prefix_hit_frac": hits / 4.0, "acceptance_frac": NAN}
    for start_s, busy_s, mean_batch, kv, waiting, steps, preemptions, hits in (
        (0.0, 1.4, 1.0, 0.1, 0.0, 3.0, 0.0, 0.0),
        (2.0, 2.0, 2.0, 0.4, 1.5, 4.0, 1.0, 1.0),
        (4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (6.0, 1.0, 1.0, 0.2, 0.5, 2.5, 0.0, 3.0),
        (8.0, 2.0, 1.0, 0.2, 0.0, 2.5, 0.0, 0.0),
    )
] + [
    {"engine": "retriever[0]", "start_s": start_s, "end_s": start_s + 2.0, "busy_s": 0.26, "utilization_frac": 0.13,
     "memory_s": 0.26, "mean_batch": 1.0, "num_running": 0.13, "num_steps": 0.6, "prefix_hit_frac": NAN,
     "acceptance_frac": NAN}
    for start_s in (0.0, 2.0, 4.0, 6.0, 8.0)
]  # fmt: skip
"""Five intervals of 2 s; the sums are those of ENGINES."""


@pytest.fixture
def tables() -> RunTables:
    requests = [
        {"pipeline": "rag", "status": "finished", "session": -1, "client": -1, "num_samples": 1,
         "num_longest_sample_tokens": row.get("num_output_tokens", 0), "engine_first_token_s": row["first_token_s"],
         "first_answer_token_s": row["first_token_s"], "num_passes": 1,
         **row}
        for row in REQUESTS
    ]  # fmt: skip
    engine_of = {"retrieve": "retriever[0]", "prefill": "llm[0]", "decode": "llm[0]"}
    visits = [{"stage": row["kind"], "engine": engine_of[row["kind"]], **row} for row in VISITS]
    return RunTables(
        requests=table("requests", requests),
        visits=table("visits", visits),
        engines=table("engines", ENGINES),
        links=table("links", [{"link": "dgx/cpu-gpu", "bytes": 1e6, "num_transfers": 4, "busy_s": 0.1}]),
        operators=table("operators", OPERATORS),
        timeline=table("timeline", TIMELINE),
        itl_edges_s=np.array([0.0, 0.25, 0.75, 1.25]),
        itl_counts=np.array([0, 4, 2]),
        duration_s=10.0,
        num_events=40,
        num_steps=15,
    )


@pytest.fixture
def frames(tables: RunTables) -> dict[str, pd.DataFrame]:
    return run_frames(tables)
