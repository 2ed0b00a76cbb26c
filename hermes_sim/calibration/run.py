"""The calibration of all devices with measured tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import pandas as pd
import yaml

from hermes_sim.calibration.attention import fit_decode, fit_mixed, fit_prefill, read_attention
from hermes_sim.calibration.collectives import (
    LIBRARIES,
    OPERATIONS,
    fit_collective,
    read_custom_all_reduce,
    read_nccl,
)
from hermes_sim.calibration.device_file import read_device, replace_cost_model
from hermes_sim.calibration.elementwise import fit_elementwise, read_elementwise
from hermes_sim.calibration.expert_tables import main_kernel, read_expert_table
from hermes_sim.calibration.experts import fit_experts
from hermes_sim.calibration.fit import ErrorSummary
from hermes_sim.calibration.gemm import fit_gemm
from hermes_sim.calibration.mla import fit_mla_decode, fit_mla_prefill, read_mla
from hermes_sim.calibration.tables import (
    GEMM_DTYPES,
    MEASURED_DEVICES,
    SYSTEMS,
    read_gemm,
)
from hermes_sim.core.schema import Source
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency, AttentionKernel
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.device import BY_CLASS, Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency, ElementwiseKind
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency, ExpertFormat
from hermes_sim.hardware.fit_error import FitError

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

EAGER_ATTENTION: Final = ("rtx_pro_6000", "rtx_4090")
"""Devices whose attention was measured in calls launched one by one, and nothing else of them in graphs."""

DEFAULT_ATTENTION: Final = dict(AttentionEfficiency())

NO_ERRORS: Final = {"in_sample": None, "held_out": None}


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
    if write:
        for name in EAGER_ATTENTION:
            path = devices_folder / f"{name}.yaml"
            attention, reports = calibrate_eager_attention(read_device(path), data_folder)
            yield from reports
            replace_cost_model(path, with_eager_attention(read_by_class(path).cost_model, attention))


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
    attention, kernels, attention_reports = calibrate_attention(device, data_folder)
    reports += attention_reports
    launch_s = efficiencies["bf16"].launch_s  # an empty kernel in a captured graph, whatever it computes
    streams, stream_reports = _elementwise(data_folder, devices_folder, name, launch_s)
    reports += stream_reports
    priced = device.model_copy(
        update={"cost_model": device.cost_model.model_copy(update={"gemm": efficiencies, **streams})}
    )
    experts, expert_reports = _experts(data_folder, name, priced)
    reports += expert_reports
    cost_model = device.cost_model
    update: dict[str, Any] = {
        "gemm": efficiencies,
        "attention": attention,
        "attention_kernels": kernels,
        "attention_prefill_compute_frac": attention.prefill_compute_frac,
        "attention_decode_memory_frac": attention.decode_memory_frac,
        "source": _source(name),
        **streams,
        "experts": experts,
    }
    return cost_model.model_copy(update=update), reports


def calibrate_attention(
    device: Device, data_folder: Path
) -> tuple[AttentionEfficiency, dict[AttentionKernel, AttentionEfficiency], list[FitReport]]:
    """The default kernels of one measured device, all others that were measured, and the errors of the fits."""
    kernels: dict[str, AttentionEfficiency] = {}
    reports = []
    for engine in ATTENTION_ENGINES:
        for latent, read, fits in (
            ("", read_attention, (fit_decode, fit_prefill)),
            ("_mla", read_mla, (fit_mla_decode, fit_mla_prefill)),
        ):
            for phase, fit in zip(("decode", "prefill"), fits, strict=True):
                table = read(data_folder, device.name, phase, engine)
                if table is None:
                    continue
                for kv_dtype in sorted(table["kv_dtype"].unique()):
                    rows = table[table["kv_dtype"] == kv_dtype].reset_index(drop=True)
                    found, fitted, held = fit(device, rows)
                    name = f"{engine}{latent}{'_fp8' if kv_dtype == 'fp8' else ''}"
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


def calibrate_eager_attention(device: Device, data_folder: Path) -> tuple[AttentionEfficiency, list[FitReport]]:
    """Attention of a device whose tables are of kernels launched one by one, in prompts, decodes and mixes of both."""
    from hermes_sim.measured import read_kernels

    operators = ("attention_decode", "attention_prefill", "attention_mixed")
    tables = {}
    for operator, table in read_kernels(data_folder, operators=operators, devices=(device.name,)).items():
        # calls timed with all of their host work are many times longer than the same calls timed on the device
        calls = ~table["source_file"].astype(str).str.contains("_skew")
        tables[operator] = table[(table["device"] == device.name) & calls].reset_index(drop=True)
    heads = ("num_heads", "num_kv_heads")
    decode, *decode_errors = fit_decode(device, tables[operators[0]], (*heads, "num_seqs", "context_tokens"))
    prefill, *prefill_errors = fit_prefill(device, tables[operators[1]], (*heads, "new_tokens", "history_tokens"))
    found = decode.model_copy(update={key: value for key, value in prefill if value != DEFAULT_ATTENTION[key]})
    found, *mixed_errors = fit_mixed(device, found, tables[operators[2]])
    reports = [
        FitReport(device.name, f"{phase} eager", fitted, held)
        for phase, (fitted, held) in (("decode", decode_errors), ("prefill", prefill_errors), ("mixed", mixed_errors))
    ]
    errors = {}
    for phase, (fitted, held) in (("decode", decode_errors), ("prefill", prefill_errors)):
        errors[f"{phase}_in_sample"], errors[f"{phase}_held_out"] = fit_error(fitted), fit_error(held)
    return found.model_copy(update=errors), reports


def with_eager_attention(cost_model: CostModel, attention: AttentionEfficiency) -> CostModel:
    """The cost model with attention of its own device."""
    source = cost_model.source
    where = f"{source.where}; attention: fitted to casys-kaist/LLMServingSim (commit 5daddb21a545), vLLM 0.19.0"
    return cost_model.model_copy(
        update={
            "attention": attention,
            "attention_kernels": {},
            "attention_prefill_compute_frac": attention.prefill_compute_frac,
            "attention_decode_memory_frac": attention.decode_memory_frac,
            "source": source.model_copy(update={"where": where}),
        }
    )


def calibrate_links(data_folder: Path) -> Iterator[FitReport]:
    """Collectives inside a node: the engines' own all-reduce in captured graphs, and NCCL's."""
    for device in LINKS:
        for library, kinds in fit_link(data_folder, device).items():
            for kind, (_, fitted, held) in kinds.items():
                yield FitReport(LINKS[device][0], f"{kind} {library}", fitted, held)


def fit_link(
    data_folder: Path, device: str
) -> dict[KernelLibrary, dict[CollectiveKind, tuple[CollectiveEfficiency, ErrorSummary, ErrorSummary]]]:
    """Coefficients of the link between these devices by library, with errors on fitted and held-out message sizes."""
    folder, system = data_folder / "kernels" / "aiconfigurator", SYSTEMS[device]
    _, bandwidth_bytes_per_s, switched, adds_in_switch = LINKS[device]

    def fit(kind: CollectiveKind, table: pd.DataFrame) -> tuple[CollectiveEfficiency, ErrorSummary, ErrorSummary]:
        return fit_collective(kind, bandwidth_bytes_per_s, switched, adds_in_switch, table)

    found: dict[KernelLibrary, dict[CollectiveKind, tuple[CollectiveEfficiency, ErrorSummary, ErrorSummary]]] = {
        library: {
            "all_reduce": fit(
                "all_reduce", read_custom_all_reduce(folder / f"{system}_{name}_custom_allreduce.parquet")
            )
        }
        for name, library in LIBRARIES.items()
    }
    nccl = folder / f"{system}_nccl_nccl.parquet"
    found["nccl"] = {kind: fit(kind, read_nccl(nccl, name)) for name, kind in OPERATIONS.items()}
    return found


def read_by_class(path: Path) -> Device:
    """The device of the file with the coefficients of its class in place of its own."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Device.model_validate({**data, "cost_model": BY_CLASS})


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


def _experts(
    data_folder: Path, name: str, device: Device
) -> tuple[dict[ExpertFormat, ExpertEfficiency], list[FitReport]]:
    """By format; the main kernel of each library."""
    efficiencies: dict[ExpertFormat, ExpertEfficiency] = {}
    reports = []
    for library, prefix in EXPERT_LIBRARIES.items():
        path = data_folder / "kernels" / "aiconfigurator" / f"{SYSTEMS[name]}_{library}_moe.parquet"
        for dtype, rows in read_expert_table(path).groupby("dtype"):
            form: Any = f"{prefix}{dtype}"
            found, fitted, held = fit_experts(device, form, main_kernel(rows))
            efficiencies[form] = found.model_copy(update={"in_sample": fit_error(fitted), "held_out": fit_error(held)})
            reports.append(FitReport(name, f"experts {form}", fitted, held))
    return efficiencies, reports


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
