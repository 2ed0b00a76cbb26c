"""The reference loop: continuous batching with chunked prefill over a paged KV cache, replaying requests in real time.

The rules are those of vLLM's V1 scheduler without prefix caching: one token budget a step, running sequences first,
then waiting ones in order of arrival. A sequence is admitted when all the blocks it will ever need are free, so that
nothing is preempted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter, sleep

import numpy as np

from hermes_sim.profile.backend import Backend, IntArray
from hermes_sim.profile.engine_model import CapturedDecode, PromptPart, StepInput, Transformer, slots_of
from hermes_sim.profile.request_trace import Request

LONGEST_SLEEP_S = 1e-3


@dataclass(slots=True, eq=False)
class Generation:
    """A request in the loop. Times are seconds from the start of the run."""

    number: int
    request: Request
    blocks: IntArray
    queued_s: float
    """When the loop saw it: between two steps."""
    num_computed: int = 0
    """Tokens whose keys and values are in the cache."""
    num_generated: int = 0
    last_token: int = 0
    scheduled_s: float | None = None
    first_token_s: float | None = None
    finish_s: float | None = None

    @property
    def in_prompt(self) -> bool:
        return self.num_computed < self.request.num_prompt_tokens


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step: what was in it and how long it took, from deciding to the sampled tokens on the host."""

    start_s: float
    duration_s: float
    schedule_s: float
    """Of these, deciding and building the arrays on the host."""
    num_prefill_seqs: int
    num_prefill_tokens: int
    prefill_history_tokens: int
    num_decode_seqs: int
    decode_context_tokens: int
    """Sum over the decodes, the new token included."""
    max_context_tokens: int
    graph_batch_size: int
    """Padded size of the captured step; 0: not captured."""


@dataclass(slots=True)
class Run:
    """All sequences and steps of a replay."""

    sequences: list[Generation] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)


