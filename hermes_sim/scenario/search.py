"""The search file: a space of deployments, what is wanted of them, and how many may be tried."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from hermes_sim.core.schema import Description, NonNegativeInt, PositiveInt
from hermes_sim.core.units import parse_quantity
from hermes_sim.scenario.axis import value_name
from hermes_sim.scenario.explored import Explored
from hermes_sim.scenario.study_metrics import metric_of

Goal = Literal["minimize", "maximize"]
Sampler = Literal["gp", "tpe", "nsga2", "random"]

MOST_OBJECTIVES: Final = 4
_DIMENSIONS: Final = {"_per_s": "rate", "_s": "time", "_w": "power", "_usd_per_h": "price"}
"""Of a limit that is written with a unit, by the end of its metric's name; the longest that fits."""


class Objective(Description):
    """A metric that is to be as low or as high as can be. A plain name stands for `metric: NAME`."""

    metric: str
    goal: Goal | None = None
    """The metric's better way, if not given."""

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, data: Any) -> Any:
        return {"metric": data} if isinstance(data, str) else data

    @property
    def sign(self) -> float:
        """1 where less is better, -1 where more is."""
        metric = metric_of(self.metric)
        lower = self.goal == "minimize" if self.goal else metric is None or metric.better == "lower"
        return 1.0 if lower else -1.0


def _objectives_schema(schema: dict[str, Any]) -> None:
    """Amends the JSON Schema of the list: an entry may be a plain name."""
    schema["items"] = {"anyOf": [schema["items"], {"type": "string"}]}


Limit = Annotated[
    str,
    BeforeValidator(value_name),
    WithJsonSchema({
        "type": ["number", "string"],
        "description": "a number in the metric's base unit, or one with a unit",
        "examples": ["2 s", 0.99],
    }),
]  # fmt: skip


def limit_number(metric: str, limit: str) -> float:
    """`2 s` or `50 ms` of a time, or a plain number in base units. Raises ValueError."""
    try:
        return float(limit)
    except ValueError:
        pass
    fitting = [suffix for suffix in _DIMENSIONS if metric.endswith(suffix)]
    if not fitting:
        raise ValueError(f"needs a plain number, got {limit!r}")
    dimension = _DIMENSIONS[max(fitting, key=len)]
    return float(parse_quantity(limit, dimension))


def _share(value: object) -> object:
    """`1/9` as a number; what is no such text is left to the schema."""
    numerator, slash, denominator = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        return float(numerator) / float(denominator) if slash else value
    except (ValueError, ZeroDivisionError):
        return value


Share = Annotated[
    float,
    Field(gt=0.0, le=1.0),
    BeforeValidator(_share),
    WithJsonSchema({"type": ["number", "string"], "examples": ["1/9", 0.25], "description": "a share of the requests"}),
]


class SearchFile(Explored):
    """A space of runs, too large to run all of it: what is best in it by one metric, or the front by several."""

    question: str | None = None
    objectives: tuple[Objective, ...] = Field(
        min_length=1, max_length=MOST_OBJECTIVES, json_schema_extra=_objectives_schema
    )
    """One metric: its best point. Several: the points that none is better than in all of them (Pareto front)."""
    within: dict[str, Limit] = Field(default_factory=dict)
    """Metric -> limit: at most that where less is better, at least that where more is."""
    trials: PositiveInt = 60
    """Points to try. Those that do not fit are found before they are run and do not count."""
    sampler: Sampler = "gp"
    """Who proposes points: a Gaussian process, Optuna's TPE or NSGA-II, or chance."""
    rungs: tuple[Share, ...] = (1.0,)
    """Shares of the requests that a point is run with, one after the other, the last one 1: a point that is behind on
    a rung is not run on the next."""
    seed: NonNegativeInt = 0
    """Of the proposals. The runs have the workload's seed, all of them: what differs is not the draw."""
    replications: PositiveInt = 5
    """Runs of each point of the front afterwards, with seeds that the search has not seen: chosen points look better
    than they are."""

    @model_validator(mode="after")
    def _check_rungs(self) -> SearchFile:
        if not self.rungs or self.rungs[-1] != 1.0 or any(low >= high for low, high in pairwise(self.rungs)):
            raise ValueError(f"rungs must rise and end with 1, got {[round(share, 6) for share in self.rungs]}")
        return self

    @property
    def limits(self) -> Mapping[str, float]:
        """`within` in base units."""
        return {metric: limit_number(metric, limit) for metric, limit in self.within.items()}
