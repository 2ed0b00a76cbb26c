"""The small kernels of one measured device: coefficients by kind, or those of the measured device nearest in kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hermes_sim.calibration.device_file import read_device
from hermes_sim.calibration.device_fit import FitReport, with_errors
from hermes_sim.calibration.elementwise import fit_elementwise, read_elementwise
from hermes_sim.calibration.fit import fit_error
from hermes_sim.calibration.layered_devices import read_layer_streams
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency, ElementwiseKind
from hermes_sim.perf.elementwise_coefficients import CHAINS

ELEMENTWISE_FROM: Final[dict[str, str]] = {"h200_sxm": "h100_sxm", "b200_sxm": "h100_sxm", "l40s": "a40"}
"""Devices without a table of small kernels -> the measured device of the nearest kind."""

NO_ERRORS: Final = {"in_sample": None, "held_out": None}


def calibrate_elementwise(
    data_folder: Path, devices_folder: Path, name: str, launch_s: float
) -> tuple[dict[str, Any], list[FitReport]]:
    """Small kernels by kind; the others get the launch of an empty kernel and the bandwidth of norms with additions."""
    measured = ELEMENTWISE_FROM.get(name, name)
    table = read_elementwise(data_folder, measured.split("_", maxsplit=1)[0])
    assert table is not None
    device = read_device(devices_folder / f"{measured}.yaml")
    efficiencies: dict[ElementwiseKind, ElementwiseEfficiency] = {}
    reports = []
    for kind, rows in table.groupby("kind"):
        found, fitted, held = fit_elementwise(device, rows)
        errors = NO_ERRORS if measured != name else {"in_sample": fit_error(fitted), "held_out": fit_error(held)}
        own: Any = kind
        efficiencies[own] = found.model_copy(update=errors)
        reports.append(FitReport(measured, f"elementwise {kind}", fitted, held))
    for own, rows in read_layer_streams(data_folder, name).items():
        if own in CHAINS:
            found, fitted, held = fit_elementwise(read_device(devices_folder / f"{name}.yaml"), rows)
            efficiencies[own] = with_errors(found, fitted, held)
            reports.append(FitReport(name, f"elementwise {own}", fitted, held))
    norm, addition = efficiencies["norm"].memory_frac, efficiencies["residual_add"].memory_frac
    values = {
        "elementwise": efficiencies,
        "elementwise_launch_s": launch_s,
        "elementwise_memory_frac": float(f"{2.0 / (1.0 / norm + 1.0 / addition):.4g}"),
    }
    return values, reports if measured == name else []
