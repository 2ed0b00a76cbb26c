"""The dense products of one measured device: coefficients by dtype and by kernel, with their residual tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from hermes_sim.calibration.device_fit import Calibration, FitReport, with_errors
from hermes_sim.calibration.gemm import (
    DYNAMIC_SCALE,
    KERNEL_DTYPES,
    GemmFit,
    fit_gemm,
    without_dynamic_scale,
)
from hermes_sim.calibration.tables import GEMM_KERNELS, read_gemm_kernel
from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency, GemmKernel


def calibrate_products(
    found: Calibration, device: Device, tables: Mapping[Dtype, pd.DataFrame], *, repeated: bool = True
) -> None:
    """Dense products by dtype, with their residual tables.

    repeated: measured by a benchmark that calls one product again and again, rather than all of a layer in turn.
    """
    efficiencies = dict(found.cost_model.gemm)
    for dtype, table in tables.items():
        efficiencies[dtype] = _product(found, device.name, dtype, fit_gemm(device, dtype, table, repeated=repeated))
    found.update({"gemm": efficiencies})


def calibrate_product_kernels(found: Calibration, device: Device, data_folder: Path) -> None:
    """Dense products by kernels of another engine or format, with their residual tables."""
    efficiencies: dict[GemmKernel, GemmEfficiency] = {}
    for kernel in GEMM_KERNELS:
        table = read_gemm_kernel(data_folder, device.name, kernel)
        if table is not None:
            fit = fit_gemm(device, KERNEL_DTYPES[kernel], table, kernel)
            efficiencies[kernel] = _product(found, device.name, kernel, fit)
    if DYNAMIC_SCALE in efficiencies and "trtllm_bf16" in efficiencies:
        whole, plain = efficiencies[DYNAMIC_SCALE], efficiencies["trtllm_bf16"]
        efficiencies[DYNAMIC_SCALE] = without_dynamic_scale(whole, plain)
    found.update({"gemm_kernels": efficiencies})


def _product(found: Calibration, device: str, name: str, fit: GemmFit) -> GemmEfficiency:
    """Coefficients with their errors; the residual table and the reports into their places."""
    found.reports.append(FitReport(device, f"gemm {name}", fit.fitted, fit.held_out))
    if fit.residual is not None:
        errors = (fit.corrected_fitted, fit.corrected_held_out)
        found.residuals[f"gemm_{name}"] = with_errors(fit.residual, *errors)
        found.reports.append(FitReport(device, f"gemm {name} corrected", *errors))
    efficiency: GemmEfficiency = with_errors(fit.efficiency, fit.fitted, fit.held_out)
    return efficiency
