"""What the shipped cost models say of measured kernels: one function per operator, over rows of one device.

A row that the models cannot express gets no number but the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.attention import MATH
from hermes_sim.calibration.collectives import predict_collective, predict_eager
from hermes_sim.calibration.elementwise import predict_elementwise, predict_stream
from hermes_sim.calibration.expert_draws import timed_rank
from hermes_sim.calibration.expert_tables import kernel_suffix
from hermes_sim.calibration.experts import correction, expert_shapes, predict_benchmark
from hermes_sim.calibration.gemm import predict_measured, too_fast
from hermes_sim.calibration.links import LINKS
from hermes_sim.calibration.retrieval import KINDS as SEARCHED_KINDS
from hermes_sim.calibration.retrieval import predict_search
from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.collective_efficiency import CollectiveKind, KernelLibrary
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseKind
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency, ExpertFormat
from hermes_sim.hardware.fit_error import FitError
from hermes_sim.hardware.gemm_efficiency import GemmKernel
from hermes_sim.hardware.link import Link
from hermes_sim.perf.attention_layers import EAGER, FP8_MATH, attention_efficiency
from hermes_sim.perf.attention_residual import attention_residual
from hermes_sim.perf.coefficients import (
    BLOCK_SCALE_BYTES,
    gemm_efficiency,
    gemm_kernel,
    gemm_residual,
    supported_dtype,
)
from hermes_sim.perf.elementwise_coefficients import measured_coefficients
from hermes_sim.perf.expert_coefficients import PEAK_DTYPES, TRTLLM, expert_efficiency, plain_format
from hermes_sim.perf.operators.collective import all_reduce_seconds
from hermes_sim.perf.search_cost import search_efficiency
from hermes_sim.scenario.files import read_description
from hermes_sim.scenario.library import NotFound, find
from hermes_sim.validation.attention_kernels import decodes, kinds_of, mixed, prompts

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


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
        self.seconds[rows] = self.low[rows] = self.high[rows] = np.nan


PRODUCT_FORMATS: Final[dict[str, tuple[Dtype, float]]] = {
    "fp8_block": ("fp8", 1.0 + BLOCK_SCALE_BYTES), "w8a16": ("bf16", 1.0), "w4a16": ("bf16", 0.5),
}  # fmt: skip
"""Format that is no dtype -> what it multiplies in, bytes of a weight."""

HOST_TIME_FACTOR: Final = 5.0
"""Kernels of another library stand for a table only if its shortest product is not so many times longer than theirs."""

ROUTER_FACTOR: Final = 4.0
"""A router that takes so many times longer than its product is the choice of experts too, and several kernels."""


def _gemm(device: Device, table: pd.DataFrame) -> Predicted:
    found = Predicted.nothing(len(table))
    for (name, engine), rows in _groups(table, "dtype", "engine"):
        dtype, bytes_per_weight = PRODUCT_FORMATS.get(name, (cast(Dtype, name), DTYPE_BYTES.get(name, 0.0)))
        if dtype not in get_args(Dtype):
            found.refuse(rows, f"no model of a product in {name}")
        elif supported_dtype(device, dtype) is None:
            found.refuse(rows, f"the device multiplies neither {name} nor anything wider")
        else:
            library = cast(KernelLibrary, engine if engine in get_args(KernelLibrary) else "vllm")
            kernel = gemm_kernel(device, dtype, bytes_per_weight, library)
            if kernel is None and name in PRODUCT_FORMATS:
                found.refuse(rows, f"no model of a product in {name}")
                continue
            impossible = rows.copy()
            impossible[rows] = too_fast(device, dtype, table[rows], bytes_per_weight)
            found.refuse(impossible, "less than half the time that the peaks of the data sheet allow")
            rows = rows & ~impossible
            if not rows.any():
                continue
            seconds = predict_measured(device, dtype, table[rows], kernel)
            shortest_s = float(table["measured_s"][rows].min())
            is_foreign = kernel is not None and not kernel.startswith(f"{engine}_")
            if is_foreign and shortest_s > HOST_TIME_FACTOR * seconds.min():
                found.refuse(rows, f"no product takes less than {shortest_s * 1e6:.0f} us: launches from the host")
            else:
                found.put(rows, seconds, _gemm_band(device, dtype, kernel))
                routers = rows & (table["part"] == "router").to_numpy()
                whole = routers & (table["measured_s"].to_numpy() > ROUTER_FACTOR * found.seconds)
                found.refuse(whole, "a router's whole layer, several times as long as its product")
    return found


def _gemm_band(device: Device, dtype: Dtype, kernel: GemmKernel | None) -> FitError | None:
    """With the residual table, if its errors are stated, else by coefficients alone."""
    residual = gemm_residual(device, dtype, kernel)
    if residual is not None and residual.band is not None:
        return residual.band
    return gemm_efficiency(device, dtype, kernel).band


def _attention(calls: Calls, phase: str) -> Predictor:
    def predicted(device: Device, table: pd.DataFrame) -> Predicted:
        found = Predicted.nothing(len(table))
        known = table["kv_dtype"].isin(CACHE_DTYPES).to_numpy()
        found.refuse(~known, "no model of a cache in this dtype")
        if "num_kv_heads" in table:
            uneven = (table["num_heads"] % table["num_kv_heads"] != 0).to_numpy()
            found.refuse(uneven, "query heads are no multiple of key-value heads")
            known = known & ~uneven
        for (kernels, kv_dtype), rows in _groups(table.assign(kernels=_libraries(table)), "kernels", "kv_dtype"):
            rows = rows & known
            if rows.any():
                chosen = table[rows]
                if f"{kernels}_{kv_dtype}" in device.cost_model.attention_kernels and kernels.endswith(FP8_MATH):
                    chosen = chosen.assign(**{MATH: "fp8"})
                found.put(rows, calls(device, chosen, kernels), _attention_band(device, chosen, phase, kernels))
        return found

    return predicted


def _libraries(table: pd.DataFrame) -> pd.Series:
    """Engine of every row, and whether it was called one by one, or multiplied in fp8."""
    nothing = pd.Series("", index=table.index)
    eager, narrow = table.get("timing", nothing) == "device", table.get("dtype", nothing) == "fp8"
    engines = table["engine"].astype(str).replace("", "vllm")
    return engines + np.where(eager, EAGER, np.where(narrow, FP8_MATH, ""))


def _attention_band(device: Device, table: pd.DataFrame, phase: str, engine: str) -> FitError | None:
    """Rows of one engine and one dtype of the cache."""
    if not phase:
        return None
    layers = kinds_of(table.iloc[:1])[1][0]
    residual = attention_residual(layers, device, phase, engine)
    if residual is not None and residual.band is not None:
        return residual.band
    efficiency = attention_efficiency(layers, device, engine)
    return _band(getattr(efficiency, f"{phase}_in_sample"), getattr(efficiency, f"{phase}_held_out"))


def _groups(table: pd.DataFrame, first: str, second: str) -> Iterator[tuple[tuple[str, str], BoolArray]]:
    """Each combination of two texts, and its rows."""
    for names in table[[first, second]].drop_duplicates().itertuples(index=False, name=None):
        yield names, ((table[first] == names[0]) & (table[second] == names[1])).to_numpy()


def _experts(device: Device, table: pd.DataFrame) -> Predicted:
    found = Predicted.nothing(len(table))
    columns = ["num_tokens", "num_experts", "num_experts_per_token", "moe_ep", "distribution"]
    known = np.array([timed_rank(*row) is not None for row in table[columns].itertuples(index=False, name=None)], bool)
    found.refuse(~known, "no model of this distribution of tokens over experts")
    library = np.where(table["engine"] == "trtllm", TRTLLM, "")
    names = library + table["dtype"].astype(str).to_numpy(object) + table["kernel"].map(kernel_suffix).to_numpy(object)
    for name in sorted(set(names)):
        rows = (names == name) & known
        plain = plain_format(name)
        usual = f"{TRTLLM if name.startswith(TRTLLM) else ''}{plain}"
        form = name if name in device.cost_model.experts else usual
        efficiency = expert_efficiency(device, form) if plain in PEAK_DTYPES else None
        if efficiency is None or supported_dtype(device, PEAK_DTYPES[plain]) is None:
            found.refuse(rows, f"no coefficients of experts in {plain}")
        elif rows.any():
            _put_experts(found, rows, table, device, form, efficiency)
    return found


def _put_experts(
    found: Predicted, rows: BoolArray, table: pd.DataFrame, device: Device, form: str, efficiency: ExpertEfficiency
) -> None:
    """Layers of one format, as the benchmark saw them; the residual table only beside the format's own coefficients."""
    shapes = expert_shapes(table[rows])
    counted = table["num_active_experts"].to_numpy(np.float64)[rows]
    shapes[:, ACTIVE_EXPERTS] = np.where(np.isfinite(counted), counted, shapes[:, ACTIVE_EXPERTS])
    if efficiency.in_sample is None:  # of another device, whose cache is another
        efficiency = efficiency.model_copy(update={"benchmark_warm_bytes": 0.0})
    seconds = predict_benchmark(device, form, efficiency, shapes)
    own = device.cost_model.experts.get(cast(ExpertFormat, form))
    residual = device.residuals.experts.get(form) if device.residuals and own is not None else None
    band = _band(own.in_sample, own.held_out) if own is not None else None
    if residual is not None:
        seconds = seconds * np.exp(correction(residual, table[rows]))
        band = _band(residual.in_sample, residual.held_out) or band
    found.put(rows, seconds, band)


