"""All k times as fast: every time of a run is shorter by k. A constant that is hidden in the program would show."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.analysis.frames import run_frames
from hermes_sim.core.tables import REQUESTS, VISITS
from hermes_sim.explore.explain.rates import all_sped_up
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.overrides import parse_override
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s

SMALL_INDEX = "workload.pipelines.rag.stages.retrieve.index.num_vectors=1e7"
PAIRS = {
    "a100x8": ("rag", SMALL_INDEX),
    "cpu_numa": ("rag", SMALL_INDEX),
    "edge_cloud": ("edge_chat",),
    "h100x32_racks": ("long_prompts",),
    "h100x8_agents": ("tool_agent",),
    "h100x8_kv_stores": ("kv_retrieval",),
    "mixed_rack": ("rag", SMALL_INDEX),
}
"""Cluster -> workload and overrides. Every shipped pair keeps the law but those with devices that state no clock, whose
cycles are counted at a nominal one (attention beside the arrays of dcim_3nm), and arrivals by a curve over the day."""


def times(scenario: Scenario) -> dict[str, np.ndarray]:
    frames = run_frames(simulate_scenario(scenario))
    columns = {("requests", name) for name in REQUESTS} | {("visits", name) for name in VISITS}
    return {f"{table}.{name}": frames[table][name].to_numpy() for table, name in sorted(columns) if name.endswith("_s")}


@pytest.mark.parametrize("cluster", PAIRS)
def test_twice_as_fast_takes_half_the_time(cluster: str) -> None:
    """By a power of two, so that next to nothing is rounded otherwise."""
    workload, *overrides = PAIRS[cluster]
    wanted = [parse_override(text) for text in ("workload.traffic.num_requests=8", *overrides)]
    scenario = load_scenario(cluster, workload, overrides=wanted)
    slow, fast = times(scenario), times(all_sped_up(scenario, 2.0))
    for name, values in slow.items():
        np.testing.assert_allclose(fast[name], values / 2.0, rtol=1e-12, atol=1e-13, err_msg=name)


def test_a_tenth_more_of_everything_takes_a_tenth_less() -> None:
    scenario = load_scenario(s.cluster(s.llm()), s.workload(traffic=s.traffic(num_requests=20)))
    slow, fast = times(scenario), times(all_sped_up(scenario, 1.1))
    for name, values in slow.items():
        np.testing.assert_allclose(fast[name], values / 1.1, rtol=1e-9, atol=1e-12, err_msg=name)
