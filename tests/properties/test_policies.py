"""Every policy, in every queue order and with every way to cache, preempt and draft, keeps the rules of a scheduler."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.batching import QUEUE_ORDERS, TOKEN_POLICIES
from hermes_sim.scenario.engine_presets import ENGINE_PRESETS
from tests.invariants import check_invariants, waiting_rows
from tests.one_engine import CompiledEngine, Options, Step

CHUNKED_V0 = "prefill_first, chunked"
POLICIES = [*TOKEN_POLICIES, CHUNKED_V0]
WHOLE = [policy for policy in POLICIES if policy not in ("chunked_prefill", "decode_first", CHUNKED_V0)]
"""They never split a prompt's tokens over steps."""
MANY_ACTS = 5_000


@dataclass(frozen=True)
class Visit:
    """One request as it reaches the engine."""

    arrival_s: float
    num_prompt: int
    num_output: int
    priority: int = 0
    client: int = 0
    group: int = -1
    """Requests of a group share the first `group_tokens` tokens of their prompts."""
    group_tokens: int = 0
    samples: tuple[int, ...] = ()
    """Output tokens of each further sample, at most the visit's own."""
    transfer_s: float | None = None
    """Prompt and first token were computed elsewhere: so long after its blocks are reserved the KV is here."""


@dataclass
class Run:
    """An engine and what it did."""

    engine: CompiledEngine
    visits: list[Visit]
    first_admissions: list[int] = field(default_factory=list)
    first_token_s: dict[int, float] = field(default_factory=dict)
    on_the_way: list[tuple[float, int]] = field(default_factory=list)
    """(time of arrival, row) of KV that has set out."""


def named(policy: str, **options: Any) -> Options:
    """Options of a policy by its name here."""
    chunks = policy == CHUNKED_V0
    return Options(policy="prefill_first" if chunks else policy, chunk_prompts=chunks, **options)  # type: ignore[arg-type]


def serve(options: Options, visits: list[Visit], num_ranks: int = 1, **cost: float) -> Run:
    """Serve all visits: ends before arrivals before begins where times are equal, invariants after every act."""
    num_rows = len(visits) + sum(len(visit.samples) for visit in visits)
    run = Run(CompiledEngine(options, num_rows, num_ranks, **cost), visits)
    engine, arrays = run.engine, run.engine.arrays
    due = deque(sorted(range(len(visits)), key=lambda row: (visits[row].arrival_s, row)))
    num_acts, next_sample = 0, len(visits)
    while due or run.on_the_way or not engine.is_idle:
        start_s, end_s = engine.next_start_s, engine.next_end_s
        arrival_s = visits[due[0]].arrival_s if due else np.inf
        received_s, received = run.on_the_way[0] if run.on_the_way else (np.inf, -1)
        if run.on_the_way and received_s <= min(start_s, end_s, arrival_s):
            heapq.heappop(run.on_the_way)
            engine.receive(received_s, received, rank=received % num_ranks)
        elif due and arrival_s <= start_s and arrival_s < end_s:
            row = due.popleft()
            arrive(run, row, next_sample)
            next_sample += len(visits[row].samples)
        else:
            had_none = arrays.row_generated == 0
            for step in engine.act():
                check_step(run, step)
            for row in np.flatnonzero(had_none & (arrays.row_generated > 0)).tolist():
                run.first_token_s[row] = float(arrays.now_s.max())
        for row in engine.take_granted():
            heapq.heappush(run.on_the_way, (float(arrays.now_s.max()) + (visits[row].transfer_s or 0.0), row))
        check_invariants(arrays)
        if engine.is_idle and not run.on_the_way:
            assert not any(waiting_rows(arrays, e) or arrays.num_running[e] for e in range(num_ranks)), "no idling"
        num_acts += 1
        assert num_acts < MANY_ACTS, "the run comes to an end"
    check_end(run)
    return run


