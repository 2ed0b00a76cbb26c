"""Policies in Python: decisions like the compiled policy's give its run, wrong ones end the run with one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hermes_sim import Decisions, PythonBatching, PythonRouting, Results, SimulationError, simulate
from hermes_sim.batching.python_batching import BatchingView, SequenceView
from hermes_sim.routing.python_routing import Candidate, RoutingView
from tests import scenarios as s


class Chunked(PythonBatching):
    """chunked_prefill as the modelling page states it: rules 1 to 9."""

    def schedule(self, view: BatchingView) -> Decisions:
        left, free = view.budget, view.num_free_blocks
        tokens: list[tuple[int, int]] = []
        running = list(view.running)
        preempted: list[SequenceView] = []
        place = 0
        while place < len(running):
            sequence = running[place]
            number = min(sequence.num_to_do, left)
            while sequence.num_new_blocks(number) > free:
                victim = running.pop()
                preempted.append(victim)
                free += victim.num_freed_blocks
                if victim is sequence:
                    break
            if sequence in preempted:
                break
            if number:
                tokens.append((sequence.row, number))
                free -= sequence.num_new_blocks(number)
                left -= number
            place += 1
        if preempted:
            return Decisions(tokens, [sequence.row for sequence in preempted])
        for sequence in view.waiting:
            if left == 0 or len(running) == view.max_num_seqs or sequence.num_new_blocks(sequence.num_to_do) > free:
                break
            number = min(sequence.num_to_do, left)
            tokens.append((sequence.row, number))
            running.append(sequence)
            free -= sequence.num_new_blocks(number)
            left -= number
        return Decisions(tokens)


def pressed(num_gpu_blocks: int = 150, *, prefix_caching: bool = False, **batching: Any) -> s.Document:
    """A cluster whose engine has few blocks, so that it preempts.

    Without a prefix cache: a step's first sequences may take cached blocks that its last one has been promised.
    """
    options = {"kind": "chunked_prefill", "max_num_seqs": 16, "max_num_batched_tokens": 256, **batching}
    return s.cluster(
        s.llm(batching=options, kv_cache={"num_gpu_blocks": num_gpu_blocks, "prefix_caching": prefix_caching})
    )


HOLDS = ["kv_wait_s", "batch_wait_s", "budget_wait_s"]


def same_tables(first: Results, second: Results) -> None:
    """Times and whole numbers to the last bit; shares of a sequence may be added up in another order. What holds the
    line is known of built-in policies only."""
    for name in ("requests", "visits", "engines"):
        one, other = (getattr(run, name).drop(columns=HOLDS, errors="ignore") for run in (first, second))
        exact = [column for column in one if column.endswith(("_tokens", "num_steps")) or column in TIMES]
        assert exact, name
        pd.testing.assert_frame_equal(one[exact], other[exact], check_exact=True)
        pd.testing.assert_frame_equal(one, other, rtol=1e-9, atol=1e-12)


TIMES = {"arrival_s", "start_s", "finish_s", "first_token_s", "ttft_s", "e2e_s", "status", "preemptions"}


@pytest.mark.parametrize("num_gpu_blocks", [90, 150, 4000])
@pytest.mark.parametrize("seed", [1, 2])
def test_equal_decisions_give_the_compiled_run(num_gpu_blocks: int, seed: int) -> None:
    """Chunks, preemption, recomputation, admission: nothing is lost on the way through Python."""
    workload = s.workload(traffic=s.traffic(rate="12 /s", num_requests=60, prompt=300, output=60))
    cluster = pressed(num_gpu_blocks)
    compiled = simulate(cluster, workload, seed=seed)
    in_python = simulate(cluster, workload, seed=seed, batching={"llm": Chunked()})
    same_tables(compiled, in_python)
    preemptions = int(compiled.engines["num_preemptions"].sum())
    assert (preemptions > 0) == (num_gpu_blocks < 4000), "the small caches are there to be too small"


def test_equal_decisions_with_shared_prefixes() -> None:
    """Hits are looked up by the view and taken by the engine."""
    prefixes = {"groups": 3, "tokens": 160}
    traffic = {**s.traffic(rate="10 /s", num_requests=50, prompt=400, output=40), "prefix": prefixes}
    cluster = pressed(2000, prefix_caching=True)
    compiled = simulate(cluster, s.workload(traffic=traffic))
    assert compiled.requests["num_cached_tokens"].sum() > 0
    same_tables(compiled, simulate(cluster, s.workload(traffic=traffic), batching={"llm": Chunked()}))


def test_one_event_a_step_gives_the_same() -> None:
    workload = s.workload(traffic=s.traffic(num_requests=40, prompt=300, output=50))
    runs = [simulate(pressed(), workload, exact_steps=exact, batching={"llm": Chunked()}) for exact in (False, True)]
    same_tables(*runs)


def test_replicas_beside_compiled_engines() -> None:
    """Two replicas under Python, one engine compiled, jobs before them: all requests end, and twice alike."""
    cluster = s.cluster(
        s.llm(replicas=2, batching={"kind": "chunked_prefill", "max_num_seqs": 8}),
        s.llm("other"),
        s.workers(["timed"]),
        routing={"kind": "least_outstanding_tokens"},
    )
    service = {"kind": "timed", "name": "guard", "service_time": {"kind": "exponential", "mean": "20 ms"}}
    workload = s.workload(service, {**s.PREFILL, "after": ["guard"]}, s.DECODE)
    first, second = (simulate(cluster, workload, batching={"llm": Chunked()}) for _ in range(2))
    same_tables(first, second)
    assert set(first.requests["status"]) == {"finished"}
    assert set(first.visits["engine"].astype(str)) >= {"llm[0]", "llm[1]", "other[0]"}


def test_a_policy_may_preempt_and_go_on() -> None:
    """Every tenth step the last sequence gives way: its tokens are computed again, nobody is lost."""

    class Rude(Chunked):
        def __init__(self) -> None:
            self.num_steps = 0

        def schedule(self, view: BatchingView) -> Decisions:
            self.num_steps += 1
            if self.num_steps % 10 == 0 and len(view.running) > 1:
                *others, last = view.running
                return Decisions([(one.row, 1) for one in others if one.is_decode], [last.row])
            return super().schedule(view)

    results = simulate(pressed(4000), s.workload(), batching={"llm": Rude()})
    assert set(results.requests["status"]) == {"finished"}
    assert results.engines["num_preemptions"].sum() > 0


class Wrong(PythonBatching):
    """One prompt goes well; then an answer of the test's."""

    def __init__(self, answer: Callable[[BatchingView], Any]) -> None:
        self.answer = answer

    def schedule(self, view: BatchingView) -> Any:
        if not view.running:
            first = view.waiting[0]
            return [(first.row, min(first.num_to_do, 64))]
        return self.answer(view)


