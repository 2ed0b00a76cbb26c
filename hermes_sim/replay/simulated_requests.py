"""Requests of a measured run through the simulator: what each of them saw, and what the run as a whole did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import RunTables
from hermes_sim.replay.served_engine import ServedEngine
from hermes_sim.sim import simulate_scenario
from hermes_sim.workload.requests import RequestTable

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Latencies:
    """[num_requests] of finished requests; NaN for others."""

    ttft_s: FloatArray
    tpot_s: FloatArray
    """NaN for fewer than two tokens."""
    e2e_s: FloatArray

    @classmethod
    def of(
        cls, sent_s: FloatArray, first_s: FloatArray, last_s: FloatArray, num_output_tokens: FloatArray
    ) -> Latencies:
        """From moments on one clock. TPOT is the mean gap after the first token."""
        gaps = np.where(num_output_tokens > 1, num_output_tokens - 1.0, np.nan)
        return cls(first_s - sent_s, (last_s - first_s) / gaps, last_s - sent_s)

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Latencies:
        """Of some of the requests."""
        return Latencies(self.ttft_s[chosen], self.tpot_s[chosen], self.e2e_s[chosen])


@dataclass(frozen=True, slots=True)
class Simulated:
    """One run."""

    latencies: Latencies
    arrival_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray
    num_output_tokens: FloatArray
    tables: RunTables


def simulate_requests(engine: ServedEngine, requests: RequestTable, *, steps: bool = False) -> Simulated:
    """The experiment. steps: record every step. Raises HermesError where the engine cannot be built or cannot go on."""
    tables = simulate_scenario(engine.scenario(), requests=requests, steps=steps)
    table = tables.requests
    finished = np.asarray(table["status"] == "finished", bool)
    arrival_s, first_s = np.asarray(table["arrival_s"], float), np.asarray(table["first_token_s"], float)
    finish_s = np.where(finished, np.asarray(table["finish_s"], float), np.nan)
    num_tokens = np.asarray(table["num_output_tokens"], float)
    latencies = Latencies.of(arrival_s, first_s, finish_s, num_tokens)
    return Simulated(latencies, arrival_s, first_s, finish_s, num_tokens, tables)
