"""The calibration of all devices with measured tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import pandas as pd
import yaml

from hermes_sim.calibration.attention import fit_decode, fit_mixed, fit_prefill, read_attention
from hermes_sim.calibration.attention_residual import attention_rows, fit_attention_residuals
from hermes_sim.calibration.attention_residual import corrected_errors as corrected_attention
from hermes_sim.calibration.collectives import (
    LIBRARIES,
    OPERATIONS,
    OWN_LIMITS,
    fit_collective,
    fit_eager,
    read_custom_all_reduce,
    read_eager_nccl,
    read_nccl,
)
from hermes_sim.calibration.device_file import read_device, replace_cost_model
from hermes_sim.calibration.elementwise import fit_elementwise, read_elementwise
from hermes_sim.calibration.expert_tables import read_expert_table, tables_by_kernel
from hermes_sim.calibration.experts import fit_experts
from hermes_sim.calibration.fit import ErrorSummary, fit_error
from hermes_sim.calibration.gemm import (
    DYNAMIC_SCALE,
    KERNEL_DTYPES,
    GemmFit,
    fit_gemm_with_residual,
    without_dynamic_scale,
)
from hermes_sim.calibration.layered_devices import LAYERED_DEVICES, fit_layer_streams, read_layer_products
from hermes_sim.calibration.link_file import read_link, replace_collectives
from hermes_sim.calibration.mla import fit_mla_decode, fit_mla_prefill, read_mla
from hermes_sim.calibration.residual import write_residuals
from hermes_sim.calibration.tables import (
    GEMM_DTYPES,
    GEMM_KERNELS,
    MEASURED_DEVICES,
    SYSTEMS,
    read_gemm,
    read_gemm_kernel,
)
from hermes_sim.core.schema import Description, Dtype, Source
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency, AttentionKernel
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.device import Device, cost_model_by_class
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency, ElementwiseKind
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency, ExpertFormat
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency, GemmKernel
from hermes_sim.hardware.residual import Residuals, ResidualTable
from hermes_sim.perf.attention_layers import FP8_MATH
from hermes_sim.perf.attention_residual import TOKENS, residual_name

ELEMENTWISE_FROM: Final[dict[str, str]] = {"h200_sxm": "h100_sxm", "b200_sxm": "h100_sxm", "l40s": "a40"}
"""Devices without a table of small kernels -> the measured device of the nearest kind."""

EXPERT_LIBRARIES: Final = {"vllm": "", "trtllm": "trtllm_"}
"""Engine of a table of experts -> what the formats of its kernels start with."""

LINKS: Final[dict[str, tuple[str, float, bool, bool]]] = {
    "a100_sxm_80gb": ("nvlink3", 300e9, True, False),
    "h100_sxm": ("nvlink4", 450e9, True, True),
    "b200_sxm": ("nvlink5", 900e9, True, True),
    "l40s": ("pcie4_x16", 31.508e9, False, False),
}
"""Device -> link between its devices, bandwidth of a device per direction, has a switch, adds up in the switch."""

ATTENTION_ENGINES: Final = ("vllm", "trtllm", "sglang")

EAGER_ATTENTION: Final = ("rtx_pro_6000", "rtx_4090", "a6000", "a30")
"""Devices whose attention was measured in calls launched one by one, and nothing else of them in graphs."""

DEFAULT_ATTENTION: Final = dict(AttentionEfficiency())

NO_ERRORS: Final = {"in_sample": None, "held_out": None}


RESIDUALS_FOLDER: Final = "residuals"
LINKS_FOLDER: Final = "links"
"""Both beside the folder of devices."""

LinkFit = dict[KernelLibrary, dict[CollectiveKind, tuple[CollectiveEfficiency, ErrorSummary, ErrorSummary]]]
"""Coefficients, errors on fitted sizes, errors on sizes kept out."""

Family = Literal["gemm", "attention", "small_kernels", "experts"]
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)
"""Kinds of kernels that are fitted one after the other; experts build on what was found before them."""


@dataclass(slots=True)
class Calibration:
    """What the measurements of one device say, in the making."""

    cost_model: CostModel
    families: Collection[Family] = FAMILIES
    """What is fitted anew; residual tables of the others stay."""
    residuals: dict[str, ResidualTable] = field(default_factory=dict)
    reports: list[FitReport] = field(default_factory=list)

    def update(self, values: Mapping[str, Any], reports: Iterable[FitReport] = ()) -> None:
        """Put fields of the cost model in their place."""
        self.cost_model = self.cost_model.model_copy(update=dict(values))
        self.reports.extend(reports)


@dataclass(frozen=True, slots=True)
class FitReport:
    """Errors of one fit on the shapes it saw and on those it did not."""

    device: str
    kernel: str
    fitted: ErrorSummary
    held_out: ErrorSummary
    values: str = ""
    """Coefficients that no device file holds."""


def calibrate(
    data_folder: Path,
    devices_folder: Path,
    *,
    write: bool = False,
    devices: Collection[str] | None = None,
    families: Collection[Family] = FAMILIES,
) -> Iterator[FitReport]:
    """Fit measured devices, all or some, then the links between them; with `write` put what was found into the files.

    families: which kernels; what is left out stays as the file has it. The links are fitted with all devices only.
    """
    for name in (*MEASURED_DEVICES, *LAYERED_DEVICES):
        if devices is not None and name not in devices:
            continue
        fit = calibrate_device if name in MEASURED_DEVICES else calibrate_layers
        found = fit(data_folder, devices_folder, name, families)
        yield from found.reports
        if write:
            write_calibration(devices_folder, name, found)
    if devices is None:
        yield from calibrate_links(data_folder, devices_folder.parent / LINKS_FOLDER, write=write)


def differences(
    data_folder: Path, devices_folder: Path, name: str, families: Collection[Family] = FAMILIES
) -> list[str]:
    """Coefficients of a device file that are not those its fit gives, four digits: `device key: file, fit`."""
    fit = calibrate_device if name in MEASURED_DEVICES else calibrate_layers
    found = fit(data_folder, devices_folder, name, families).cost_model
    return _different(name, read_device(devices_folder / f"{name}.yaml").cost_model, found)


def _different(name: str, in_file: object, in_fit: object) -> list[str]:
    stated, fitted = _numbers(in_file), _numbers(in_fit)
    return [
        f"{name} {key}: {stated.get(key)}, fitted {fitted.get(key)}"
        for key in sorted(stated.keys() | fitted.keys())
        if stated.get(key) != fitted.get(key)
    ]


def _numbers(part: object, key: str = "") -> dict[str, str]:
    """Key path -> number, four digits."""
    if isinstance(part, Description):
        part = part.model_dump(by_alias=True)
    if isinstance(part, Mapping):
        nested = [_numbers(value, f"{key}.{name}" if key else str(name)) for name, value in part.items()]
        return {path: text for found in nested for path, text in found.items()}
    return {key: f"{part:.4g}"} if isinstance(part, int | float) else {}


def calibrate_device(
    data_folder: Path, devices_folder: Path, name: str, families: Collection[Family] = FAMILIES
) -> Calibration:
    """Cost model and residual tables of a device whose kernels were all measured."""
    device = read_device(devices_folder / f"{name}.yaml")
    found = Calibration(device.cost_model, families)
    if "gemm" in families:
        tables = {dtype: read_gemm(data_folder, name, dtype) for dtype in GEMM_DTYPES}
        _products(found, device, {dtype: table for dtype, table in tables.items() if table is not None})
        _product_kernels(found, device, data_folder)
    if "attention" in families:
        attention, kernels, reports = calibrate_attention(device, data_folder)
        if (eager := calibrate_eager_attention(device, data_folder)) is not None:
            kernels["vllm_eager"] = eager[0]
            reports += eager[1]
        found.update({"attention": attention, "attention_kernels": kernels, **_shares(attention)}, reports)
        corrections, reports = attention_residuals(
            device.model_copy(update={"cost_model": found.cost_model}), data_folder
        )
        found.residuals |= corrections
        found.reports.extend(reports)
    if "small_kernels" in families:
        launch_s = found.cost_model.gemm["bf16"].launch_s  # an empty kernel in a captured graph, whatever it computes
        found.update(*_elementwise(data_folder, devices_folder, name, launch_s))
    if "experts" in families:
        priced = device.model_copy(update={"cost_model": found.cost_model})
        experts, corrections, reports = _experts(data_folder, name, priced)
        found.update({"experts": experts}, reports)
        found.residuals |= corrections
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
        _products(found, device, {"bf16": products})
    if "attention" in families and (eager := calibrate_eager_attention(device, data_folder)) is not None:
        attention, reports = eager
        found.update({"attention": attention, "attention_kernels": {}, **_shares(attention)}, reports)
    if "small_kernels" in families:
        kinds = fit_layer_streams(device, data_folder)
        found.update(
            {
                "elementwise": {
                    **found.cost_model.elementwise,
                    **{kind: _with_errors(*fit) for kind, fit in kinds.items()},
                }
            },
            [FitReport(name, f"elementwise {kind}", *errors) for kind, (_, *errors) in kinds.items()],
        )
    found.update({"source": _layers_source(name)})
    return found


def write_calibration(devices_folder: Path, name: str, found: Calibration) -> None:
    """Put the cost model into the device's file, the residual tables beside it."""
    replace_cost_model(devices_folder / f"{name}.yaml", found.cost_model)
    path = devices_folder.parent / RESIDUALS_FOLDER / f"{name}.yaml"
    tables = kept_residuals(path, found.families) | found.residuals
    write_residuals(path, Residuals(device=name, tables=dict(sorted(tables.items())), source=found.cost_model.source))


