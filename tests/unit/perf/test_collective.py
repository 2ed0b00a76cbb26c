"""Collectives against their closed forms."""

from __future__ import annotations

import pytest

from hermes_sim.perf.operators.collective import all_gather_seconds, all_reduce_seconds, send_seconds

BANDWIDTH = 100e9
LATENCY_S = 5e-6


def test_one_device_sends_nothing() -> None:
    assert all_reduce_seconds(1e6, 1, BANDWIDTH, LATENCY_S) == 0.0
    assert all_gather_seconds(1e6, 1, BANDWIDTH, LATENCY_S) == 0.0


def test_small_message_goes_in_one_shot() -> None:
    # 1 kB to 7 others
    assert all_reduce_seconds(1e3, 8, BANDWIDTH, LATENCY_S) == pytest.approx(5e-6 + 7e3 / 100e9, rel=1e-12)


def test_large_message_reaches_the_bandwidth_bound_of_a_ring() -> None:
    # 2 (p - 1) / p x 1 GB at 100 GB/s = 17.5 ms, and two latencies
    assert all_reduce_seconds(1e9, 8, BANDWIDTH, LATENCY_S) == pytest.approx(0.0175 + 10e-6, rel=1e-12)


def test_two_devices_exchange_the_message_once() -> None:
    assert all_reduce_seconds(1e9, 2, BANDWIDTH, LATENCY_S) == pytest.approx(0.01 + 5e-6, rel=1e-12)


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_never_below_the_bandwidth_bound_and_monotone(num_devices: int) -> None:
    previous = 0.0
    for exponent in range(10, 31):
        seconds = all_reduce_seconds(2.0**exponent, num_devices, BANDWIDTH, LATENCY_S)
        assert seconds >= 2.0 * (num_devices - 1) / num_devices * 2.0**exponent / BANDWIDTH
        assert seconds > previous
        previous = seconds


def test_all_gather_and_send() -> None:
    assert all_gather_seconds(8e6, 4, BANDWIDTH, LATENCY_S) == pytest.approx(5e-6 + 6e6 / 100e9, rel=1e-12)
    assert send_seconds(1e6, 10e9, 1e-5) == pytest.approx(1.1e-4, rel=1e-12)
