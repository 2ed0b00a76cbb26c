"""Collects what goes wrong in several steps, so that all of it is shown together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from hermes_sim.core.errors import ConfigError, Problem

P = ParamSpec("P")
T = TypeVar("T")


class Problems:
    """All problems so far, each once."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def of(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What the step returns, or None if it raised ConfigError."""
        try:
            return step(*args, **kwargs)
        except ConfigError as error:
            self.add(error.problems)
            return None

    def add(self, found: Sequence[Problem]) -> None:
        """Leaves out what is said of a key that an earlier step has found wrong already."""
        known = {(problem.file, problem.line, problem.key) for problem in self.found if problem.key}
        self.found += [
            problem
            for problem in dict.fromkeys(found)
            if problem not in self.found and (problem.file, problem.line, problem.key) not in known
        ]

    def stop(self) -> None:
        """Raises ConfigError if anything has gone wrong."""
        if self.found:
            raise self.error()

    def error(self) -> ConfigError:
        return ConfigError(self.found)
