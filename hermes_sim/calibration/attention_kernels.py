"""The attention kernels of one measured device: coefficients by kernel and phase, with their residual tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import pandas as pd

from hermes_sim.calibration.attention import fit_decode, fit_mixed, fit_prefill, read_attention
from hermes_sim.calibration.attention_residual import attention_rows, fit_attention_residuals
from hermes_sim.calibration.attention_residual import corrected_errors as corrected_attention
from hermes_sim.calibration.device_fit import FitReport, with_errors
from hermes_sim.calibration.fit import fit_error
from hermes_sim.calibration.mla import fit_mla_decode, fit_mla_prefill, read_mla
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency, AttentionKernel
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.perf.attention_layers import FP8_MATH
from hermes_sim.perf.attention_residual import TOKENS, residual_name

ATTENTION_ENGINES: Final = ("vllm", "trtllm", "sglang")
DEFAULT_ATTENTION: Final = dict(AttentionEfficiency())


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
    """Kernel ([engine][_mla][_fmha][_fp8]), phase and measured rows of every attention kernel of a device."""
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
        for window, residual in tables.items():
            if (rows.held & (rows.windows == window)).any():
                residual = with_errors(residual, *corrected_attention(rows, tables, window))
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


def attention_shares(attention: AttentionEfficiency) -> dict[str, float | None]:
    """What is stated of attention outside its block."""
    return {
        "attention_prefill_compute_frac": attention.prefill_compute_frac,
        "attention_decode_memory_frac": attention.decode_memory_frac,
    }
