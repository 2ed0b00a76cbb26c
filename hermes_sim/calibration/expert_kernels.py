"""The expert kernels of one measured device: coefficients by format, with the curves of what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, get_args

from hermes_sim.calibration.device_fit import FitReport, with_errors
from hermes_sim.calibration.expert_tables import read_expert_table, tables_by_kernel
from hermes_sim.calibration.experts import fit_experts
from hermes_sim.calibration.tables import SYSTEMS
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency, ExpertFormat
from hermes_sim.hardware.expert_residual import ExpertResidual

EXPERT_LIBRARIES: Final = {"vllm": "", "trtllm": "trtllm_"}
"""Engine of a table of experts -> what the formats of its kernels start with."""


def calibrate_experts(
    data_folder: Path, name: str, device: Device
) -> tuple[dict[ExpertFormat, ExpertEfficiency], dict[str, ExpertResidual], list[FitReport]]:
    """By format; the main kernel of each library, and others that were measured often."""
    efficiencies: dict[ExpertFormat, ExpertEfficiency] = {}
    residuals: dict[str, ExpertResidual] = {}
    reports = []
    for library, prefix in EXPERT_LIBRARIES.items():
        path = data_folder / "kernels" / "aiconfigurator" / f"{SYSTEMS[name]}_{library}_moe.parquet"
        for dtype, table in read_expert_table(path).groupby("dtype"):
            for suffix, rows in tables_by_kernel(table).items():
                form: Any = f"{prefix}{dtype}{suffix}"
                if form not in get_args(ExpertFormat):
                    continue
                fit = fit_experts(device, form, rows)
                efficiencies[form] = with_errors(fit.efficiency, fit.fitted, fit.held_out)
                reports.append(FitReport(name, f"experts {form}", fit.fitted, fit.held_out))
                if fit.residual is not None:
                    corrected = fit.corrected_fitted, fit.corrected_held_out
                    residuals[form] = fit.residual
                    reports.append(FitReport(name, f"experts {form} corrected", *corrected))
    return efficiencies, residuals, reports
