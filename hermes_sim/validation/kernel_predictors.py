"""What the shipped cost models say of measured kernels: one function per operator, over rows of one device.

A row that the models cannot express gets no number but the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.gemm import predict_gemm
from hermes_sim.calibration.run import LINKS
from hermes_sim.core.compiled import compiled
from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.fit_error import FitError
from hermes_sim.hardware.link import Link
from hermes_sim.perf.coefficients import supported_dtype
from hermes_sim.perf.operators.collective import (
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    send_seconds,
)
from hermes_sim.scenario.files import read_description
from hermes_sim.scenario.library import NotFound, find
from hermes_sim.validation.attention_kernels import predict_decode, predict_mixed, predict_prefill

FloatArray = npt.NDArray[np.float64]


@dataclass(slots=True)
class Predicted:
    """Of rows of one device; arrays as long as the table."""

    seconds: FloatArray
    """NaN where the row cannot be expressed ..."""
    reason: npt.NDArray[np.object_]
    """... and why; empty elsewhere."""
    low: FloatArray
    high: FloatArray
    """Ends of the 90% band in seconds; NaN without one."""

    @classmethod
    def nothing(cls, num_rows: int, why: str = "") -> Predicted:
        """No row expressed."""
        empty = np.full(num_rows, np.nan)
        return cls(empty.copy(), np.full(num_rows, why, dtype=object), empty.copy(), empty.copy())

    def put(self, rows: npt.NDArray[np.bool_], seconds: FloatArray, band: FitError | None = None) -> None:
        """Seconds of some rows, and the band that an error gives them."""
        self.seconds[rows] = seconds
        self.reason[rows] = ""
        if band is not None and band.low_frac is not None and band.high_frac is not None:
            self.low[rows], self.high[rows] = seconds * band.low_frac, seconds * band.high_frac

    def refuse(self, rows: npt.NDArray[np.bool_], why: str) -> None:
        """Rows that cannot be expressed."""
        self.reason[rows] = why


def _gemm(device: Device, table: pd.DataFrame) -> Predicted:
    found = Predicted.nothing(len(table))
    for name in table["dtype"].unique():
        rows = (table["dtype"] == name).to_numpy()
        if name not in get_args(Dtype):
            found.refuse(rows, f"no model of a product in {name}")
        elif supported_dtype(device, name) is None:
            found.refuse(rows, f"the device multiplies neither {name} nor anything wider")
        else:
            efficiency = device.cost_model.gemm.get(name)
            band = (efficiency.in_sample or efficiency.held_out) if efficiency is not None else None
            found.put(rows, predict_gemm(device, name, table[rows]), band)
    return found


def _attention(predict: Callable[[Device, pd.DataFrame], FloatArray], phase: str) -> Predictor:
    def predicted(device: Device, table: pd.DataFrame) -> Predicted:
        found = Predicted.nothing(len(table))
        known = table["kv_dtype"].isin(list(DTYPE_BYTES)).to_numpy()
        found.refuse(~known, "no model of a cache in this dtype")
        if "num_kv_heads" in table:
            even = (table["num_heads"] % table["num_kv_heads"] == 0).to_numpy()
            found.refuse(known & ~even, "query heads are no multiple of key-value heads")
            known = known & even
        if known.any():
            attention = device.cost_model.attention
            band = getattr(attention, f"{phase}_in_sample", None) or getattr(attention, f"{phase}_held_out", None)
            found.put(known, predict(device, table[known]), band)
        return found

    return predicted


def _experts(device: Device, table: pd.DataFrame) -> Predicted:
    return Predicted.nothing(len(table), "no model of a layer of experts by itself")


def _stream(device: Device, table: pd.DataFrame) -> Predicted:
    cost = device.cost_model
    found = Predicted.nothing(len(table))
    reached = device.memory.bandwidth_bytes_per_s * cost.elementwise_memory_frac
    seconds = cost.elementwise_launch_s + table["num_bytes"].to_numpy(np.float64) / reached
    found.put(np.ones(len(table), bool), seconds)
    return found


def _collective(operator: int) -> Predictor:
    def predicted(device: Device, table: pd.DataFrame) -> Predicted:
        link = _link(device)
        if link is None:
            return Predicted.nothing(len(table), f"no link inside a node of {device.name} is known")
        found = Predicted.nothing(len(table))
        inside = (table["devices_per_node"] >= table["num_devices"]).to_numpy()
        found.refuse(~inside, "across nodes: the links between them are not stated")
        uneven = inside & (table["topology"] == "nvlink_pairs").to_numpy() & (table["num_devices"] > 2).to_numpy()
        found.refuse(uneven, "devices linked in pairs, the rest over the host: the path is not stated")
        rows = inside & ~uneven
        out = np.empty(int(rows.sum()))
        num_bytes = table["num_bytes"].to_numpy(np.float64)[rows]
        num_devices = table["num_devices"].to_numpy(np.int64)[rows]
        reached = link.bandwidth_bytes_per_s * link.efficiency_frac
        _fill_collective(operator, num_bytes, num_devices, reached, link.latency_s, out)
        found.put(rows, out)
        return found

    return predicted


@compiled
def _fill_collective(
    operator: int,
    num_bytes: FloatArray,
    num_devices: npt.NDArray[np.int64],
    bandwidth_bytes_per_s: float,
    latency_s: float,
    out: FloatArray,
) -> None:
    for row in range(len(num_bytes)):
        if operator == 0:
            out[row] = all_reduce_seconds(num_bytes[row], num_devices[row], bandwidth_bytes_per_s, latency_s)
        elif operator == 1:
            out[row] = all_gather_seconds(num_bytes[row], num_devices[row], bandwidth_bytes_per_s, latency_s)
        elif operator == 2:
            out[row] = all_to_all_seconds(num_bytes[row], num_devices[row], bandwidth_bytes_per_s, latency_s)
        else:
            out[row] = send_seconds(num_bytes[row], bandwidth_bytes_per_s, latency_s)


def _link(device: Device) -> Link | None:
    """Between devices of one node, as the shipped clusters link them."""
    name = NODE_LINKS.get(device.name)
    try:
        return None if name is None else read_description(Link, find("link", name))
    except NotFound:
        return None


Predictor = Callable[[Device, pd.DataFrame], Predicted]
NODE_LINKS: Final[Mapping[str, str]] = {
    **{device: link for device, (link, *_) in LINKS.items()},
    "h200_sxm": "nvlink4",
    "a100_sxm_40gb": "nvlink3",
    "l40s": "pcie4_x16",
}
"""Device -> the link between devices of one node that the shipped clusters use."""
PREDICTORS: Final[dict[str, Predictor]] = {
    "gemm": _gemm,
    "attention_prefill": _attention(predict_prefill, "prefill"),
    "attention_decode": _attention(predict_decode, "decode"),
    "attention_mixed": _attention(predict_mixed, ""),
    "mla_prefill": _attention(predict_prefill, ""),
    "mla_decode": _attention(predict_decode, ""),
    "moe": _experts,
    "all_reduce": _collective(0),
    "all_gather": _collective(1),
    "reduce_scatter": _collective(1),
    "all_to_all": _collective(2),
    "send": _collective(3),
    "stream": _stream,
}
"""Operator -> its predictor."""


def predict(operator: str, device: Device, table: pd.DataFrame) -> Predicted:
    """Seconds of every row of one operator's table, all of one device."""
    return PREDICTORS[operator](device, table)


def known_devices(names: list[Any]) -> dict[str, Device]:
    """Name -> device, of those that the library has."""
    found = {}
    for name in names:
        try:
            found[str(name)] = read_description(Device, find("device", str(name)))
        except NotFound:
            continue
    return found
