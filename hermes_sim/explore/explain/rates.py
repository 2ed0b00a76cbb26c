"""Faster or slower parts of a scenario: rates and times found by the units in the names of their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hermes_sim.core.schema import Description
from hermes_sim.hardware.device import Device
from hermes_sim.perf.search_cost import search_efficiency
from hermes_sim.scenario.scenario import Scenario

Described = TypeVar("Described", bound=Description)

RATE_ENDINGS = ("_per_s", "_hz", "_per_s_per_core")
TIME_ENDINGS = ("_s", "_s_per_byte", "_s_per_token")

Choice = Callable[[str], bool]
"""Whether a key is meant, by its path inside the description: `cost_model.gemm.bf16.launch_s`."""


def exponent(name: str) -> int:
    """What becomes of a number when all goes f times as fast: 1, a rate, it grows by f; -1, a time; 0, neither."""
    if name.endswith(RATE_ENDINGS):
        return 1
    return -1 if name.endswith(TIME_ENDINGS) else 0


def sped_up(description: Described, factor: float, is_chosen: Choice) -> Described:
    """A copy whose chosen rates are `factor` times as high, and whose chosen times are that much shorter.

    What is not stated (None) stays so. The copy is not checked again.
    """
    changed: Any = _sped_up(description, "", "", factor, is_chosen)
    return description if changed is None else changed


def _sped_up(value: Any, name: str, path: str, factor: float, is_chosen: Choice) -> Any:
    """The changed value, or None where nothing changes. name: of the key that it stands under."""
    if isinstance(value, Description):
        changes = {}
        for key, inner in value:
            changed = _sped_up(inner, key, f"{path}.{key}" if path else key, factor, is_chosen)
            if changed is not None:
                changes[key] = changed
        return value.model_copy(update=changes) if changes else None
    if isinstance(value, Mapping):
        found = {key: _sped_up(inner, name, f"{path}.{key}", factor, is_chosen) for key, inner in value.items()}
        if all(changed is None for changed in found.values()):
            return None
        return {key: value[key] if changed is None else changed for key, changed in found.items()}
    if isinstance(value, tuple):
        items = [_sped_up(inner, name, f"{path}[{place}]", factor, is_chosen) for place, inner in enumerate(value)]
        if all(changed is None for changed in items):
            return None
        return tuple(before if changed is None else changed for before, changed in zip(value, items, strict=True))
    power = exponent(name)
    if power == 0 or isinstance(value, bool) or not isinstance(value, int | float) or not is_chosen(path):
        return None
    return value * factor if power > 0 else value / factor


def everything(path: str) -> bool:
    """All rates and times."""
    return True


def device_sped_up(device: Device, factor: float, is_chosen: Choice = everything) -> Device:
    """The same of a device; what vector search takes from its class is stated first, so that it is scaled too."""
    stated = device.cost_model.model_copy(update={"search": search_efficiency(device)})
    return sped_up(device.model_copy(update={"cost_model": stated}), factor, is_chosen)


def all_sped_up(scenario: Scenario, factor: float) -> Scenario:
    """Everything goes `factor` times as fast: devices, links, hosts, stated times, and requests come that much sooner.

    Every time of the results is then shorter by the same factor. A curve of arrivals over the day is not scaled: its
    points are pairs without a key.
    """
    return scenario.model_copy(update={
        "cluster": sped_up(scenario.cluster, factor, everything),
        "workload": sped_up(scenario.workload, factor, everything),
        "devices": {name: device_sped_up(one, factor) for name, one in scenario.devices.items()},
        "links": {name: sped_up(one, factor, everything) for name, one in scenario.links.items()},
    })  # fmt: skip
