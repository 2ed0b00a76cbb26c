"""A run is stopped only where its end would have failed: what is allowed is exact, what is not known counts as good."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.objectives import Objective, judge
from hermes_sim.analysis.quantiles import quantile
from hermes_sim.explore.capacity.stop import StopRule, num_allowed_beyond
from hermes_sim.scenario.measure import Measure
from hermes_sim.scenario.slo import LatencyLimit, Statistic
from hermes_sim.sim.so_far import SoFar

NO_GAPS = pd.DataFrame({"from_s": [0.0], "to_s": [1.0], "num_gaps": [0]})


def rule_of(*objectives: Objective, num: int, **keys: Any) -> StopRule:
    given = {"attainment_frac": None, "measure": Measure(), "classes": (), "is_steady": False, **keys}
    return StopRule(objectives, num_requests=num, **given)


def seen(time_s: float, arrival_s: Any, ttft_s: Any, **keys: Any) -> SoFar:
    nothing = np.zeros(len(arrival_s))
    given = {
        "tpot_s": nothing, "e2e_s": nothing, "waits": nothing > 0, "service_class": nothing.astype(np.int64), **keys,
    }  # fmt: skip
    return SoFar(time_s, np.asarray(arrival_s), ttft_s=np.asarray(ttft_s), **given)


def ttft(statistic: Statistic, limit_s: float = 1.0, name: str | None = None) -> Objective:
    return Objective("ttft", statistic, LatencyLimit(time_s=limit_s), name)


@pytest.mark.parametrize("num", [1, 2, 10, 99, 100, 101, 1000, 1234])
@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.95, 0.99])
def test_so_many_may_lie_beyond(num: int, fraction: float) -> None:
    """One more, however little beyond the bound, and the percentile is beyond it; with as many it may be at it."""
    allowed = num_allowed_beyond(num, fraction)
    values = np.full(num, 1.0)
    values[: allowed + 1] = 1.0 + 1e-6
    assert quantile(values, fraction) > 1.0
    values[: allowed + 1] = 0.0
    values[:allowed] = 1.0 + 1e-9
    assert quantile(values, fraction) <= 1.0 + 1e-9
    kept = np.full(num, 1.0 - 1e-6)
    kept[:allowed] = 1.0 + 1e-12
    assert quantile(kept, fraction) <= 1.0


@pytest.mark.parametrize("statistic", ["mean", "p50", "p90", "p99"])
def test_never_contradicts_the_end(statistic: Statistic) -> None:
    """Random runs, random moments, least values that are anything up to the final ones."""
    rng = np.random.default_rng(1)
    num_stopped = num_failed = 0
    for _ in range(400):
        num = int(rng.integers(5, 300))
        arrival_s, final_s = np.sort(rng.random(num)), rng.exponential(rng.uniform(0.1, 6.0), num)
        time_s = float(rng.random())
        exact = rng.random(num) < 0.7
        least_s = np.where(exact, final_s, final_s * rng.random(num)) * (arrival_s <= time_s)
        objective = ttft(statistic)
        reason = rule_of(objective, num=num)(seen(time_s, arrival_s, least_s))
        frame = pd.DataFrame({"ttft_s": final_s, "status": "finished"})
        met = judge(objective, frame, NO_GAPS, None).met
        num_stopped += reason is not None
        num_failed += met is False
        assert reason is None or met is False
    assert 20 < num_stopped < num_failed


def test_only_measured_requests_count() -> None:
    arrival_s = np.arange(100) / 100
    late = np.where(np.arange(100) < 20, 5.0, 0.0)
    assert rule_of(ttft("p90"), num=100)(seen(1.0, arrival_s, late)) is not None
    warm = Measure.model_validate({"warm_up": "20 %"})
    assert rule_of(ttft("p90"), num=100, measure=warm)(seen(1.0, arrival_s, late)) is None
    by_time = Measure.model_validate({"warm_up": "0.2 s"})
    assert rule_of(ttft("p90"), num=100, measure=by_time)(seen(1.0, arrival_s, late)) is None
    shuffled = np.random.default_rng(1).permutation(100)  # turns of sessions are not in order of arrival
    assert rule_of(ttft("p90"), num=100, measure=warm)(seen(1.0, arrival_s[shuffled], late[shuffled])) is None
    assert rule_of(ttft("p90"), num=100, measure=warm)(seen(1.0, arrival_s[shuffled], late)) is not None


def test_classes_and_lost_requests() -> None:
    arrival_s, classes = np.arange(100) / 100, np.arange(100) % 2
    late = np.where(classes == 0, np.inf, 0.0)
    slow, fast = (rule_of(ttft("p99", name=name), num=100, classes=("slow", "fast")) for name in ("slow", "fast"))
    so_far = seen(1.0, arrival_s, late, service_class=classes)
    assert slow(so_far) == "ttft p99 of slow: 50 of 50 requests are beyond the bound"
    assert fast(so_far) is None
    assert slow.binding == "ttft p99 of slow"


def test_multiples_need_the_lone_requests() -> None:
    twice = Objective("ttft", "p50", LatencyLimit(unloaded_multiple=2.0))
    so_far = seen(1.0, np.arange(10) / 10, np.full(10, 3.0))
    assert rule_of(twice, num=10)(so_far) is None
    assert rule_of(twice, num=10, references_s={"ttft": np.full(10, 2.0)})(so_far) is None
    assert rule_of(twice, num=10, references_s={"ttft": np.full(10, 1.0)})(so_far) is not None


def test_attainment() -> None:
    """Of several bounds on one latency the loosest counts; of several latencies each."""
    arrival_s = np.arange(100) / 100
    both = (ttft("p50", 1.0), ttft("p99", 3.0), Objective("e2e", "p99", LatencyLimit(time_s=10.0)))
    ttft_s, e2e_s = np.where(np.arange(100) < 6, 4.0, 2.0), np.where(np.arange(100) >= 95, 11.0, 5.0)
    so_far = seen(1.0, arrival_s, ttft_s, e2e_s=e2e_s)
    assert rule_of(*both, num=100, attainment_frac=0.89)(so_far) is None
    rule = rule_of(*both, num=100, attainment_frac=0.9)
    assert rule(so_far) == "11 of 100 requests are not good, 10 may be"
    assert rule.binding == "attainment"


def test_a_long_queue_of_steady_arrivals() -> None:
    so_far = seen(1.0, np.arange(4000) / 4000, np.zeros(4000), waits=np.arange(4000) < 1001)
    assert rule_of(num=4000, is_steady=True)(so_far) == "1,001 of 4,000 requests wait at once"
    assert rule_of(num=4000)(so_far) is None