def kept_residuals(path: Path, families: Collection[Family]) -> dict[str, ResidualTable]:
    """Tables of a file whose family, the first word of their name, is not fitted anew."""
    if not path.is_file():
        return {}
    written = Residuals.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    return {name: table for name, table in written.tables.items() if name.split("_", maxsplit=1)[0] not in families}


def _products(found: Calibration, device: Device, tables: Mapping[Dtype, pd.DataFrame]) -> None:
    """Dense products by dtype, with their residual tables."""
    efficiencies = dict(found.cost_model.gemm)
    for dtype, table in tables.items():
        efficiencies[dtype] = _product(found, device.name, dtype, fit_gemm_with_residual(device, dtype, table))
    found.update({"gemm": efficiencies})


def _product_kernels(found: Calibration, device: Device, data_folder: Path) -> None:
    """Dense products by kernels of another engine or format, with their residual tables."""
    efficiencies: dict[GemmKernel, GemmEfficiency] = {}
    for kernel in GEMM_KERNELS:
        table = read_gemm_kernel(data_folder, device.name, kernel)
        if table is not None:
            fit = fit_gemm_with_residual(device, KERNEL_DTYPES[kernel], table, kernel)
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
        found.residuals[f"gemm_{name}"] = _with_errors(fit.residual, *errors)
        found.reports.append(FitReport(device, f"gemm {name} corrected", *errors))
    efficiency: GemmEfficiency = _with_errors(fit.efficiency, fit.fitted, fit.held_out)
    return efficiency


