"""Collectives against the bounds of the literature."""

from __future__ import annotations

import pytest

from hermes_sim.perf.operators.collective import all_gather_seconds, all_reduce_seconds, send_seconds

BANDWIDTH_BYTES_PER_S = 300e9
LATENCY_S = 5e-6


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_long_all_reduce_moves_what_a_ring_moves(num_devices: int) -> None:
    """A ring sends 2 (p - 1) / p of the message over every port (Patarasuk and Yuan, JPDC 69, 2009)."""
    num_bytes = 1e12
    ring_s = 2.0 * (num_devices - 1) / num_devices * num_bytes / BANDWIDTH_BYTES_PER_S
    assert all_reduce_seconds(num_bytes, num_devices, BANDWIDTH_BYTES_PER_S, LATENCY_S) == pytest.approx(
        ring_s, rel=1e-5
    )


@pytest.mark.parametrize("num_devices", [2, 4, 8])
@pytest.mark.parametrize("num_bytes", [1.0, 1e3, 1e5, 1e6, 1e8])
def test_all_reduce_is_never_below_its_lower_bounds(num_devices: int, num_bytes: float) -> None:
    """No algorithm beats one message of latency, nor the bandwidth bound of the ring."""
    seconds = all_reduce_seconds(num_bytes, num_devices, BANDWIDTH_BYTES_PER_S, LATENCY_S)
    assert seconds >= LATENCY_S
    assert seconds >= 2.0 * (num_devices - 1) / num_devices * num_bytes / BANDWIDTH_BYTES_PER_S


@pytest.mark.parametrize("num_bytes", [1e3, 1e6, 1e9])
def test_all_reduce_takes_no_longer_than_reduce_scatter_and_all_gather(num_bytes: float) -> None:
    gather_s = all_gather_seconds(num_bytes, 4, BANDWIDTH_BYTES_PER_S, LATENCY_S)
    assert all_reduce_seconds(num_bytes, 4, BANDWIDTH_BYTES_PER_S, LATENCY_S) <= 2.0 * gather_s * (1 + 1e-12)


def test_one_device_sends_nothing() -> None:
    assert all_reduce_seconds(1e9, 1, BANDWIDTH_BYTES_PER_S, LATENCY_S) == 0.0
    assert all_gather_seconds(1e9, 1, BANDWIDTH_BYTES_PER_S, LATENCY_S) == 0.0


def test_message_between_two() -> None:
    """Hockney's model: half the bandwidth is reached at latency x bandwidth bytes."""
    half_length_bytes = LATENCY_S * BANDWIDTH_BYTES_PER_S
    seconds = send_seconds(half_length_bytes, BANDWIDTH_BYTES_PER_S, LATENCY_S)
    assert half_length_bytes / seconds == pytest.approx(BANDWIDTH_BYTES_PER_S / 2)
