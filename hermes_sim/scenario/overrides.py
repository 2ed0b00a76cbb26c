"""Values set on the command line: `cluster.engines.llm.replicas=2`, `workload.traffic.arrivals.rate=8 /s`.

A list's entry is named by its `name` or its index; `cluster.engines[+]={...}` puts one more behind the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean, listed, shown
from hermes_sim.scenario.document import Document, KeyPath, Origin, key_text
from hermes_sim.scenario.yaml_reader import parse_value

_PART = re.compile(r"(?P<key>[^.\[\]]+)|\[(?P<index>[0-9]{1,9}|\+)\]")
APPENDED = "+"
"""In place of an index: a new entry behind the others."""
_TARGETS = ("cluster", "workload")


@dataclass(frozen=True, slots=True)
class Override:
    """One KEY=VALUE."""

    text: str
    target: str
    """cluster or workload."""
    path: KeyPath
    value: Any
    place: str | None = None
    """Where it is written, if not on the command line."""

    @property
    def shown(self) -> str:
        return f"--set {self.text}" if self.place is None else self.place


def parse_override(text: str) -> Override:
    """From `workload.traffic.num_requests=100`; the value is read as YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    origin = f"--set {text}"
    parts = _parts(key.strip())
    if not equals or parts is None or len(parts) < 2:
        _refuse(origin, "needs KEY=VALUE with a key such as cluster.engines.llm.replicas or workload.seed")
    target, path = _target(parts, origin)
    return Override(text, target, path, parse_value(value, origin))


def override_key(text: str) -> tuple[str, Any]:
    """Key and value of `workload.traffic.num_requests=100`, as a file would state them. Raises ConfigError."""
    return text.partition("=")[0].strip(), parse_override(text).value


def override_of(key: str, value: Any, place: str) -> Override:
    """A key and a value that a file states; place: where, for messages. Raises ConfigError."""
    parts = _parts(key.strip())
    if parts is None or len(parts) < 2:
        _refuse(place, "needs a key such as cluster.engines.llm.replicas or workload.seed")
    target, path = _target(parts, place)
    return Override(key, target, path, value, place)


def _target(parts: KeyPath, origin: str) -> tuple[str, KeyPath]:
    """cluster or workload, and the key inside it."""
    if parts[0] not in _TARGETS:
        near = did_you_mean(str(parts[0]), _TARGETS)
        _refuse(origin, f"a key starts with 'cluster.' or 'workload.', not {shown(parts[0])}.{near}")
    return str(parts[0]), parts[1:]


def apply_overrides(document: Document, overrides: Sequence[Override]) -> None:
    """Sets the values in the document, in order, and notes where they come from. Raises ConfigError."""
    problems: list[Problem] = []
    for override in overrides:
        try:
            _apply(document, override)
        except ValueError as error:
            problems.append(Problem(override.shown, None, "", str(error)))
    if problems:
        raise ConfigError(problems)


def _apply(document: Document, override: Override) -> None:
    holder: Any = document.data
    path: list[str | int] = []
    last = override.path[-1]
    for part, after in pairwise(override.path):
        is_new = isinstance(holder, dict) and holder.get(part) is None
        holder = _step(holder, part, path, [] if after == APPENDED else {})
        if is_new:
            document.origins[tuple(path)] = Origin(override.shown, None)
    last = _own_key(holder, last, path)
    if isinstance(holder, list) and last == len(holder):
        holder.append(None)
    if not isinstance(last, int):
        _require_mapping(holder, path)
    holder[last] = deepcopy(override.value)
    full_path = (*path, last)
    for known in [known for known in document.origins if known[: len(full_path)] == full_path]:
        del document.origins[known]
    document.origins[full_path] = Origin(override.shown, None)


def _step(holder: Any, part: str | int, path: list[str | int], empty: Any) -> Any:
    """Value at one part of the path; what the file leaves out is made, empty."""
    key = _own_key(holder, part, path)
    if isinstance(holder, list) and key == len(holder):
        holder.append(empty)
    if not isinstance(key, int):
        _require_mapping(holder, path)
        if holder.get(key) is None:
            holder[key] = empty
    path.append(key)
    return holder[key]


def _own_key(holder: Any, part: str | int, path: list[str | int]) -> str | int:
    """The part itself, or the index of the list entry of that name."""
    if isinstance(part, str) and not isinstance(holder, list):
        return part
    where = key_text(path) or "the file"
    if not isinstance(holder, list):
        raise ValueError(f"{where} is {shown(holder)}, not a list")
    if part == APPENDED:
        return len(holder)
    if isinstance(part, int):
        if part >= len(holder):
            raise ValueError(f"{where} has {len(holder)} entries, counted from 0")
        return part
    names = [str(entry["name"]) for entry in holder if isinstance(entry, dict) and "name" in entry]
    for index, entry in enumerate(holder):
        if isinstance(entry, dict) and entry.get("name") == part:
            return index
    raise ValueError(f"{where} has no entry named {part!r} ({listed(names)}).{did_you_mean(part, names)}")


def _require_mapping(holder: Any, path: list[str | int]) -> None:
    if not isinstance(holder, dict):
        raise ValueError(f"{key_text(path) or 'the file'} is {shown(holder)}, not a mapping of keys")


def _parts(key: str) -> KeyPath | None:
    """`engines[0].batching.kind` -> ('engines', 0, 'batching', 'kind'); None if it is not such a path."""
    parts: list[str | int] = []
    position = 0
    while position < len(key):
        if key[position] == "." and parts:
            position += 1
        found = _PART.match(key, position)
        if found is None:
            return None
        index = found["index"]
        parts.append(found["key"] or (APPENDED if index == APPENDED else int(index)))
        position = found.end()
    return tuple(parts) if parts and not key.endswith(".") else None


def _refuse(origin: str, message: str) -> NoReturn:
    raise ConfigError([Problem(origin, None, "", message)])