def _shares(attention: AttentionEfficiency) -> dict[str, float | None]:
    """What is stated of attention outside its block."""
    return {
        "attention_prefill_compute_frac": attention.prefill_compute_frac,
        "attention_decode_memory_frac": attention.decode_memory_frac,
    }


def _with_errors(efficiency: Any, fitted: ErrorSummary, held: ErrorSummary) -> Any:
    return efficiency.model_copy(update={"in_sample": fit_error(fitted), "held_out": fit_error(held)})


def calibrate_attention(
    device: Device, data_folder: Path
) -> tuple[AttentionEfficiency, dict[AttentionKernel, AttentionEfficiency], list[FitReport]]:
    """The default kernels of one measured device, all others that were measured, and the errors of the fits."""
    kernels: dict[str, AttentionEfficiency] = {}
    reports = []
    fits = {"": (fit_decode, fit_prefill), "_mla": (fit_mla_decode, fit_mla_prefill)}
    for name, phase, rows in attention_tables(device.name, data_folder):
        decode, prefill = fits["_mla" if "_mla" in name else ""]
        found, fitted, held = (decode if phase == "decode" else prefill)(device, rows)
        kernels[name] = kernels.get(name, AttentionEfficiency()).model_copy(
            update={
                **{key: value for key, value in found if value != DEFAULT_ATTENTION[key]},
                f"{phase}_in_sample": fit_error(fitted),
                f"{phase}_held_out": fit_error(held),
            }
        )
        reports.append(FitReport(device.name, f"{phase} {name}", fitted, held))
    default = kernels.pop("vllm", device.cost_model.attention)
    if "vllm_fp8" in kernels:
        kernels["fp8"] = kernels.pop("vllm_fp8")
    for suffix in ("", "_fp8"):  # vLLM's tables of latent attention are not of captured graphs
        for engine in ("trtllm", "sglang"):
            if f"{engine}_mla{suffix}" in kernels:
                kernels.setdefault(f"mla{suffix}", kernels[f"{engine}_mla{suffix}"])
    return default, {name: kernels[name] for name in get_args(AttentionKernel) if name in kernels}, reports


