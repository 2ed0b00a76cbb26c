"""The same workloads as one would write them in plain SimPy: a process per engine, one timeout per step.

Chunked prefill under one token budget, at most so many sequences, round robin or least outstanding tokens over the
engines. No KV blocks, no prefix cache, no preemption, no energy, no shares: first and last token of each request are
all it keeps. The batch is a list of small objects with slots; the step's time is three numbers (`AffineCost`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import simpy

from hermes_sim.workload.requests import RequestTable

Events = Generator[simpy.Event, None, None]


@dataclass(frozen=True, slots=True)
class AffineCost:
    """Seconds of a step: a constant, so much per new token, so much per token of KV that decodes read."""

    step_s: float
    token_s: float
    context_token_s: float


class Visit:
    """One request inside an engine."""

    __slots__ = ("finish_s", "first_token_s", "num_context", "num_output_left", "num_prompt_left")

    def __init__(self, num_prompt: int, num_output: int) -> None:
        self.num_prompt_left = num_prompt
        self.num_output_left = num_output
        self.num_context = 0
        self.first_token_s = 0.0
        self.finish_s = 0.0


class SimpyEngine:
    """Serves visits in steps; sleeps while it has none."""

    def __init__(
        self, environment: simpy.Environment, cost: AffineCost, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        self.environment = environment
        self.cost = cost
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Visit] = deque()
        self.wake = environment.event()
        self.num_outstanding_tokens = 0
        self.num_steps = 0
        environment.process(self.serve())

    def push(self, visit: Visit) -> None:
        self.waiting.append(visit)
        self.num_outstanding_tokens += visit.num_prompt_left + visit.num_output_left
        if not self.wake.triggered:
            self.wake.succeed()

    def serve(self) -> Events:
        environment, cost, waiting = self.environment, self.cost, self.waiting
        decoding: list[Visit] = []
        prefilling: list[tuple[Visit, int]] = []
        while True:
            if not decoding and not prefilling and not waiting:
                self.wake = environment.event()
                yield self.wake
            # who runs: all decodes, prompts begun, then prompts that wait, under one budget
            left = self.max_num_batched_tokens - len(decoding)
            prompts = [visit for visit, _ in prefilling]
            prefilling = []
            for visit in prompts:
                num_tokens = min(visit.num_prompt_left, left)
                left -= num_tokens
                prefilling.append((visit, num_tokens))
            while waiting and left > 0 and len(decoding) + len(prefilling) < self.max_num_seqs:
                visit = waiting.popleft()
                num_tokens = min(visit.num_prompt_left, left)
                left -= num_tokens
                prefilling.append((visit, num_tokens))
            num_context = 0
            for visit in decoding:
                num_context += visit.num_context
            yield environment.timeout(
                cost.step_s + cost.token_s * (self.max_num_batched_tokens - left) + cost.context_token_s * num_context
            )
            # what came of it
            now_s = environment.now
            self.num_steps += 1
            ended = False
            for visit in decoding:
                visit.num_context += 1
                visit.num_output_left -= 1
                if visit.num_output_left == 0:
                    visit.finish_s = now_s
                    ended = True
            num_tokens = len(decoding)
            if ended:
                decoding = [visit for visit in decoding if visit.num_output_left > 0]
            if prefilling:
                for visit, chunk in prefilling:
                    num_tokens += chunk
                    visit.num_prompt_left -= chunk
                    visit.num_context += chunk
                    if visit.num_prompt_left == 0:
                        num_tokens += 1
                        visit.first_token_s = now_s
                        visit.num_output_left -= 1
                        if visit.num_output_left > 0:
                            decoding.append(visit)
                        else:
                            visit.finish_s = now_s
                prefilling = [(visit, 0) for visit, _ in prefilling if visit.num_prompt_left > 0]
            self.num_outstanding_tokens -= num_tokens


def run_simpy_loop(
    requests: RequestTable,
    cost: AffineCost,
    *,
    num_engines: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    least_outstanding: bool,
) -> tuple[Sequence[Visit], int]:
    """All requests through equal engines: the visits, and the number of steps."""
    environment = simpy.Environment()
    engines = [SimpyEngine(environment, cost, max_num_seqs, max_num_batched_tokens) for _ in range(num_engines)]
    visits = [
        Visit(num_prompt, max(num_output, 1))
        for num_prompt, num_output in zip(
            requests.num_prompt_tokens.tolist(), requests.num_output_tokens.tolist(), strict=True
        )
    ]

    def arrive() -> Events:
        for number, (arrival_s, visit) in enumerate(zip(requests.arrival_s.tolist(), visits, strict=True)):
            yield environment.timeout(arrival_s - environment.now)
            if least_outstanding:
                engine = min(engines, key=lambda one: one.num_outstanding_tokens)
            else:
                engine = engines[number % num_engines]
            engine.push(visit)

    environment.process(arrive())
    environment.run()
    return visits, sum(engine.num_steps for engine in engines)
