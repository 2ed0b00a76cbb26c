"""What was simulated, in words: `8 x A100-SXM4-80GB, 2 x EPYC 7742` and `2,000 requests, Poisson 4/s`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hermes_sim.scenario.scenario import Scenario


def scenario_words(scenario: Scenario) -> dict[str, Any]:
    """Names of cluster and workload, what they hold in a line each, and the seed."""
    return {
        "cluster": scenario.cluster.name,
        "hardware": hardware_words(scenario),
        "workload": scenario.workload.name,
        "traffic": scenario.workload.traffic.describe(),
        "seed": scenario.seed,
        "exact_steps": scenario.exact_steps,
    }


def hardware_words(scenario: Scenario) -> str:
    """The devices of the cluster by their vendors' names, counted over all nodes; what follows a comma is left out."""
    counts: Counter[str] = Counter()
    for node in scenario.cluster.nodes:
        for group in node.devices.values():
            counts[scenario.devices[group.profile].title.split(",")[0]] += node.count * group.count
    return ", ".join(f"{num} x {title}" for title, num in counts.items())
