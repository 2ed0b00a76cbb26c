"""Shared by the tests of traffic: descriptions from mappings, requests from descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hermes_sim.core.rng import stream
from hermes_sim.workload.generate import generate_requests
from hermes_sim.workload.requests import FloatArray, RequestTable
from hermes_sim.workload.traffic import ARRIVALS, Traffic

FIXED = {"kind": "fixed", "num_prompt_tokens": 100, "num_output_tokens": 10}


def requests_of(seed: int = 1, **traffic: Any) -> RequestTable:
    return generate_requests(Traffic.model_validate(traffic), seed)


def read_trace(format: str, path: Path, seed: int = 1, **options: Any) -> RequestTable:
    return requests_of(seed, trace={"format": format, "path": str(path), **options})


def arrival_times(
    law: dict[str, Any], num_requests: int | None = None, duration_s: float | None = None, seed: int = 1
) -> FloatArray:
    arrivals = ARRIVALS[law["kind"]].model_validate(law)
    return arrivals.times(stream(seed, "arrivals"), num_requests, duration_s, Path)


def gap_cv(times_s: FloatArray) -> float:
    gaps_s = np.diff(times_s, prepend=0.0)
    return float(gaps_s.std() / gaps_s.mean())


def dispersion(times_s: FloatArray, window_s: float) -> float:
    """Variance / mean of the counts in windows: 1 for Poisson."""
    counts = np.bincount((times_s // window_s).astype(np.int64))[:-1]
    return float(counts.var() / counts.mean())
