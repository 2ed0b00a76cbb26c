"""Measured layers of experts beside what the device's entries and residual tables say of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.core.schema import Source
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.residual import Residuals, ResidualTable
from hermes_sim.validation.kernel_predictors import predict
from tests.unit.hardware.shipped import devices

TENTH = ResidualTable(
    axes={"tokens": (1.0, 4096.0), "active": (1.0, 512.0), "width": (16.0, 16384.0), "hidden": (1024.0, 8192.0)},
    values=" ".join(["100"] * 16),
)


def measured(kernel: str, dtype: str = "fp8_block") -> pd.DataFrame:
    """Layers of one model at three numbers of tokens."""
    return pd.DataFrame(
        {
            "num_tokens": [1, 64, 4096], "hidden": 4096, "width": 1024, "num_experts": 64, "num_experts_per_token": 4,
            "moe_tp": 1, "moe_ep": 2, "distribution": "power_law_1.2", "num_active_experts": np.nan, "dtype": dtype,
            "engine": "vllm", "kernel": kernel,
        }
    )  # fmt: skip


def with_tables(device: Device, **tables: ResidualTable) -> Device:
    source = Source(title="a test", where="here", kind="estimate")
    return device.model_copy(update={"residuals": Residuals(device=device.name, tables=tables, source=source)})


def test_residual_table_of_the_entry_corrects_it() -> None:
    device, table = devices()["h100_sxm"], measured("flashinfer_cutlass")
    analytic = predict("moe", with_tables(device), table).seconds
    corrected = predict("moe", with_tables(device, experts_fp8_block=TENTH), table).seconds
    assert corrected / analytic == pytest.approx(np.exp(0.1))


def test_rows_of_another_kernel_are_compared_with_its_entry() -> None:
    device = devices()["h100_sxm"]
    entries = device.cost_model.experts
    slower = entries["fp8_block"].model_copy(update={"launch_s": entries["fp8_block"].launch_s + 1e-3})
    cost_model = device.cost_model.model_copy(update={"experts": {**entries, "fp8_block_triton": slower}})
    other = with_tables(device.model_copy(update={"cost_model": cost_model}))
    usual_s = predict("moe", other, measured("flashinfer_cutlass")).seconds
    assert predict("moe", other, measured("vllm_triton")).seconds == pytest.approx(usual_s + 1e-3)


def test_a_format_without_a_model_says_so() -> None:
    found = predict("moe", devices()["h100_sxm"], measured("any", "int2"))
    assert np.isnan(found.seconds).all()
    assert set(found.reason) == {"no coefficients of experts in int2"}
