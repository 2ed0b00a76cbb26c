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
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.attention import predict_decode, predict_prefill, read_attention
from hermes_sim.calibration.device_file import read_device, render_cost_model
from hermes_sim.calibration.fit import summarize
from hermes_sim.calibration.gemm import predict_gemm
from hermes_sim.calibration.run import fit_error
from hermes_sim.calibration.tables import (
    GEMM_DTYPES,
    MEASURED_DEVICES,
)
from hermes_sim.core.schema import Description, Dtype, Source
from hermes_sim.core.shipped import shipped_root
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.device_class import (
    FOLDER,
    ClassCoefficients,
    DeviceClass,
    Reference,
    class_cost_model,
)
from hermes_sim.hardware.fit_error import FitError
from hermes_sim.measured import read_kernels

FloatArray = npt.NDArray[np.float64]
Scored = tuple[str, str]
"""A measured device and another one on which its coefficients are scored."""


@dataclass(frozen=True, slots=True)
class ClassFit:
    """Whose coefficients a class takes, and where their transfer can be scored."""

    title: str
    donor: str
    why: str
    inside: tuple[Scored, ...] = ()
    """Donor and target in the class."""
    across: tuple[Scored, ...] = ()
    """Over the nearest border of classes: an upper bound, for kernels that `inside` has no rows of."""


FITS: Final[dict[DeviceClass, ClassFit]] = {
    "datacenter_ampere": ClassFit(
        "NVIDIA Ampere in servers (GA100)",
        "a100_sxm_80gb",
        "the only device of the class with all kernels measured",
        (("a100_sxm_80gb", "a30"),),
        (("h100_sxm", "a100_sxm_80gb"),),
    ),
    "datacenter_hopper": ClassFit(
        "NVIDIA Hopper in servers",
        "h100_sxm",
        "one of two measured devices of the class",
        (("h100_sxm", "h200_sxm"), ("h200_sxm", "h100_sxm")),
    ),
    "datacenter_blackwell": ClassFit(
        "NVIDIA Blackwell in servers",
        "b200_sxm",
        "the only measured device of the class",
        across=(("h200_sxm", "b200_sxm"),),
    ),
    "datacenter_ada": ClassFit(
        "NVIDIA Ada in servers", "l40s", "the only measured device of the class", across=(("b200_sxm", "l40s"),)
    ),
    "consumer_ampere": ClassFit(
        "NVIDIA GA102 chips, GDDR memory",
        "a100_sxm_80gb",
        "the same generation, nearest in products measured on A40 and RTX A6000",
        (("a100_sxm_80gb", "a40"), ("a100_sxm_80gb", "a6000")),
        (("a100_sxm_80gb", "l40s"),),
    ),
    "consumer_ada": ClassFit(
        "NVIDIA GeForce Ada",
        "h100_sxm",
        "nearest in products measured on an RTX 4090 (the L40S's coefficients are 40% off)",
        (("h100_sxm", "rtx_4090"),),
        (("h100_sxm", "l40s"),),
    ),
    "consumer_blackwell": ClassFit(
        "NVIDIA GeForce and RTX PRO Blackwell",
        "b200_sxm",
        "nearest in products measured on an RTX PRO 6000 (the L40S's coefficients are 22% off)",
        (("b200_sxm", "rtx_pro_6000"),),
        (("b200_sxm", "l40s"),),
    ),
    "edge_ampere": ClassFit(
        "NVIDIA Ampere systems on a chip",
        "a100_sxm_80gb",
        "the same tensor cores with LPDDR memory (nothing of the class is measured)",
        across=(("a100_sxm_80gb", "l40s"),),
    ),
    "volta": ClassFit(
        "NVIDIA Volta",
        "a100_sxm_80gb",
        "the generation after it (nothing of the class is measured)",
        across=(("h100_sxm", "a100_sxm_80gb"),),
    ),
    "turing": ClassFit(
        "NVIDIA Turing",
        "a100_sxm_80gb",
        "the generation after it, GDDR memory (nothing of the class is measured)",
        across=(("a100_sxm_80gb", "l40s"),),
    ),
}
"""Classes that take over fitted coefficients. The donor of a class is the one that comes nearest to what is measured of
it, by mean error of its products."""

SHORTEST_S: Final = 2e-5
WARM_BYTES: Final = (0.0, 2e6, 8e6, 2e7, 4e7)
"""A benchmark that repeats one call finds small operands in the cache; how small differs. Tried at scoring, as the fit
of a device does; serving knows no such term."""


Rows = tuple[FloatArray, FloatArray]
"""Predicted and measured seconds."""