def _stream(device: Device, table: pd.DataFrame) -> Predicted:
    found = Predicted.nothing(len(table))
    for name in table["kernel"].unique():
        rows = (table["kernel"] == name).to_numpy()
        kind = STREAMS.get(str(name))
        efficiency = device.cost_model.elementwise.get(kind) if kind is not None else None
        if efficiency is not None:
            band = _band(efficiency.in_sample, efficiency.held_out)
            found.put(rows, predict_elementwise(device, efficiency, table[rows]), band)
        else:
            found.put(rows, predict_stream(measured_coefficients(device, kind), table[rows]))
    return found


def _retrieval(device: Device, table: pd.DataFrame) -> Predicted:
    found = Predicted.nothing(len(table))
    known = table["index"].isin(SEARCHED_KINDS).to_numpy()
    found.refuse(~known, "no model of this kind of index")
    if device.kind != "cpu":
        found.refuse(known, "searches of accelerators are judged, not modelled by measurements")
        return found
    if known.any():
        efficiency = search_efficiency(device)
        band = _band(efficiency.in_sample, efficiency.held_out)
        found.put(known, predict_search(device, efficiency, table[known]), band)
    return found


def _collective(kind: CollectiveKind | None) -> Predictor:
    """None: a message between two devices."""

    def predicted(device: Device, table: pd.DataFrame) -> Predicted:
        link = _link(device)
        if link is None:
            return Predicted.nothing(len(table), f"no link inside a node of {device.name} is known")
        found = Predicted.nothing(len(table))
        inside = (table["devices_per_node"] >= table["num_devices"]).to_numpy()
        found.refuse(~inside, "across nodes: the links between them are not stated")
        pairs = (table["topology"] == PAIRS).to_numpy()
        mixed = pairs & (table["num_devices"] > PAIR).to_numpy()
        if kind is None:
            for rows, joined in ((inside & ~pairs, link), (inside & pairs, _bridge(device))):
                if joined is not None:
                    reached = joined.bandwidth_bytes_per_s * joined.efficiency_frac
                    found.put(rows, joined.latency_s + table["num_bytes"].to_numpy(np.float64)[rows] / reached)
                else:
                    found.refuse(rows, f"no link between two boards of {device.name} is known")
            return found
        _put_mixed(found, inside & mixed, table, device, link, kind)
        for library, timing in dict.fromkeys(zip(table["library"], table["timing"], strict=True)):
            rows = (inside & ~mixed) & ((table["library"] == library) & (table["timing"] == timing)).to_numpy()
            for here, joined in ((rows & pairs, _bridged(device, link)), (rows & ~pairs, link)):
                if here.any():
                    _put_collective(found, here, table, joined, cast(KernelLibrary, str(library)), kind)
        return found

    return predicted


