"""Before and after an engine: workers that turn text into tokens, and tokens into text for the client.

Tokenisers stand in front of the prefill: c workers, first come first served, with times that follow from the prompt
alone; a visit enters the engine's line when it is tokenised. Detokenisers add their time to every message; that they
may be busy is not modelled, only how busy they are. With a streaming interval of k a message goes out with the first
token, whenever k tokens have come since the last message, and with the last token (vLLM and SGLang:
--stream-interval). Ranks of one replica share their front end.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.replicas import Replica
from hermes_sim.state.arrays import EngineArrays

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Workers:
    """Equal workers with one line, first come first served (G/G/c; with one worker Lindley's recursion)."""

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self.busy_s = 0.0
        self._free_s = [0.0] * num_workers
        """Heap: when each worker is free again."""

    def serve(self, time_s: float, service_s: float) -> float:
        """A job comes, not earlier than the last one; returns when it begins."""
        start_s = max(time_s, self._free_s[0])
        heapq.heapreplace(self._free_s, start_s + service_s)
        self.busy_s += service_s
        return start_s

    def restart(self, time_s: float) -> None:
        """What is in line or under way is lost; all are free."""
        self.busy_s -= sum(max(free_s - time_s, 0.0) for free_s in self._free_s)
        self._free_s = [time_s] * self.num_workers


class FrontEnd:
    """Tokenisers and detokenisers of all engines, and what they cost each visit."""

    def __init__(self, lowered: Lowered) -> None:
        replicas = lowered.replicas
        self.tokenize_s = np.zeros(lowered.num_visits)
        """[num_visits] at work on the visit's prompt, before it arrives at its engine."""
        self.tokenize_queue_s = np.zeros(lowered.num_visits)
        """[num_visits] waiting for a worker, before that."""
        self.detokenize_s = np.array([per_message_s(replica) for replica in replicas])
        """[num_engines] from a token in the engine to the client."""
        self.any_tokenizers = any(replica.engine.host.tokenize is not None for replica in replicas)
        self._replicas = replicas
        self._goes_on = rows_that_go_on(lowered)
        shared: dict[tuple[str, int], Workers] = {}
        self._tokenizers: list[Workers | None] = []
        for replica in replicas:
            tokenize = replica.engine.host.tokenize
            workers = None
            if tokenize is not None:
                workers = shared.setdefault((replica.engine.name, replica.number), Workers(tokenize.num_workers))
            self._tokenizers.append(workers)

    def tokenized_at_s(self, engine: int, row: int, num_tokens: int, time_s: float) -> float:
        """The text of a visit comes at time_s; when its tokens are there. To be called in order of time."""
        workers, tokenize = self._tokenizers[engine], self._replicas[engine].engine.host.tokenize
        if workers is None or tokenize is None:
            return time_s
        service_s = tokenize.per_request_s + num_tokens * tokenize.per_token_s
        start_s = workers.serve(time_s, service_s)
        self.tokenize_queue_s[row] = start_s - time_s
        self.tokenize_s[row] = service_s
        return start_s + service_s

    def restart(self, engine: int, time_s: float) -> None:
        """The workers of an engine have lost what they had to do."""
        workers = self._tokenizers[engine]
        if workers is not None:
            workers.restart(time_s)

    def tokenizer_utilization_frac(self, duration_s: float) -> FloatArray:
        """[num_engines] NaN where there are none."""
        return np.array([
            np.nan if workers is None else utilization(workers.busy_s, workers.num_workers, duration_s)
            for workers in self._tokenizers
        ])  # fmt: skip

    def detokenizer_utilization_frac(self, state: EngineArrays, duration_s: float) -> FloatArray:
        """[num_engines] NaN where there are none. Above 1 they could not keep up: the latencies are too short."""
        served = state.row_engine >= 0
        messages = self.num_messages(state)[served]
        of_engine = np.bincount(state.row_engine[served], messages, len(self._replicas))
        sent: dict[tuple[str, int], float] = {}
        for e, replica in enumerate(self._replicas):
            key = (replica.engine.name, replica.number)
            sent[key] = sent.get(key, 0.0) + float(of_engine[e])
        shares = np.full(len(self._replicas), np.nan)
        for e, replica in enumerate(self._replicas):
            detokenize = replica.engine.host.detokenize
            if detokenize is not None:
                busy_s = sent[replica.engine.name, replica.number] * detokenize.per_message_s
                shares[e] = utilization(busy_s, detokenize.num_workers, duration_s)
        return shares

    def num_messages(self, state: EngineArrays) -> IntArray:
        """[num_rows] messages to the client that each row has caused; the first token's counts with the prefill."""
        interval = np.array([replica.engine.host.stream_interval for replica in self._replicas])
        tokens = np.where(state.row_engine >= 0, state.row_generated.astype(np.int64), 0)
        later = np.where(state.row_continues_as >= 0, 0, np.maximum(tokens - 1, 0))
        first = (tokens > 0) & ~self._goes_on
        return np.asarray(first + -(-later // interval[state.row_engine]), np.int64)


def rows_that_go_on(lowered: Lowered) -> npt.NDArray[np.bool_]:
    """[num_rows] decode visits, whose first token the prefill has sent."""
    goes_on = np.zeros(len(lowered.state.row_request), bool)
    for number, plan in enumerate(lowered.pipelines):
        members = np.flatnonzero(lowered.request_pipeline == number)
        for stage in plan.stages:
            following = stage.decode if stage.decode is not None else stage.more_decode
            if following is not None:
                goes_on[lowered.first_row[members] + following] = True
    return goes_on


def per_message_s(replica: Replica) -> float:
    """Time of a detokeniser of an engine; 0 where it has none."""
    detokenize = replica.engine.host.detokenize
    return 0.0 if detokenize is None else detokenize.per_message_s


def utilization(busy_s: float, num_workers: int, duration_s: float) -> float:
    """Share of the workers' time; 0 for a run without time."""
    return busy_s / (num_workers * duration_s) if duration_s > 0.0 else 0.0
