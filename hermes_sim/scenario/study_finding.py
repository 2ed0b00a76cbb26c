"""What a study says in words: a few forms of sentences whose names and numbers come from the runs."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Name, one_of
from hermes_sim.scenario.axis import Point, Where

Table = Literal["runs", "best"]


class Finding(Description):
    """Base of the forms: which numbers are looked at."""

    table: Table = "runs"
    """`best`: the best points (see `best`), in place of all."""
    where: Where = Field(default_factory=dict)
    """Only the points with these values: {rate: [1 /s, 2 /s]}."""
    note: str | None = None
    """Behind the sentence: why it is so. Words, no results."""


class Best(Finding):
    """Which value of an axis is best by a metric, and how far ahead of the next: once for every combination of `per`,
    otherwise counted over all the rest of the grid."""

    kind: Literal["best"] = "best"
    of: Name
    by: str
    per: tuple[Name, ...] = ()


class Ratio(Finding):
    """How a metric of some points compares with that of others that are equal in all axes not named: median, least and
    largest ratio over those pairs."""

    kind: Literal["ratio"] = "ratio"
    of: Point
    to: Point
    by: str


class Crossover(Finding):
    """Where along an axis of numbers the points `of` become better than the points `to`: interpolated between the two
    neighbours, linearly in the metric's logarithm and, where all are positive, in the axis's."""

    kind: Literal["crossover"] = "crossover"
    x: Name
    of: Point
    to: Point
    by: str
    per: tuple[Name, ...] = ()


class Trend(Finding):
    """How a metric changes from the first to the last value of an axis: the factor, and the power of x for numbers."""

    kind: Literal["trend"] = "trend"
    x: Name
    by: str
    per: tuple[Name, ...] = ()


class Rank(Finding):
    """All values of an axis in their order by a metric, once for every value of `per`, and whether the order is the
    same for all of them."""

    kind: Literal["rank"] = "rank"
    of: Name
    by: str
    per: Name


FINDINGS: Final[dict[str, type[Description]]] = {
    "best": Best,
    "ratio": Ratio,
    "crossover": Crossover,
    "trend": Trend,
    "rank": Rank,
}

AnyFinding = Annotated[Finding, one_of(FINDINGS, "form of a finding")]
