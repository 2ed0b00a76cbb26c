"""Stated service times: moments, quantiles, and streams that do not shift."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.stages import STAGES
from hermes_sim.stages.service_time import SERVICE_TIMES


def draws(service_time: dict[str, Any], number: int = 200_000, seed: int = 1, name: str = "guard") -> Any:
    stage = STAGES["timed"].model_validate({"name": name, "kind": "timed", "service_time": service_time})
    return stage.service_times_s(number, seed)


@pytest.mark.parametrize(
    ("service_time", "mean_s", "cv"),
    [
        ({"kind": "fixed", "time": "20 ms"}, 0.02, 0.0),
        ({"kind": "exponential", "mean": "20 ms"}, 0.02, 1.0),
        ({"kind": "lognormal", "mean": "20 ms", "cv": 0.5}, 0.02, 0.5),
        ({"kind": "gamma", "mean": "20 ms", "cv": 2.0}, 0.02, 2.0),
        ({"kind": "uniform", "low": "10 ms", "high": "30 ms"}, 0.02, 1 / 3**0.5 / 2),
    ],
)
def test_moments(service_time: dict[str, Any], mean_s: float, cv: float) -> None:
    times = draws(service_time)
    assert (times >= 0).all()
    # Five standard errors of the mean; the spread of cv 2 converges slower.
    assert times.mean() == pytest.approx(mean_s, rel=max(5 * cv / len(times) ** 0.5, 1e-12))
    assert times.std() / times.mean() == pytest.approx(cv, rel=0.03, abs=1e-12)


def test_every_distribution_is_covered() -> None:
    assert set(SERVICE_TIMES) == {"exponential", "fixed", "gamma", "lognormal", "uniform"}


def test_quantiles_by_hand() -> None:
    half = np.array([0.5])
    exponential = SERVICE_TIMES["exponential"].model_validate({"mean": "1 s"})
    assert exponential.quantiles_s(half)[0] == pytest.approx(np.log(2.0))
    gamma = SERVICE_TIMES["gamma"].model_validate({"mean": "1 s", "cv": 1.0})
    grid = np.linspace(0.0, 0.99, 50)
    np.testing.assert_allclose(gamma.quantiles_s(grid), exponential.quantiles_s(grid), rtol=1e-9, atol=1e-15)
    lognormal = SERVICE_TIMES["lognormal"].model_validate({"mean": "1 s", "cv": 1.0})
    assert lognormal.quantiles_s(half)[0] == pytest.approx(2.0**-0.5)


def test_more_requests_do_not_shift_the_draws() -> None:
    service_time = {"kind": "lognormal", "mean": "1 s", "cv": 1.0}
    np.testing.assert_array_equal(draws(service_time, 10), draws(service_time, 1000)[:10])


def test_stages_and_seeds_draw_apart() -> None:
    service_time = {"kind": "exponential", "mean": "1 s"}
    first, seed, name = draws(service_time, 50), draws(service_time, 50, seed=2), draws(service_time, 50, name="tool")
    assert len(np.unique(np.concatenate([first, seed, name]))) == 150


def test_other_stages_state_no_time() -> None:
    assert STAGES["prefill"].model_validate({"name": "p"}).service_times_s(3, 1) is None
