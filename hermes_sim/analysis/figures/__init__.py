"""Figures of a run, fit for a paper: functions of Results that return a matplotlib Figure (`results.plot` has them)."""

from hermes_sim.analysis.figures.breakdown import engines, stages
from hermes_sim.analysis.figures.cdf import cdf
from hermes_sim.analysis.figures.engine_timeline import engine_timeline
from hermes_sim.analysis.figures.roofline import roofline
from hermes_sim.analysis.figures.timeline import timeline

__all__ = ["cdf", "engine_timeline", "engines", "roofline", "stages", "timeline"]
