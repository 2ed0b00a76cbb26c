"""Numbers and points of a study in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from hermes_sim.analysis.human import digits, duration, percent
from hermes_sim.scenario.study_metrics import StudyMetric, metric_of


def metric_named(name: str) -> StudyMetric:
    """Of a name that scenario/study_checks.py has let through."""
    metric = metric_of(name)
    assert metric is not None
    return metric


def value_words(name: str, value: float) -> str:
    """A value of a metric with its unit: 838 ms, 4.1 requests/s, 93%."""
    metric = metric_named(name)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return duration(value)
    if metric.unit == "%":
        return percent(value)
    return f"{digits(value / metric.per_unit)} {metric.unit}".rstrip()


def factor_words(factor: float) -> str:
    return f"{digits(factor)} x" if math.isfinite(factor) else "-"


def point_words(point: Mapping[str, str]) -> str:
    """`batching static, rate 2 /s`."""
    return ", ".join(f"{axis.replace('_', ' ')} {value}" for axis, value in point.items())


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def joined(parts: Iterable[str]) -> str:
    """`a, b and c`."""
    listed = list(parts)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}" if listed else ""
