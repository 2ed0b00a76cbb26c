"""Searches whose runs are a formula: what a point measures is known at once, and all of it can be gone through."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hermes_sim.explore.plan import PlannedRun
from hermes_sim.explore.run_table import DONE
from hermes_sim.explore.workers.workers import End, InProcess

Measured = Callable[[Mapping[str, str], float], dict[str, float]]
"""(point, share of the requests) -> metrics."""

NUM_REQUESTS = 900
BATCHING = "cluster.engines.llm.batching"


def measured(point: Mapping[str, str], share: float) -> dict[str, float]:
    """Latency falls with the width up to a best one, cost rises with it; the best budget differs by kind. Short runs
    are too good where the budget is large."""
    width, budget, kind = float(point["seqs"]), float(point["budget"]), KINDS.index(point["kind"])
    latency = (1 / width + 0.05 * width) * (1 + 0.3 * (0, 1, -0.5, 0.4)[kind])
    latency = latency * (budget / 512) ** (-0.3 if kind < 2 else 0.2) + 0.01 * budget / 512
    cost = width**0.6 * (1 + (0.5, 0, 1.2, 0.2)[kind]) / (budget / 512) ** 0.4 + 0.1 * width
    return {
        "ttft_p99_s": latency * (1 - 0.3 * (1 - share) * budget / 8192),
        "rent_usd_per_h": cost * (1 + 0.05 * (1 - share)),
    }


KINDS = ("a", "b", "c", "d")
SPACE: list[dict[str, Any]] = [
    {"name": "seqs", "key": f"{BATCHING}.max_num_seqs", "values": [1, 2, 4, 8]},
    {"name": "budget", "key": f"{BATCHING}.max_num_batched_tokens", "values": [512, 1024, 2048, 4096, 8192]},
    {"name": "kind", "key": "cluster.title", "values": list(KINDS)},
]
"""80 points."""
LATENCY, COST = "ttft_p99_s", "rent_usd_per_h"


def small(**keys: Any) -> dict[str, Any]:
    """A search of those 80 points, with these keys in place of its own."""
    return {
        "name": "small",
        "base": {
            "cluster": "box",
            "workload": "traffic",
            "set": {"workload.traffic.num_requests": NUM_REQUESTS},
        },
        "axes": SPACE,
        "objectives": [LATENCY],
        "trials": 16,
        **keys,
    }


class Formula(InProcess):
    """Workers that compute the formula instead of running anything."""

    def __init__(self, formula: Measured = measured, most: float = math.inf) -> None:
        """most: runs after which the process would die; here KeyboardInterrupt stands for it."""
        super().__init__()
        self.formula = formula
        self.most = most
        self.asked: list[tuple[Mapping[str, str], float, int]] = []
        """Every run: point, share of the requests, seed."""
        self._runs: list[tuple[int, PlannedRun]] = []

    @property
    def num_begun(self) -> int:
        return len(self._runs)

    def begin(self, ticket: int, function: Callable[[Any], Any], item: Any, key: str = "") -> None:
        self._runs.append((ticket, item))

    def wait(self) -> list[End]:
        ticket, run = self._runs.pop(0)
        if len(self.asked) >= self.most:
            raise KeyboardInterrupt
        assert run.scenario is not None
        assert run.seed is not None
        share = (run.scenario.workload.traffic.num_requests or 0) / NUM_REQUESTS
        self.asked.append((run.point, share, run.seed))
        row = {"status": DONE, "error": "", "wall_time_s": 0.1, **self.formula(run.point, share)}
        return [End(ticket, "done", row)]

    def abandon(self) -> None:
        self._runs.clear()

    def prepare(self, scenario: Any) -> None:
        pass
