"""The study file: a sweep that answers a question, and what is drawn and said of its runs."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hermes_sim.core.schema import Description, Name, PositiveInt
from hermes_sim.scenario.axis import Where
from hermes_sim.scenario.study_figure import StudyFigure
from hermes_sim.scenario.study_finding import AnyFinding
from hermes_sim.scenario.sweep import SweepFile


class BestPoints(Description):
    """For every point of the other axes, and every tier: the run that is best along some axes, of those that meet the
    tier; none where none does. How much load a deployment bears within its objectives is read off here."""

    over: tuple[Name, ...] = Field(min_length=1)
    by: str
    """Metric."""


class Quick(Description):
    """A small version, for a look and for tests."""

    overrides: dict[str, Any] = Field(default_factory=dict, alias="set")
    """Values of keys, whatever the axes say."""
    axes: Where = Field(default_factory=dict)
    """Only these values of an axis."""
    replications: PositiveInt = 1


class StudyFile(SweepFile):
    """A sweep that answers a question: with figures, and findings in words."""

    title: str
    question: str
    best: BestPoints | None = None
    figures: tuple[StudyFigure, ...] = ()
    findings: tuple[AnyFinding, ...] = ()
    quick: Quick = Quick()