def arrive(run: Run, row: int, first_sample: int) -> None:
    visit, arrays = run.visits[row], run.engine.arrays
    arrays.content_group[row], arrays.content_group_tokens[row] = visit.group, visit.group_tokens
    samples = tuple((first_sample + number, num_output) for number, num_output in enumerate(visit.samples))
    rank = row % run.engine.num_ranks
    asked = (visit.arrival_s, row, visit.num_prompt, visit.num_output, visit.priority)
    if visit.transfer_s is None:
        run.engine.push(*asked, client=visit.client, samples=samples, rank=rank)
    elif run.engine.reserve(*asked, client=visit.client, samples=samples, rank=rank):
        heapq.heappush(run.on_the_way, (visit.arrival_s + visit.transfer_s, row))


def check_step(run: Run, step: Step) -> None:
    """The budget, and what may share a step."""
    options = run.engine.options
    rows = [row for row, _ in step.scheduled]
    num_tokens = sum(tokens for _, tokens in step.scheduled)
    num_prompts = run.engine.arrays.lane_batch[step.engine, step.lane, 6]
    assert len(set(rows)) == len(rows), "a sequence is in a step once"
    assert rows or run.engine.num_ranks > 1, "an engine alone runs no empty step"
    assert all(tokens >= 1 for _, tokens in step.scheduled)
    if options.switches.by_layers:
        assert num_tokens - step.counts.num_decode_tokens <= options.max_num_batched_tokens or num_prompts == 1
        assert 1 <= step.num_layer_groups <= options.num_layers
    elif options.switches.chunk_prefill or num_prompts != 1:
        assert num_tokens <= options.max_num_batched_tokens, "budget"
    if options.switches.padding != "none" and num_prompts > 1 and run.engine.num_ranks == 1:
        assert step.counts.num_tokens <= options.max_num_batched_tokens, "padding is in the budget"
    if options.switches.padding != "none":
        assert step.counts.num_tokens >= num_tokens
    for row, _ in step.admitted:
        if row not in run.first_admissions:
            run.first_admissions.append(row)
    assert len(set(step.preempted)) == len(step.preempted), "preempted once a step"


def check_end(run: Run) -> None:
    """Nobody is lost, every token is there once, every block is free."""
    engine, arrays, visits = run.engine, run.engine.arrays, run.visits
    outputs = [visit.num_output for visit in visits] + [number for visit in visits for number in visit.samples]
    finished = Counter(row for step in engine.steps for row in step.finished)
    num_forks = sum(len(visit.samples) for visit in visits)
    transferred = [visit for visit in visits if visit.transfer_s is not None]
    assert engine.rejected == []
    assert not np.isnan(arrays.row_finish_s[: len(visits)]).any(), "all have ended"
    assert arrays.row_generated[: len(outputs)].tolist() == outputs, "each has its tokens"
    assert set(finished) == {row for row, number in enumerate(outputs) if row < len(visits) or number > 1}
    assert set(finished.values()) == {1}, "each ends once"
    assert (arrays.num_free_blocks == arrays.num_blocks).all(), "all blocks are free"
    assert arrays.total_sampled.sum() + num_forks + len(transferred) == sum(outputs), "every token is counted once"
    drafted, accepted = int(arrays.total_drafted.sum()), int(arrays.total_accepted.sum())
    assert 0 <= accepted <= drafted
    if not engine.options.async_scheduling and num_forks == 0:
        wanted = sum(visit.num_prompt + max(visit.num_output, 1) - 1 for visit in visits)
        wanted -= sum(visit.num_prompt for visit in transferred)
        again = int(arrays.total_recomputed_tokens.sum() - arrays.row_cached.sum())
        computed = int(arrays.total_tokens.sum()) - (drafted - accepted)
        assert computed == wanted + again, "every token is computed once, but for hits and preemptions"
    if engine.options.queue_order == "fcfs" and num_forks == 0 and not transferred:
        for e in range(engine.num_ranks):
            mine = [row for row in run.first_admissions if arrays.row_engine[row] == e]
            line = sorted(mine, key=lambda row: (visits[row].arrival_s, row))
            assert mine == line, "first come, first admitted"


