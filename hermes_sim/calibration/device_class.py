"""Coefficients by class from the device files, and their error on devices that they were not fitted to.

`python -m hermes_sim.calibration.device_class DATA_FOLDER [--write]` prints the errors and writes the class files of
classes that have a measured device; the other class files hold judged numbers and are left alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.attention import predict_decode, predict_prefill
from hermes_sim.calibration.device_file import read_device, render_cost_model
from hermes_sim.calibration.fit import ErrorSummary, summarize
from hermes_sim.calibration.gemm import predict_gemm
from hermes_sim.calibration.run import NO_ERRORS, fit_error
from hermes_sim.calibration.tables import (
    GEMM_DTYPES,
    MEASURED_DEVICES,
    read_decode_attention,
    read_gemm,
    read_prefill_attention,
)
from hermes_sim.core.schema import Source
from hermes_sim.core.shipped import shipped_root
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.device_class import (
    FOLDER,
    ClassCoefficients,
    DeviceClass,
    Reference,
    class_cost_model,
)
from hermes_sim.hardware.fit_error import FitError

FloatArray = npt.NDArray[np.float64]
Scored = tuple[str, str]
"""A measured device and another one on which its coefficients are scored."""


@dataclass(frozen=True, slots=True)
class ClassFit:
    """Whose coefficients a class takes, and where their transfer can be scored."""

    title: str
    donor: str
    scored: tuple[Scored, ...]
    why: str


NEXT_CLASS: Final = "no second device of the class is measured: scored with the nearest other class, an upper bound"
FITS: Final[dict[DeviceClass, ClassFit]] = {
    "datacenter_ampere": ClassFit(
        "NVIDIA Ampere in servers (GA100)", "a100_sxm_80gb", (("h100_sxm", "a100_sxm_80gb"),), NEXT_CLASS
    ),
    "datacenter_hopper": ClassFit(
        "NVIDIA Hopper in servers", "h100_sxm", (("h100_sxm", "h200_sxm"), ("h200_sxm", "h100_sxm")), "two devices"
    ),
    "datacenter_blackwell": ClassFit(
        "NVIDIA Blackwell in servers", "b200_sxm", (("h200_sxm", "b200_sxm"),), NEXT_CLASS
    ),
    "datacenter_ada": ClassFit("NVIDIA Ada in servers", "l40s", (("b200_sxm", "l40s"),), NEXT_CLASS),
    "consumer_ampere": ClassFit(
        "NVIDIA GA102 chips, GDDR memory", "a100_sxm_80gb", (("a100_sxm_80gb", "l40s"),),
        "the same generation: its coefficients are within 10% of layers measured on an A40, 16% on an RTX A6000",
    ),
    "consumer_ada": ClassFit(
        "NVIDIA GeForce Ada", "h100_sxm", (("h100_sxm", "l40s"),),
        "nearest in layers measured on an RTX 4090 (8%; with the L40S's coefficients 40%)",
    ),
    "consumer_blackwell": ClassFit(
        "NVIDIA GeForce and RTX PRO Blackwell", "b200_sxm", (("b200_sxm", "l40s"),),
        "nearest in layers measured on an RTX PRO 6000 (8%; with the L40S's coefficients 22%)",
    ),
    "edge_ampere": ClassFit(
        "NVIDIA Ampere systems on a chip", "a100_sxm_80gb", (("a100_sxm_80gb", "l40s"),),
        "the same tensor cores, LPDDR memory; not measured, scored on another class",
    ),
    "volta": ClassFit(
        "NVIDIA Volta", "a100_sxm_80gb", (("h100_sxm", "a100_sxm_80gb"),),
        "the generation before; not measured, scored over one generation",
    ),
    "turing": ClassFit(
        "NVIDIA Turing", "a100_sxm_80gb", (("a100_sxm_80gb", "l40s"),),
        "the generation before, GDDR memory; not measured, scored on another class",
    ),
}  # fmt: skip
"""Classes that take over fitted coefficients. The donor of a class is the one that comes nearest to what is measured of
it, by mean error of its products."""

WARM_BYTES: Final = (0.0, 2e6, 8e6, 2e7, 4e7)
"""A benchmark that repeats one call finds small operands in the cache; how small differs. Tried at scoring, as the fit
of a device does; serving knows no such term."""


def class_files(data_folder: Path, devices_folder: Path) -> Iterator[tuple[ClassCoefficients, dict[str, FitError]]]:
    """Coefficients of every class of FITS, with their errors by kernel."""
    devices = {name: read_device(devices_folder / f"{name}.yaml") for name in MEASURED_DEVICES}
    scores: dict[tuple[Scored, str], ErrorSummary] = {}
    for pair in sorted({pair for fit in FITS.values() for pair in fit.scored}):
        for kernel, summary in transfer_errors(data_folder, devices[pair[0]], devices[pair[1]]).items():
            scores[pair, kernel] = summary
    for name, fit in FITS.items():
        errors = {
            kernel: fit_error(max(found, key=lambda summary: summary.mean_frac))
            for kernel in sorted({kernel for _, kernel in scores})
            if (found := [scores[pair, kernel] for pair in fit.scored if (pair, kernel) in scores])
        }
        yield coefficients_of(name, fit, devices[fit.donor], errors), errors


def coefficients_of(name: DeviceClass, fit: ClassFit, donor: Device, errors: dict[str, FitError]) -> ClassCoefficients:
    """The donor's cost model without its own errors, with those of its transfer."""
    gemm = {
        dtype: entry.model_copy(update={**NO_ERRORS, "held_out": errors.get(f"gemm {dtype}")})
        for dtype, entry in donor.cost_model.gemm.items()
    }
    phases = ("decode", "prefill")
    attention = donor.cost_model.attention.model_copy(
        update={f"{phase}_in_sample": None for phase in phases}
        | {f"{phase}_held_out": errors.get(f"attention {phase}") for phase in phases}
    )
    scored = ", ".join(f"{target} by {source}'s" for source, target in fit.scored)
    update: dict[str, Any] = {
        "gemm": gemm,
        "attention": attention,
        "experts": donor.cost_model.experts.model_copy(update=NO_ERRORS),
        "source": Source(
            title=f"Coefficients fitted on {donor.name}",
            where=f"{fit.why}; errors of transfer scored on {scored}",
            kind="estimate",
        ),
    }
    return ClassCoefficients.model_construct(
        name=name,
        title=fit.title,
        reference=_reference(donor),
        cost_model=donor.cost_model.model_copy(update=update),
    )


