"""Coefficients by class from the device files, and their error on devices that they were not fitted to.

`python -m hermes_sim.calibration.device_class DATA_FOLDER [--write]` prints the errors and writes the class files of
classes that have a measured device; the other class files hold judged numbers and are left alone. `--pairs` prices each
measured device by the coefficients of each other one instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from hermes_sim.calibration.attention import predict_decode, predict_prefill
from hermes_sim.calibration.device_file import read_device, render_cost_model
from hermes_sim.calibration.fit import fit_error, summarize
from hermes_sim.calibration.gemm import predict_measured
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
    inside: tuple[str, ...] = ()
    """Other devices of the class with measured kernels."""
    across: tuple[Scored, ...] = ()
    """Over the nearest border of classes: an upper bound, for kernels that `inside` has no rows of."""
    attention: str | None = None
    """Whose attention it takes; None: the donor's."""


ATTENTION_OF_GDDR: Final = "l40s"
FITS: Final[dict[DeviceClass, ClassFit]] = {
    "datacenter_ampere": ClassFit(
        "NVIDIA Ampere in servers (GA100)",
        "a100_sxm_80gb",
        "the only device of the class with all kernels measured",
        ("a30",),
        (("h100_sxm", "a100_sxm_80gb"),),
    ),
    "datacenter_hopper": ClassFit(
        "NVIDIA Hopper in servers",
        "h100_sxm",
        "one of two measured devices of the class",
        ("h200_sxm",),
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
        ("a40", "a6000"),
        (("a100_sxm_80gb", "l40s"),),
        attention=ATTENTION_OF_GDDR,
    ),
    "consumer_ada": ClassFit(
        "NVIDIA GeForce Ada",
        "h100_sxm",
        "nearest in products measured on an RTX 4090 (the L40S's coefficients are 40% off)",
        ("rtx_4090",),
        (("h100_sxm", "l40s"),),
        attention=ATTENTION_OF_GDDR,
    ),
    "consumer_blackwell": ClassFit(
        "NVIDIA GeForce and RTX PRO Blackwell",
        "b200_sxm",
        "nearest in products measured on an RTX PRO 6000 (the L40S's coefficients are 22% off)",
        ("rtx_pro_6000",),
        (("b200_sxm", "l40s"),),
        attention=ATTENTION_OF_GDDR,
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
it, by mean error of its products; boards with GDDR memory run the attention kernels of the L40S, FlashAttention 2."""

SHORTEST_S: Final = 2e-5


Rows = tuple[FloatArray, FloatArray]
"""Predicted and measured seconds."""


def class_files(data_folder: Path, devices_folder: Path) -> Iterator[tuple[ClassCoefficients, dict[str, FitError]]]:
    """Coefficients of every class of FITS, with their errors by kernel."""
    pairs = sorted({pair for fit in FITS.values() for pair in fit.across})
    names = {donor for donor, _ in pairs} | {fit.donor for fit in FITS.values()} | {ATTENTION_OF_GDDR}
    donors = {name: read_device(devices_folder / f"{name}.yaml") for name in sorted(names)}
    tables = KernelRows(data_folder)

    def score(donor: Device, target: str) -> dict[str, Rows]:
        return transfer(tables, donor, borrowed(devices_folder / f"{target}.yaml", donor))

    across = {(donor, target): score(donors[donor], target) for donor, target in pairs}
    for name, fit in FITS.items():
        donor = donors[fit.donor] if fit.attention is None else blend(donors[fit.donor], donors[fit.attention])
        inside = [score(donor, target) for target in fit.inside]
        errors = {}
        for kernel in sorted({kernel for rows in across.values() for kernel in rows}):
            found = [rows[kernel] for rows in inside if kernel in rows]
            found = found or [across[pair][kernel] for pair in fit.across if kernel in across[pair]]
            if found:
                predicted_s, measured_s = (np.concatenate(parts) for parts in zip(*found, strict=True))
                errors[kernel] = unbiased_range(fit_error(summarize(predicted_s, measured_s)))
        yield coefficients_of(name, fit, donor, errors), errors


def pair_errors(data_folder: Path, devices_folder: Path) -> Iterator[tuple[str, str, str, FitError]]:
    """Donor, target, kernel, error: each measured device priced by each other one's coefficients and its data sheet."""
    donors = {name: read_device(devices_folder / f"{name}.yaml") for name in MEASURED_DEVICES}
    tables = KernelRows(data_folder)
    for donor in donors.values():
        for target in MEASURED_DEVICES:
            if target != donor.name:
                rows = transfer(tables, donor, borrowed(devices_folder / f"{target}.yaml", donor))
                for kernel, (predicted_s, measured_s) in rows.items():
                    yield donor.name, target, kernel, fit_error(summarize(predicted_s, measured_s))


def blend(donor: Device, attention: Device) -> Device:
    """The donor with the attention of another device, scaled to the donor's data sheet."""
    theirs = rebased(attention, donor)
    update = {name: getattr(theirs, name) for name in CostModel.model_fields if name.startswith("attention")}
    return donor.model_copy(update={"cost_model": donor.cost_model.model_copy(update=update)})


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
        where.append(f"in the class: {', '.join(fit.inside)}")
    if fit.across:
        where.append(f"{'else across' if fit.inside else 'across'}: {_words(fit.across)}")
    fitted_on = f"{donor.name}, attention on {fit.attention}" if fit.attention else donor.name
    source = Source(title=f"Coefficients fitted on {fitted_on}", where="; ".join(where), kind="estimate")
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
        self._tables: dict[tuple[str, str], pd.DataFrame | None] = {}

    def gemm(self, device: str) -> dict[Dtype, pd.DataFrame]:
        """Of vLLM's kernels; fp16 counts as bf16. Layers timed in microseconds count from SHORTEST_S on."""
        table = self._read("gemm", device)
        if table is None:
            return {}
        table = table[(table["measured_s"] >= SHORTEST_S) | table["source_file"].str.endswith(".parquet")]
        table = table.assign(dtype=table["dtype"].astype(str).replace("fp16", "bf16"))
        shapes = table.groupby(["dtype", "timing", "m", "n", "k"], as_index=False, observed=True)["measured_s"].median()
        return {dtype: shapes[shapes["dtype"] == dtype] for dtype in GEMM_DTYPES if (shapes["dtype"] == dtype).any()}

    def attention(self, device: str, phase: str) -> pd.DataFrame | None:
        """Prompts or decodes in 16 bits by vLLM's default kernels, whole contexts, head dimensions of common models.

        Calls timed with all of their host work (`_skew`) are many times longer than on the device: left out.
        """
        table = self._read(f"attention_{phase}", device)
        if table is None:
            return None
        keep = table["dtype"].isin(["bf16", "fp16"]) & table["kv_dtype"].isin(["bf16", "fp16"])
        keep &= ~table["kernel"].str.contains("triton") & (table["window_tokens"] == 0)
        keep &= table["head_dim"].isin([64, 128]) & ~table["source_file"].astype(str).str.contains("_skew")
        if phase == "prefill":
            keep &= (table["history_tokens"] == 0) & (table["new_tokens"] > 1)
        return table.assign(kv_dtype="bf16")[keep].reset_index(drop=True)

    def _read(self, operator: str, device: str) -> pd.DataFrame | None:
        """None where nothing was measured; read once."""
        if (operator, device) not in self._tables:
            found = read_kernels(self.data_folder, operators=[operator], devices=[device], engines=["vllm"])
            self._tables[operator, device] = found.get(operator)
        return self._tables[operator, device]


def transfer(tables: KernelRows, donor: Device, target: Device) -> dict[str, Rows]:
    """Predictions for the target, which has the donor's coefficients, beside all measured rows."""
    found = {
        f"gemm {dtype}": (predict_measured(target, dtype, table), table["measured_s"].to_numpy(np.float64))
        for dtype, table in tables.gemm(target.name).items()
        if dtype in donor.cost_model.gemm
    }
    for phase, predict in (("decode", predict_decode), ("prefill", predict_prefill)):
        rows = tables.attention(target.name, phase)
        if rows is not None and not rows.empty:
            found[f"attention {phase}"] = predict(target, rows), rows["measured_s"].to_numpy(np.float64)
    return found


def borrowed(path: Path, donor: Device) -> Device:
    """The device of the file as one of the donor's class whose coefficients were fitted on the donor alone."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    target = Device.model_validate({**data, "cost_model": donor.cost_model})
    return target.model_copy(update={"cost_model": rebased(donor, target), "residuals": None})


def rebased(donor: Device, target: Device) -> CostModel:
    """The donor's cost model by the target's data sheet."""
    coefficients = ClassCoefficients.model_construct(
        name=target.device_class, title="", reference=_reference(donor), cost_model=donor.cost_model
    )
    return class_cost_model(
        coefficients,
        tuple(target.peak_flops_per_s),
        target.num_cores,
        target.clock_hz,
        target.memory.bandwidth_bytes_per_s,
    )


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
    parser.add_argument("--pairs", action="store_true", help="each measured device by the coefficients of each other")
    given = parser.parse_args(None if arguments is None else list(arguments))
    profiles = shipped_root() / "hardware_profiles"
    if given.pairs:
        for donor, target, kernel, error in pair_errors(given.data_folder, profiles / "devices"):
            sys.stdout.write(f"{donor:13s} -> {target:13s} {_line(kernel, error)}")
        return
    if given.write:
        found = write_classes(given.data_folder, profiles / "devices", shipped_root() / FOLDER)
    else:
        found = ((entry.name, errors) for entry, errors in class_files(given.data_folder, profiles / "devices"))
    for name, errors in found:
        for kernel, error in errors.items():
            sys.stdout.write(f"{name:21s} {_line(kernel, error)}")


def _line(kernel: str, error: FitError) -> str:
    return (
        f"{kernel:18s} median {error.median_frac:6.1%} mean {error.mean_frac:6.1%}"
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


if __name__ == "__main__":
    main()
