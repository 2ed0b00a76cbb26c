"""Closed forms of queueing theory, and the intervals in which a simulation has to meet them.

Kleinrock, "Queueing Systems, volume 1: Theory" (1975): M/M/k in section 3.5, M/G/1 in section 5.7, G/M/1 in section
6.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace
from math import factorial, sqrt

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.999


WIDEST_FRAC = 0.15
"""An interval wider than this share of the expected figure (each way) would prove nothing."""


def assert_mean(expected: float, replications: Sequence[float]) -> None:
    """The closed form lies in the Student-t interval of the mean of independent replications, and that is narrow."""
    figures = np.asarray(replications)
    number = len(figures)
    half_width = float(stats.t.ppf(0.5 + CONFIDENCE / 2, number - 1)) * float(figures.std(ddof=1)) / sqrt(number)
    mean = float(figures.mean())
    assert half_width <= WIDEST_FRAC * expected, f"{mean:.4g} +- {half_width:.2g} is too wide to test {expected:.4g}"
    assert abs(mean - expected) <= half_width, f"{expected:.4g} is outside {mean:.4g} +- {half_width:.2g}"


def erlang_c(num_servers: int, offered_load: float) -> float:
    """Probability that an arrival waits in M/M/k. offered_load = arrival rate x mean service time < num_servers."""
    utilization = offered_load / num_servers
    last = offered_load**num_servers / factorial(num_servers) / (1.0 - utilization)
    return last / (sum(offered_load**n / factorial(n) for n in range(num_servers)) + last)


def mean_wait_mmk_s(rate_per_s: float, mean_service_s: float, num_servers: int) -> float:
    """Mean time in the queue of M/M/k."""
    offered_load = rate_per_s * mean_service_s
    return erlang_c(num_servers, offered_load) * mean_service_s / (num_servers - offered_load)


def mean_wait_mg1_s(rate_per_s: float, mean_service_s: float, service_cv: float) -> float:
    """Pollaczek-Khinchine: rate x E[S^2] / (2 (1 - rho)); M/D/1 with cv 0."""
    second_moment = mean_service_s**2 * (1.0 + service_cv**2)
    return rate_per_s * second_moment / (2.0 * (1.0 - rate_per_s * mean_service_s))


def mean_wait_erlang_m_1_s(num_phases: int, rate_per_s: float, mean_service_s: float) -> float:
    """Mean wait of E_r/M/1: sigma S / (1 - sigma), sigma the root below 1 of sigma = A*((1 - sigma) / S).

    A* is the Laplace transform of the gaps between arrivals, here Erlang with `num_phases` phases and mean 1 / rate.
    """

    def transform(s: float) -> float:
        phase_rate = num_phases * rate_per_s
        return (phase_rate / (phase_rate + s)) ** num_phases

    def distance(sigma: float) -> float:
        return sigma - transform((1.0 - sigma) / mean_service_s)

    sigma = float(optimize.brentq(distance, 0.0, 1.0 - 1e-9))
    return sigma * mean_service_s / (1.0 - sigma)


def repairman_utilization(num_users: int, think_s: float, mean_service_s: float) -> float:
    """Utilization of one exponential server that `num_users` come back to after thinking.

    Product form: only the mean of the thinking matters (Baskett, Chandy, Muntz, Palacios, JACM 22, 1975).
    """
    ratio = mean_service_s / think_s
    weights = [factorial(num_users) / factorial(num_users - n) * ratio**n for n in range(num_users + 1)]
    return 1.0 - weights[0] / sum(weights)


def waits_of_path_s(arrival_s: FloatArray, service_s: FloatArray, num_servers: int) -> FloatArray:
    """Waits of G/G/k, first come first served, along one sample path.

    Kiefer and Wolfowitz (1955); with one server Lindley's recursion (1952).
    """
    free_s = [0.0] * num_servers
    waits_s = np.empty(len(arrival_s))
    for n, (arrived_s, takes_s) in enumerate(zip(arrival_s, service_s, strict=True)):
        start_s = max(arrived_s, free_s[0])
        waits_s[n] = start_s - arrived_s
        heapreplace(free_s, start_s + takes_s)
    return waits_s
