"""Power caps: the clock that keeps to them, what it costs in time, what it saves in energy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from hermes_sim.core.errors import ConfigError, SimulationError
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.power_cap import clock_frac
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s
from tests.properties.test_exact_steps import assert_equal

IDLE_W, TDP_W = 55.0, 400.0
"""Of an A100."""
PROMPTS = s.workload(
    traffic={
        "arrivals": {"kind": "constant", "rate": "1 /s"}, "num_requests": 20,
        "lengths": {"kind": "fixed", "num_prompt_tokens": 2000, "num_output_tokens": 20},
    }
)  # fmt: skip


def run(*caps: dict[str, Any]) -> Results:
    cluster = s.cluster(s.llm(), num_gpus=1, num_cpus=1, power_caps=list(caps))
    cluster["nodes"][0]["links"] = [{"between": ["gpu", "cpu"], "profile": "pcie4_x16"}]
    return simulate(cluster, PROMPTS)


def cpu_idle_w() -> float:
    scenario = load_scenario(s.cluster(s.llm()), PROMPTS)
    return scenario.devices["epyc_7742"].power.idle_w


def test_half_the_power_of_an_h100_costs_what_splitwise_saw() -> None:
    assert 1.0 / clock_frac(350.0, 70.0, 630.0, 3.0) == pytest.approx(1.3, abs=0.02)
    assert clock_frac(700.0, 70.0, 630.0, 3.0) == 1.0


def test_compute_takes_longer_and_memory_does_not() -> None:
    cap_w = cpu_idle_w() + IDLE_W + (TDP_W - IDLE_W) * 0.8**3
    full, capped = run(), run({"cap": f"{cap_w} W", "node": "node"})
    np.testing.assert_allclose(capped.visits["compute_s"], full.visits["compute_s"] / 0.8, rtol=1e-9)
    np.testing.assert_allclose(capped.visits["memory_s"], full.visits["memory_s"], rtol=1e-9)
    # energy: seconds by what limits them, at the power that each draws at 0.8 of the clock
    seconds = capped.engines[["compute_s", "memory_s", "network_s", "host_s"]].to_numpy()[0]
    powers_w = TDP_W * np.array([1.0, 0.8, 0.3, 0.18])
    busy_j = float((seconds * (IDLE_W + (powers_w - IDLE_W) * 0.8**3)).sum())
    idle_j = IDLE_W * (capped.duration_s - float(seconds.sum()))
    assert capped.engines["energy_j"].sum() == pytest.approx(busy_j + idle_j, rel=1e-6)
    assert capped.engines["energy_j"].sum() < full.engines["energy_j"].sum()


def test_energy_of_requests_is_that_of_the_engines_through_a_change() -> None:
    capped = run({"cap": "300 W", "at": "7 s", "lasts": "5 s"}, {"cap": "350 W", "at": "9 s"})
    of_requests = capped.requests[["energy_j", "idle_energy_j", "link_energy_j"]].to_numpy().sum()
    assert of_requests == pytest.approx(capped.engines["energy_j"].sum() + capped.links["energy_j"].sum(), rel=1e-9)
    prefill = capped.visits[capped.visits["kind"] == "prefill"]["compute_s"].to_numpy()
    full = run().visits
    full = full[full["kind"] == "prefill"]["compute_s"].to_numpy()
    slow = prefill / full
    assert (slow[:6] == 1.0).all()
    assert slow[8] == pytest.approx(slow[10], rel=1e-9), "the lower of two clocks counts"
    assert slow[10] > slow[14] > 1.0


def test_the_cap_of_a_cluster_is_shared() -> None:
    engines = [s.llm(replicas=2), s.workers(["embed", "retrieve"])]
    workload = s.workload(*s.RAG, traffic=s.traffic(rate="10 /s", num_requests=60))
    case = s.cluster(*engines, power_caps=[{"cap": "1.1 kW", "at": "1 s", "lasts": "2 s"}]), workload
    fast, slow = (simulate_scenario(load_scenario(*case, exact_steps=exact)) for exact in (False, True))
    assert_equal(fast, slow)
    free = simulate_scenario(load_scenario(s.cluster(*engines), workload))
    assert np.nansum(fast.visits["compute_s"]) > np.nansum(free.visits["compute_s"])


def test_mistakes() -> None:
    with pytest.raises(SimulationError, match="cannot keep to 100 W: at their lowest clock"):
        run({"cap": "100 W"})
    with pytest.raises(ConfigError, match="there is no node 'nod'"):
        run({"cap": "1 kW", "node": "nod"})
