"""Numbers that a scenario states or implies before it is run: what a constraint may name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from hermes_sim.batching import TokenBatching
from hermes_sim.core.words import did_you_mean, listed, shown
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.placement import PlacementError, Slots
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.validate import keys_of

ROOTS: Final = ("cluster", "workload", "devices", "links", "models")
"""What a path of keys begins with: the parts of a resolved scenario."""
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Fact:
    """One number of a scenario."""

    words: str
    of: Callable[[Scenario], float]


def fact_or_key(scenario: Scenario, name: str) -> bool | int | float | str:
    """A fact by its name, or the value at a path of keys in base units. Raises LookupError with a text for the user."""
    if name in FACTS:
        return FACTS[name].of(scenario)
    here: Any = scenario
    done = ""
    for match in _STEP.finditer(name):
        part: str | int = int(match[2]) if match[2] is not None else str(match[1])
        here = _inside(here, part, done or "a scenario")
        done = name[: match.end()]
    if isinstance(here, bool | int | float | str):
        return here
    raise LookupError(f"{name} is {shown(here) if here is None else 'no single value'}")


def _inside(holder: Any, part: str | int, where: str) -> Any:
    """A field by its key, an entry of a mapping, or one of a list by its name or index."""
    if isinstance(holder, BaseModel):
        for name, field in type(holder).model_fields.items():
            if part in (name, field.alias):
                return getattr(holder, name)
        known = keys_of(type(holder))
    elif isinstance(holder, dict):
        if part in holder:
            return holder[part]
        known = [str(key) for key in holder]
    elif isinstance(holder, tuple):
        if isinstance(part, int) and part < len(holder):
            return holder[part]
        known = [str(one.name) for one in holder if hasattr(one, "name")]
        if part in known:
            return next(one for one in holder if getattr(one, "name", None) == part)
    else:
        raise LookupError(f"{where} is {shown(holder)} and has no keys")
    raise LookupError(f"{where} has no {part!r} ({listed(known)}).{did_you_mean(str(part), known)}")


def _shares(scenario: Scenario) -> Iterator[tuple[Device, float]]:
    """For each engine and device group of it: the device, and how many of them it has in all its replicas together,
    as parts where it has some cores only."""
    for engine in scenario.cluster.engines:
        groups = _groups(scenario, engine)
        for name, placement in engine.placement.items():
            device = groups[name]
            cores = placement.cores
            share = 1.0 if cores is None else cores / (device.num_cores * placement.devices)
            yield device, placement.devices * share * engine.replicas
        on = engine.speculative.on if engine.speculative is not None else None
        for node in scenario.cluster.nodes if on is not None else ():
            if on is not None and on.node in (None, node.name) and on.device in node.devices:
                yield scenario.devices[node.devices[on.device].profile], float(on.count * engine.replicas)
                break


def _groups(scenario: Scenario, engine: Engine) -> dict[str, Device]:
    """Devices of the first node that has all of the engine's groups, as engines are placed."""
    for node in scenario.cluster.nodes:
        if engine.node in (None, node.name) and all(name in node.devices for name in engine.placement):
            return {name: scenario.devices[node.devices[name].profile] for name in engine.placement}
    raise LookupError(f"no node has the devices of engine {engine.name!r}")


def _num_devices(scenario: Scenario) -> float:
    """Each counted once, whoever shares it."""
    slots = Slots(scenario.cluster.nodes, scenario.devices)
    taken = set()
    for engine in scenario.cluster.engines:
        wants = {name: (placement.devices, placement.cores) for name, placement in engine.placement.items()}
        try:
            replicas = slots.allocate_replicas(engine.node, wants, engine.replicas)
        except PlacementError as error:
            raise LookupError(f"engine {engine.name!r}: {error}") from None
        groups = _groups(scenario, engine)
        taken |= {one for replica in replicas for one in replica if groups[one.device_group].kind != "cpu"}
    return float(len(taken))


FACTS: Final[dict[str, Fact]] = {
    "num_devices": Fact("devices that engines are on, without CPUs", _num_devices),
    "num_cpu_cores": Fact(
        "cores of CPUs that engines are on",
        lambda scenario: sum(device.num_cores * num for device, num in _shares(scenario) if device.kind == "cpu"),
    ),
    "num_llm_replicas": Fact(
        "replicas of engines that serve prefill or decode",
        lambda scenario: float(
            sum(one.replicas for one in scenario.cluster.engines if isinstance(one.batching, TokenBatching))
        ),
    ),
    "rent_usd_per_h": Fact(
        "rent of what engines are on; of owned devices the capital written off, without electricity",
        lambda scenario: sum(device.usd_per_h * num for device, num in _shares(scenario)),
    ),
    "tdp_w": Fact(
        "thermal design power of what engines are on",
        lambda scenario: sum(device.power.tdp_w * num for device, num in _shares(scenario)),
    ),
}
"""Name -> what it is. An engine on some cores of a CPU counts with their share of it."""
