"""The study file: a question, the grid of runs that answers it, and what is drawn and said of them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hermes_sim.core.schema import Description, Name, PositiveInt
from hermes_sim.scenario.axis import Axis, Point, Where
from hermes_sim.scenario.slo import Slo
from hermes_sim.scenario.study_figure import StudyFigure
from hermes_sim.scenario.study_finding import AnyFinding

TIER = "tier"
"""Axis of the tiers, in figures and findings."""


class StudyBase(Description):
    """What all runs have in common."""

    cluster: str
    workload: str
    overrides: dict[str, Any] = Field(default_factory=dict, alias="set")
    """Values of keys, as in an axis."""


class Skip(Description):
    """Points of the grid that make no sense."""

    when: Where
    because: str


class Tier(Description):
    """Objectives that every run is judged by, beside those of its workload."""

    name: Name
    label: str | None = None
    slo: Slo


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


class StudyFile(Description):
    """A grid of runs: every combination of the values of all axes, under the same seeds."""

    name: Name
    title: str
    question: str
    source: str | None = None
    """The figure or section of a paper that it follows."""
    base: StudyBase
    axes: tuple[Axis, ...] = Field(min_length=1)
    """A later axis wins where two set the same key."""
    skip: tuple[Skip, ...] = ()
    replications: PositiveInt = 1
    """Runs of every point, with the workload's seed and those after it: the same ones at each point, so that what
    differs is not the draw."""
    tiers: tuple[Tier, ...] = ()
    """In figures and findings the axis `tier`; its metrics are `slo_met_frac` and `goodput_per_s`."""
    reference: Point = Field(default_factory=dict)
    """For tiers in multiples of the unloaded request: it runs alone on the point with these values in place of its own;
    by default on the point itself."""
    best: BestPoints | None = None
    figures: tuple[StudyFigure, ...] = ()
    findings: tuple[AnyFinding, ...] = ()
    quick: Quick = Quick()
