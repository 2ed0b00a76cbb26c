"""The calibration of all devices with measured tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from hermes_sim.calibration.attention_kernels import (
    attention_residuals,
    attention_shares,
    calibrate_attention,
    calibrate_eager_attention,
)
from hermes_sim.calibration.check import Check, check
from hermes_sim.calibration.device_file import read_device, replace_cost_model
from hermes_sim.calibration.device_fit import FAMILIES, Calibration, Family, FitReport, with_errors
from hermes_sim.calibration.expert_kernels import calibrate_experts
from hermes_sim.calibration.gemm import too_fast
from hermes_sim.calibration.layered_devices import LAYERED_DEVICES, fit_layer_streams, read_layer_products
from hermes_sim.calibration.links import LINKS_FOLDER, calibrate_links
from hermes_sim.calibration.products import calibrate_product_kernels, calibrate_products
from hermes_sim.calibration.residual import write_residuals
from hermes_sim.calibration.small_kernels import ELEMENTWISE_FROM, calibrate_elementwise
from hermes_sim.calibration.tables import GEMM_DTYPES, MEASURED_DEVICES, read_gemm
from hermes_sim.calibration.yaml_block import read_alone
from hermes_sim.core.schema import DTYPE_BYTES, Source
from hermes_sim.hardware.device import cost_model_by_class
from hermes_sim.hardware.expert_residual import ExpertResidual
from hermes_sim.hardware.residual import Residuals, ResidualTable

EAGER_ATTENTION: Final = ("rtx_pro_6000", "rtx_4090", "a6000", "a30")
"""Devices whose attention was measured in calls launched one by one, and nothing else of them in graphs."""

RESIDUALS_FOLDER: Final = "residuals"
"""Beside the folder of devices."""


def calibrate(
    data_folder: Path,
    devices_folder: Path,
    *,
    write: bool = False,
    devices: Collection[str] | None = None,
    links: Collection[str] | None = None,
    families: Collection[Family] = FAMILIES,
) -> Iterator[FitReport]:
    """Fit measured devices, all or some, then the links between them; with `write` put what was found into the files.

    families: which kernels; what is left out stays as the file has it.
    """
    for name in (*MEASURED_DEVICES, *LAYERED_DEVICES):
        if devices is not None and name not in devices:
            continue
        fit = calibrate_device if name in MEASURED_DEVICES else calibrate_layers
        found = fit(data_folder, devices_folder, name, families)
        yield from found.reports
        if write:
            write_calibration(devices_folder, name, found)
    yield from calibrate_links(data_folder, devices_folder.parent / LINKS_FOLDER, links, write=write)


def check_device(data_folder: Path, devices_folder: Path, name: str, families: Collection[Family] = FAMILIES) -> Check:
    """The file of a device and its residual tables beside their fits."""
    fit = calibrate_device if name in MEASURED_DEVICES else calibrate_layers
    found = fit(data_folder, devices_folder, name, families)
    tables = residual_tables(_residuals_file(devices_folder, name))
    fitted = {table for table in tables if _family(table) in families}
    experts = expert_residuals(_residuals_file(devices_folder, name)) if "experts" in families else {}
    return check(
        name,
        read_device(devices_folder / f"{name}.yaml").cost_model,
        found.cost_model,
        {table: tables[table] for table in fitted} | _named(experts),
        found.residuals | _named(found.expert_residuals),
    )


def calibrate_device(
    data_folder: Path, devices_folder: Path, name: str, families: Collection[Family] = FAMILIES
) -> Calibration:
    """Cost model and residual tables of a device whose kernels were all measured."""
    device = read_device(devices_folder / f"{name}.yaml")
    found = Calibration(device.cost_model, families)
    if "gemm" in families:
        tables = {dtype: read_gemm(data_folder, name, dtype) for dtype in GEMM_DTYPES}
        calibrate_products(found, device, {dtype: table for dtype, table in tables.items() if table is not None})
        calibrate_product_kernels(found, device, data_folder)
    if "attention" in families:
        attention, kernels, reports = calibrate_attention(device, data_folder)
        if (eager := calibrate_eager_attention(device, data_folder)) is not None:
            kernels["vllm_eager"] = eager[0]
            reports += eager[1]
        found.update({"attention": attention, "attention_kernels": kernels, **attention_shares(attention)}, reports)
        corrections, reports = attention_residuals(
            device.model_copy(update={"cost_model": found.cost_model}), data_folder
        )
        found.residuals |= corrections
        found.reports.extend(reports)
    if "small_kernels" in families:
        launch_s = found.cost_model.gemm["bf16"].launch_s  # an empty kernel in a captured graph, whatever it computes
        found.update(*calibrate_elementwise(data_folder, devices_folder, name, launch_s))
    if "experts" in families:
        priced = device.model_copy(update={"cost_model": found.cost_model})
        experts, found.expert_residuals, reports = calibrate_experts(data_folder, name, priced)
        found.update({"experts": experts}, reports)
    found.update({"source": _source(name)})
    return found


def calibrate_layers(
    data_folder: Path, devices_folder: Path, name: str, families: Collection[Family] = FAMILIES
) -> Calibration:
    """A device of which layers of some models were measured; the rest is its class's, scaled by its data sheet."""
    device = read_device(devices_folder / f"{name}.yaml")
    found = Calibration(device.cost_model, families)
    if frozenset(families) == frozenset(FAMILIES):
        found = Calibration(cost_model_by_class(device), families)
    device = device.model_copy(update={"cost_model": found.cost_model})
    if "gemm" in families and (products := read_layer_products(data_folder, name)) is not None:
        possible = products[~too_fast(device, "bf16", products, DTYPE_BYTES["bf16"])]
        calibrate_products(found, device, {"bf16": possible}, repeated=False)
    if "attention" in families and (eager := calibrate_eager_attention(device, data_folder)) is not None:
        attention, reports = eager
        found.update({"attention": attention, "attention_kernels": {}, **attention_shares(attention)}, reports)
    if "small_kernels" in families:
        kinds = fit_layer_streams(device, data_folder)
        found.update(
            {
                "elementwise": {
                    **found.cost_model.elementwise,
                    **{kind: with_errors(*fit) for kind, fit in kinds.items()},
                }
            },
            [FitReport(name, f"elementwise {kind}", *errors) for kind, (_, *errors) in kinds.items()],
        )
    found.update({"source": _layers_source(name)})
    return found


