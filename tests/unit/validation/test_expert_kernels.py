"""Measured layers of experts beside what the device's entries and residual tables say of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.core.schema import Source
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.expert_residual import ExpertResidual
from hermes_sim.hardware.residual import Residuals
from hermes_sim.validation.kernel_predictors import predict
from tests.unit.hardware.shipped import devices

TENTH = ExpertResidual(
    tokens=(1.0, 4096.0), layers="32 1024 4096 4 2", uneven="100 100", even="300 300", reach=1.0, noise=1e-9
)
"""A tenth more on the very layer of `measured`."""


def measured(kernel: str, dtype: str = "fp8_block") -> pd.DataFrame:
    """Layers of one model at three numbers of tokens."""
    return pd.DataFrame(
        {
            "num_tokens": [1, 64, 4096], "hidden": 4096, "width": 1024, "num_experts": 64, "num_experts_per_token": 4,
            "moe_tp": 1, "moe_ep": 2, "distribution": "power_law_1.2", "num_active_experts": np.nan, "dtype": dtype,
            "engine": "vllm", "kernel": kernel,
        }
    )  # fmt: skip


def with_tables(device: Device, **tables: ExpertResidual) -> Device:
    source = Source(title="a test", where="here", kind="estimate")
    return device.model_copy(
        update={"residuals": Residuals(device=device.name, tables={}, experts=tables, source=source)}
    )


def test_residual_table_of_the_entry_corrects_it() -> None:
    device, table = devices()["h100_sxm"], measured("flashinfer_cutlass")
    analytic = predict("moe", with_tables(device), table).seconds
    corrected = predict("moe", with_tables(device, fp8_block=TENTH), table).seconds
    assert corrected / analytic == pytest.approx(np.exp(0.1))
    even = table.assign(distribution="balanced")
    ratio = (
        predict("moe", with_tables(device, fp8_block=TENTH), even).seconds
        / predict("moe", with_tables(device), even).seconds
    )
    assert ratio == pytest.approx(np.exp([0.3, 0.3, 0.3]))


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
