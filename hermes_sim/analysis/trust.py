"""How far the numbers can be believed: where step times and hardware figures come from."""

from __future__ import annotations

from collections import Counter
from typing import cast

import numpy as np
import pandas as pd

from hermes_sim.core.schema import SourceKind
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.sources import Evidence, evidence, weakest_kind

PROVENANCES = ("measured", "interpolated", "analytic", "estimate")
"""Of a step time, strongest first."""

SMALLEST_SHARE_FRAC = 0.01
"""Of a request's service time: what is less does not decide how far the request can be believed."""


def provenance_fracs(operators: pd.DataFrame, visits: pd.DataFrame) -> dict[str, float]:
    """Shares of the visits' service time by where its cost came from; they add up to 1, or all are 0 without service.

    The operators of one representative step speak for all service time of the visits of that stage kind on the engine
    and its replicas. `unstated`: stages for which no step was written down.
    """
    engines = visits["engine"].map(engine_name)
    service_s = dict(visits.groupby([engines, "kind"], observed=True)["service_s"].sum().items())
    shares: Counter[str] = Counter()
    for place, step in _step_shares(operators).items():
        for provenance, share in step.items():
            shares[provenance] += service_s.get(place, 0.0) * share
    whole = sum(service_s.values())
    stated = {name: shares[name] / whole if whole else 0.0 for name in PROVENANCES}
    unstated = max(0.0, 1.0 - sum(stated.values())) if whole else 0.0
    return stated | {"unstated": unstated if unstated > 1e-9 else 0.0}


def weakest_provenances(operators: pd.DataFrame, visits: pd.DataFrame, num_requests: int) -> pd.Categorical:
    """[num_requests] the weakest provenance that at least a hundredth of a request's service time rests on.

    As in `provenance_fracs`, the representative step of an engine and stage kind speaks for the visits there. Missing
    for requests without such a visit.
    """
    engine, kind = visits["engine"].astype("category").cat, visits["kind"].astype("category").cat
    engines, kinds = ["", *map(engine_name, engine.categories)], ["", *map(str, kind.categories)]
    pairs = (engine.codes.to_numpy(np.int64) + 1) * len(kinds) + kind.codes.to_numpy(np.int64) + 1
    places, codes = np.unique(pairs, return_inverse=True)
    steps = _step_shares(operators)
    parts = [steps.get((engines[place // len(kinds)], kinds[place % len(kinds)]), {}) for place in places]
    requests, service_s = visits["request"].to_numpy(np.int64), visits["service_s"].to_numpy(np.float64)
    known_s = np.zeros((len(PROVENANCES), num_requests))
    for row, provenance in enumerate(PROVENANCES):
        shares = np.array([part.get(provenance, 0.0) for part in parts])
        if shares.any():
            known_s[row] = np.bincount(requests, np.nan_to_num(service_s) * shares[codes], num_requests)
    counts = known_s >= SMALLEST_SHARE_FRAC * known_s.sum(axis=0)
    counts &= known_s > 0.0
    weakest = len(PROVENANCES) - 1 - np.argmax(counts[::-1], axis=0)
    weakest[~counts.any(axis=0)] = -1
    return pd.Categorical.from_codes(weakest, categories=pd.Index(PROVENANCES, dtype="str"))


def _step_shares(operators: pd.DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    """(engine, stage kind) -> provenance -> its share of the time of the representative step."""
    time_s = operators["time_s"]
    keys = [operators["engine"].map(engine_name), operators["stage"], operators["provenance"]]
    rows = time_s.groupby(keys[:2], observed=True).indices
    steps = {place: float(time_s.iloc[at].sum()) for place, at in rows.items()}
    found: dict[tuple[str, str], dict[str, float]] = {}
    for place, kind_s in time_s.groupby(keys, observed=True).sum().items():
        engine, stage, kind = cast(tuple[str, str, str], place)
        if steps[engine, stage] > 0.0:
            found.setdefault((engine, stage), {})[kind] = float(kind_s) / steps[engine, stage]
    return found


def engine_name(replica: object) -> str:
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