def row_of(view: BatchingView) -> int:
    return view.running[0].row


def all_of_it(view: BatchingView) -> list[tuple[int, int]]:
    return [(one.row, one.num_to_do) for one in view.waiting]


def one_token_each(view: BatchingView) -> list[tuple[int, int]]:
    return [(one.row, 1) for one in view.waiting]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda view: [(99, 1)], "row 99 is neither running nor waiting here"),
        (lambda view: [(row_of(view), 0)], "row 0 cannot have 0 tokens: it has 36 to do"),
        (lambda view: [(row_of(view), 37)], "row 0 cannot have 37 tokens: it has 36 to do"),
        (lambda view: [(row_of(view), 1), (row_of(view), 1)], "row 0 is scheduled twice"),
        (lambda view: Decisions([(row_of(view), 1)], [row_of(view)]), "row 0 is preempted and scheduled"),
        (lambda view: Decisions([], [row_of(view)] * 2), "a row is preempted twice"),
        (lambda view: Decisions([], [view.waiting[0].row]), "row 2 cannot be preempted: it is not running"),
        (all_of_it, "row 6 goes over the budget of 256 tokens by 44"),
        (one_token_each, "row 6 would be the 4th running sequence, max_num_seqs is 3"),
        (lambda view: [(view.waiting[0].row, 100)], "row 2 cannot have 100 tokens: 5 of 9 KV blocks are free then"),
        (lambda view: [row_of(view)], "schedule must return [(row, number of tokens), ...] or Decisions, got [0]"),
        (lambda view: None, "schedule must return [(row, number of tokens), ...] or Decisions, got None"),
    ],
)  # fmt: skip
def test_a_wrong_decision_ends_the_run_with_policy_engine_time_and_row(
    answer: Callable[[BatchingView], Any], problem: str
) -> None:
    """Four prompts of 100 tokens at once; 64 tokens of the first are 4 of the 9 blocks."""
    lengths = {"kind": "fixed", "num_prompt_tokens": 100, "num_output_tokens": 4}
    traffic = {"arrivals": {"kind": "replay", "times": ["1 s"] * 4}, "lengths": lengths}
    with pytest.raises(SimulationError) as caught:
        simulate(pressed(9, max_num_seqs=3), s.workload(traffic=traffic), batching={"llm": Wrong(answer)})
    assert str(caught.value).startswith("policy Wrong of engine llm[0] at 1.0")
    assert str(caught.value).endswith(f" s: {problem}")


