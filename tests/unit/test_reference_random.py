"""Laws of the oracle over random engines and workloads; it checks its own (tests/reference_laws.py) after every act."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, given, settings

from tests.reference_clock import serve
from tests.reference_engine import ReferenceEngine
from tests.reference_records import BatchCounts, Seconds, StepRecord
from tests.reference_workloads import Workload, workloads


def cost(counts: BatchCounts) -> Seconds:
    """Binary fractions, so that steps and arrivals often meet."""
    return Seconds(device_s=0.5 + counts.num_tokens / 64, host_s=0.25)


def run(workload: Workload) -> tuple[list[ReferenceEngine], list[StepRecord]]:
    ranks = [ReferenceEngine(workload.options, content=workload.content, cost=cost) for _ in range(workload.num_ranks)]
    return ranks, serve(ranks, workload.arrivals)


def without_what_adds_tokens(workload: Workload) -> Workload:
    """No drafts, samples or KV from elsewhere, and blocks enough."""
    arrivals = tuple(replace(arrival, samples=(), transfer_s=None) for arrival in workload.arrivals)
    options = replace(workload.options, draft_tokens=0, block_tokens=4, num_blocks=400)
    return replace(workload, options=options, arrivals=arrivals)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_everything_ends_and_gives_back_what_it_held(workload: Workload) -> None:
    ranks, records = run(workload)
    finish_s = {row: time_s for rank in ranks for row, time_s in rank.finish_s.items()}
    first_token_s = {row: time_s for rank in ranks for row, time_s in rank.first_token_s.items()}
    rejected = {row for rank in ranks for row in rank.rejected}
    for arrival in workload.arrivals:
        family = {arrival.row, *(row for row, _ in arrival.samples)}
        assert rejected.isdisjoint(family) or arrival.row in rejected
        if arrival.row in rejected:
            continue
        assert family <= finish_s.keys()
        assert all(finish_s[row] >= first_token_s.get(row, arrival.arrival_s) >= arrival.arrival_s for row in family)
    for rank in ranks:
        assert rank.cache.num_free == workload.options.num_blocks
        assert rank.scheduler.num_slots_held == rank.cache.num_swapped_blocks == 0
    assert all(record.end_s > record.start_s for record in records)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads(max_arrivals=8))
def test_every_token_is_cached_or_computed_once_if_blocks_are_plenty(workload: Workload) -> None:
    workload = without_what_adds_tokens(workload)
    _, records = run(workload)
    assert all(not record.preempted for record in records)
    computed: Counter[int] = Counter()
    for record in records:
        for row, num_tokens in record.scheduled:
            computed[row] += num_tokens
        for row, num_hit in record.admitted:
            computed[row] += num_hit
    if workload.options.policy != "layered_prefill":  # whose prompts stand in every step of their wave
        assert computed == {
            arrival.row: arrival.num_prompt + max(arrival.num_output, 1) - 1 for arrival in workload.arrivals
        }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_whole_reserve_means_that_nobody_is_preempted(workload: Workload) -> None:
    """Orca and TRT-LLM's GUARANTEED_NO_EVICT: blocks for all outputs are free when a sequence enters."""
    options = replace(
        workload.options, output_reserve_frac=1.0, full_sequence_gate=True, draft_tokens=0, window_blocks=0,
        window_groups=0, all_layers_slide=False, prefix_caching=False, policy="continuous", num_stages=1,
    )  # fmt: skip
    arrivals = tuple(replace(arrival, samples=(), transfer_s=None) for arrival in workload.arrivals)
    _, records = run(replace(workload, options=options, arrivals=arrivals))
    assert all(not record.preempted for record in records)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads(max_arrivals=8))
def test_cache_changes_nothing_when_no_content_is_shared_and_nobody_is_evicted(workload: Workload) -> None:
    workload = without_what_adds_tokens(workload)
    workload = replace(workload, groups=tuple((group, 0) for group, _ in workload.groups))
    cached = replace(workload.options, prefix_caching=True)
    not_cached = replace(workload.options, prefix_caching=False)
    assert run(replace(workload, options=cached))[1] == run(replace(workload, options=not_cached))[1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_drafts_change_how_many_steps_but_not_how_many_tokens(workload: Workload) -> None:
    """With everything accepted a lone sequence needs the fewest steps; with nothing, one step a token."""
    alone = replace(workload.arrivals[0], samples=(), transfer_s=None, num_prompt=5, num_output=13, rank=0)
    for rate, num_steps in [(0.0, 13), (1.0, 4)]:
        options = replace(
            workload.options, num_blocks=40, policy="chunked_prefill", num_stages=1, async_scheduling=False,
            max_num_batched_tokens=48, long_prefill_token_threshold=0, draft_tokens=3, tree_width=1,
            adaptive_drafts=False, draft_max_seqs=None, acceptance="constant", acceptance_values=(rate,),
        )  # fmt: skip
        _, records = run(replace(workload, options=options, arrivals=(alone,), num_ranks=1))
        assert len(records) == num_steps
