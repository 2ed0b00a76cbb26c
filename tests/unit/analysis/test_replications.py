"""Confidence intervals over seeds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.replications import HEADLINES, confidence_intervals


def replications(values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"seed": range(len(values)), **dict.fromkeys(HEADLINES, values)})


def test_students_t_by_hand() -> None:
    # Mean 2, standard deviation 1, t(0.975, 2) = 4.302653: half-width 4.302653 / sqrt(3).
    interval = confidence_intervals(replications([1.0, 2.0, 3.0]))["ttft_p99_s"]
    assert interval == {"mean": 2.0, "half_width_95": pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)}


def test_one_run_has_no_interval() -> None:
    interval = confidence_intervals(replications([1.0]))["requests_per_s"]
    assert interval["mean"] == 1.0
    assert math.isnan(interval["half_width_95"])


def test_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    num_trials, num_covered = 1000, 0
    for _ in range(num_trials):
        interval = confidence_intervals(replications(list(rng.normal(5.0, 2.0, 5))))["e2e_mean_s"]
        num_covered += abs(interval["mean"] - 5.0) <= interval["half_width_95"]
    # Binomial(1000, 0.95): four standard deviations are 28.
    assert abs(num_covered - 950) <= 28