def test_a_policy_that_never_schedules_is_named_by_the_requests_that_wait() -> None:
    class Idle(PythonBatching):
        def schedule(self, view: BatchingView) -> Sequence[tuple[int, int]]:
            return []

    with pytest.raises(SimulationError, match=r"the run cannot go on: request 0 waits for stage 'prefill' at llm\[0\]"):
        simulate(pressed(), s.workload(traffic=s.traffic(num_requests=3)), batching={"llm": Idle()})


def test_the_view_is_what_the_engine_has() -> None:
    """Blocks add up, the line is in order, and nothing is shared by looking at it."""
    seen: list[tuple[int, ...]] = []

    class Looking(Chunked):
        def schedule(self, view: BatchingView) -> Decisions:
            owned = sum(one.num_blocks for one in view.running)
            assert owned + view.num_free_blocks == view.num_blocks, "no prefix is shared here"
            assert all(one.num_freed_blocks == one.num_blocks for one in view.running)
            arrivals = [one.arrival_s for one in view.waiting if one.num_generated == 0]
            assert arrivals == sorted(arrivals)
            assert len(view.waiting) == len(list(view.waiting))
            assert all(one.num_to_do >= 0 for one in [*view.running, *view.waiting])
            assert view.time_s >= max([0.0, *arrivals])
            seen.append(tuple(one.row for one in view.running))
            return super().schedule(view)

    results = simulate(pressed(), s.workload(), batching={"llm": Looking()})
    assert len(seen) >= int(results.engines["num_steps"].iloc[0])
    assert len(set().union(*map(set, seen))) > 10


class Emptiest(PythonRouting):
    """Fewest requests inside; ties go to the first."""

    def choose(self, view: RoutingView) -> Candidate:
        return min(view.candidates, key=lambda engine: engine.num_requests)


def test_a_policy_that_fails_is_told_with_its_line() -> None:
    class Broken(PythonBatching):
        def schedule(self, view: BatchingView) -> Any:
            return [] if view.time_s < 0 else view.running[99]

    with pytest.raises(SimulationError) as caught:
        simulate(pressed(90), s.workload(), batching={"llm": Broken()})
    assert "policy Broken of engine llm[0] at" in str(caught.value)
    assert "IndexError: tuple index out of range (test_python_policy.py, line" in str(caught.value)


@pytest.mark.parametrize("exact_steps", [False, True])
def test_a_router_in_python_is_the_compiled_one(exact_steps: bool) -> None:
    workload = s.workload(traffic=s.traffic(rate="30 /s", num_requests=80))
    cluster = s.cluster(s.llm(replicas=3), routing={"kind": "least_outstanding_requests"})
    compiled = simulate(cluster, workload, exact_steps=exact_steps)
    in_python = simulate(cluster, workload, exact_steps=exact_steps, routing=Emptiest())
    same_tables(compiled, in_python)
    assert np.ptp(compiled.visits.groupby("engine", observed=True).size()) > 0