def write_calibration(devices_folder: Path, name: str, found: Calibration) -> None:
    """Put the cost model into the device's file, the residual tables beside it; tables of other families stay."""
    replace_cost_model(devices_folder / f"{name}.yaml", found.cost_model)
    path = _residuals_file(devices_folder, name)
    kept = {table: one for table, one in residual_tables(path).items() if _family(table) not in found.families}
    tables = kept | found.residuals
    experts = found.expert_residuals if "experts" in found.families else expert_residuals(path)
    source = found.cost_model.source
    write_residuals(path, Residuals(device=name, tables=dict(sorted(tables.items())), experts=experts, source=source))


def residual_tables(path: Path) -> dict[str, ResidualTable]:
    """Those of a file by name; none where there is no file."""
    return read_alone(Residuals, path).tables if path.is_file() else {}


def expert_residuals(path: Path) -> dict[str, ExpertResidual]:
    """The curves of layers of experts by format, of the same file."""
    return read_alone(Residuals, path).experts if path.is_file() else {}


def _residuals_file(devices_folder: Path, name: str) -> Path:
    return devices_folder.parent / RESIDUALS_FOLDER / f"{name}.yaml"


def _named(experts: dict[str, ExpertResidual]) -> dict[str, ResidualTable | ExpertResidual]:
    return {f"experts_{form}": curves for form, curves in experts.items()}


def _family(table: str) -> str:
    """Of a residual table: the first word of its name."""
    return table.split("_", maxsplit=1)[0]


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


def _layers_source(name: str) -> Source:
    where = "casys-kaist/LLMServingSim (commit 5daddb21a545), kernel times of vLLM's layers"
    if name in ("a40", "a30"):
        where = "microsoft/vidur (commit 7d47513363ec), layers timed in microseconds"
    return Source(
        title="Fitted to measured layers of models",
        where=(
            f"{where}: products in 16 bits, small kernels{', attention' if name in EAGER_ATTENTION else ''}; four "
            "shapes in five fitted, errors on the fifth; what has no error here is its class's, an estimate"
        ),
        kind="fitted",
    )