@st.composite
def features(draw: st.DrawFn, policy: str) -> tuple[Options, int]:
    """Options that go together, and the number of ranks."""
    padded = policy in ("static", "padded", "prepacked")
    layered = policy == "layered_prefill"
    shape = draw(st.sampled_from(["plain", "plain", "async", "pipeline", "drafts", "ranks"]))
    if layered or (padded and shape in ("drafts", "ranks")):
        shape = "plain"
    extra: dict[str, Any] = {}
    if shape == "async":
        extra |= {"async_scheduling": True}
    elif shape == "pipeline":
        extra |= {"num_stages": draw(st.integers(2, 4)), "stage_interval_frac": draw(st.sampled_from([0.25, 0.6, 1.0]))}
    elif shape == "drafts":
        extra |= {
            "draft_tokens": draw(st.integers(1, 4)), "tree_width": draw(st.sampled_from([1, 1, 2])),
            "adaptive_drafts": draw(st.booleans()), "draft_max_seqs": draw(st.sampled_from([None, 2])),
        }  # fmt: skip
        if draw(st.booleans()):
            extra |= {"acceptance": "trace", "acceptance_values": (0, 3, 1)}
        else:
            extra |= {"acceptance": "constant", "acceptance_values": (draw(st.sampled_from([0.0, 0.6, 1.0])),)}
    cache = draw(st.sampled_from(["none", "hash", "hash, late", "radix"]))
    extra |= {
        "prefix_caching": cache != "none",
        "prefix_cache": "radix" if cache == "radix" else "hash",
        "insert_at": "schedule" if cache == "hash" else "step_end",
    }
    window = draw(st.sampled_from(["none", "none", "hybrid", "all"]))
    if window == "hybrid":
        extra |= {"window_blocks": 2, "window_groups": draw(st.integers(1, 3))}
    elif window == "all" and cache != "radix":
        extra |= {"window_blocks": 3, "all_layers_slide": True}
    if draw(st.booleans()):
        extra |= {"preemption": "swap", "swap_blocks": draw(st.sampled_from([3, 50]))}
    options = named(
        policy,
        num_blocks=draw(st.integers(16, 60)),
        block_tokens=draw(st.sampled_from([1, 2, 4])),
        max_num_seqs=draw(st.integers(1, 6)),
        max_num_batched_tokens=draw(st.integers(8, 40)),
        queue_order=draw(st.sampled_from(QUEUE_ORDERS)),
        full_sequence_gate=draw(st.booleans()) or policy == CHUNKED_V0,
        watermark_frac=draw(st.sampled_from([0.0, 0.1])),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 5])),
        output_reserve_frac=draw(st.sampled_from([0.0, 0.7, 1.0])) if policy != "static" else 1.0,
        victim=draw(st.sampled_from(["last", "fewest_generated"])),
        layer_group_tokens=draw(st.sampled_from([4, 16])),
        num_layers=3,
        **extra,
    )
    num_slots = options.max_num_seqs * draw(st.sampled_from([1, 3]))
    return replace(options, num_slots=num_slots), draw(st.integers(2, 3)) if shape == "ranks" else 1


