"""Requests for the reference loop: a built-in open loop, or a CSV of the same columns as the simulator's traces."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hermes_sim.core.errors import TraceError

COLUMNS = ("arrival_s", "num_prompt_tokens", "num_output_tokens")


@dataclass(frozen=True, slots=True)
class Request:
    """When it comes and how long it is; lengths are forced."""

    arrival_s: float
    num_prompt_tokens: int
    num_output_tokens: int


def poisson_trace(
    rate_per_s: float, num_requests: int, prompt: tuple[int, int], output: tuple[int, int]
) -> list[Request]:
    """Poisson arrivals from time 0, lengths uniform between both bounds; the same every time."""
    random = np.random.default_rng(0)
    gaps_s = random.exponential(1.0 / rate_per_s, num_requests)
    arrivals_s = np.cumsum(gaps_s) - gaps_s[0]
    prompts = random.integers(prompt[0], prompt[1] + 1, num_requests)
    outputs = random.integers(output[0], output[1] + 1, num_requests)
    return [Request(float(a), int(p), int(o)) for a, p, o in zip(arrivals_s, prompts, outputs, strict=True)]


def read_trace(path: Path) -> list[Request]:
    """Rows in order of arrival; TraceError names the line."""
    if not path.exists():
        raise TraceError(f"{path}: no such file")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise TraceError(f"{path}:1: has no column {missing[0]}; needs {', '.join(COLUMNS)}")
        requests = [_request(path, line, row) for line, row in enumerate(reader, start=2)]
    if not requests:
        raise TraceError(f"{path}: has no requests")
    return sorted(requests, key=lambda request: request.arrival_s)


def _request(path: Path, line: int, row: dict[str, str]) -> Request:
    try:
        request = Request(float(row[COLUMNS[0]]), int(row[COLUMNS[1]]), int(row[COLUMNS[2]]))
    except (TypeError, ValueError) as error:
        raise TraceError(f"{path}:{line}: {error}") from error
    if not (
        0.0 <= request.arrival_s < float("inf") and request.num_prompt_tokens > 0 and request.num_output_tokens > 0
    ):
        raise TraceError(f"{path}:{line}: arrival_s has to be 0 or more, both numbers of tokens 1 or more")
    return request
