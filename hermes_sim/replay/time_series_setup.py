"""Engine and requests of runs whose tables name hardware, model and scenario, and whose workload lies beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.replay.known_names import device_name, model_name
from hermes_sim.replay.request_workloads import PREFIX_COLUMN
from hermes_sim.replay.rows import POSITIVE, TEXT
from hermes_sim.replay.served_engine import ServedEngine
from hermes_sim.replay.shared_prompts import BLOCK_TOKENS, prompts_seen_before
from hermes_sim.workload.requests import RequestTable, request_table

SETUP: Final = {"hardware": TEXT, "model": TEXT, "tp_per_instance": POSITIVE}
"""Columns that state the engine."""

VERSION: Final = (0, 11)
"""vLLM of the runs that these tables hold; they state none."""

PREFIX_CACHED: Final = "PC"
SEVERAL_INSTANCES: Final = "MD"
"""Parts of a scenario's name: prefix caching on, two instances (SD: one)."""


def engine_of(row: Mapping[str, Any]) -> ServedEngine:
    """The engine that a row's columns state. Raises UnknownName."""
    scenario = str(row.get("scenario", ""))
    return ServedEngine(
        device=device_name(str(row["hardware"])),
        model=model_name(str(row["model"])),
        tp=int(row["tp_per_instance"]),
        replicas=2 if SEVERAL_INSTANCES in scenario else 1,
        version=VERSION,
        prefix_caching=PREFIX_CACHED in scenario,
    )


def labels_of(engine: ServedEngine, row: Mapping[str, Any]) -> dict[str, str]:
    """What a report groups by."""
    return {
        "device": engine.device, "model": engine.model, "engine": "vllm", "tp": str(engine.tp),
        "instances": str(engine.replicas), "workload": str(row.get("scenario", "")),
    }  # fmt: skip


def requests_of(workload: pd.DataFrame) -> RequestTable:
    """Arrivals, lengths and shared prefixes of a workload."""
    arrival_s = workload["arrival_s"].to_numpy(float)
    prompts, outputs = workload["input_tokens"].to_numpy(np.int64), workload["output_tokens"].to_numpy(np.int64)
    seen = workload[PREFIX_COLUMN].fillna(0) if PREFIX_COLUMN in workload else pd.Series(np.zeros(len(prompts)))
    blocks = prompts_seen_before(prompts.tolist(), seen.astype(int).tolist())
    return request_table(
        arrival_s, prompts, outputs,
        hash_offsets=blocks.offsets, hash_ids=blocks.ids, hash_block_tokens=BLOCK_TOKENS,
    )  # fmt: skip