def _put_collective(
    found: Predicted, rows: BoolArray, table: pd.DataFrame, link: Link, library: KernelLibrary, kind: CollectiveKind
) -> None:
    """By the library's own coefficients, else NCCL's, as an engine falls back to. Rows of one timing."""
    efficiency = next(
        (own for name in (library, NCCL) if (own := link.collectives.get(name, {}).get(kind)) is not None), None
    )
    if efficiency is None:
        found.refuse(rows, f"no coefficients of {kind} over {link.name}")
    elif table["timing"][rows].iloc[0] != "eager":
        seconds = predict_collective(kind, link.bandwidth_bytes_per_s, efficiency, table[rows])
        found.put(rows, seconds, _band(efficiency.in_sample, efficiency.held_out))
    elif efficiency.eager_launch_s == 0.0:
        found.refuse(rows, f"no {kind} of {library} launched one by one was measured over {link.name}")
    else:
        seconds = predict_eager(kind, link.bandwidth_bytes_per_s, efficiency, table[rows])
        found.put(rows, seconds, _band(efficiency.eager_in_sample, efficiency.eager_held_out))


def _put_mixed(
    found: Predicted, rows: BoolArray, table: pd.DataFrame, device: Device, link: Link, kind: CollectiveKind
) -> None:
    """Pairs of devices joined by bridges, the pairs by the links to the host: the slowest hop of a ring counts.

    No call is shorter than the host takes, which has nothing to do with the links.
    """
    name = HOST_LINKS.get(device.name)
    if kind != "all_reduce" or name is None:
        found.refuse(rows, "devices linked in pairs, the rest over the host: the path is not stated")
        return
    host = read_description(Link, find("link", name))
    num_bytes, num_devices = table["num_bytes"].to_numpy(np.float64), table["num_devices"].to_numpy(np.int64)
    nccl = link.collectives.get(NCCL, {}).get(kind)
    eager_s = np.where(table["timing"] == "eager", nccl.eager_launch_s if nccl is not None else 0.0, 0.0)
    reached_bytes_per_s = host.bandwidth_bytes_per_s * host.efficiency_frac
    for row in np.flatnonzero(rows):
        round_s = 2.0 * (num_devices[row] - 1.0) * host.latency_s  # each step of a ring: up to the root and down again
        device_s = all_reduce_seconds(num_bytes[row], num_devices[row], reached_bytes_per_s, round_s)
        found.seconds[row] = max(device_s, float(eager_s[row]))
    found.reason[rows] = ""


