"""Faster or slower parts of a scenario: rates and times found by the units in the names of their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hermes_sim.core.schema import Description

Described = TypeVar("Described", bound=Description)

RATE_ENDINGS = ("_per_s", "_hz", "_per_s_per_core")
TIME_ENDINGS = ("_s", "_s_per_byte", "_s_per_token")

Choice = Callable[[str], bool]
"""Whether a key is meant, by its path inside the description: `cost_model.gemm.bf16.launch_s`."""


def exponent(name: str) -> int:
    """What becomes of a number when all goes f times as fast: 1, it is a rate and grows by f; -1, a time; 0, neither."""
    if name.endswith(RATE_ENDINGS):
        return 1
    return -1 if name.endswith(TIME_ENDINGS) else 0


def sped_up(description: Described, factor: float, is_chosen: Choice) -> Described:
    """A copy whose chosen rates are `factor` times as high, and whose chosen times that much shorter.

    What is not stated (None) stays so. The copy is not checked again: a device's peak that an array makes is scaled
    beside the array's clock.
    """
    changed: Any = _sped_up(description, "", "", factor, is_chosen)
    return description if changed is None else changed


def _sped_up(value: Any, name: str, path: str, factor: float, is_chosen: Choice) -> Any:
    """The changed value, or None where nothing in it changes. name: of the key that it stands under."""
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
