"""What every engine did over time, from counters that the compiled core notes at equal intervals.

All counters are running sums: an interval is the difference of its ends, and the intervals add up to the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.perf.job_cost import moved
from hermes_sim.sim.collect_operators import mean_batches
from hermes_sim.sim.fill_engines import job_worker
from hermes_sim.sim.lower import Lowered
from hermes_sim.state.arrays import (
    TIMELINE_ACCEPTED,
    TIMELINE_BATCH_INTEGRAL_S,
    TIMELINE_BLOCKS_INTEGRAL_S,
    TIMELINE_BUSY_S,
    TIMELINE_COLUMNS,
    TIMELINE_COMPUTE_S,
    TIMELINE_DECODE_CONTEXT,
    TIMELINE_DECODE_TOKENS,
    TIMELINE_DRAFTED,
    TIMELINE_HIT_BLOCKS,
    TIMELINE_HOST_S,
    TIMELINE_LOOKED_UP_BLOCKS,
    TIMELINE_PREEMPTIONS,
    TIMELINE_PREFILL_CONTEXT,
    TIMELINE_PREFILL_PAIRS,
    TIMELINE_SAMPLED,
    TIMELINE_STEPS,
    TIMELINE_TOKENS,
    EngineArrays,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_INTERVALS = 200

ROUNDING_FRAC = 1e-9
"""Of a total: differences of running sums may be that far below zero."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Amounts per engine and interval of the run."""

    edges_s: FloatArray
    """[num_intervals + 1] from 0 to the end of the run; the intervals are equal, but for the last."""
    counters: FloatArray
    """[num_engines, num_intervals, TIMELINE_COLUMNS]"""
    output_tokens: FloatArray
    """[num_engines, num_intervals] tokens generated and kept, of all samples."""
    flops: FloatArray
    """[num_engines, num_intervals]"""
    bytes: FloatArray
    """[num_engines, num_intervals]"""

    @property
    def lengths_s(self) -> FloatArray:
        """[num_intervals]"""
        return np.diff(self.edges_s)


def timeline_of(lowered: Lowered, duration_s: float) -> Timeline:
    """At most MAX_INTERVALS intervals of the run, and what the engines did in each."""
    state = lowered.state
    edges_s, places = interval_edges(float(state.timeline_interval_s[0]), duration_s)
    sums = running_sums(state.timeline, state.timeline_filled, places, final_counters(state))
    counters = np.diff(sums, axis=1)
    assert (counters >= -ROUNDING_FRAC * (1.0 + sums[:, -1:])).all(), "law 4: what an engine has done never falls"
    np.maximum(counters, 0.0, out=counters)
    flops = np.zeros(counters.shape[:2])
    moved = np.zeros(counters.shape[:2])
    for engines in engines_by_cost(lowered):
        flops[engines], moved[engines] = interval_work(lowered, engines, counters[engines])
    output_tokens = counters[:, :, TIMELINE_SAMPLED] + first_tokens_of_samples(lowered, edges_s)
    return Timeline(edges_s, counters, output_tokens, flops, moved)


