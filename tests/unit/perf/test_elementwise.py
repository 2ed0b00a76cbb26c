"""Kernels that stream bytes: the memory's rate for long streams, the cache's for short ones, never less for more."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.perf.operators.elementwise import stream_seconds

RATE, LAUNCH_S, CACHE, SPEEDUP = 1e12, 2e-6, 5e7, 4.0


def seconds(num_bytes: float) -> float:
    return stream_seconds(num_bytes, RATE, LAUNCH_S, CACHE, SPEEDUP)


def test_nothing_takes_the_launch() -> None:
    assert seconds(0.0) == LAUNCH_S


def test_short_streams_move_at_the_caches_rate_and_long_ones_at_the_memorys() -> None:
    assert seconds(0.1 * CACHE) - LAUNCH_S == pytest.approx(0.1 * CACHE / (SPEEDUP * RATE), rel=1e-3)
    assert seconds(10.0 * CACHE) - LAUNCH_S == pytest.approx(10.0 * CACHE / RATE, rel=1e-3)


def test_half_of_a_stream_of_the_stated_size_is_in_the_cache() -> None:
    assert seconds(CACHE) - LAUNCH_S == pytest.approx((0.5 + 0.5 / SPEEDUP) * CACHE / RATE)


def test_more_bytes_take_longer() -> None:
    times = [seconds(num_bytes) for num_bytes in np.geomspace(1e3, 1e10, 300)]
    assert np.all(np.diff(times) > 0.0)


def test_without_a_cache_all_bytes_come_from_memory() -> None:
    assert stream_seconds(1e6, RATE, LAUNCH_S, 0.0, SPEEDUP) == pytest.approx(LAUNCH_S + 1e6 / RATE)
