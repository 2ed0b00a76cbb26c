"""A fitted device as if it had never been measured: its own datasheet, the coefficients of the nearest other device."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Final

import numpy as np
import pandas as pd

from hermes_sim.hardware.device import Device
from hermes_sim.measured import KernelTables
from hermes_sim.validation.kernel_predictors import known_devices, predict

OPERATORS: Final = ("gemm", "attention_prefill", "attention_decode")
MOST_ROWS: Final = 20_000
"""Of one operator and device: scattered over the table, every k-th row."""
COLUMNS: Final = (
    "operator",
    "device",
    "dtype",
    "engine",
    "donor_device",
    "donor",
    "measured",
    "predicted",
    "low",
    "high",
)


def score_unseen(tables: KernelTables) -> pd.DataFrame:
    """One row a measurement of a fitted device, predicted with another one's coefficients; columns COLUMNS.

    donor: same class, or other class where no other fitted device is of its class. Eager rows are left to the reports
    of single kernels: the launch from the host is no matter of the device.
    """
    fitted = fitted_devices(tables)
    parts = []
    for name, device in fitted.items():
        donor = donor_of(device, fitted)
        if donor is None:
            continue
        stranger = device.model_copy(update={"cost_model": donor.cost_model, "residuals": None})
        for operator in OPERATORS:
            if operator in tables:
                rows = _rows(tables[operator], name, donor)
                if len(rows):
                    parts.append(_scored(operator, stranger, rows, donor))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def fitted_devices(tables: KernelTables) -> dict[str, Device]:
    """Devices of the tables whose cost model was fitted to their own kernels, measured one by one in graphs."""
    graphs = [table.loc[table["timing"] == "graph", "device"] for name, table in tables.items() if name in OPERATORS]
    names = sorted({str(name) for devices in graphs for name in devices.unique()})
    devices = known_devices(names)
    return {name: device for name, device in devices.items() if device.cost_model.source.kind == "fitted"}


def donor_of(device: Device, fitted: Mapping[str, Device]) -> Device | None:
    """The other fitted device of its class, else the one with the nearest ratio of peak to bandwidth."""
    others = [other for other in fitted.values() if other.name != device.name]
    same = [other for other in others if other.device_class == device.device_class]
    return min(same or others, key=lambda other: abs(log(_balance(other) / _balance(device))), default=None)


def _balance(device: Device) -> float:
    """FLOPs a byte at which the widest common format turns from memory to compute."""
    peaks = device.peak_flops_per_s
    peak = peaks.get("bf16") or peaks.get("fp16") or max(peaks.values())
    return peak / device.memory.bandwidth_bytes_per_s


def _rows(table: pd.DataFrame, name: str, donor: Device) -> pd.DataFrame:
    rows = table[(table["device"] == name) & (table["timing"] == "graph") & (table["model"] == "")]
    if "m" in rows:
        rows = rows[rows["dtype"].isin(list(donor.cost_model.gemm))]
    rows = rows[rows["engine"] == "vllm"] if (rows["engine"] == "vllm").any() else rows
    return rows.iloc[:: max(len(rows) // MOST_ROWS, 1)]


def _scored(operator: str, device: Device, rows: pd.DataFrame, donor: Device) -> pd.DataFrame:
    found = predict(operator, device, rows)
    kept = np.isfinite(found.seconds)
    same = donor.device_class == device.device_class
    return pd.DataFrame(
        {
            "operator": operator,
            "device": device.name,
            "dtype": rows["dtype"].to_numpy()[kept],
            "engine": rows["engine"].to_numpy()[kept],
            "donor_device": donor.name,
            "donor": "same class" if same else "other class",
            "measured": rows["measured_s"].to_numpy()[kept],
            "predicted": found.seconds[kept],
            "low": np.nan,
            "high": np.nan,
        }
    )
