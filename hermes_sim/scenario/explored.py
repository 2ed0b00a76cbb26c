"""What sweeps, studies and searches have in common: a base, axes around it, and which points make no sense."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hermes_sim.core.schema import Description, Name, PositiveInt
from hermes_sim.scenario.axis import Axis, Where
from hermes_sim.scenario.constraint import Constraint


class Base(Description):
    """What all runs have in common."""

    cluster: str
    workload: str
    overrides: dict[str, Any] = Field(default_factory=dict, alias="set")
    """Values of keys, as in an axis."""


class Skip(Description):
    """Points of the grid that make no sense."""

    when: Where
    because: str


class Explored(Description):
    """A base, and axes along which runs differ from it."""

    name: Name
    title: str | None = None
    source: str | None = None
    """The figure or section of a paper that it follows."""
    base: Base
    axes: tuple[Axis, ...] = Field(min_length=1)
    """A later axis wins where two set the same key."""
    zipped: tuple[tuple[Name, ...], ...] = ()
    """Groups of axes that move together: first value with first value. As many values each."""
    constraints: tuple[Constraint, ...] = ()
    """Points that do not fulfil them are left out, and counted."""
    skip: tuple[Skip, ...] = ()
    replications: PositiveInt = 1
    """Runs of every point, with the workload's seed and those after it: the same ones at each point, so that what
    differs is not the draw."""
