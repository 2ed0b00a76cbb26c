"""Steps and arrivals in the order of their times, for one engine or for ranks in lockstep."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.reference_records import Arrival, BatchCounts, Seconds, StepRecord

if TYPE_CHECKING:
    from tests.reference_engine import ReferenceEngine

Counts = tuple[BatchCounts, BatchCounts | None]
"""Of a step, and beside a wave of prompts those of the decodes alone."""


def serve(ranks: SequenceOf[ReferenceEngine], arrivals: Iterable[Arrival]) -> list[StepRecord]:
    """Serve all arrivals (sorted by time). At one instant: KV arrives, steps end, visits arrive, a step begins.

    Returns the records of all ranks, rank by rank within a step. Every visit must come to its end.
    """
    due = deque(arrivals)
    transfers: list[tuple[float, int]] = []
    on_the_way: dict[int, Arrival] = {}
    records: list[StepRecord] = []
    clock_s = 0.0
    while True:
        end_s = ranks[0].next_end_s
        start_s = max(clock_s, min(rank.next_start_s for rank in ranks))
        arrival_s = due[0].arrival_s if due else math.inf
        transfer_s = transfers[0][0] if transfers else math.inf
        clock_s = min(end_s, start_s, arrival_s, transfer_s)
        if math.isinf(clock_s):
            break
        if transfer_s == clock_s:
            arrival = on_the_way[heapq.heappop(transfers)[1]]
            ranks[arrival.rank].push(arrival, clock_s)
        elif end_s == clock_s:
            for rank in ranks:
                rank.end_step()
        elif arrival_s == clock_s:
            arrive(ranks[due[0].rank], due.popleft(), on_the_way)
        else:
            records += begin_together(ranks, clock_s)
        for rank in ranks:
            for row in rank.take_granted():
                heapq.heappush(transfers, (clock_s + (on_the_way[row].transfer_s or 0.0), row))
    assert not any(rank.has_work or rank.reserve_line for rank in ranks)
    return records


def arrive(rank: ReferenceEngine, arrival: Arrival, on_the_way: dict[int, Arrival]) -> None:
    """Into the line, or first in need of blocks for KV from elsewhere."""
    if arrival.transfer_s is None:
        rank.push(arrival)
    else:
        on_the_way[arrival.row] = arrival
        rank.reserve(arrival)


def begin_together(ranks: SequenceOf[ReferenceEngine], start_s: float) -> list[StepRecord]:
    """All ranks begin a step: tokens padded to the largest rank's, as long as the slowest host and the slowest device.

    One with nothing to run takes part with a dummy step. No record if nobody can run.
    """
    decided = [rank.decide(start_s) for rank in ranks]
    if not any(decided):
        for rank in ranks:
            rank.is_blocked = True
        return []
    batches = [batch or rank.scheduler.take_batch() for rank, batch in zip(ranks, decided, strict=True)]
    counts = pad([rank.counts(batch) for rank, batch in zip(ranks, batches, strict=True)])
    prices = [rank.price(batch, *each) for rank, batch, each in zip(ranks, batches, counts, strict=True)]
    seconds = Seconds(
        device_s=max(price.device_s for price in prices),
        host_s=max(price.host_s for price in prices),
    )
    return [
        rank.launch(rank.lane(batch, start_s, seconds), *each)
        for rank, batch, each in zip(ranks, batches, counts, strict=True)
    ]


def pad(counts: SequenceOf[Counts]) -> list[Counts]:
    """Every rank's tokens as many as the largest rank's; what attention reads stays its own."""
    most = max(whole.num_tokens for whole, _ in counts)
    most_alone = max((alone or whole).num_tokens for whole, alone in counts)
    return [
        (replace(whole, num_tokens=most), alone and replace(alone, num_tokens=most_alone)) for whole, alone in counts
    ]
