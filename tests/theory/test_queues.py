"""Servers of fixed or random service time against queueing theory.

Two kinds of test. Along a sample path the wait of every single request must obey Lindley's (Kiefer and Wolfowitz's)
recursion: that is exact, and tests the clock. Over replications the mean must meet the closed form within a 99.9%
confidence interval: that tests arrivals and service times too. Seeds are fixed, so a test does not flicker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hermes_sim import Results
from tests.theory.queueing import (
    assert_mean,
    erlang_c,
    mean_wait_erlang_m_1_s,
    mean_wait_mg1_s,
    mean_wait_mmk_s,
    repairman_utilization,
    waits_of_path_s,
)
from tests.theory.servers import simulate_servers

NUM_REPLICATIONS = 16
NUM_REQUESTS = 12_000
NUM_WARM_UP = 1000
"""Left out: the system starts empty, which would make waits too short. At 80% load its memory is some 100 requests."""

EXPONENTIAL: dict[str, Any] = {"kind": "exponential", "mean": "1 s"}
FIXED: dict[str, Any] = {"kind": "fixed", "time": "1 s"}
SQUARED: dict[str, Any] = {"kind": "gamma", "mean": "1 s", "cv": 1.5}


def poisson(rate_per_s: float) -> dict[str, Any]:
    return {"arrivals": {"kind": "poisson", "rate": f"{rate_per_s!r} /s"}}


def waits_s(results: Results) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[num_visits] time from arrival at the server to the start of service."""
    visits = results.visits
    return (visits["start_s"] - visits["arrival_s"]).to_numpy()


def replicate(run: Callable[[int], Results]) -> list[Results]:
    return [run(seed) for seed in range(1, NUM_REPLICATIONS + 1)]


@pytest.mark.parametrize("service_time", [EXPONENTIAL, FIXED, SQUARED], ids=lambda time: str(time["kind"]))
@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("exact_steps", [False, True], ids=["production", "exact_steps"])
def test_every_wait_follows_the_recursion(service_time: dict[str, Any], num_workers: int, exact_steps: bool) -> None:
    results = simulate_servers(
        service_time=service_time, traffic=poisson(0.8 * num_workers), num_requests=2000, seed=7,
        num_workers=num_workers, exact_steps=exact_steps,
    )  # fmt: skip
    visits = results.visits.sort_values("arrival_s")
    service_s = (visits["finish_s"] - visits["start_s"]).to_numpy()
    expected_s = waits_of_path_s(visits["arrival_s"].to_numpy(), service_s, num_workers)
    assert expected_s.max() > 1.0
    np.testing.assert_allclose((visits["start_s"] - visits["arrival_s"]).to_numpy(), expected_s, rtol=0, atol=1e-9)
    np.testing.assert_allclose(visits["queue_s"], expected_s, rtol=0, atol=1e-9)
    np.testing.assert_allclose(visits["service_s"], service_s, rtol=0, atol=1e-9)


def test_constant_arrivals_and_service_below_capacity_never_wait() -> None:
    traffic = {"arrivals": {"kind": "constant", "rate": "0.5 /s"}}
    results = simulate_servers(service_time=FIXED, traffic=traffic, num_requests=100, seed=1)
    assert (waits_s(results) == 0.0).all()


def test_constant_arrivals_above_capacity_wait_ever_longer() -> None:
    # A request every 0.5 s, 1 s each: request n waits n x (1 - 0.5) s.
    traffic = {"arrivals": {"kind": "constant", "rate": "2 /s"}}
    results = simulate_servers(service_time=FIXED, traffic=traffic, num_requests=100, seed=1)
    assert waits_s(results).tolist() == [0.5 * n for n in range(100)]


@pytest.mark.parametrize(("num_servers", "utilization"), [(1, 0.5), (1, 0.8), (2, 0.8), (4, 0.7)])
def test_mmk(num_servers: int, utilization: float) -> None:
    rate_per_s = utilization * num_servers
    runs = replicate(
        lambda seed: simulate_servers(
            service_time=EXPONENTIAL, traffic=poisson(rate_per_s), num_requests=NUM_REQUESTS, seed=seed,
            num_workers=num_servers,
        )
    )  # fmt: skip
    waits = [waits_s(run)[NUM_WARM_UP:] for run in runs]
    assert_mean(mean_wait_mmk_s(rate_per_s, 1.0, num_servers), [float(w.mean()) for w in waits])
    share_waiting = [float((w > 0.0).mean()) for w in waits]
    assert_mean(erlang_c(num_servers, rate_per_s), share_waiting)
    assert_mean(utilization, [float(run.engines["utilization_frac"].iloc[0]) for run in runs])


