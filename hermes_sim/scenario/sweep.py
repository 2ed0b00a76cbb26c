"""The sweep file: axes over any key of cluster and workload, and which of their points are run."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from hermes_sim.core.schema import Description, Name
from hermes_sim.scenario.axis import Point
from hermes_sim.scenario.explored import Explored
from hermes_sim.scenario.sampling import Sampling
from hermes_sim.scenario.slo import Slo

TIER: Final = "tier"
"""Axis of the tiers, in figures and findings."""


class Tier(Description):
    """Objectives that every run is judged by, beside those of its workload."""

    name: Name
    label: str | None = None
    slo: Slo


class SweepFile(Explored):
    """Runs at many points, one row each in one table."""

    sampling: Sampling = Sampling()
    tiers: tuple[Tier, ...] = ()
    """Columns `slo_met_frac@NAME`, `goodput_per_s@NAME` and `meets@NAME` for each; in figures the axis `tier`."""
    reference: Point = Field(default_factory=dict)
    """For tiers in multiples of the unloaded request: it runs alone on the point with these values in place of its own;
    by default on the point itself."""
    by: tuple[str, ...] = ()
    """Metrics whose best points are shown first; throughput, TTFT p99 and cost if not given."""
