"""Errors a user can meet.

HermesError
├── ConfigError          an input file is wrong: every problem of it, with file, line and key
├── TraceError           a request trace cannot be read: file, line, reason
├── NetworkError         devices that have to talk are not connected (NoRouteError), or too many for a full mesh
├── PlacementError       the cluster has no room for an engine
└── SimulationError      a run cannot go on: which request waits for what
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class HermesError(Exception):
    """Base of every error this library raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one input file."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        if not self.file:
            return self.message
        where = f"{self.file}:{self.line}" if self.line is not None else self.file
        return f"{where} {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(HermesError):
    """All problems found in the input files, together."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """From its problems, with notes: workers send errors as they are."""
        return type(self), (list(self.problems),), self.__dict__


class TraceError(HermesError):
    """A request trace cannot be read; the text names file, line and reason."""


class SimulationError(HermesError):
    """A run cannot go on; the text says which request waits for what."""
