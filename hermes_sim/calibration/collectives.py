"""Coefficients of collectives inside a node from measured ones, per library, on one kind of link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, fit_error, summarize
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary
from hermes_sim.measured import read_kernels
from hermes_sim.perf.collective_coefficients import pack
from hermes_sim.perf.operators.collective import fitted_all_reduce_seconds, fitted_exchange_seconds

FloatArray = npt.NDArray[np.float64]

EXCHANGE: Final = (
    Coefficient("small_latency_s", 4e-6, 1e-6, 5e-5, 1e-6),
    Coefficient("small_peer_s", 5e-7, 0.0, 1e-5, 1e-7),
    Coefficient("small_frac", 0.3, 0.001, 1.0),
    Coefficient("large_latency_s", 1.5e-5, 1e-6, 2e-4, 1e-6),
    Coefficient("large_peer_s", 1e-6, 0.0, 5e-5, 1e-6),
    Coefficient("large_frac", 0.75, 0.02, 1.0),
)
ALL_REDUCE: Final = (
    Coefficient("small_latency_s", 4e-6, 1e-6, 5e-5, 1e-6),
    Coefficient("small_peer_s", 1e-7, 0.0, 1e-5, 1e-7),
    Coefficient("small_frac", 0.5, 0.02, 1.0),
    Coefficient("large_latency_s", 8e-6, 1e-6, 1e-4, 1e-6),
    Coefficient("large_peer_s", 2e-7, 0.0, 2e-5, 1e-7),
    Coefficient("large_frac", 0.6, 0.02, 1.0),
    Coefficient("ring_latency_s", 2e-5, 1e-6, 2e-4, 1e-5),
    Coefficient("ring_peer_s", 5e-7, 0.0, 5e-5, 1e-7),
    Coefficient("ring_frac", 0.8, 0.02, 1.0),
)
OTHER_STARTS: Final[Mapping[str, float]] = {
    "small_latency_s": 6e-6, "small_peer_s": 1e-7, "small_frac": 0.02, "large_latency_s": 1.4e-5, "large_peer_s": 5e-7,
    "ring_latency_s": 3e-5,
}  # fmt: skip
"""Where the fit begins a second time: a protocol for a few kilobytes, whose words carry flags, and one for the rest."""
CONTENTION: Final = Coefficient("contention", 0.1, 0.0, 2.5)
"""Links without a switch of their own: devices share bridges."""
IN_SWITCH: Final = Coefficient("in_switch_frac", 0.7, 0.1, 1.0)
"""Switches that add up (NVLink 4 and later)."""

EAGER: Final = (Coefficient("eager_launch_s", 3e-5, 1e-6, 2e-4, 1e-5),)
EAGER_COPY: Final = Coefficient("eager_copy_bytes_per_s", 1e12, 1e11, 1e13, 1e12)
"""Engines' own all-reduce; NCCL works on the message where it lies."""

OWN_LIMITS: Final[Mapping[tuple[str, KernelLibrary], float]] = {
    ("a100_sxm_80gb", "vllm"): 8.0 * 2**20 - 16.0,
    ("a100_sxm_80gb", "sglang"): 8.0 * 2**20,
}
"""Device and engine -> longest message in bytes, where one number holds for any number of devices.

Source: max_size of CustomAllreduce in vllm/distributed/device_communicators/custom_all_reduce.py (messages below it, in
multiples of 16 bytes) and in SGLang's copy of it. Newer devices have limits by number of devices: there
the quickest stands in.
"""