def _bridge(device: Device) -> Link | None:
    """Between the two boards of a pair."""
    name = BRIDGES.get(device.name)
    return None if name is None else read_description(Link, find("link", name))


def _bridged(device: Device, link: Link) -> Link:
    """Collectives of a pair: as fitted to the ports of a switch, at the bandwidth of the bridge."""
    bridge = _bridge(device) or link
    return link.model_copy(update={"bandwidth_bytes_per_s": bridge.bandwidth_bytes_per_s})


def _band(in_sample: FitError | None, held_out: FitError | None) -> FitError | None:
    """Of the fitted rows, so that rows kept out put it to the test."""
    return in_sample or held_out


def _link(device: Device) -> Link | None:
    """Between devices of one node, as the shipped clusters link them."""
    name = NODE_LINKS.get(device.name)
    try:
        return None if name is None else read_description(Link, find("link", name))
    except NotFound:
        return None


Predictor = Callable[[Device, pd.DataFrame], Predicted]
Calls = Callable[[Device, pd.DataFrame, str], FloatArray]
"""Seconds of rows of one engine."""
ACTIVE_EXPERTS: Final = 6
"""Column of `expert_shapes`."""
CACHE_DTYPES: Final = ("bf16", "fp16", "fp8")
NCCL: Final[KernelLibrary] = "nccl"
NODE_LINKS: Final[Mapping[str, str]] = {
    **{device: link for device, (link, *_) in LINKS.items()},
    "h200_sxm": "nvlink4",
    "a100_sxm_40gb": "nvlink3",
}
"""Device -> the link between devices of one node that the shipped clusters use."""
HOST_LINKS: Final = {"a100_sxm_80gb": "pcie4_x16", "h100_sxm": "pcie5_x16"}
"""Device -> what its boards have to the host."""
BRIDGES: Final = {"a100_sxm_80gb": "nvlink3_bridge_hbm", "h100_sxm": "nvlink3_bridge_hbm"}
"""Device -> what joins two boards of its chip in PCI Express slots."""
PAIRS: Final = "nvlink_pairs"
PAIR: Final = 2
STREAMS: Final[Mapping[str, ElementwiseKind]] = {
    **{kind: kind for kind in get_args(ElementwiseKind)},
    "layernorm": "norm", "add": "residual_add", "gelu": "activation",
}  # fmt: skip
"""Name of a measured stream -> kind of kernel; others are streams of no special kind."""
PREDICTORS: Final[dict[str, Predictor]] = {
    "gemm": _gemm,
    "attention_prefill": _attention(prompts, "prefill"),
    "attention_decode": _attention(decodes, "decode"),
    "attention_mixed": _attention(mixed, ""),
    "mla_prefill": _attention(prompts, "prefill"),
    "mla_decode": _attention(decodes, "decode"),
    "moe": _experts,
    "all_reduce": _collective("all_reduce"),
    "all_gather": _collective("all_gather"),
    "reduce_scatter": _collective("reduce_scatter"),
    "all_to_all": _collective("all_to_all"),
    "send": _collective(None),
    "stream": _stream,
    "retrieval": _retrieval,
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
