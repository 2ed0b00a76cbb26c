"""Small kernels: which rows say something of a kernel, and what a device without some kinds does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.calibration.elementwise import fit_elementwise
from hermes_sim.calibration.layered_devices import single_passes
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency
from hermes_sim.perf.elementwise_coefficients import stream_coefficients
from tests.unit.perf.engines import plain_device


def streams(model: str, bytes_per_s: float) -> pd.DataFrame:
    num_bytes = np.geomspace(1e4, 1e8, 40)
    return pd.DataFrame(
        {"model": model, "num_tokens": 1, "num_bytes": num_bytes, "measured_s": 2e-6 + num_bytes / bytes_per_s}
    )


def test_norms_run_operator_by_operator_are_no_kernel() -> None:
    """At a tenth of the bandwidth (1 TB/s) a model's rows are left out, another's are kept."""
    table = pd.concat([streams("fused", 7e11), streams("operators", 1e11)], ignore_index=True)
    kept = single_passes(plain_device(), table)
    assert set(kept["model"]) == {"fused"}
    assert len(kept) == 40
    assert single_passes(plain_device(), streams("operators", 1e11)).empty


def test_a_fit_finds_what_made_the_times() -> None:
    found, fitted, held = fit_elementwise(plain_device(), streams("fused", 7e11))
    assert found.launch_s == pytest.approx(2e-6, rel=0.01)
    assert found.memory_frac == pytest.approx(0.7, rel=0.01)
    assert max(fitted.mean_frac, held.mean_frac) < 0.01


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
