"""What one run knows of its headlines: series that add up to the metrics, intervals where there is enough to tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis import metrics
from hermes_sim.analysis.batch_means import batch_means
from hermes_sim.analysis.confidence import NUM_INTERVALS, finish_rates, interval_record, run_estimates, token_rates
from hermes_sim.analysis.frames import is_finished
from hermes_sim.analysis.results import Results
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.window import MeasuredWindow
from tests.unit.analysis.test_results import results_of

NUM = 500


@pytest.fixture
def results(tables: RunTables) -> Results:
    """500 requests, one a second, each with ten tokens over some seconds."""
    base = results_of(tables)
    rng = np.random.default_rng(1)
    arrival_s, ttft_s = np.arange(NUM) + rng.uniform(size=NUM), rng.gamma(4.0, 0.25, NUM)
    first_s, last_s = arrival_s + ttft_s, arrival_s + ttft_s + rng.gamma(4.0, 1.0, NUM)
    requests = base.requests.iloc[np.zeros(NUM, int)].reset_index(drop=True).assign(
        request=np.arange(NUM), arrival_s=arrival_s, first_token_s=first_s, finish_s=last_s, num_output_tokens=10,
        ttft_s=ttft_s, e2e_s=last_s - arrival_s, slo_met=ttft_s < 1.5, measured=True,
    )  # fmt: skip
    return replace(base, requests=requests, duration_s=float(last_s.max()))


def windows(results: Results) -> list[MeasuredWindow]:
    measured = np.ones(NUM, bool)
    return [results.window, MeasuredWindow(100.0, 300.0, measured, whole_run=False)]


def test_the_series_of_rates_are_the_metrics(results: Results) -> None:
    requests, finished = results.requests, is_finished(results.requests)
    at_once = requests.assign(
        first_token_s=requests["finish_s"].where(requests.index % 7 == 0, requests["first_token_s"])
    )
    for window in windows(results):
        rates = finish_rates(requests, window, finished)
        assert len(rates) == NUM_INTERVALS
        assert rates.mean() == pytest.approx(metrics.requests_per_s(requests, window))
        for frame in (requests, at_once):
            tokens = token_rates(frame, window, finished)
            assert tokens.mean() == pytest.approx(metrics.output_tokens_per_s(frame, window))
            assert tokens.min() > -1e-9


def test_tokens_are_spread_over_the_parts_that_they_were_written_in(results: Results) -> None:
    """Ten tokens from second 2 to 7, in parts of a second."""
    one = results.requests.iloc[:1].assign(first_token_s=2.0, finish_s=7.0)
    window = MeasuredWindow(0.0, float(NUM_INTERVALS), np.ones(1, bool), whole_run=True)
    rates = token_rates(one, window, np.array([True]))
    assert rates[:9] == pytest.approx([0, 0, 2, 2, 2, 2, 2, 0, 0])
    empty = MeasuredWindow(5.0, 5.0, np.ones(1, bool), whole_run=False)
    assert len(token_rates(one, empty, np.array([True]))) == len(finish_rates(one, empty, np.array([True]))) == 0


def test_intervals_stand_around_what_the_summary_says(results: Results) -> None:
    estimates, summary = run_estimates(results), results.summary
    for latency in ("ttft", "tpot", "e2e"):
        for name in ("mean", "p50", "p90"):
            found = estimates[f"{latency}_{name}_s"]
            assert found.value == pytest.approx(summary["latency"][latency][f"{name}_s"])
            assert found.low <= found.value <= found.high
    assert estimates["requests_per_s"].value == pytest.approx(summary["throughput"]["requests_per_s"])
    assert estimates["goodput_per_s"].value == pytest.approx(summary["throughput"]["goodput_per_s"])
    assert estimates["slo_met_frac"].value == pytest.approx(summary["slo"]["met_frac"])
    assert summary["confidence"]["ttft_mean_s"] == interval_record(estimates["ttft_mean_s"])
    assert estimates["ttft_mean_s"] == batch_means(results.requests["ttft_s"].to_numpy())


def test_the_order_of_rows_is_no_order_of_time(results: Results) -> None:
    """A trend shows as one whatever the rows' order."""
    drifting = results.requests.assign(ttft_s=np.arange(NUM) / 100.0)
    shuffled = drifting.sample(frac=1.0, random_state=1)
    for frame in (drifting, shuffled):
        assert run_estimates(replace(results, requests=frame))["ttft_mean_s"].is_correlated


def test_what_all_requests_do_has_no_interval(results: Results) -> None:
    """None of 500 missed is not never."""
    all_met = replace(results, requests=results.requests.assign(slo_met=True))
    estimate = run_estimates(all_met)["slo_met_frac"]
    assert estimate.value == 1.0
    assert not estimate.is_known
    assert all_met.summary["confidence"]["slo_met_frac"]["half_width_95"] is None


def test_few_requests_have_none(tables: RunTables) -> None:
    assert not any(one.is_known for name, one in run_estimates(results_of(tables)).items() if name.endswith("mean_s"))


def test_thoughts_have_a_latency_of_their_own_only_where_there_are_any(results: Results) -> None:
    assert "ttfat_mean_s" not in results.summary["confidence"]
    thinking = results.requests.assign(num_thought_tokens=5, ttfat_s=results.requests["ttft_s"] + 1.0)
    assert isinstance(thinking, pd.DataFrame)
    assert "ttfat_mean_s" in replace(results, requests=thinking).summary["confidence"]
