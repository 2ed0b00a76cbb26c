"""Stages that a request goes through several times: hops of retrieval, thinking and tools, rounds of refinement."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hermes_sim.core.schema import Description, one_of
from hermes_sim.stages.count import COUNTS, Count, number_or_law
from hermes_sim.stages.stage import Stage

MOST_ROUNDS = 64

STAGES: dict[str, type[Stage]] = {}
"""All kinds of stages; stages/__init__.py has the list."""


class _SimpleStages(Mapping[str, type[Description]]):
    """The kinds that a round may hold: all that are there, but no round within a round."""

    def __getitem__(self, kind: str) -> type[Stage]:
        if issubclass(STAGES[kind], Rounds):
            raise KeyError(kind)
        return STAGES[kind]

    def __iter__(self) -> Iterator[str]:
        return (kind for kind, stage in STAGES.items() if not issubclass(stage, Rounds))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Rounds(Stage):
    """Stages that come one after the other a number of times that is drawn for each request."""

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "nowhere"

    rounds: Annotated[Count, one_of(COUNTS, "count kind"), BeforeValidator(number_or_law)]
    """Of each request; needs an upper bound."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        largest = self.rounds.largest
        if largest is None or not 1 <= largest <= MOST_ROUNDS:
            raise ValueError(f"rounds need an upper bound of 1 to {MOST_ROUNDS}: give `max`")
        return self

    @property
    def most_rounds(self) -> int:
        """No request takes more."""
        assert self.rounds.largest is not None
        return self.rounds.largest

    @property
    @abstractmethod
    def inside(self) -> tuple[Stage, ...]:
        """Stages of a round; the same objects whenever they are asked for."""

    def model_names(self) -> tuple[str, ...]:
        return tuple(name for stage in self.inside for name in stage.model_names())


class Repeat(Rounds):
    """Rounds of the same stages, one after the other. What a round has added and written is in the context of the next.

    Stages inside name each other in `after` and `when`; those that name none start a round. Stages outside name the
    whole by its name and wait for the last round.
    """

    kind: Literal["repeat"] = "repeat"
    stages: Annotated[
        tuple[Annotated[Stage, one_of(_SimpleStages(), "kind of a stage in a round")], ...], Field(min_length=1)
    ]

    @property
    def inside(self) -> tuple[Stage, ...]:
        return self.stages
