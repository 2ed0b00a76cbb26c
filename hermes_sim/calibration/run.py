"""The calibration of all devices with measured tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hermes_sim.calibration.all_reduce import fit_all_reduce
from hermes_sim.calibration.attention import fit_decode, fit_prefill, with_attention
from hermes_sim.calibration.device_file import read_device, replace_cost_model
from hermes_sim.calibration.elementwise import fit_elementwise
from hermes_sim.calibration.experts import fit_experts
from hermes_sim.calibration.fit import ErrorSummary
from hermes_sim.calibration.gemm import fit_gemm
from hermes_sim.calibration.tables import (
    GEMM_DTYPES,
    MEASURED_DEVICES,
    read_all_reduce,
    read_decode_attention,
    read_elementwise,
    read_experts,
    read_gemm,
    read_prefill_attention,
)
from hermes_sim.core.schema import Source
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency
from hermes_sim.hardware.fit_error import FitError

ELEMENTWISE_FROM: Final[dict[str, str]] = {"h200_sxm": "h100_sxm", "b200_sxm": "h100_sxm", "l40s": "a40"}
"""Devices without a table of small kernels -> the measured device of the nearest kind."""

LINKS: Final[dict[str, tuple[str, float]]] = {
    "a100_sxm_80gb": ("nvlink3", 300e9),
    "h100_sxm": ("nvlink4", 450e9),
    "b200_sxm": ("nvlink5", 900e9),
}
"""Device -> the link between its devices, and that link's bandwidth per device and direction."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """Errors of one fit on the shapes it saw and on those it did not."""

    device: str
    kernel: str
    fitted: ErrorSummary
    held_out: ErrorSummary
    values: str = ""
    """Coefficients that no device file holds."""


def calibrate(data_folder: Path, devices_folder: Path, *, write: bool = False) -> Iterator[FitReport]:
    """Fit every measured device; with `write` put the coefficients into the device files."""
    for name in MEASURED_DEVICES:
        path = devices_folder / f"{name}.yaml"
        cost_model, reports = calibrate_device(data_folder, devices_folder, name)
        yield from reports
        if write:
            replace_cost_model(path, cost_model)
    yield from calibrate_links(data_folder)


def calibrate_device(data_folder: Path, devices_folder: Path, name: str) -> tuple[CostModel, list[FitReport]]:
    """Cost model of one measured device, and the errors of its fits."""
    device = read_device(devices_folder / f"{name}.yaml")
    reports = []
    efficiencies = {}
    for dtype in GEMM_DTYPES:
        table = read_gemm(data_folder, name, dtype)
        if table is None:
            continue
        efficiency, fitted, held = fit_gemm(device, dtype, table)
        efficiencies[dtype] = efficiency.model_copy(
            update={"in_sample": fit_error(fitted), "held_out": fit_error(held)}
        )
        reports.append(FitReport(name, f"gemm {dtype}", fitted, held))
    values: dict[str, float] = {}
    errors = {}
    for phase, fit, read in (
        ("decode", fit_decode, read_decode_attention),
        ("prefill", fit_prefill, read_prefill_attention),
    ):
        found, fitted, held = fit(device, read(data_folder, name))
        values |= found
        errors[f"{phase}_in_sample"], errors[f"{phase}_held_out"] = fit_error(fitted), fit_error(held)
        reports.append(FitReport(name, f"attention {phase}", fitted, held))
    launch_s = efficiencies["bf16"].launch_s  # an empty kernel in a captured graph, whatever it computes
    streams, stream_reports = _elementwise(data_folder, devices_folder, name, launch_s)
    reports += stream_reports
    priced = device.model_copy(
        update={"cost_model": device.cost_model.model_copy(update={"gemm": efficiencies, **streams})}
    )
    experts, fitted, held = fit_experts(priced, read_experts(data_folder, name))
    reports.append(FitReport(name, "experts bf16", fitted, held))
    cost_model = with_attention(device, values).cost_model
    attention = cost_model.attention.model_copy(update=errors)
    update: dict[str, Any] = {
        "gemm": efficiencies,
        "attention": attention,
        "source": _source(name),
        **streams,
        "experts": ExpertEfficiency().model_copy(
            update={**experts, "in_sample": fit_error(fitted), "held_out": fit_error(held)}
        ),
    }
    return cost_model.model_copy(update=update), reports


def calibrate_links(data_folder: Path) -> Iterator[FitReport]:
    """Latency and reached share of the links inside a node, from all-reduces of the engine's own kernels."""
    for device, (link, bandwidth_bytes_per_s) in LINKS.items():
        values, fitted, held = fit_all_reduce(bandwidth_bytes_per_s, read_all_reduce(data_folder, device))
        stated = f"latency {values['latency_s'] * 1e6:.4g} us, efficiency {values['efficiency_frac']:.4g}"
        yield FitReport(link, "all-reduce", fitted, held, stated)


def fit_error(summary: ErrorSummary) -> FitError:
    """What a device file keeps of an error summary, four digits."""
    return FitError(
        median_frac=float(f"{summary.median_frac:.4g}"),
        mean_frac=float(f"{summary.mean_frac:.4g}"),
        bias_frac=float(f"{summary.bias_frac:.3f}"),
        num_points=summary.num_points,
        p90_frac=float(f"{summary.p90_frac:.4g}"),
        low_frac=float(f"{summary.low_frac:.4g}"),
        high_frac=float(f"{summary.high_frac:.4g}"),
    )


def _elementwise(
    data_folder: Path, devices_folder: Path, name: str, launch_s: float
) -> tuple[dict[str, float], list[FitReport]]:
    measured = ELEMENTWISE_FROM.get(name, name)
    table = read_elementwise(data_folder, measured)
    assert table is not None
    values, fitted, held = fit_elementwise(read_device(devices_folder / f"{measured}.yaml"), table, launch_s)
    values["elementwise_launch_s"] = launch_s
    return values, [FitReport(measured, "elementwise", fitted, held)] if measured == name else []


def _source(name: str) -> Source:
    version = "0.14.0" if name.startswith("a100") else "0.24.0"
    small = ELEMENTWISE_FROM.get(name)
    borrowed = f"; small kernels of {small}" if small else ""
    return Source(
        title="Fitted to measured kernels",
        where=(
            f"ai-dynamo/aiconfigurator (commit 095f58a51c4c), vLLM {version}, CUDA graphs, locked clocks; small "
            f"kernels: microsoft/vidur (commit 7d47513363ec){borrowed}; four shapes in five fitted, errors on the fifth"
        ),
        kind="fitted",
    )