def class_files(data_folder: Path, devices_folder: Path) -> Iterator[tuple[ClassCoefficients, dict[str, FitError]]]:
    """Coefficients of every class of FITS, with their errors by kernel."""
    pairs = sorted({pair for fit in FITS.values() for pair in (*fit.inside, *fit.across)})
    devices = {name: read_device(devices_folder / f"{name}.yaml") for name in sorted({*chain(*pairs)})}
    tables = KernelRows(data_folder)
    rows = {pair: transfer(tables, devices[pair[0]], devices[pair[1]]) for pair in pairs}
    kernels = sorted({kernel for found in rows.values() for kernel in found})
    for name, fit in FITS.items():
        errors = {}
        for kernel in kernels:
            inside = [rows[pair][kernel] for pair in fit.inside if kernel in rows[pair]]
            found = inside or [rows[pair][kernel] for pair in fit.across if kernel in rows[pair]]
            if found:
                predicted_s, measured_s = (np.concatenate(parts) for parts in zip(*found, strict=True))
                errors[kernel] = unbiased_range(fit_error(summarize(predicted_s, measured_s)))
        yield coefficients_of(name, fit, devices[fit.donor], errors), errors


def coefficients_of(name: DeviceClass, fit: ClassFit, donor: Device, errors: dict[str, FitError]) -> ClassCoefficients:
    """The donor's cost model without its own errors, with those of its transfer."""
    cost_model: CostModel = without_errors(donor.cost_model)
    gemm = {
        dtype: entry.model_copy(update={"held_out": errors.get(f"gemm {dtype}")})
        for dtype, entry in cost_model.gemm.items()
    }
    attention = cost_model.attention.model_copy(
        update={f"{phase}_held_out": errors.get(f"attention {phase}") for phase in ("decode", "prefill")}
    )
    where = [fit.why]
    if fit.inside:
        where.append(f"in the class: {_words(fit.inside)}")
    if fit.across:
        where.append(f"{'else across' if fit.inside else 'across'}: {_words(fit.across)}")
    source = Source(title=f"Coefficients fitted on {donor.name}", where="; ".join(where), kind="estimate")
    return ClassCoefficients.model_construct(
        name=name,
        title=fit.title,
        reference=_reference(donor),
        cost_model=cost_model.model_copy(update={"gemm": gemm, "attention": attention, "source": source}),
    )


def unbiased_range(error: FitError) -> FitError:
    """With a range that holds the prediction itself: the bias on one device need not be that on the next."""
    assert error.low_frac is not None
    assert error.high_frac is not None
    return error.model_copy(update={"low_frac": min(error.low_frac, 1.0), "high_frac": max(error.high_frac, 1.0)})


def without_errors(part: Any) -> Any:
    """A cost model or a part of one that says nothing of its errors: they are those of another device."""
    if isinstance(part, dict):
        return {key: without_errors(entry) for key, entry in part.items()}
    if isinstance(part, FitError):
        return None
    if not isinstance(part, Description) or isinstance(part, Source):
        return part
    return part.model_copy(update={name: without_errors(getattr(part, name)) for name in type(part).model_fields})


class KernelRows:
    """Measured rows of a device, by kernel, in the columns that the predictors of calibration/ take."""

    def __init__(self, data_folder: Path) -> None:
        self.data_folder = data_folder

    def gemm(self, device: str) -> dict[Dtype, pd.DataFrame]:
        """Of vLLM's kernels; fp16 counts as bf16. Layers timed in microseconds count from SHORTEST_S on."""
        table = read_kernels(self.data_folder, operators=["gemm"], devices=[device], engines=["vllm"]).get("gemm")
        if table is None or table.empty:
            return {}
        table = table[(table["measured_s"] >= SHORTEST_S) | table["source_file"].str.endswith(".parquet")]
        table = table.assign(dtype=table["dtype"].astype(str).replace("fp16", "bf16"))
        shapes = table.groupby(["dtype", "m", "n", "k"], as_index=False)["measured_s"].median()
        return {dtype: shapes[shapes["dtype"] == dtype] for dtype in GEMM_DTYPES if (shapes["dtype"] == dtype).any()}


def transfer(tables: KernelRows, donor: Device, target: Device) -> dict[str, Rows]:
    """Predictions by the donor's coefficients, scaled by the target's data sheet, beside all measured rows."""
    borrowed = borrow(target, donor)
    found = {}
    for dtype, table in tables.gemm(target.name).items():
        if dtype in donor.cost_model.gemm:
            found[f"gemm {dtype}"] = _best(table, partial(predict_gemm, borrowed, dtype, table))
    if target.name in MEASURED_DEVICES:
        decode = read_attention(tables.data_folder, target.name, "decode")
        prefill = read_attention(tables.data_folder, target.name, "prefill")
        assert decode is not None
        assert prefill is not None
        found["attention decode"] = _best(decode, partial(predict_decode, borrowed, decode))
        found["attention prefill"] = predict_prefill(borrowed, prefill), prefill["measured_s"].to_numpy(np.float64)
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


def _words(pairs: Iterable[Scored]) -> str:
    return ", ".join(f"{target} by {source}" for source, target in pairs)


def _best(table: pd.DataFrame, predict: Callable[[float], FloatArray]) -> Rows:
    measured_s = table["measured_s"].to_numpy(np.float64)
    return min(((predict(warm), measured_s) for warm in WARM_BYTES), key=lambda rows: summarize(*rows).mean_frac)


if __name__ == "__main__":
    main()
