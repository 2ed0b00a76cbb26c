"""Runs a closed loop as the public serving benchmarks do, and takes the means over all of its requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.link import Link
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.replay.closed_loop_setup import NETWORK, SetupError, library_device
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.engine_memory import plan_memory
from hermes_sim.scenario.files import read_description
from hermes_sim.scenario.library import find
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.served_model import served_model
from hermes_sim.scenario.workload import WorkloadFile
from hermes_sim.sim import simulate_scenario

FloatArray = npt.NDArray[np.float64]

REQUESTS_PER_USER = 10
"""Prompts of a run, by users."""

RANGE_RATIO = 0.8
"""Shortest prompt and output, by nominal length, where lengths are drawn."""

SEED = 1


@dataclass(frozen=True, slots=True)
class Means:
    """What a client of the benchmark prints."""

    ttft_s: float
    tpot_s: float
    e2e_s: float
    ttft_p50_s: float
    tpot_p50_s: float
    e2e_p50_s: float
    output_tokens_per_s: float


def closed_loop(
    cluster: ClusterFile, model: ModelArchitecture, isl: int, osl: int, concurrency: int, *, is_drawn: bool
) -> Means:
    """One run: all users start at once and send the next request when the last has ended. Raises SetupError.

    is_drawn: prompts and outputs uniform in [0.8, 1] of nominal, independent of each other; else every one nominal.
    """
    scenario = _scenario(cluster, model, isl, osl, concurrency, is_drawn)
    _require_memory(scenario)
    tables = simulate_scenario(scenario)
    requests = tables.requests
    done = np.isfinite(requests["finish_s"])
    if not done.all():
        raise SetupError(f"{int((~done).sum())} of {len(done)} requests do not fit the engine's KV cache")
    ttft_s = requests["first_token_s"] - requests["arrival_s"]
    e2e_s = requests["finish_s"] - requests["arrival_s"]
    more = requests["num_output_tokens"] > 1
    gaps = (requests["num_output_tokens"][more] - 1).astype(np.float64)
    tpot_s: FloatArray = (e2e_s[more] - ttft_s[more]) / gaps
    return Means(
        ttft_s=float(ttft_s.mean()),
        tpot_s=float(tpot_s.mean()) if more.any() else float("nan"),
        e2e_s=float(e2e_s.mean()),
        ttft_p50_s=float(np.median(ttft_s)),
        tpot_p50_s=float(np.median(tpot_s)) if more.any() else float("nan"),
        e2e_p50_s=float(np.median(e2e_s)),
        output_tokens_per_s=float(requests["num_output_tokens"].sum() / tables.duration_s),
    )


def _scenario(
    cluster: ClusterFile, model: ModelArchitecture, isl: int, osl: int, concurrency: int, is_drawn: bool
) -> Scenario:
    profiles = {group.profile for node in cluster.nodes for group in node.devices.values()}
    links = {link.profile for node in cluster.nodes for link in node.links} | {NETWORK}
    lengths: dict[str, object] = {"kind": "fixed", "num_prompt_tokens": isl, "num_output_tokens": osl}
    if is_drawn:
        lengths |= {"kind": "uniform", "range_ratio": RANGE_RATIO}
    workload = {
        "name": "closed_loop",
        "traffic": {
            "closed_loop": {"concurrency": concurrency},
            "num_requests": REQUESTS_PER_USER * concurrency,
            "lengths": lengths,
        },
    }
    return Scenario(
        cluster=cluster,
        workload=WorkloadFile.model_validate(workload),
        devices={name: library_device(name) for name in profiles},
        links={name: read_description(Link, find("link", name)) for name in links},
        models={model.name: model},
        seed=SEED,
    )


def _require_memory(scenario: Scenario) -> None:
    for engine in scenario.cluster.engines:
        assert engine.model is not None
        model = served_model(engine, scenario.models)
        assert model is not None
        plan = plan_memory(engine, model, None, _device(scenario, engine.name))
        if plan.num_blocks < 1 or plan.shortfall_bytes > 0.0:
            need, have = plan.weights_bytes, _device(scenario, engine.name).memory.capacity_bytes
            raise SetupError(f"weights of {need / 1e9:.0f} GB a device leave no room for KV in {have / 1e9:.0f} GB")


def _device(scenario: Scenario, engine: str) -> Device:
    nodes: Sequence[str] = [one.node or "" for one in scenario.cluster.engines if one.name == engine]
    node = next(node for node in scenario.cluster.nodes if node.name == nodes[0])
    return scenario.devices[node.devices["gpu"].profile]