class EngineLoop:
    """Scheduler and model; `replay` runs a list of requests to its end."""

    def __init__(
        self,
        model: Transformer,
        *,
        num_blocks: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_blocks_per_seq: int,
        captured: CapturedDecode | None,
    ) -> None:
        self._model = model
        self._backend: Backend = model.backend
        self._free_blocks = deque(range(1, num_blocks + 1))
        self._max_num_seqs = max_num_seqs
        self._budget = max_num_batched_tokens
        self._max_blocks_per_seq = max_blocks_per_seq
        self._captured = captured
        self._waiting: deque[tuple[int, Request, float]] = deque()
        self._running: list[Generation] = []
        self._start_s = 0.0
        self._prompt = np.random.default_rng(0).integers(0, model.shape.vocabulary, 1 << 16)

    def replay(self, requests: Sequence[Request], end_s: float, progress: Callable[[int], None] | None = None) -> Run:
        """Arrivals by the clock; new ones stop once `end_s` seconds have passed, those in the loop are finished."""
        run = Run()
        coming = deque(enumerate(requests))
        self._start_s = perf_counter()
        while coming or self._waiting or self._running:
            now_s = self._now()
            if now_s > end_s:
                coming.clear()
                self._waiting.clear()
            while coming and coming[0][1].arrival_s <= now_s:
                self._waiting.append((*coming.popleft(), now_s))
            if not (self._waiting or self._running):
                if coming:
                    sleep(min(max(coming[0][1].arrival_s - now_s, 0.0), LONGEST_SLEEP_S))
                continue
            run.steps.append(self._step(run))
            if progress is not None:
                progress(sum(sequence.finish_s is not None for sequence in run.sequences))
        return run

    def _now(self) -> float:
        return perf_counter() - self._start_s

    def _step(self, run: Run) -> StepRecord:
        start_s = self._now()
        decodes, chunks = self._schedule(run)
        for sequence, _ in chunks:
            if sequence.scheduled_s is None:
                sequence.scheduled_s = start_s
        contexts = [sequence.num_computed + 1 for sequence in decodes]
        use_graph = self._captured is not None and not chunks and len(decodes) <= self._captured.largest
        if use_graph:
            launch_s, sampled, size = self._run_captured(decodes)
        else:
            (launch_s, sampled), size = self._run_eager(decodes, chunks), 0
        record = StepRecord(
            start_s=start_s,
            duration_s=self._now() - start_s,
            schedule_s=launch_s - start_s,
            num_prefill_seqs=len(chunks),
            num_prefill_tokens=sum(count for _, count in chunks),
            prefill_history_tokens=sum(sequence.num_computed for sequence, _ in chunks),
            num_decode_seqs=len(decodes),
            decode_context_tokens=sum(contexts),
            max_context_tokens=max(contexts, default=0),
            graph_batch_size=size,
        )
        self._finish_step(decodes, chunks, sampled)
        return record

    def _schedule(self, run: Run) -> tuple[list[Generation], list[tuple[Generation, int]]]:
        """Decodes, and chunks of prompts with their number of tokens, within one budget of tokens."""
        budget = self._budget
        decodes = [sequence for sequence in self._running if not sequence.in_prompt][:budget]
        budget -= len(decodes)
        chunks: list[tuple[Generation, int]] = []
        for sequence in (one for one in self._running if one.in_prompt):
            count = min(sequence.request.num_prompt_tokens - sequence.num_computed, budget)
            if count > 0:
                chunks.append((sequence, count))
                budget -= count
        while self._waiting and budget > 0 and len(self._running) < self._max_num_seqs:
            number, request, queued_s = self._waiting[0]
            needed = -(-(request.num_prompt_tokens + request.num_output_tokens) // self._model.block_tokens)
            if needed > len(self._free_blocks):
                break
            self._waiting.popleft()
            blocks = np.array([self._free_blocks.popleft() for _ in range(needed)], np.int64)
            sequence = Generation(number, request, blocks, queued_s)
            run.sequences.append(sequence)
            self._running.append(sequence)
            count = min(request.num_prompt_tokens, budget)
            chunks.append((sequence, count))
            budget -= count
        return decodes, chunks

    def _decode_arrays(self, decodes: Sequence[Generation]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Tokens, positions, slots, block tables of the decodes."""
        positions = np.array([sequence.num_computed for sequence in decodes], np.int64)
        tokens = np.array([sequence.last_token for sequence in decodes], np.int64)
        tables = np.zeros((len(decodes), self._max_blocks_per_seq), np.int64)
        for row, sequence in enumerate(decodes):
            tables[row, : len(sequence.blocks)] = sequence.blocks
        block_tokens = self._model.block_tokens
        blocks = tables[np.arange(len(decodes)), positions // block_tokens]
        return tokens, positions, blocks * block_tokens + positions % block_tokens, tables

    def _run_captured(self, decodes: Sequence[Generation]) -> tuple[float, IntArray, int]:
        assert self._captured is not None
        tokens, positions, slots, tables = self._decode_arrays(decodes)
        launch_s = self._now()
        out, size = self._captured.step(tokens, positions, slots, tables, positions + 1)
        return launch_s, self._backend.to_host(out)[: len(decodes)], size

    def _run_eager(
        self, decodes: Sequence[Generation], chunks: Sequence[tuple[Generation, int]]
    ) -> tuple[float, IntArray]:
        tokens, positions, slots, tables = self._decode_arrays(decodes)
        all_tokens, all_positions, all_slots = [tokens], [positions], [slots]
        parts, first_row = [], len(decodes)
        sampled_rows = list(range(len(decodes)))
        for sequence, count in chunks:
            chunk = np.arange(sequence.num_computed, sequence.num_computed + count)
            all_positions.append(chunk)
            all_tokens.append(self._prompt[(chunk + sequence.number) % len(self._prompt)])
            all_slots.append(slots_of(sequence.blocks, chunk, self._model.block_tokens))
            parts.append(PromptPart(first_row, count, sequence.num_computed, self._backend.integers(sequence.blocks)))
            first_row += count
            sampled_rows.append(first_row - 1)
        whole = self._backend.integers
        batch = StepInput(
            whole(np.concatenate(all_tokens)), whole(np.concatenate(all_positions)), whole(np.concatenate(all_slots)),
            len(decodes), whole(tables), whole(positions + 1), tuple(parts), whole(sampled_rows),
        )  # fmt: skip
        launch_s = self._now()
        return launch_s, self._backend.to_host(self._model.step(batch))

    def _finish_step(
        self, decodes: Sequence[Generation], chunks: Sequence[tuple[Generation, int]], sampled: IntArray
    ) -> None:
        now_s = self._now()
        for sequence in decodes:
            sequence.num_computed += 1
        for sequence, count in chunks:
            sequence.num_computed += count
        stepped = [*decodes, *(sequence for sequence, _ in chunks)]
        for sequence, token in zip(stepped, sampled.tolist(), strict=True):
            if sequence.in_prompt:
                continue
            sequence.last_token = token
            sequence.num_generated += 1
            if sequence.first_token_s is None:
                sequence.first_token_s = now_s
            if sequence.num_generated == sequence.request.num_output_tokens:
                sequence.finish_s = now_s
                self._free_blocks.extend(sequence.blocks.tolist())
        self._running = [sequence for sequence in self._running if sequence.finish_s is None]
