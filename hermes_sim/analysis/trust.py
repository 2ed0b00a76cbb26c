"""How far the numbers can be believed: where step times and hardware figures come from."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from hermes_sim.core.schema import SourceKind
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.sources import Evidence, evidence, weakest_kind

PROVENANCES = ("measured", "interpolated", "analytic", "estimate")
"""Of a step time, strongest first."""


def provenance_fracs(operators: pd.DataFrame, visits: pd.DataFrame) -> dict[str, float]:
    """Shares of the visits' service time by where its cost came from; they add up to 1, or all are 0 without service.

    The operators of one representative step speak for all service time of the visits of that stage kind on the engine
    and its replicas. `unstated`: stages for which no step was written down.
    """
    engines = visits["engine"].map(_engine_name)
    service_s = dict(visits.groupby([engines, "kind"], observed=True)["service_s"].sum().items())
    steps = operators.assign(engine=operators["engine"].map(_engine_name))
    shares: Counter[str] = Counter()
    for place, step in steps.groupby(["engine", "stage"], observed=True):
        step_s = float(step["time_s"].sum())
        if step_s > 0 and place in service_s:
            for provenance, time_s in zip(step["provenance"], step["time_s"], strict=True):
                shares[str(provenance)] += service_s[place] * time_s / step_s
    whole = sum(service_s.values())
    stated = {name: shares[name] / whole if whole else 0.0 for name in PROVENANCES}
    unstated = max(0.0, 1.0 - sum(stated.values())) if whole else 0.0
    return stated | {"unstated": unstated if unstated > 1e-9 else 0.0}


def _engine_name(replica: object) -> str:
    """`llm[3]` -> `llm`."""
    return str(replica).split("[", maxsplit=1)[0]


def weakest_sources(scenario: Scenario) -> dict[str, SourceKind]:
    """Devices and links of the scenario -> the weakest kind of source among their numbers."""
    described = {**scenario.devices, **scenario.links}
    kinds = {name: weakest_kind(thing) for name, thing in described.items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def speed_sources(scenario: Scenario) -> dict[str, Evidence]:
    """Devices and links of the scenario -> what sets their speed -> the weakest kind of source behind it."""
    return {name: evidence(thing) for name, thing in {**scenario.devices, **scenario.links}.items()}
