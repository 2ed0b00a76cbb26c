"""What holds the engines back, named before the question: KV full, drafts in vain, a busy front end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from hermes_sim.analysis.findings import Finding
from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.human import digits, percent

FULL_FRAC = 0.95
LEAST_WAITING = 1.0
FULL_TIME_FRAC = 0.1
BUSY_WORKERS_FRAC = 0.8


def engine_findings(engines: pd.DataFrame, timeline: pd.DataFrame) -> Iterable[Finding]:
    """All that is true of these engines, by name (`llm[0]`)."""
    yield from kv_full(engines, timeline)
    yield from slower_by_drafts(engines)
    yield from busy_front_end(engines)


def kv_full(engines: pd.DataFrame, timeline: pd.DataFrame) -> Iterator[Finding]:
    """KV memory decides how many requests run: requests waited while nearly all KV blocks were in use.

    Said when in more than a tenth of the engine's busy time at least one request waited and at least 95% of the
    blocks had an owner (means over the intervals of the timeline).
    """
    is_full = (timeline["mean_kv_used_frac"] >= FULL_FRAC) & (timeline["num_waiting"] >= LEAST_WAITING)
    full_s = timeline["busy_s"].where(is_full, 0.0).groupby(timeline["engine"], observed=True).sum()
    for _, row in engines.iterrows():
        share = float(full_s.get(row["engine"], 0.0)) / row["busy_s"] if row["busy_s"] > 0 else 0.0
        if share > FULL_TIME_FRAC:
            text = (
                f"KV full: for {percent(share)} of its busy time {row['engine']} had less than "
                f"{percent(1 - FULL_FRAC)} of its KV blocks free and requests in line; more KV memory, or fewer and "
                "shorter sequences at once, would shorten the line"
            )
            yield Finding("kv_full", text)


def slower_by_drafts(engines: pd.DataFrame) -> Iterator[Finding]:
    """Speculative decoding costs more than it brings: too few drafts are right for the time they take.

    speculation_speedup: tokens per decode step over how much longer the step is with drafts than without, at the
    engine's mean batch and context.
    """
    for _, row in engines[engines["speculation_speedup"] < 1.0].iterrows():
        text = (
            f"speculation: slows {row['engine']} down to {digits(row['speculation_speedup'])} of the speed without; "
            f"{percent(row['acceptance_frac'])} of the drafts are right at a mean batch of {digits(row['mean_batch'])}"
        )
        yield Finding("speculation_slower", text)


def busy_front_end(engines: pd.DataFrame) -> Iterator[Finding]:
    """Detokenisers near their limit: their latency is taken as constant, without the line in front of them."""
    busy = floats(engines, "detokenizer_utilization_frac")
    for name, share in zip(engines["engine"], busy, strict=True):
        if share > BUSY_WORKERS_FRAC:
            text = (
                f"front end: the detokenisers of {name} are busy {percent(share)} of the time; the line in front of "
                "them is not simulated, so that latencies are optimistic"
            )
            yield Finding("front_end_busy", text)
