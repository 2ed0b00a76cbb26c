"""The slow ways to the same answer, on the same requests: an event per step, the reference engine, a plain SimPy loop.

Each benchmark is cut to as many requests as the slow way can take, and production runs those too: the ratio is one of
equal work, in one process, minutes apart. The reference engine and the SimPy loop price a step by three numbers drawn
from the benchmark's own cost model, so that their batches are about as large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

from benchmarks.simpy_loop import AffineCost, run_simpy_loop
from benchmarks.timing import TimedRun, time_run
from benchmarks.workloads import Benchmark
from hermes_sim import Scenario
from hermes_sim.perf.step_cost import StepBatch
from hermes_sim.sim.lower import Lowered
from hermes_sim.workload.requests import RequestTable
from tests.reference_engine import ReferenceEngine
from tests.reference_records import Arrival, BatchCounts, Options, Seconds

PRODUCTION_REPEATS = 5

REFERENCE_BLOCKS = 4096
"""Enough for what the oracle is given, so that nothing is preempted; it looks at every block after every step."""


@dataclass(frozen=True, slots=True)
class Twin:
    """One slow way beside production."""

    name: str
    num_requests: int
    num_steps: int
    us_per_request: float
    production_us_per_request: float
    """The same requests."""

    @property
    def times_slower(self) -> float:
        return self.us_per_request / self.production_us_per_request


def measure_twins(benchmark: Benchmark) -> list[Twin]:
    """All slow ways that the benchmark can be run in."""
    same = median_run(benchmark.scenario(limit=benchmark.num_exact))
    exact = time_run(benchmark.scenario(exact_steps=True, limit=benchmark.num_exact))
    twins = [
        _twin("one event per step", exact.run_s, exact.tables.num_steps, same),
        _twin("SimPy loop", *_timed(lambda: simpy_loop_steps(same.lowered)), same),
    ]
    if not _is_least_outstanding(same.lowered):  # the oracle is one engine: requests have to be dealt out beforehand
        few = median_run(benchmark.scenario(limit=benchmark.num_reference, more=benchmark.reference_overrides))
        twins.append(_twin("reference engine", *_timed(lambda: reference_steps(few.lowered)), few))
    return twins


def median_run(scenario: Scenario) -> TimedRun:
    """Production, several times."""
    runs = sorted((time_run(scenario) for _ in range(PRODUCTION_REPEATS)), key=lambda run: run.run_s)
    return runs[len(runs) // 2]


def _twin(name: str, seconds: float, num_steps: int, production: TimedRun) -> Twin:
    number = len(production.tables.requests["request"])
    return Twin(name, number, num_steps, 1e6 * seconds / number, 1e6 * production.run_s / number)


def _timed(run: Callable[[], int]) -> tuple[float, int]:
    """CPU seconds, and the steps that were run."""
    started_s = process_time()
    num_steps = run()
    return process_time() - started_s, num_steps


def simpy_loop_steps(lowered: Lowered) -> int:
    """Steps of the plain SimPy loop over the same requests."""
    batching = lowered.replicas[0].engine.batching
    _, num_steps = run_simpy_loop(
        lowered.requests,
        affine_cost(lowered),
        num_engines=len(lowered.replicas),
        max_num_seqs=batching.max_num_seqs,
        max_num_batched_tokens=batching.max_num_batched_tokens,
        least_outstanding=_is_least_outstanding(lowered),
    )
    return num_steps


def _is_least_outstanding(lowered: Lowered) -> bool:
    return len(lowered.replicas) > 1 and lowered.scenario.cluster.routing.kind == "least_outstanding_tokens"


def reference_steps(lowered: Lowered) -> int:
    """Steps of the oracle's engines, one after the other, requests dealt out in turn."""
    engine, cost, num_engines = lowered.replicas[0].engine, affine_cost(lowered), len(lowered.replicas)
    options = Options(
        num_blocks=REFERENCE_BLOCKS,
        block_tokens=engine.kv_cache.block_tokens,
        max_num_seqs=engine.batching.max_num_seqs,
        max_num_batched_tokens=engine.batching.max_num_batched_tokens,
        policy="chunked_prefill",
        prefix_caching=engine.kv_cache.prefix_caching,
    )

    def price(counts: BatchCounts) -> Seconds:
        device_s = cost.step_s + cost.token_s * counts.num_tokens + cost.context_token_s * counts.decode_context_sum
        return Seconds(device_s)

    num_steps = 0
    for number in range(num_engines):
        oracle = ReferenceEngine(options, content=lambda row, index: row * 2**32 + index, cost=price)
        num_steps += len(oracle.run(arrivals(lowered.requests, number, num_engines)))
        assert not oracle.rejected
        assert oracle.num_preemptions == 0
    return num_steps


def arrivals(requests: RequestTable, engine: int, num_engines: int) -> list[Arrival]:
    """What round robin sends to one engine."""
    rows = range(engine, requests.num_requests, num_engines)
    return [
        Arrival(
            float(requests.arrival_s[row]), row,
            int(requests.num_prompt_tokens[row]), int(requests.num_output_tokens[row]),
        )
        for row in rows
    ]  # fmt: skip


def affine_cost(lowered: Lowered) -> AffineCost:
    """Three numbers in place of a cost model: one decode, a full prompt step, a batch of decodes with long contexts."""
    cost = lowered.replicas[0].cost
    assert cost is not None
    budget = lowered.replicas[0].engine.batching.max_num_batched_tokens

    def decodes(number: int, context: int) -> float:
        sums = {"decode_context_sum": number * context, "decode_context_max": context}
        return float(cost.seconds(StepBatch(number, number, number, **sums)).sum())

    step_s = decodes(1, 1)
    pairs = budget * (budget + 1) // 2
    prompt = StepBatch(budget, 1, num_prefill=1, prefill_token_pairs=pairs, prefill_context_sum=budget)
    return AffineCost(
        step_s=step_s,
        token_s=(float(cost.seconds(prompt).sum()) - step_s) / budget,
        context_token_s=(decodes(32, 4096) - decodes(32, 16)) / (32 * (4096 - 16)),
    )
