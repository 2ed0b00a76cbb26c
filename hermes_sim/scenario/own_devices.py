"""Devices made in Python: one of the library with other numbers, or a data sheet as a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean, listed, shown
from hermes_sim.hardware.device import BY_CLASS, Device
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.files import mapping_document
from hermes_sim.scenario.library import NotFound, find
from hermes_sim.scenario.overrides import Override, apply_overrides
from hermes_sim.scenario.residual_files import attach_residuals
from hermes_sim.scenario.validate import validate
from hermes_sim.scenario.yaml_reader import read_yaml

DeviceLike = Device | Mapping[str, Any] | str | Path
"""A description, what its file would hold, or the name or path of that file."""

_WORDS: Final = frozenset({"name", "title", "aliases", "kind", "class", "sources", "cost_model", "residuals"})
"""Keys that hold no number of the data sheet, or numbers with a source beside them."""
_SPEED: Final = frozenset({"peak", "vector_peak", "lut_peak", "memory", "cache", "num_cores", "clock", "systolic"})
"""What fitted coefficients are relative to."""


def device(base: DeviceLike, changes: Mapping[str, Any] | None = None, *, name: str | None = None) -> Device:
    """A device, with other numbers if asked for: `device("h100_sxm", {"memory.bandwidth": "6.7 TB/s"}, name="wide")`.

    changes: key path of a device file -> value as a file has it. What is changed counts as an estimate, and so do the
    coefficients of kernels once they meet other hardware than they were fitted on. Raises ConfigError.
    """
    if isinstance(base, Device) and not changes and name is None:
        return base
    document = _document(base)
    stated = {} if changes is None else dict(changes)
    if stated:
        title = document.data.get("title")
        apply_overrides(document, [_override(key, value) for key, value in stated.items()])
        _note_changes(document.data, stated, str(title))
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


def _note_changes(data: dict[str, Any], changes: Mapping[str, Any], title: str) -> None:
    """Sources of what is no longer what the data sheet or the fit says."""
    sources = data.setdefault("sources", {})
    for key in changes:
        if key.split(".")[0] not in _WORDS and isinstance(sources, dict):
            sources[key] = {"title": "Stated for this run", "where": f"in place of that of {title}", "kind": "estimate"}
    model = data.get("cost_model", BY_CLASS)
    if (
        isinstance(model, dict)
        and "cost_model.source" not in changes
        and _SPEED & {key.split(".")[0] for key in changes}
    ):
        fitted = model.get("source", {})
        where = f"fitted to other hardware ({title}): {fitted.get('title')}, {fitted.get('where')}"
        model["source"] = {"title": "Coefficients taken over", "where": where, "kind": "estimate"}
