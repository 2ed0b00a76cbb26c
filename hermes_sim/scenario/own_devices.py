"""Devices made in Python: one of the library with other numbers, or a data sheet as a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean, listed, shown
from hermes_sim.hardware.device import Device
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.files import mapping_document
from hermes_sim.scenario.library import NotFound, find
from hermes_sim.scenario.overrides import Override, apply_overrides
from hermes_sim.scenario.residual_files import attach_residuals
from hermes_sim.scenario.validate import validate
from hermes_sim.scenario.variants import changed_document
from hermes_sim.scenario.yaml_reader import read_yaml

DeviceLike = Device | Mapping[str, Any] | str | Path
"""A description, what its file would hold, or the name or path of that file."""


def device(base: DeviceLike, changes: Mapping[str, Any] | None = None, *, name: str | None = None) -> Device:
    """A device, with other numbers if asked for: `device("h100_sxm", {"memory.bandwidth": "6.7 TB/s"}, name="wide")`.

    changes: key path of a device file -> value as a file has it, or a factor such as `2 x`. What is changed counts as
    an estimate, and so do the coefficients of kernels once they meet other hardware than they were fitted on
    (scenario/variants.py). Raises ConfigError.
    """
    if isinstance(base, Device) and not changes and name is None:
        return base
    document = _document(base)
    if changes:
        stated = mapping_document({}, "device(changes)")
        apply_overrides(stated, [_override(key, value) for key, value in changes.items()])
        stated.data.setdefault("title", document.data.get("title"))
        document = changed_document("device", str(document.data.get("name")), document, stated)
    if name is not None:
        document.data.update({"name": name, "aliases": []})
        document.data.setdefault("title", name)
    return validate(Device, document)


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
    if isinstance(base, Device):
        plain = base.model_copy(update={"residuals": None})
        document = mapping_document(plain.model_dump(mode="json", by_alias=True), f"device {base.name}")
        document.data["residuals"] = base.residuals
        return document
    if isinstance(base, Mapping):
        return mapping_document(base, "device")
    try:
        document = read_yaml(find("device", str(base)))
    except NotFound as missing:
        raise ConfigError([Problem("", None, "", str(missing))]) from None
    attach_residuals(document)
    return document


def _override(key: str, value: Any) -> Override:
    return Override(key, "device", tuple(key.split(".")), value, "device(changes)")
