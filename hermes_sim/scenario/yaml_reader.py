"""YAML as its author meant it: a safe subset of YAML 1.2 without the traps of YAML 1.1.

`1e9` is a number; `no`, `on`, `12:30` and `2024-01-01` are text; `010` is ten. Refused, with the line: a repeated key,
NaN and infinity, tags (`!!python/...`), several documents, aliases that expand beyond reason, and broken YAML.
Built on libyaml's events, so that the line of every key is known.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import shown
from hermes_sim.scenario.document import Document, KeyPath, Origin, key_text, shown_path

_EventLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

LARGEST_FILE_BYTES = 4_000_000
DEEPEST_NESTING = 64
MOST_VALUES = 200_000
"""In one file, aliases expanded."""
_LONGEST_NUMBER = 400

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def read_yaml(path: Path) -> Document:
    """One file. Raises ConfigError with every problem of its form."""
    file = shown_path(path)
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST_FILE_BYTES else None
    except OSError as error:
        raise ConfigError([Problem(file, None, "", f"cannot be read: {error.strerror or error}")]) from None
    if content is None:
        raise ConfigError([Problem(file, None, "", f"is larger than {LARGEST_FILE_BYTES:,} bytes")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", "is not UTF-8 text")]) from None
    return parse_document(text, file, path)


def parse_document(text: str, file: str, path: Path | None = None) -> Document:
    """The mapping a YAML text holds. Raises ConfigError with every problem of its form."""
    builder = _Builder(file)
    data = builder.build(text)
    if not builder.problems and not isinstance(data, dict):
        what = "is empty" if data is None else f"holds {shown(data)}"
        builder.problems.append(Problem(file, None, "", f"{what}: a mapping of keys is needed"))
    if builder.problems:
        raise ConfigError(builder.problems)
    return Document(file, path, data, builder.origins)


def parse_value(text: str, file: str) -> Any:
    """Any one YAML value, such as the right side of an override. Raises ConfigError."""
    builder = _Builder(file)
    data = builder.build(text)
    if builder.problems:
        raise ConfigError([Problem(file, None, problem.key, problem.message) for problem in builder.problems])
    return data


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means. Raises ValueError for NaN, infinity and numbers beyond any float."""
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    is_int = _INT.fullmatch(text) is not None
    if not is_int and _FLOAT.fullmatch(text) is None:
        return text
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("a number of more than 400 digits")
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is larger than any number here")
    return int(text) if is_int else number


class _Refused(Exception):
    """The text cannot be read on; the problem has been noted."""


@dataclass
class _Anchor:
    value: Any
    num_values: int


@dataclass
class _Builder:
    """Builds plain data from a stream of events; notes every problem that does not make the rest unreadable."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    _anchors: dict[str, _Anchor] = field(default_factory=dict)
    _num_values: int = 0

    def build(self, text: str) -> Any:
        try:
            return self._document(yaml.parse(text, Loader=_EventLoader))
        except _Refused:
            return None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._note_line(mark.line + 1 if mark is not None else None, (), _wording(error, text))
        except (yaml.YAMLError, UnicodeError) as error:
            self._note_line(_control_line(text), (), f"is not YAML text: {_first_line(error)}")
        return None

    def _document(self, events: Iterator[Any]) -> Any:
        value: Any = None
        num_documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    self._refuse(event, (), "a second document starts here; one per file")
            elif isinstance(event, yaml.NodeEvent):
                value = self._value(event, events, (), 0)
        return value

    def _value(self, event: Any, events: Iterator[Any], path: KeyPath, depth: int) -> Any:
        self._num_values += 1
        if self._num_values > MOST_VALUES:
            self._refuse(event, path, f"more than {MOST_VALUES:,} values, aliases expanded")
        if depth > DEEPEST_NESTING:
            self._refuse(event, path[:2], f"nested more than {DEEPEST_NESTING} deep")
        self.origins.setdefault(path, Origin(self.file, _line(event)))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        first = self._num_values
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            self._note(event, path, f"tag {event.tag!r} is not used here")
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(events, path, depth)
        else:
            value = self._mapping(events, path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(value, self._num_values - first + 1)
        return value

    def _alias(self, event: Any, path: KeyPath) -> Any:
        anchor = self._anchors.get(event.anchor)
        if anchor is None:
            self._refuse(event, path, f"alias '*{event.anchor}' names no anchor that is complete before it")
        self._num_values += anchor.num_values
        if self._num_values > MOST_VALUES:
            self._refuse(event, path, f"more than {MOST_VALUES:,} values, aliases expanded")
        return copy.deepcopy(anchor.value)

    def _scalar(self, event: Any, path: KeyPath) -> Any:
        if event.style or event.tag is not None:  # quoted or a block, or tagged as text
            return event.value
        try:
            return plain_scalar(event.value)
        except ValueError as error:
            self._note(event, path, str(error))
            return None

    def _sequence(self, events: Iterator[Any], path: KeyPath, depth: int) -> list[Any]:
        values: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            values.append(self._value(event, events, (*path, len(values)), depth + 1))
        return values

    def _mapping(self, events: Iterator[Any], path: KeyPath, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(event, path, "a key must be a word, not a list, mapping or alias")
            key, line = event.value, _line(event)
            if key == "<<" and not event.style:
                self._merge(merged, self._value(next(events), events, (*path, key), depth + 1), event, path)
                continue
            if key in lines:
                self._note(event, (*path, key), f"given twice; first in line {lines[key]}")
            lines.setdefault(key, line)
            self.origins.setdefault((*path, key), Origin(self.file, line))
            values[key] = self._value(next(events), events, (*path, key), depth + 1)
        for key in merged.keys() - values.keys():
            self.origins[*path, key] = self.origins[*path, "<<"]
        return merged | values

    def _merge(self, merged: dict[str, Any], value: Any, event: Any, path: KeyPath) -> None:
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                self._note(event, (*path, "<<"), f"merges mappings, got {shown(source)}")
                continue
            for key, item in source.items():
                merged.setdefault(key, item)

    def _note(self, event: Any, path: KeyPath, message: str) -> None:
        self._note_line(_line(event), path, message)

    def _note_line(self, line: int | None, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(self.file, line, key_text(path), message))

    def _refuse(self, event: Any, path: KeyPath, message: str) -> NoReturn:
        self._note(event, path, message)
        raise _Refused


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _wording(error: yaml.MarkedYAMLError, text: str) -> str:
    mark, lines = error.problem_mark, text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "is not YAML: a tab; indent with spaces"
    return f"is not YAML: {_first_line(error.problem or error.context or error)}"


def _first_line(message: object) -> str:
    return str(message).strip().splitlines()[0] if str(message).strip() else "unreadable"


def _control_line(text: str) -> int | None:
    """Line of the first character that YAML does not allow."""
    found = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return text.count("\n", 0, found.start()) + 1 if found else None
