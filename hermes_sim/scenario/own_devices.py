"""Devices made in Python: one of the library with other numbers, or a data sheet as a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean, listed, shown
from hermes_sim.hardware.device import Device
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.files import find_document, mapping_document, validated
from hermes_sim.scenario.residual_files import attach_residuals
from hermes_sim.scenario.variants import changed_document

DeviceLike = Device | Mapping[str, Any] | str | Path
"""A description, what its file would hold, or the name or path of that file."""


def device(base: DeviceLike, changes: Mapping[str, Any] | None = None, *, name: str | None = None) -> Device:
    """A device, with other numbers if asked for: `device("h100_sxm", {"memory.bandwidth": "2 x"}, name="wide")`.

    changes: keys or key paths of a device file -> values, as a cluster's `devices` states them (scenario/variants.py):
    what is changed counts as an estimate, and so do the coefficients of kernels on other hardware than they were fitted
    on. Raises ConfigError.
    """
    if isinstance(base, Device) and not changes and name is None:
        return base
    document = _document(base)
    if changes:
        attach_residuals(document)
        keys = mapping_document(_nested(changes), "device(changes)")
        document = changed_document("device", str(document.data.get("name")), document, keys)
    if name is not None:
        document.data.update({"name": name, "aliases": []})
    return validated(Device, document)


def own_devices(given: Mapping[str, DeviceLike], used: list[str]) -> dict[str, Device]:
    """The devices that stand for names of a cluster file. Raises ConfigError for a name that it does not use."""
    problems = []
    for name in given:
        if name not in used:
            message = f"the cluster has no device profile {shown(name)} ({listed(used)}).{did_you_mean(name, used)}"
            problems.append(Problem("devices=", None, "", message))
    if problems:
        raise ConfigError(problems)
    return {name: device(one) for name, one in given.items()}


def _document(base: DeviceLike) -> Document:
    if not isinstance(base, Device):
        return find_document("device", base)
    document = mapping_document(base.model_dump(mode="json", by_alias=True, exclude={"residuals"}), base.name)
    document.data["residuals"] = base.residuals
    return document


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """{"memory.bandwidth": 1} -> {"memory": {"bandwidth": 1}}"""
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        *parts, last = key.split(".")
        holder = nested
        for part in parts:
            holder = holder.setdefault(part, {})
        holder[last] = value
    return nested