def attention_tables(device: str, data_folder: Path) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Kernel ([engine][_mla][_fp8]), phase and measured rows of every attention kernel of a device."""
    for engine in ATTENTION_ENGINES:
        for latent, read in (("", read_attention), ("_mla", read_mla)):
            for phase in TOKENS:
                table = read(data_folder, device, phase, engine)
                if table is None:
                    continue
                for kv_dtype in sorted(table["kv_dtype"].unique()):
                    rows = table[table["kv_dtype"] == kv_dtype].reset_index(drop=True)
                    yield f"{engine}{latent}{'_fp8' if kv_dtype == 'fp8' else ''}", phase, rows
        narrow = read_attention(data_folder, device, "prefill", engine, "fp8")
        if narrow is not None and f"{engine}{FP8_MATH}_fp8" in get_args(AttentionKernel):
            yield f"{engine}{FP8_MATH}_fp8", "prefill", narrow


def attention_residuals(device: Device, data_folder: Path) -> tuple[dict[str, ResidualTable], list[FitReport]]:
    """Tables of what the device's coefficients leave over, by phase and kernel, and the errors with them."""
    found: dict[str, ResidualTable] = {}
    reports = []
    kernels: dict[str, AttentionEfficiency] = {
        str(name): own for name, own in device.cost_model.attention_kernels.items()
    }
    for measured, phase, table in attention_tables(device.name, data_folder):
        name = {"vllm": "", "vllm_fp8": "fp8"}.get(measured, measured)
        own = kernels[name] if name else device.cost_model.attention
        rows = attention_rows(device, own, phase, table)
        tables = fit_attention_residuals(rows)
        alike = name.removeprefix("trtllm_").removeprefix("sglang_")
        for window, table_of_window in tables.items():
            residual = table_of_window
            if (rows.held & (rows.windows == window)).any():
                residual = _with_errors(residual, *corrected_attention(rows, tables, window))
            found[residual_name(phase, name, window)] = residual
            if "_mla" in name and kernels.get(alike) == own:
                found.setdefault(residual_name(phase, alike, window), residual)
        if tables:
            reports.append(FitReport(device.name, f"{phase} {measured} corrected", *corrected_attention(rows, tables)))
    return found, reports


def calibrate_eager_attention(device: Device, data_folder: Path) -> tuple[AttentionEfficiency, list[FitReport]] | None:
    """Attention measured in calls launched one by one: prompts, decodes, mixes where there are any; None without."""
    from hermes_sim.measured import read_kernels

    operators = ("attention_decode", "attention_prefill", "attention_mixed")
    tables = {}
    for operator, table in read_kernels(data_folder, operators=operators, devices=(device.name,)).items():
        rows = table[(table["device"] == device.name) & table["timing"].isin(["", "device"])].reset_index(drop=True)
        if len(rows):
            tables[operator] = rows
    if operators[0] not in tables or operators[1] not in tables:
        return None
    heads = ("num_heads", "num_kv_heads")
    decode, *decode_errors = fit_decode(device, tables[operators[0]], (*heads, "num_seqs", "context_tokens"))
    prefill, *prefill_errors = fit_prefill(device, tables[operators[1]], (*heads, "new_tokens", "history_tokens"))
    found = decode.model_copy(update={key: value for key, value in prefill if value != DEFAULT_ATTENTION[key]})
    phases = {"decode": decode_errors, "prefill": prefill_errors}
    if operators[2] in tables:
        found, *phases["mixed"] = fit_mixed(device, found, tables[operators[2]])
    reports = [FitReport(device.name, f"{phase} eager", fitted, held) for phase, (fitted, held) in phases.items()]
    errors = {}
    for phase, (fitted, held) in (("decode", decode_errors), ("prefill", prefill_errors)):
        errors[f"{phase}_in_sample"], errors[f"{phase}_held_out"] = fit_error(fitted), fit_error(held)
    return found.model_copy(update=errors), reports


def calibrate_links(data_folder: Path, links_folder: Path, *, write: bool = False) -> Iterator[FitReport]:
    """Collectives inside a node: the engines' own all-reduce in captured graphs, and NCCL's."""
    for device, (name, *_) in LINKS.items():
        found = fit_link(data_folder, device)
        for library, kinds in found.items():
            for kind, (_, fitted, held) in kinds.items():
                yield FitReport(name, f"{kind} {library}", fitted, held)
        if write:
            replace_collectives(links_folder / f"{name}.yaml", _collectives(found))


