"""Devices and links of the library with other numbers, as a cluster states them: a chip that is like another but for
its bandwidth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Final, Literal

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.words import did_you_mean, shown
from hermes_sim.scenario.document import Document, KeyPath, key_text

BASE: Final = "base"
"""Key of a variant that names the file it is like; by default the one of its own name."""
_FACTOR = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*x\s*")
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)((?:[eE][+-]?\d+)?)(.*)", re.DOTALL)
_OF_SPEED: Final = frozenset({
    "peak", "vector_peak", "lut_peak", "sparse_speedup", "processor", "systolic", "cache", "num_cores", "clock",
    "scan_rate_per_core", "array", "companion",
})  # fmt: skip
_SPEED_OF_MEMORY: Final = frozenset({"bandwidth", "internal_bandwidth"})
"""Keys of a device that what was measured of its kernels depends on."""
_WORDS: Final = frozenset({"name", "title", "aliases", "kind", "class", "sources", "cost_model", "residuals"})
"""Keys that hold no number of a data sheet, or numbers with a source beside them."""


def changed_document(kind: Literal["device", "link"], name: str, base: Document, keys: Document) -> Document:
    """The file of a device or link, with the keys of a variant in place of its own. Raises ConfigError.

    keys: what the variant states. A number may be a factor of what stands there: `2 x`; of a mapping it is one of all
    its numbers. What is changed has the variant as its source, an estimate, and a device whose speed is changed has an
    estimate for a cost model: its coefficients are those of another.
    """
    own = {key: value for key, value in keys.data.items() if key != BASE}
    data = dict(base.data)
    origins = dict(base.origins)
    changed: list[KeyPath] = []
    for path, value in _leaves(own, ()):
        try:
            _put(data, path, value)
        except ValueError as error:
            raise ConfigError([keys.problem(path, str(error))]) from None
        origins[path] = keys.origin(path)
        changed.append(path)
    where = keys.origin(()).file
    if BASE in keys.data and "name" not in own:
        data["name"] = name
    if "title" not in own:
        numbers = ", ".join(key_text(path) for path in changed)
        data["title"] = f"{data.get('title', name)}, with other {numbers}" if numbers else data.get("title", name)
    if isinstance(data.get("sources"), Mapping):
        stated = {"title": f"stated in place of {base.data.get('name')}'s", "where": where, "kind": "estimate"}
        data["sources"] = {**data["sources"], **{key_text(path): stated for path in changed if path[0] not in _WORDS}}
    if kind == "device" and any(_changes_speed(path) for path in changed):
        data["cost_model"] = _as_estimate(data.get("cost_model"), where)
    return Document(base.file, base.path, data, origins)


def _changes_speed(path: KeyPath) -> bool:
    return path[0] in _OF_SPEED or (path[0] == "memory" and not {*path[1:]}.isdisjoint(_SPEED_OF_MEMORY))


def _as_estimate(cost_model: Any, where: str) -> Any:
    """Coefficients of the device that was measured, for one that was not."""
    if not isinstance(cost_model, Mapping):
        return cost_model
    measured = cost_model.get("source")
    title = measured.get("title", "") if isinstance(measured, Mapping) else ""
    return {
        **cost_model,
        "source": {"title": f"coefficients of a like device: {title}", "where": where, "kind": "estimate"},
    }


def _leaves(value: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """What is stated, down to values that are no mappings; an empty mapping is a value."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, (*path, str(key)))
        else:
            yield (*path, str(key)), item


def _put(data: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Sets the value at the path; mappings on the way are copied first. Raises ValueError, in words."""
    holder: Any = data
    for part in path[:-1]:
        inside = holder.get(part)
        if inside is not None and not isinstance(inside, Mapping):
            raise ValueError(f"{part} is {shown(inside)}, not a mapping of keys")
        holder[part] = dict(inside or {})
        holder = holder[part]
    factor = _FACTOR.fullmatch(value) if isinstance(value, str) else None
    if factor is None:
        holder[path[-1]] = value
        return
    if holder.get(path[-1]) is None:
        near = did_you_mean(str(path[-1]), list(holder))
        raise ValueError(f"{shown(value)} is a factor, and there is no number that it could be one of.{near}")
    holder[path[-1]] = _times(holder[path[-1]], Fraction(factor[1]))


def _times(value: Any, factor: Fraction) -> Any:
    """A number, a quantity with its unit, or all of a mapping, so many times."""
    if isinstance(value, Mapping):
        return {key: _times(item, factor) for key, item in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool):
        product = Fraction(value) * factor
        return int(product) if product.denominator == 1 and isinstance(value, int) else float(product)
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{shown(value)} is no number that could be multiplied")
    product = Fraction(found[1] + found[2]) * factor
    return f"{float(product)!r} {found[3].strip()}"
