"""How far served latencies lie from simulated ones: 90% bands by engine, from measured runs that fitted nothing.

Quantiles (5% and 95%) of measured / simulated over served runs of models that no fit has seen, as in split conformal
prediction (Vovk, Gammerman, Shafer 2005). The numbers are in served_bands.json, which says what they are of;
`python -m hermes_sim.validation.served_bands REPORT` makes them anew from one half of all kept-out runs, for the other
half to judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from hermes_sim.hardware.device import Device
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.scenario import Scenario

LATENCIES = ("ttft", "tpot", "e2e")
NAME = "served_bands.json"
LLM_STAGES = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class Band:
    """Nine measurements in ten lie between simulated x low and simulated x high."""

    low_frac: float
    high_frac: float
    num_runs: int = 0
    """Measured runs behind it."""

    def widened(self, other: Band) -> Band:
        """Both uncertainties, one after the other."""
        return Band(self.low_frac * other.low_frac, self.high_frac * other.high_frac, self.num_runs)


def engine_key(kernels: str, *, disaggregated: bool) -> str:
    """What bands are kept by: the engine's family, disaggregated runs apart."""
    return f"{kernels} disaggregated" if disaggregated else kernels


@cache
def served_bands() -> dict[str, dict[str, Band]]:
    """engine_key -> latency -> band; empty for engines that were not measured."""
    content = json.loads((files("hermes_sim.analysis") / NAME).read_text(encoding="utf-8"))
    return {
        key: {latency: Band(**band) for latency, band in bands.items()} for key, bands in content["engines"].items()
    }


def run_bands(scenario: Scenario) -> dict[str, Band]:
    """Latency -> band of a run: the widest of its language models' engines; none where one was never measured.

    Engines on devices whose cost model is an estimate are widened by what the estimate was off elsewhere; without that
    there is no band.
    """
    engines = [engine for engine in scenario.cluster.engines if set(engine.serves) & set(LLM_STAGES)]
    apart = any(not set(LLM_STAGES) <= set(engine.serves) for engine in engines)
    found = []
    for engine in engines:
        bands = served_bands().get(engine_key(engine.parallel.kernels, disaggregated=apart))
        spread = _spread(_devices(scenario, engine))
        if bands is None or spread is None:
            return {}
        found.append({latency: band.widened(spread) for latency, band in bands.items()})
    shared = [latency for latency in LATENCIES if found and all(latency in bands for bands in found)]
    return {
        latency: Band(
            min(bands[latency].low_frac for bands in found),
            max(bands[latency].high_frac for bands in found),
            min(bands[latency].num_runs for bands in found),
        )
        for latency in shared
    }


def _devices(scenario: Scenario, engine: Engine) -> Iterator[Device]:
    """What one replica computes on."""
    for node in scenario.cluster.nodes:
        if engine.node in (None, node.name):
            yield from (
                scenario.devices[node.devices[group].profile] for group in engine.placement if group in node.devices
            )


def _spread(devices: Iterable[Device]) -> Band | None:
    """What is added for devices without kernels of their own; none where nobody knows how far an estimate is off."""
    widest = Band(1.0, 1.0)
    for device in devices:
        if device.cost_model.source.kind != "estimate":
            continue
        error = next(iter(device.cost_model.gemm.values())).held_out
        if error is None or error.low_frac is None or error.high_frac is None:
            return None
        widest = Band(min(widest.low_frac, error.low_frac), max(widest.high_frac, error.high_frac))
    return widest
