"""Keys of waiting lists that are sorted by what a visit brings: shortest job first, least slack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import TokenBatching
from hermes_sim.perf.step_cost import LlmCost, StepBatch
from hermes_sim.scenario.slo import LatencyLimit, Slo
from hermes_sim.sim.replicas import Replica
from hermes_sim.state.arrays import EngineArrays
from hermes_sim.state.sequences import final_outputs

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Deadline:
    """Objectives of the time to the first token, the nearest of which counts."""

    limits: tuple[LatencyLimit, ...]

    def slack_s(self, alone_s: float) -> float:
        """How long after its arrival a request may be begun; its prefill takes `alone_s`.

        Without an objective the longer prefill has less time, as under any objective that is the same for all.
        """
        return min(self._allowed_s(alone_s), default=0.0) - alone_s

    def loosest_s(self, alone_s: float) -> float:
        """The bound that every good request keeps; infinite without one."""
        return max(self._allowed_s(alone_s), default=float("inf"))

    def _allowed_s(self, alone_s: float) -> list[float]:
        return [
            limit.time_s if limit.time_s is not None else (limit.unloaded_multiple or 0.0) * alone_s
            for limit in self.limits
        ]


class QueueKeys:
    """Sets the key of a visit when it joins the line of an engine that sorts by one."""

    def __init__(
        self, state: EngineArrays, replicas: Sequence[Replica], slos: Sequence[Slo], request_class: IntArray
    ) -> None:
        """`slos`: of each class."""
        self._state = state
        self._deadlines = [Deadline(tuple(slo.ttft.values())) for slo in slos]
        self._request_class = request_class
        self._costs = [replica.cost for replica in replicas]
        self._orders: list[str] = []
        self._budgets: list[int] = []
        for replica in replicas:
            batching = replica.engine.batching
            tokens = isinstance(batching, TokenBatching)
            self._orders.append(batching.queue_order if isinstance(batching, TokenBatching) else "fcfs")
            self._budgets.append(self._largest_step(batching, replica) if isinstance(batching, TokenBatching) else 0)
            assert tokens == (replica.cost is not None)
        self._alone_s: dict[tuple[int, int], float] = {}
        self.any_sorted = bool({"sjf", "least_slack"} & set(self._orders))

    @staticmethod
    def _largest_step(batching: TokenBatching, replica: Replica) -> int:
        """Most prompt tokens of a prompt alone in one step."""
        if batching.switches().chunk_prefill:
            chunk = batching.long_prefill_token_threshold or batching.max_num_batched_tokens
            return min(chunk, batching.max_num_batched_tokens)
        assert replica.cost is not None
        return len(replica.cost.linear) - 1

    def set(self, engine: int, row: int, arrival_s: float, decodes: bool) -> None:
        """`arrival_s`: of the request; `decodes`: the prompt is computed already."""
        state, order = self._state, self._orders[engine]
        if order == "sjf":
            state.row_key[row] = state.row_prompt[row] + final_outputs(state, np.array([row]))[0]
        elif order == "least_slack":
            alone_s = 0.0 if decodes else self.alone_s(engine, int(state.row_prompt[row]))
            deadline = self._deadlines[self._request_class[state.row_request[row]]]
            state.row_key[row] = arrival_s + deadline.slack_s(alone_s)

    def alone_s(self, engine: int, num_prompt_tokens: int) -> float:
        """Seconds of a prefill that has the engine to itself and finds nothing in its cache."""
        cost = self._costs[engine]
        assert cost is not None
        key = (id(cost), num_prompt_tokens)
        if key not in self._alone_s:
            self._alone_s[key] = prefill_seconds(cost, num_prompt_tokens, self._budgets[engine])
        return self._alone_s[key]


def prefill_seconds(cost: LlmCost, num_tokens: int, largest_step: int) -> float:
    """Seconds of the steps that compute a prompt of so many tokens, in chunks of the largest step."""
    total_s = 0.0
    for start in range(0, num_tokens, largest_step):
        chunk = min(largest_step, num_tokens - start)
        batch = StepBatch(
            num_tokens=chunk,
            num_sampled=int(start + chunk == num_tokens),
            num_prefill=1,
            prefill_token_pairs=chunk * start + chunk * (chunk + 1) // 2,
            prefill_context_sum=start + chunk,
        )
        total_s += float(np.sum(cost.seconds(batch)))
    return total_s