def transfer_errors(data_folder: Path, donor: Device, target: Device) -> dict[str, ErrorSummary]:
    """Errors by kernel of the donor's coefficients, scaled by the target's data sheet, on all measured rows."""
    borrowed = borrow(target, donor)
    found = {}
    for dtype in GEMM_DTYPES:
        table = read_gemm(data_folder, target.name, dtype)
        if table is not None and dtype in donor.cost_model.gemm:
            found[f"gemm {dtype}"] = _best(table, partial(predict_gemm, borrowed, dtype, table))
    decode = read_decode_attention(data_folder, target.name)
    found["attention decode"] = _best(decode, partial(predict_decode, borrowed, decode))
    prefill = read_prefill_attention(data_folder, target.name)
    found["attention prefill"] = summarize(predict_prefill(borrowed, prefill), prefill["measured_s"].to_numpy())
    return found


def borrow(target: Device, donor: Device) -> Device:
    """The target as a device of the donor's class whose coefficients were fitted on the donor alone."""
    coefficients = ClassCoefficients.model_construct(
        name=target.device_class, title="", reference=_reference(donor), cost_model=donor.cost_model
    )
    cost_model = class_cost_model(
        coefficients,
        tuple(target.peak_flops_per_s),
        target.num_cores,
        target.clock_hz,
        target.memory.bandwidth_bytes_per_s,
    )
    return target.model_copy(update={"cost_model": cost_model})


def render_class(coefficients: ClassCoefficients) -> str:
    """The class file."""
    lines = [f"name: {coefficients.name}", f"title: {coefficients.title}"]
    reference = coefficients.reference
    if reference is not None:
        lines.insert(
            0, f"# Written by hermes_sim/calibration/device_class.py from the device file of {reference.device}."
        )
        clock = f", clock: {reference.clock_hz / 1e9:.6g} GHz" if reference.clock_hz else ""
        lines += [
            "reference:",
            f"  {{device: {reference.device}, num_cores: {reference.num_cores}{clock},",
            f"    bandwidth: {reference.bandwidth_bytes_per_s / 1e9:.6g} GB/s}}",
        ]
    return "\n".join(lines) + "\n" + render_cost_model(coefficients.cost_model)


def write_classes(data_folder: Path, devices_folder: Path, folder: Path) -> Iterator[tuple[str, dict[str, FitError]]]:
    """Write the file of every class of FITS; yields its errors by kernel."""
    for coefficients, errors in class_files(data_folder, devices_folder):
        (folder / f"{coefficients.name}.yaml").write_text(render_class(coefficients), encoding="utf-8")
        yield coefficients.name, errors


def main(arguments: Iterable[str] | None = None) -> None:
    """Print one line per class and kernel: the error on devices that were not fitted."""
    parser = argparse.ArgumentParser(prog="python -m hermes_sim.calibration.device_class", description=main.__doc__)
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("--write", action="store_true", help="write the class files")
    given = parser.parse_args(None if arguments is None else list(arguments))
    profiles = shipped_root() / "hardware_profiles"
    if given.write:
        found = write_classes(given.data_folder, profiles / "devices", shipped_root() / FOLDER)
    else:
        found = ((entry.name, errors) for entry, errors in class_files(given.data_folder, profiles / "devices"))
    for name, errors in found:
        for kernel, error in errors.items():
            sys.stdout.write(
                f"{name:21s} {kernel:18s} median {error.median_frac:6.1%} mean {error.mean_frac:6.1%}"
                f" bias {error.bias_frac:+6.1%} {error.num_points:6d}\n"
            )


def _reference(device: Device) -> Reference:
    return Reference.model_construct(
        device=device.name,
        num_cores=device.num_cores,
        clock_hz=device.clock_hz,
        bandwidth_bytes_per_s=device.memory.bandwidth_bytes_per_s,
    )


def _best(table: pd.DataFrame, predict: Callable[[float], FloatArray]) -> ErrorSummary:
    measured_s = table["measured_s"].to_numpy(np.float64)
    return min((summarize(predict(warm), measured_s) for warm in WARM_BYTES), key=lambda errors: errors.mean_frac)


if __name__ == "__main__":
    main()
