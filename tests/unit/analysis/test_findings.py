"""Warnings: said when they are true, and not said when they are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis import findings
from hermes_sim.scenario.window import MeasuredWindow


def queue(load: float, num: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Visits and requests of an M/M/1 queue by Lindley's recursion; service rate 1/s."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / load, num))
    start_s = np.empty(num)
    free_s = 0.0
    for index, service_s in enumerate(rng.exponential(1.0, num)):
        start_s[index] = max(arrival_s[index], free_s)
        free_s = start_s[index] + service_s
    return pd.DataFrame({"arrival_s": arrival_s, "start_s": start_s}), pd.DataFrame({"arrival_s": arrival_s})


@pytest.mark.parametrize("load", [1.5, 2.0])
@pytest.mark.parametrize("num", [500, 5000])
def test_an_overloaded_queue_is_saturated(load: float, num: int) -> None:
    found = findings.saturated(*queue(load, num))
    assert found is not None
    assert found.text.startswith("saturated: the queues grew")


@pytest.mark.parametrize("load", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("seed", range(10))
def test_a_queue_in_balance_is_not(load: float, seed: int) -> None:
    assert findings.saturated(*queue(load, 3000, seed)) is None


def test_growth_is_the_excess_of_arrivals() -> None:
    # At load 2 every second arrival is left waiting.
    assert findings.queue_growth(*queue(2.0, 20_000)) == pytest.approx(10_000, rel=0.05)


def test_no_queue_without_time() -> None:
    visits = pd.DataFrame({"arrival_s": [1.0, 1.0], "start_s": [1.0, 2.0]})
    assert findings.queue_growth(visits, visits) == 0.0
    assert findings.saturated(visits.iloc[:0], visits.iloc[:0]) is None


def test_failures_are_counted(frames: dict[str, pd.DataFrame]) -> None:
    requests = frames["requests"].assign(num_clipped_tokens=[0, 30, 0, 0, 12], num_preemptions=[0, 0, 2, 0, 0])
    found = {one.kind: one.text for one in findings.failed(requests)}
    assert set(found) == {"rejected", "clipped", "preempted"}
    assert found["rejected"].startswith("rejected: 1 of 5 requests")
    assert found["clipped"] == "clipped: 2 of 5 prompts cut to the model's limit, 42 tokens lost"
    assert "20% of the requests" in found["preempted"]


def requests_of(num: int, e2e_s: float = 1.0) -> tuple[pd.DataFrame, MeasuredWindow]:
    requests = pd.DataFrame({"status": ["finished"] * num, "arrival_s": np.arange(num, dtype=float), "e2e_s": e2e_s})
    return requests, MeasuredWindow(0.0, float(num), np.ones(num, dtype=np.bool_), whole_run=True)


@pytest.mark.parametrize(
    ("num", "asked", "said"), [(999, "p99", True), (1000, "p99", False), (99, "p90", True), (10, "mean", False)]
)
def test_too_short_for_the_asked_percentile(num: int, asked: str, said: bool) -> None:
    found = findings.too_short(*requests_of(num), [asked])
    assert (found is not None) == said


def test_too_short_names_what_it_rests_on() -> None:
    found = findings.too_short(*requests_of(300), ["mean", "p50", "p99"])
    assert found is not None
    assert found.text == (
        "short: about 3 of 300 requests lie beyond p99, too few to place it well; of 1,000 there would be 10"
    )


def test_warm_up_is_named_if_it_matters_and_was_not_cut() -> None:
    requests, window = requests_of(100, e2e_s=10.0)
    found = findings.warm_up_included(requests, window)
    assert found is not None
    assert "10% of the requests arrived in the first 10.0 s" in found.text
    assert findings.warm_up_included(*requests_of(100, e2e_s=2.0)) is None
    cut = MeasuredWindow(20.0, 100.0, np.arange(100) >= 20, whole_run=False)
    assert findings.warm_up_included(requests, cut) is None


def test_no_more_can_wait_than_arrived() -> None:
    # Arrivals ever faster: the line fitted to the later part, drawn out over the whole time, would end above them all.
    arrival_s = np.linspace(0.0, 1.0, 1000) ** 0.5
    visits = pd.DataFrame({"arrival_s": arrival_s, "start_s": arrival_s + 10})
    found = findings.saturated(visits, visits)
    assert findings.queue_growth(visits, visits) > 1000
    assert found is not None
    assert "by 1,000 of 1,000 requests" in found.text


def test_a_window_in_which_nothing_finishes_is_named() -> None:
    requests, _ = requests_of(5)
    requests["finish_s"] = requests["arrival_s"] + 100
    measured = np.array([False, True, True, True, False])
    found = findings.empty_window(requests, MeasuredWindow(1.0, 4.0, measured, whole_run=False))
    assert found is not None
    assert "inside the measured window of 3.00 s, so throughput and goodput are 0" in found.text
    assert findings.empty_window(requests, MeasuredWindow(1.0, 101.0, measured, whole_run=False)) is None
    assert findings.empty_window(requests, MeasuredWindow(1.0, 4.0, measured & False, whole_run=False)) is None


def test_too_short_says_so_of_very_few() -> None:
    found = findings.too_short(*requests_of(45), ["p99"])
    assert found is not None
    assert found.text.startswith("short: hardly one of 45 requests lies beyond p99")


def test_nothing_measured() -> None:
    requests, window = requests_of(0)
    assert findings.nothing_measured(requests, window) == findings.Finding("empty", "empty: no request arrived")
    requests, _ = requests_of(3)
    none = MeasuredWindow(0.0, 3.0, np.zeros(3, dtype=np.bool_), whole_run=False)
    found = findings.nothing_measured(requests, none)
    assert found is not None
    assert "leave no request" in found.text
