"""Collectives against their closed forms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from hermes_sim.calibration.collectives import predict_collective, predict_eager
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency
from hermes_sim.perf.collective_coefficients import pack
from hermes_sim.perf.operators.collective import (
    all_gather_seconds,
    all_reduce_seconds,
    fitted_all_reduce_seconds,
    fitted_exchange_seconds,
    send_seconds,
)
from tests.unit.hardware.shipped import links

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


def fitted(**changes: object) -> CollectiveEfficiency:
    """1 us + 0.5 us a further device at half the peak; 10 us at 80% of it."""
    values = {
        "small_latency": "1 us", "small_peer": "0.5 us", "small_frac": 0.5, "large_latency": "10 us", "large_frac": 0.8,
    }  # fmt: skip
    return CollectiveEfficiency.model_validate({**values, **changes})


def test_fitted_all_reduce_takes_the_quickest_algorithm() -> None:
    coefficients = pack(fitted(), BANDWIDTH)
    assert fitted_all_reduce_seconds(1e6, 1, coefficients) == 0.0
    assert fitted_all_reduce_seconds(1e3, 8, coefficients) == pytest.approx(1e-6 + 6 * 0.5e-6 + 7e3 / 50e9)
    assert fitted_all_reduce_seconds(1e9, 8, coefficients) == pytest.approx(10e-6 + 1.75e9 / 80e9)


def test_a_switch_that_adds_up_carries_the_message_once() -> None:
    coefficients = pack(fitted(ring_latency="20 us", in_switch_frac=0.8), BANDWIDTH)
    assert fitted_all_reduce_seconds(1e9, 8, coefficients) == pytest.approx(20e-6 + 1.125e9 / 80e9)
    assert fitted_all_reduce_seconds(1e9, 2, coefficients) == pytest.approx(10e-6 + 1e9 / 80e9)  # nothing to add up


def test_shared_bridges_slow_every_device() -> None:
    alone, shared = pack(fitted(), BANDWIDTH), pack(fitted(contention=2.0), BANDWIDTH)
    assert fitted_exchange_seconds(1e9, 2, shared) == fitted_exchange_seconds(1e9, 2, alone)
    assert fitted_exchange_seconds(1e9, 4, shared) == pytest.approx(10e-6 + 4 * 0.75e9 / 80e9)


@pytest.mark.parametrize("name", ["nvlink3", "nvlink4", "nvlink5", "pcie4_x16"])
def test_shipped_collectives_rise_with_size_and_respect_the_link(name: str) -> None:
    link = links()[name]
    for library, kinds in link.collectives.items():
        for kind, efficiency in kinds.items():
            assert efficiency.held_out is not None, (library, kind)
            coefficients = pack(efficiency, link.bandwidth_bytes_per_s)
            seconds = fitted_all_reduce_seconds if kind == "all_reduce" else fitted_exchange_seconds
            for num_devices in (2, 4, 8):
                times = [seconds(2.0**exponent, num_devices, coefficients) for exponent in range(8, 31)]
                assert all(second > first for first, second in pairwise(times))
                assert times[-1] > 2.0**30 * (num_devices - 1) / num_devices / link.bandwidth_bytes_per_s


def test_two_l40s_over_pcie_are_far_quicker_than_four() -> None:
    """Measured: 16 MB take 0.9 ms on two, 6.7 ms on four and 16 ms on eight."""
    link = links()["pcie4_x16"]
    coefficients = pack(link.collectives["vllm"]["all_reduce"], link.bandwidth_bytes_per_s)
    two_s, four_s, eight_s = (fitted_all_reduce_seconds(2.0**24, count, coefficients) for count in (2, 4, 8))
    assert four_s > 5 * two_s
    assert eight_s > 1.5 * four_s


def test_an_engine_with_a_limit_hands_long_messages_to_the_library() -> None:
    """Up to the limit one or two shots, above it the ring, though it be slower: no minimum across the limit."""
    own = CollectiveEfficiency.model_validate(
        {"small_latency": "5 us", "small_frac": 0.5, "large_latency": "10 us", "large_frac": 0.8,
         "ring_latency": "60 us", "ring_frac": 0.7, "own_limit": "8 MiB"}
    )  # fmt: skip
    values, limit = pack(own, 300e9), 8.0 * 2**20
    for num_bytes in (limit, limit + 16.0):
        shots_s = 10e-6 + 2.0 * 3.0 / 4.0 * num_bytes / (300e9 * 0.8)
        ring_s = 60e-6 + 2.0 * 3.0 / 4.0 * num_bytes / (300e9 * 0.7)
        expected_s = shots_s if num_bytes <= limit else ring_s
        assert fitted_all_reduce_seconds(num_bytes, 4, values) == pytest.approx(expected_s, rel=1e-12)


def test_calls_launched_one_by_one_last_as_long_as_the_host_takes_and_copy() -> None:
    eager = CollectiveEfficiency.model_validate(
        {"small_latency": "5 us", "small_frac": 0.5, "large_latency": "10 us", "large_frac": 0.8,
         "eager_launch": "40 us", "eager_copy": "1 TB/s"}
    )  # fmt: skip
    table = pd.DataFrame({"num_devices": [2, 2], "num_bytes": [1024.0, 1e9]})
    captured_s = predict_collective("all_reduce", 300e9, eager, table)
    found_s = predict_eager("all_reduce", 300e9, eager, table)
    np.testing.assert_allclose(found_s, [40e-6, captured_s[1] + 1e-3], rtol=1e-12)