def link_differences(data_folder: Path, links_folder: Path, devices: Collection[str] = tuple(LINKS)) -> list[str]:
    """Coefficients of the link files that are not those their fits give, four digits: of these devices' links."""
    found = []
    for device in devices:
        name = LINKS[device][0]
        stated = read_link(links_folder / f"{name}.yaml").collectives
        found += _different(name, stated, _collectives(fit_link(data_folder, device)))
    return found


def fit_link(data_folder: Path, device: str) -> LinkFit:
    """Coefficients of the link between these devices by library, with errors on fitted and held-out message sizes."""
    folder, system = data_folder / "kernels" / "aiconfigurator", SYSTEMS[device]
    _, bandwidth_bytes_per_s, switched, adds_in_switch = LINKS[device]

    def fit(
        kind: CollectiveKind, table: pd.DataFrame, limit_bytes: float | None = None
    ) -> tuple[CollectiveEfficiency, ErrorSummary, ErrorSummary]:
        return fit_collective(kind, bandwidth_bytes_per_s, switched, adds_in_switch, table, limit_bytes)

    found: LinkFit = {}
    for name, library in LIBRARIES.items():
        path = folder / f"{system}_{name}_custom_allreduce.parquet"
        limit_bytes = OWN_LIMITS.get((device, library))
        efficiency, fitted, held = fit("all_reduce", read_custom_all_reduce(path), limit_bytes)
        called = read_custom_all_reduce(path, eager=True)
        efficiency = fit_eager("all_reduce", bandwidth_bytes_per_s, efficiency, called, copies=True)
        found[library] = {"all_reduce": (efficiency, fitted, held)}
    path = folder / f"{system}_nccl_nccl.parquet"
    found["nccl"] = {kind: fit(kind, read_nccl(path, name)) for name, kind in OPERATIONS.items()}
    efficiency, fitted, held = found["nccl"]["all_reduce"]
    called = read_eager_nccl(data_folder, device)
    efficiency = fit_eager("all_reduce", bandwidth_bytes_per_s, efficiency, called, copies=False)
    found["nccl"]["all_reduce"] = (efficiency, fitted, held)
    return found


def _collectives(found: LinkFit) -> dict[KernelLibrary, dict[CollectiveKind, CollectiveEfficiency]]:
    """As a link states them, errors included."""
    return {library: {kind: _with_errors(*fit) for kind, fit in kinds.items()} for library, kinds in found.items()}


def _experts(
    data_folder: Path, name: str, device: Device
) -> tuple[dict[ExpertFormat, ExpertEfficiency], dict[str, ResidualTable], list[FitReport]]:
    """By format; the main kernel of each library, and others that were measured often."""
    efficiencies: dict[ExpertFormat, ExpertEfficiency] = {}
    residuals, reports = {}, []
    for library, prefix in EXPERT_LIBRARIES.items():
        path = data_folder / "kernels" / "aiconfigurator" / f"{SYSTEMS[name]}_{library}_moe.parquet"
        for dtype, table in read_expert_table(path).groupby("dtype"):
            for suffix, rows in tables_by_kernel(table).items():
                form: Any = f"{prefix}{dtype}{suffix}"
                if form not in get_args(ExpertFormat):
                    continue
                fit = fit_experts(device, form, rows)
                efficiencies[form] = _with_errors(fit.efficiency, fit.fitted, fit.held_out)
                reports.append(FitReport(name, f"experts {form}", fit.fitted, fit.held_out))
                if fit.residual is not None:
                    corrected = fit.corrected_fitted, fit.corrected_held_out
                    residuals[f"experts_{form}"] = _with_errors(fit.residual, *corrected)
                    reports.append(FitReport(name, f"experts {form} corrected", *corrected))
    return efficiencies, residuals, reports


def _elementwise(
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
    norm, addition = efficiencies["norm"].memory_frac, efficiencies["residual_add"].memory_frac
    values = {
        "elementwise": efficiencies,
        "elementwise_launch_s": launch_s,
        "elementwise_memory_frac": float(f"{2.0 / (1.0 / norm + 1.0 / addition):.4g}"),
    }
    return values, reports if measured == name else []


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
