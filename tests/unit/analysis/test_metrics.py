"""Every metric against the five requests of conftest, by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis import metrics
from hermes_sim.analysis.frames import is_finished
from hermes_sim.scenario.window import MeasuredWindow

Frames = dict[str, pd.DataFrame]


def window(start_s: float = 0.0, end_s: float = 10.0) -> MeasuredWindow:
    return MeasuredWindow(start_s, end_s, np.ones(5, dtype=np.bool_), whole_run=True)


def test_latency_percentiles_leave_out_what_does_not_exist() -> None:
    found = metrics.latency_percentiles(np.array([1.0, np.nan, 2.0, 4.0]))
    assert found == pytest.approx(
        {"num": 3, "mean_s": 7 / 3, "p50_s": 2.0, "p90_s": 3.6, "p95_s": 3.8, "p99_s": 3.96, "max_s": 4.0}
    )
    assert math.isnan(metrics.latency_percentiles(np.array([np.nan]))["mean_s"])


def test_itl_mean_is_exact_and_its_percentiles_state_their_error(frames: Frames) -> None:
    # Four gaps of 0.5 s and two of 1 s.
    itl = metrics.itl_percentiles(frames["itl"], frames["requests"])
    assert itl["num"] == 6
    assert itl["mean_s"] == pytest.approx(4 / 6)
    assert itl["p50_s"] == 0.625
    assert abs(itl["p50_s"] - 0.5) <= itl["bin_width_frac"] * itl["p50_s"]


def test_throughput_of_the_whole_run(frames: Frames) -> None:
    assert metrics.requests_per_s(frames["requests"], window()) == 0.4
    assert metrics.output_tokens_per_s(frames["requests"], window()) == pytest.approx(0.9)
    # Prompts of the requests that got a first token: 100 + 200 + 100.
    assert metrics.prompt_tokens_per_s(frames["requests"], window()) == 40.0


def test_throughput_of_a_part_counts_what_happened_in_it(frames: Frames) -> None:
    # In [2, 9]: requests 0, 1, 2 finish. Tokens: half of request 0's 5, the one of request 1, half of request 4's 3.
    part = window(2.0, 9.0)
    assert metrics.requests_per_s(frames["requests"], part) == pytest.approx(3 / 7)
    assert metrics.output_tokens_per_s(frames["requests"], part) == pytest.approx((2.5 + 1 + 1.5) / 7)


def test_goodput_counts_requests_within_the_slo(frames: Frames) -> None:
    requests = frames["requests"].assign(slo_met=[True, False, True, False, False])
    assert metrics.goodput_per_s(requests, window()) == 0.2
    assert metrics.goodput_per_s(requests, window()) <= metrics.requests_per_s(requests, window())


def test_rates_of_no_time_do_not_exist(frames: Frames) -> None:
    assert math.isnan(metrics.requests_per_s(frames["requests"], window(0.0, 0.0)))


def test_stage_times_are_means_over_placed_visits(frames: Frames) -> None:
    times = metrics.stage_times(frames["visits"])
    assert list(times.index) == ["retrieve", "prefill", "decode"]
    assert list(times["num_visits"]) == [3, 4, 3]  # request 4 skipped retrieval
    assert times.loc["retrieve", "memory_s"] == pytest.approx(1.3 / 3)
    assert times.loc["prefill", "queue_s"] == pytest.approx(3.1 / 4)
    assert times.loc["prefill", "transfer_s"] == pytest.approx(1.1 / 4)


def test_energy_carbon_and_cost(frames: Frames) -> None:
    requests, engines = frames["requests"], frames["engines"]
    energy_j = metrics.facility_energy_j(engines, frames["links"], pue=1.2)
    assert energy_j == pytest.approx(10_800)
    assert metrics.energy_per_output_token_j(requests, energy_j) == pytest.approx(1200)
    # 10.8 kJ are 3 Wh; at 400 g/kWh 1.2 g, over four finished requests.
    assert metrics.carbon_per_request_g(requests, 1.2) == pytest.approx(0.3)
    assert metrics.cost_per_million_output_tokens_usd(requests, engines) == pytest.approx(3000)
    assert metrics.cost_per_request_usd(requests, engines) == pytest.approx(0.00675)


def test_without_output_tokens_nothing_is_per_token(frames: Frames) -> None:
    nothing = frames["requests"].iloc[0:0]
    assert math.isnan(metrics.energy_per_output_token_j(nothing, 1.0))
    assert math.isnan(metrics.cost_per_million_output_tokens_usd(nothing, frames["engines"]))
    assert math.isnan(metrics.prefix_hit_frac(nothing))
    assert not is_finished(nothing).any()


def test_prefix_hits_and_limiting_resource(frames: Frames) -> None:
    assert metrics.prefix_hit_frac(frames["requests"]) == pytest.approx(64 / 10_449)
    assert metrics.limiting_resource(frames["engines"].iloc[0]) == ("memory", pytest.approx(3.8 / 6.4))