@st.composite
def visits_for(draw: st.DrawFn, options: Options) -> list[Visit]:
    """Bursts, shared prefixes, several samples; every one could run alone."""
    room = options.num_blocks // (1 + options.window_groups) * options.block_tokens
    room -= options.draft_tokens * options.tree_width
    visits, time_s = [], 0.0
    comes_with_kv = draw(st.sampled_from([False, False, True]))
    for _ in range(draw(st.integers(1, 10))):
        time_s += draw(st.sampled_from([0.0, 0.0, 0.0125, 0.1]))
        num_prompt = draw(st.integers(1, max(1, min(40, room // 2))))
        num_output = draw(st.integers(0, max(1, min(24, room - num_prompt))))
        samples: tuple[int, ...] = ()
        if num_output > 1 and draw(st.sampled_from([False, False, True])):
            samples = tuple(
                sorted((draw(st.integers(1, num_output)) for _ in range(draw(st.integers(1, 3)))), reverse=True)
            )
        transfer_s = draw(st.sampled_from([0.0, 0.001, 0.03])) if comes_with_kv and num_output > 1 else None
        visits.append(
            Visit(
                time_s, num_prompt, num_output, priority=draw(st.integers(0, 2)), client=draw(st.integers(0, 2)),
                group=draw(st.integers(0, 1)), group_tokens=draw(st.sampled_from([0, 8, 100])), samples=samples,
                transfer_s=transfer_s,
            )
        )  # fmt: skip
    return visits


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=40)
@given(data=st.data())
def test_conformance(policy: str, data: st.DataObject) -> None:
    options, num_ranks = data.draw(features(policy), label="options")
    serve(options, data.draw(visits_for(options), label="visits"), num_ranks)


def preset_options(preset: str) -> Options:
    """A small engine with what the preset says."""
    values = {path: each.value for path, each in ENGINE_PRESETS[preset].values.items()}
    return Options(
        num_blocks=40,
        block_tokens=min(values["kv_cache.block_tokens"], 4),
        max_num_seqs=4,
        max_num_batched_tokens=24,
        policy=values["batching.kind"],
        chunk_prompts=values.get("batching.chunk_prompts", False),
        queue_order=values["batching.queue_order"],
        full_sequence_gate=values["batching.full_sequence_gate"],
        watermark_frac=values["batching.watermark_frac"],
        output_reserve_frac=values["batching.output_reserve_frac"],
        preemption=values["batching.preemption"],
        swap_blocks=20,
        victim=values["batching.victim"],
        async_scheduling=values["batching.async_scheduling"],
        prefix_caching=values["kv_cache.prefix_caching"],
        prefix_cache=values.get("kv_cache.prefix_cache", "hash"),
        insert_at=values.get("kv_cache.insert_at", "schedule"),
    )


@pytest.mark.parametrize("preset", ENGINE_PRESETS)
@settings(max_examples=25)
@given(data=st.data())
def test_presets(preset: str, data: st.DataObject) -> None:
    options = preset_options(preset)
    run = serve(options, data.draw(visits_for(options), label="visits"))
    if options.output_reserve_frac == 1.0 and not any(visit.samples for visit in run.visits):
        assert run.engine.arrays.total_preemptions[0] == 0, "with all outputs reserved nobody is preempted"


@pytest.mark.parametrize("num_prompt", [1, 7, 16])
def test_a_lone_prompt_that_fits_has_its_first_token_at_the_same_time(num_prompt: int) -> None:
    first_s = {}
    for policy in POLICIES:
        options = named(policy, num_blocks=40, block_tokens=4, max_num_seqs=4, max_num_batched_tokens=16)
        first_s[policy] = serve(options, [Visit(0.0, num_prompt, 5)]).first_token_s[0]
    assert len(set(first_s.values())) == 1, first_s


@pytest.mark.parametrize("policy", WHOLE)
def test_whole_prompts_have_one_step(policy: str) -> None:
    """Longer than the budget or not."""
    options = named(policy, num_blocks=80, block_tokens=4, max_num_seqs=4, max_num_batched_tokens=16)
    run = serve(options, [Visit(0.0, num_prompt, 3) for num_prompt in (40, 3, 16, 21)])
    for row, num_prompt in enumerate((40, 3, 16, 21)):
        assert next(tokens for step in run.engine.steps for r, tokens in step.scheduled if r == row) == num_prompt
