"""Objectives and margins as a file writes them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hermes_sim.scenario.measure import Margin, Measure
from hermes_sim.scenario.slo import LatencyLimit, Slo


def test_limits_in_the_order_of_the_file() -> None:
    slo = Slo.model_validate({"tpot": {"p99": "50 ms"}, "ttft": {"p99": "6 x", "mean": "2 s"}})
    assert slo.limits() == [
        ("ttft", "p99", LatencyLimit(unloaded_multiple=6.0)),
        ("ttft", "mean", LatencyLimit(time_s=2.0)),
        ("tpot", "p99", LatencyLimit(time_s=0.05)),
    ]
    assert Slo.model_validate(slo.model_dump(mode="json")) == slo


@pytest.mark.parametrize("value", ["6 z", "x", "-6 x", "0 x", "0 s", 0, 6, True, None, "6 x x", "nan x", "1e999 x"])
def test_wrong_limits(value: object) -> None:
    with pytest.raises(ValidationError):
        Slo.model_validate({"ttft": {"p99": value}})


def test_a_multiple_is_explained() -> None:
    with pytest.raises(ValidationError, match="'fast x' is not a multiple of the unloaded latency, such as '6 x'"):
        Slo.model_validate({"ttft": {"p99": "fast x"}})


@pytest.mark.parametrize(
    ("value", "margin"),
    [
        ("30 s", Margin(time_s=30.0)),
        ("5 %", Margin(requests_frac=0.05)),
        ("5%", Margin(requests_frac=0.05)),
        (0.05, Margin(requests_frac=0.05)),
        ("0.05", Margin(requests_frac=0.05)),
        (0, Margin(requests_frac=0.0)),
        ("1 min", Margin(time_s=60.0)),
    ],
)
def test_margins(value: object, margin: Margin) -> None:
    measure = Measure.model_validate({"warm_up": value})
    assert measure.warm_up == margin
    assert Measure.model_validate(measure.model_dump(mode="json")) == measure


@pytest.mark.parametrize("value", [1, -0.1, "100 %", "-5 %", "x %", "nan %", "inf %", "30", True, None, [1], "-3 s"])
def test_wrong_margins(value: object) -> None:
    with pytest.raises(ValidationError):
        Measure.model_validate({"warm_up": value})
