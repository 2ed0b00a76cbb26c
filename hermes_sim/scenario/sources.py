"""Which source stands behind each number of a file: the weakest kind, and the kind behind what sets the speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel

from hermes_sim.core.schema import SOURCE_KINDS, Description, Source, SourceKind
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.link import Link
from hermes_sim.scenario.document import KeyPath, key_text

REST = "*"
"""Key of `sources` that covers what no other one does."""

KERNELS: Final = "kernels"
"""Part of a device whose source is that of its cost model: measured kernels, or efficiencies that are assumed."""

_SPEED: Final[dict[type[Description], dict[str, KeyPath]]] = {
    Device: {"peak": ("peak",), "bandwidth": ("memory", "bandwidth")},
    Link: {"bandwidth": ("bandwidth",), "latency": ("latency",), "efficiency": ("efficiency_frac",)},
}
"""What sets the speed of a device or a link -> the key of its numbers. Price and idle power, nearly always estimates,
do not."""

Evidence = dict[str, SourceKind]
"""Part of a description -> the weakest kind of source behind its numbers."""


def missing_sources(description: Description) -> list[KeyPath]:
    """Key paths of the numbers that the description's `sources` do not cover, in the order of the file.

    A source covers the numbers below its key path (`memory`, `memory.capacity`). A part with a `source` of its own
    needs no other. Defaults that the file leaves out are ours, not the file's.
    """
    sources = getattr(description, "sources", None)
    if sources is None:
        return []
    return [path for path in _numbers(description, ()) if source_of(sources, path) is None]


def source_of(sources: dict[str, Source], path: KeyPath) -> Source | None:
    """The source with the longest key path around `path`."""
    for length in range(len(path), 0, -1):
        found = sources.get(key_text(path[:length]))
        if found is not None:
            return found
    return sources.get(REST)


def evidence(description: Description) -> Evidence:
    """The kinds of source behind the numbers that set the speed of a device or a link; empty for anything else."""
    sources: dict[str, Source] = getattr(description, "sources", {})
    found: Evidence = {}
    for part, path in _SPEED.get(type(description), {}).items():
        kind = weakest(source.kind for source in _behind(sources, path))
        if kind is not None:
            found[part] = kind
    if isinstance(description, Device):
        found[KERNELS] = description.cost_model.source.kind
    return found


def _behind(sources: dict[str, Source], path: KeyPath) -> list[Source]:
    """The source around the value at `path` and those of parts of it (`peak.bf16` for `peak`)."""
    around = source_of(sources, path)
    inside = [source for key, source in sources.items() if key.startswith(f"{key_text(path)}.")]
    return [*([around] if around is not None else []), *inside]


def weakest_kind(description: BaseModel) -> SourceKind | None:
    """Weakest kind of all sources in the description; None if it has none."""
    kinds = {source.kind for source in _sources(description)}
    return max(kinds, key=SOURCE_KINDS.index, default=None)


def weakest(kinds: Iterable[SourceKind | None]) -> SourceKind | None:
    """Weakest of several; None if there is none."""
    return max((kind for kind in kinds if kind is not None), key=SOURCE_KINDS.index, default=None)


def _numbers(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, BaseModel):
        if isinstance(value, Source) or (path and isinstance(getattr(value, "source", None), Source)):
            return
        for name, field in type(value).model_fields.items():
            if name in value.model_fields_set and name != "sources":
                yield from _numbers(getattr(value, name), (*path, field.alias or name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, (*path, str(key)))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, (*path, index))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def _sources(value: Any) -> Iterator[Source]:
    if isinstance(value, Source):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _sources(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _sources(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _sources(item)