def test_waits_of_mm1_are_exponential_beyond_zero() -> None:
    # P(W > t) = rho exp(-(mu - lambda) t)
    runs = replicate(
        lambda seed: simulate_servers(
            service_time=EXPONENTIAL, traffic=poisson(0.7), num_requests=NUM_REQUESTS, seed=seed
        )
    )
    for time_s in (1.0, 3.0, 5.0):
        exceed = [float((waits_s(run)[NUM_WARM_UP:] > time_s).mean()) for run in runs]
        assert_mean(0.7 * np.exp(-0.3 * time_s), exceed)


@pytest.mark.parametrize(("service_time", "cv"), [(FIXED, 0.0), (SQUARED, 1.5)], ids=["M/D/1", "M/G/1"])
@pytest.mark.parametrize("utilization", [0.5, 0.75])
def test_pollaczek_khinchine(service_time: dict[str, Any], cv: float, utilization: float) -> None:
    runs = replicate(
        lambda seed: simulate_servers(
            service_time=service_time, traffic=poisson(utilization), num_requests=NUM_REQUESTS, seed=seed
        )
    )
    means_s = [float(waits_s(run)[NUM_WARM_UP:].mean()) for run in runs]
    assert_mean(mean_wait_mg1_s(utilization, 1.0, cv), means_s)
    assert_mean(utilization, [float(run.engines["utilization_frac"].iloc[0]) for run in runs])


def test_random_routing_splits_a_poisson_stream_into_poisson_streams() -> None:
    runs = replicate(
        lambda seed: simulate_servers(
            service_time=EXPONENTIAL, traffic=poisson(1.4), num_requests=NUM_REQUESTS, seed=seed, replicas=2,
            routing="random",
        )
    )  # fmt: skip
    means_s = [float(waits_s(run)[NUM_WARM_UP:].mean()) for run in runs]
    assert_mean(mean_wait_mmk_s(0.7, 1.0, 1), means_s)


def test_round_robin_over_two_servers_makes_erlang_arrivals() -> None:
    # Each server sees every second arrival: gaps are sums of two exponentials, E_2/M/1 at rate 0.7.
    runs = replicate(
        lambda seed: simulate_servers(
            service_time=EXPONENTIAL, traffic=poisson(1.4), num_requests=NUM_REQUESTS, seed=seed, replicas=2,
            routing="round_robin",
        )
    )  # fmt: skip
    means_s = [float(waits_s(run)[NUM_WARM_UP:].mean()) for run in runs]
    expected_s = mean_wait_erlang_m_1_s(2, 0.7, 1.0)
    assert_mean(expected_s, means_s)
    assert expected_s < 0.8 * mean_wait_mmk_s(0.7, 1.0, 1)


def test_second_pass_through_the_same_server_keeps_the_product_form() -> None:
    # Every request comes twice: a Kelly network of one station, rho = 2 x 0.35. Mean number inside rho / (1 - rho), so
    # by Little's law a mean time inside of rho / (1 - rho) / rate.
    rate_per_s, utilization = 0.35, 0.7
    runs = replicate(
        lambda seed: simulate_servers(
            service_time=EXPONENTIAL, traffic=poisson(rate_per_s), num_requests=NUM_REQUESTS, seed=seed, num_stages=2
        )
    )
    means_s = []
    for run in runs:
        requests = run.requests
        means_s.append(float((requests["finish_s"] - requests["arrival_s"]).iloc[NUM_WARM_UP:].mean()))
    assert_mean(utilization / (1.0 - utilization) / rate_per_s, means_s)


@pytest.mark.parametrize("num_users", [1, 4, 10])
def test_closed_loop_is_the_machine_repairman(num_users: int) -> None:
    traffic = {"closed_loop": {"concurrency": num_users, "think_time": "5 s"}}
    runs = replicate(
        lambda seed: simulate_servers(service_time=EXPONENTIAL, traffic=traffic, num_requests=4000, seed=seed)
    )
    busy = [float(run.engines["utilization_frac"].iloc[0]) for run in runs]
    assert_mean(repairman_utilization(num_users, 5.0, 1.0), busy)
