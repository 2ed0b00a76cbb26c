"""Small kernels: which rows say something of a kernel, and what a device without some kinds does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.calibration.elementwise import fit_elementwise
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency
from hermes_sim.perf.elementwise_coefficients import measured_coefficients, stream_coefficients
from tests.unit.perf.engines import plain_device


def streams(model: str, bytes_per_s: float) -> pd.DataFrame:
    num_bytes = np.geomspace(1e4, 1e8, 40)
    return pd.DataFrame(
        {
            "model": model,
            "num_tokens": num_bytes / 1e4,
            "num_bytes": num_bytes,
            "measured_s": 2e-6 + num_bytes / bytes_per_s,
        }
    )


def test_a_fit_finds_what_made_the_times() -> None:
    found, fitted, held = fit_elementwise(plain_device(), streams("fused", 7e11))
    assert found.launch_s + 1e4 * found.row_s_per_byte == pytest.approx(2e-6, rel=0.01)
    assert found.memory_frac == pytest.approx(0.7, rel=0.01)
    assert max(fitted.mean_frac, held.mean_frac) < 0.01


def test_the_latency_of_a_row_is_found_from_rows_of_two_lengths() -> None:
    """16 ps a byte of a row, however many rows there are."""
    table = streams("any", 7e11)
    table = table[table["num_bytes"] >= 1e5]
    parts = [table.assign(num_tokens=table["num_bytes"] / row_bytes) for row_bytes in (1e4, 1e5)]
    both = pd.concat([part.assign(measured_s=part["measured_s"] + 16e-12 * row_bytes)
                      for part, row_bytes in zip(parts, (1e4, 1e5), strict=True)], ignore_index=True)  # fmt: skip
    found, fitted, held = fit_elementwise(plain_device(), both)
    assert found.row_s_per_byte == pytest.approx(16e-12, rel=0.02)
    assert max(fitted.mean_frac, held.mean_frac) < 0.01


def test_rows_of_a_step_pay_for_their_length() -> None:
    device = plain_device()
    norm = ElementwiseEfficiency(launch="2 us", memory_frac=0.5, row_s_per_byte=1e-11)
    device = device.model_copy(
        update={"cost_model": device.cost_model.model_copy(update={"elementwise": {"norm": norm}})}
    )
    assert stream_coefficients(device, "qk_norm", 1e4).launch_s == pytest.approx(2.1e-6)
    assert stream_coefficients(device, "norm", 1e4).launch_s == pytest.approx(2.1e-6)
    assert stream_coefficients(device, "act", 1e4).launch_s == device.cost_model.elementwise_launch_s


def test_a_chain_that_was_not_measured_launches_each_of_its_kernels() -> None:
    device = plain_device()
    launch_s = device.cost_model.elementwise_launch_s
    assert measured_coefficients(device, "unfused_norm").launch_s == 8 * launch_s
    assert measured_coefficients(device, "norm").launch_s == launch_s


def test_norm_of_a_step_is_the_fused_one_where_measured_else_made_of_both() -> None:
    def kind(memory_frac: float) -> ElementwiseEfficiency:
        return ElementwiseEfficiency(launch="1 us", memory_frac=memory_frac)

    both = {"norm": kind(0.4), "residual_add": kind(0.8)}
    for table, memory_frac in (
        ({**both, "add_norm": kind(0.7)}, 0.7),
        (both, 2.0 / (1.0 / 0.4 + 1.0 / 0.8)),
        ({"norm": kind(0.4)}, 0.4),
        ({}, 0.5),
    ):
        device = plain_device()
        device = device.model_copy(update={"cost_model": device.cost_model.model_copy(update={"elementwise": table})})
        assert stream_coefficients(device, "norm").reached_bytes_per_s == pytest.approx(memory_frac * 1e12)