LIBRARIES: Final[dict[str, KernelLibrary]] = {"vllm": "vllm", "sglang": "sglang", "trtllm": "trtllm"}
OPERATIONS: Final[dict[str, CollectiveKind]] = {
    "all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}  # fmt: skip
ELEMENT_BYTES: Final = {"half": 2.0, "bfloat16": 2.0, "int8": 1.0, "float": 4.0}


def read_custom_all_reduce(path: Path, *, eager: bool = False) -> pd.DataFrame:
    """An engine's own all-reduce inside a captured graph, or called one by one; empty where not measured so.

    Columns num_devices, num_bytes, measured_s.
    """
    table = pd.read_parquet(path)
    called = table["backend"].astype(str).str.endswith("_eager") if "backend" in table else np.zeros(len(table), bool)
    table = table[called == eager]
    num_bytes = table["message_size"] * table["allreduce_dtype"].astype(str).map(ELEMENT_BYTES)
    return _medians(table.assign(num_bytes=num_bytes))


def read_nccl(path: Path, operation: str) -> pd.DataFrame:
    """NCCL's collective, called eagerly; the same columns."""
    table = pd.read_parquet(path)
    table = table[table["op_name"].astype(str) == operation]
    return _medians(table.assign(num_bytes=table["message_size"] * table["nccl_dtype"].astype(str).map(ELEMENT_BYTES)))


def read_eager_nccl(folder: Path, device: str) -> pd.DataFrame:
    """NCCL's all-reduce called from PyTorch one by one, devices behind one switch or bridge; the same columns."""
    table = read_kernels(folder / "kernels" / "vidur", operators=["all_reduce"], devices=[device]).get("all_reduce")
    if table is None:
        return pd.DataFrame(columns=["num_devices", "num_bytes", "measured_s"])
    joined = (table["devices_per_node"] >= table["num_devices"]) & (table["topology"] == "dgx")
    return pd.DataFrame(table[joined].groupby(["num_devices", "num_bytes"], as_index=False)["measured_s"].median())


def fit_eager(
    kind: CollectiveKind, peak_bytes_per_s: float, captured: CollectiveEfficiency, table: pd.DataFrame, *, copies: bool
) -> CollectiveEfficiency:
    """With what calls launched one by one take beside, errors included; as it is where none were measured."""
    if table.empty:
        return captured
    held = held_out(table["num_bytes"])
    measured_s = table["measured_s"].to_numpy(np.float64)

    def predict(values: dict[str, Any]) -> FloatArray:
        return predict_eager(kind, peak_bytes_per_s, captured.model_copy(update=values), table)

    coefficients = (*EAGER, EAGER_COPY) if copies else EAGER
    values: dict[str, Any] = {**fit_coefficients(coefficients, lambda v: predict(v)[~held], measured_s[~held])}
    predicted_s = predict(values)
    values["eager_in_sample"] = fit_error(summarize(predicted_s[~held], measured_s[~held]))
    values["eager_held_out"] = fit_error(summarize(predicted_s[held], measured_s[held]))
    return captured.model_copy(update=values)


def predict_eager(
    kind: CollectiveKind, peak_bytes_per_s: float, efficiency: CollectiveEfficiency, table: pd.DataFrame
) -> FloatArray:
    """Seconds of calls launched one by one: the host issues the next while the devices still do this one."""
    device_s = predict_collective(kind, peak_bytes_per_s, efficiency, table)
    if efficiency.eager_copy_bytes_per_s is not None:
        device_s = device_s + table["num_bytes"].to_numpy(np.float64) / efficiency.eager_copy_bytes_per_s
    return np.maximum(device_s, efficiency.eager_launch_s)


def fit_collective(
    kind: CollectiveKind,
    peak_bytes_per_s: float,
    switched: bool,
    adds_in_switch: bool,
    table: pd.DataFrame,
    own_limit_bytes: float | None = None,
) -> tuple[CollectiveEfficiency, ErrorSummary, ErrorSummary]:
    """Coefficients of one library's collective on one link; errors on fitted and held-out message sizes.

    own_limit_bytes: longest message of an engine's own kernels, where its source states one for all numbers of devices.
    """
    limit: dict[str, Any] = {} if own_limit_bytes is None else {"own_limit_bytes": own_limit_bytes}
    coefficients = ALL_REDUCE if kind == "all_reduce" else EXCHANGE
    if not switched:
        coefficients = (*coefficients, CONTENTION)
    if adds_in_switch and kind == "all_reduce":
        coefficients = (*coefficients, IN_SWITCH)
    held = held_out(table["num_bytes"])
    measured_s = table["measured_s"].to_numpy(np.float64)

    def predict(values: dict[str, float]) -> FloatArray:
        return predict_collective(kind, peak_bytes_per_s, _efficiency({**values, **limit}), table)

    def error(values: dict[str, float]) -> float:
        return float(np.abs(np.log(predict(values)[~held] / measured_s[~held])).mean())

    others = tuple(replace(one, start=OTHER_STARTS.get(one.name, one.start)) for one in coefficients)
    fits = [
        fit_coefficients(starts, lambda values: predict(values)[~held], measured_s[~held])
        for starts in (coefficients, others)
    ]
    values = min(fits, key=error)
    predicted_s = predict(values)
    return (
        _efficiency({**values, **limit}),
        summarize(predicted_s[~held], measured_s[~held]),
        summarize(predicted_s[held], measured_s[held]),
    )


def predict_collective(
    kind: CollectiveKind, peak_bytes_per_s: float, efficiency: CollectiveEfficiency, table: pd.DataFrame
) -> FloatArray:
    """Seconds of the rows of a table with num_devices and num_bytes."""
    out = np.empty(len(table))
    _fill(
        kind == "all_reduce",
        table["num_bytes"].to_numpy(np.float64),
        table["num_devices"].to_numpy(np.int64),
        pack(efficiency, peak_bytes_per_s),
        out,
    )
    return out


def _efficiency(values: Mapping[str, Any]) -> CollectiveEfficiency:
    return CollectiveEfficiency.model_construct(**values)


def _medians(table: pd.DataFrame) -> pd.DataFrame:
    """Median over data types and repeats of one size."""
    table = table.dropna(subset=["latency_ms"]).rename(columns={"num_gpus": "num_devices"})
    found = table.groupby(["num_devices", "num_bytes"], as_index=False)["latency_ms"].median()
    return pd.DataFrame(found.assign(measured_s=found["latency_ms"] * 1e-3).drop(columns="latency_ms"))


@compiled
def _fill(
    is_all_reduce: bool,
    num_bytes: FloatArray,
    num_devices: npt.NDArray[np.int64],
    coefficients: FloatArray,
    out: FloatArray,
) -> None:
    for row in range(len(num_bytes)):
        if is_all_reduce:
            out[row] = fitted_all_reduce_seconds(num_bytes[row], num_devices[row], coefficients)
        else:
            out[row] = fitted_exchange_seconds(num_bytes[row], num_devices[row], coefficients)
