"""Which source stands behind each number of a file, and the weakest kind among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from hermes_sim.core.schema import SOURCE_KINDS, Description, Source, SourceKind
from hermes_sim.scenario.document import KeyPath, key_text

REST = "*"
"""Key of `sources` that covers what no other one does."""


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


def weakest_kind(description: BaseModel) -> SourceKind | None:
    """Weakest kind of all sources in the description; None if it has none."""
    kinds = {source.kind for source in _sources(description)}
    return max(kinds, key=SOURCE_KINDS.index, default=None)


def weakest(kinds: Iterator[SourceKind | None]) -> SourceKind | None:
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
