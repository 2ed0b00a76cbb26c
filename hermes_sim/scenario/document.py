"""Plain data of one input file, and where each key of it was written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hermes_sim.core.errors import Problem

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a line of a file, or an option of the command line (no line)."""

    file: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, before it is checked against a schema."""

    file: str
    """As shown to the user."""
    path: Path | None
    """None for a mapping that was handed over in Python."""
    data: dict[str, Any]
    """Mappings with text keys, lists, text, numbers, true/false, None."""
    origins: dict[KeyPath, Origin]

    def origin(self, path: KeyPath) -> Origin:
        """Of the value at `path`, or of the nearest mapping or list around it."""
        for length in range(len(path), -1, -1):
            found = self.origins.get(path[:length])
            if found is not None:
                return found
        return Origin(self.file, None)

    def part(self, key: str) -> Document:
        """The mapping at one key, as a document of its own."""
        origins = {path[1:]: origin for path, origin in self.origins.items() if path[:1] == (key,)}
        return Document(self.file, self.path, self.data[key], origins)

    def inside(self, path: KeyPath) -> Document:
        """The mapping at a path, as a document of its own."""
        data: Any = self.data
        for part in path:
            data = data[part]
        length = len(path)
        origins = {known[length:]: origin for known, origin in self.origins.items() if known[:length] == path}
        origins.setdefault((), self.origin(path))
        return Document(self.file, self.path, data, origins)

    def problem(self, path: KeyPath, message: str) -> Problem:
        """What is wrong at `path`."""
        return _problem(self.origin(path), path, message)

    def problem_inside(self, path: KeyPath, message: str) -> Problem:
        """What is wrong with several values below `path` together: blamed on one set on the command line, if any."""
        for known, origin in self.origins.items():
            if origin.line is None and known[: len(path)] == path:
                return _problem(origin, path, message)
        return self.problem(path, message)


def _problem(origin: Origin, path: KeyPath, message: str) -> Problem:
    return Problem(origin.file, origin.line, key_text(path), message)


def key_text(path: Iterable[str | int]) -> str:
    """`pipelines[0].stages[1].index.kind`"""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def shown_path(path: Path) -> str:
    """Relative to the working directory if inside it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