def interval_edges(interval_s: float, duration_s: float) -> tuple[FloatArray, IntArray]:
    """(edges, place of each but the last among the core's points): a whole number of the core's intervals each."""
    if duration_s <= 0.0:
        return np.zeros(1), np.zeros(0, np.int64)
    number = max(int(np.ceil(duration_s / interval_s)), 1)
    places = np.arange(0, number, -(-number // MAX_INTERVALS), dtype=np.int64)
    return np.append(places * interval_s, duration_s), places


def running_sums(points: FloatArray, filled: IntArray, places: IntArray, final: FloatArray) -> FloatArray:
    """[num_engines, num_intervals + 1, columns] at the edges; an engine that has stopped keeps its last values."""
    written = places < filled[:, None]
    read = points[:, np.minimum(places, points.shape[1] - 1)]
    sums = np.where(written[:, :, None], read, final[:, None, :])
    sums[:, :1] = 0.0  # what the first step did at once counts in the first interval
    return np.concatenate((sums, final[:, None, :]), axis=1)


def first_tokens_of_samples(lowered: Lowered, edges_s: FloatArray) -> FloatArray:
    """[num_engines, num_intervals] first tokens of further samples: drawn from the one set of logits of their prompt.

    The engine counts one token for it. They come when the prompt ends, which is when their decode visit begins.
    """
    state = lowered.state
    tokens = np.zeros((len(lowered.replicas), len(edges_s) - 1))
    visits = lowered.row_parent[lowered.is_fork]
    visits = visits[(state.row_engine[visits] >= 0) & ~np.isnan(state.row_arrival_s[visits])]
    place = np.searchsorted(edges_s, state.row_arrival_s[visits], side="right") - 1
    np.add.at(tokens, (state.row_engine[visits], np.clip(place, 0, len(edges_s) - 2)), 1.0)
    return tokens


def final_counters(state: EngineArrays) -> FloatArray:
    """[num_engines, TIMELINE_COLUMNS] at the end of the run."""
    final = np.zeros((len(state.num_steps), TIMELINE_COLUMNS))
    final[:, TIMELINE_BUSY_S] = state.busy_s
    final[:, TIMELINE_COMPUTE_S : TIMELINE_HOST_S + 1] = state.shares[:, :4]
    final[:, TIMELINE_BATCH_INTEGRAL_S] = state.batch_integral_s
    final[:, TIMELINE_BLOCKS_INTEGRAL_S] = state.blocks_integral_s
    final[:, TIMELINE_STEPS] = state.num_steps
    final[:, TIMELINE_TOKENS] = state.total_tokens
    final[:, TIMELINE_SAMPLED] = state.total_sampled
    final[:, TIMELINE_DECODE_TOKENS] = state.total_decode_tokens
    final[:, TIMELINE_DECODE_CONTEXT] = state.total_decode_context
    final[:, TIMELINE_PREFILL_PAIRS] = state.total_prefill_pairs
    final[:, TIMELINE_PREFILL_CONTEXT] = state.total_prefill_context
    final[:, TIMELINE_PREEMPTIONS] = state.total_preemptions
    final[:, TIMELINE_HIT_BLOCKS] = state.total_hit_blocks
    final[:, TIMELINE_LOOKED_UP_BLOCKS] = state.total_looked_up_blocks
    final[:, TIMELINE_DRAFTED] = state.total_drafted
    final[:, TIMELINE_ACCEPTED] = state.total_accepted
    return final


def engines_by_cost(lowered: Lowered) -> list[list[int]]:
    """Engines whose steps cost the same, together; job engines each alone."""
    found: dict[int, list[int]] = {}
    for e, replica in enumerate(lowered.replicas):
        found.setdefault(-e if replica.cost is None else id(replica.cost), []).append(e)
    return list(found.values())


def interval_work(lowered: Lowered, engines: list[int], counters: FloatArray) -> tuple[FloatArray, FloatArray]:
    """[len(engines), num_intervals] FLOPs and bytes in each interval, of useful tokens: padding, dummy steps and drafts
    that were thrown away are no work. counters: of these engines, which have one cost.

    A language model's follow from the counters. Jobs: those of the mean batches, by the time worked.
    """
    replica = lowered.replicas[engines[0]]
    cost = replica.cost
    if cost is not None:
        decodes = counters[:, :, TIMELINE_DECODE_TOKENS] - counters[:, :, TIMELINE_DRAFTED]
        accepted = counters[:, :, TIMELINE_ACCEPTED]
        return cost.flops_bytes(
            num_steps=counters[:, :, TIMELINE_STEPS],
            num_tokens=counters[:, :, TIMELINE_TOKENS] - counters[:, :, TIMELINE_DRAFTED] + accepted,
            num_sampled=counters[:, :, TIMELINE_SAMPLED],
            decode_context_sum=counters[:, :, TIMELINE_DECODE_CONTEXT],
            prefill_token_pairs=counters[:, :, TIMELINE_PREFILL_PAIRS],
            prefill_context_sum=counters[:, :, TIMELINE_PREFILL_CONTEXT],
            tokens_per_decode=1.0 + over(accepted, decodes),
        )
    flops = num_bytes = 0.0
    worker = job_worker(replica, lowered.scenario) if replica.runs_jobs_on_arrays else None
    for _, work, batches in mean_batches(lowered, engines[0]):
        flops += batches * sum(operator.total_flops for operator in work)
        each = (operator.total_bytes if worker is None else moved(operator, worker) for operator in work)
        num_bytes += batches * sum(each)
    busy_s = counters[:, :, TIMELINE_BUSY_S]
    shares = busy_s / max(float(busy_s.sum()), 1e-300)
    return flops * shares, num_bytes * shares


def over(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient, 0 where nothing happened."""
    happened = denominator > 0
    return np.where(happened, numerator / np.where(happened, denominator, 1.0), 0.0)


def share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Quotient, NaN where nothing happened."""
    return np.where(whole > 0, over(part, whole), np.nan)
