"""A figure of a study: which metric over which axis, a panel for each of several."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Name
from hermes_sim.scenario.axis import Where
from hermes_sim.scenario.study_finding import Table


class StudyFigure(Description):
    """One figure. Where axes are left that it does not name, their mean is drawn."""

    name: Name = "figure"
    """Of its file."""
    kind: Literal["lines", "bars", "heat_map"] = "lines"
    table: Table = "runs"
    """`best`: the best points (see `best`), in place of all."""
    x: Name
    """Axis along the bottom."""
    series: Name | None = None
    """Axis that has a line or a bar for each value; the rows of a heat map."""
    facets: Name | None = None
    """Axis that has panels of its own for each value: rows of them, or side by side where `y` is one metric."""
    y: tuple[str, ...] = Field(min_length=1)
    """Metrics, a column of panels for each."""
    where: Where = Field(default_factory=dict)
    """Only the points with these values."""
    log: tuple[Literal["x", "y"], ...] = ()
    """Axes with a logarithmic scale; of a heat map, y stands for the colours."""
