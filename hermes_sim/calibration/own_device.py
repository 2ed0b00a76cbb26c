"""Coefficients of one's own device from one's own tables, however few points they have.

Each kernel keeps the form and the coefficients of the device's file (or of its class) as far as the points do not say
otherwise: calibration/few_points.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration import attention, elementwise, gemm
from hermes_sim.calibration.few_points import FewPointsFit, IntArray, fit_few_points
from hermes_sim.calibration.fit import Coefficient, fit_error
from hermes_sim.calibration.layered_devices import STREAMS
from hermes_sim.core.schema import DTYPE_BYTES, Dtype, Source
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency, ElementwiseKind
from hermes_sim.hardware.fit_error import FitError
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency
from hermes_sim.perf.coefficients import gemm_efficiency, supported_dtype

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

FEWEST_POINTS: Final = 3

BENCHMARK: Final = {"benchmark_cache_frac", "benchmark_cache_speedup"}
"""What only says how a benchmark finds its operands in a cache."""


@dataclass(frozen=True, slots=True)
class OwnFit:
    """What the points of one kernel say."""

    kernel: str
    fit: FewPointsFit
    measured_s: FloatArray
    before_s: FloatArray
    predicted_s: FloatArray


@dataclass(frozen=True, slots=True)
class OwnCalibration:
    """A device's cost model after its own measurements."""

    device: Device
    """With that cost model."""
    fits: tuple[OwnFit, ...]
    left_out: tuple[str, ...]
    """Kernels of the tables that say nothing here, and why."""

    @property
    def cost_model(self) -> CostModel:
        """What goes into the device's file."""
        return self.device.cost_model

    @property
    def errors(self) -> pd.DataFrame:
        """A row per kernel and side: before; left out (of shapes that were not measured); fitted (the points)."""
        sides = (
            (one.kernel, side, errors)
            for one in self.fits
            for side, errors in (("before", one.fit.before), ("left out", one.fit.left_out), ("fitted", one.fit.after))
        )
        columns = ("median_frac", "mean_frac", "p90_frac", "bias_frac", "num_points")
        rows = [(kernel, side, *(getattr(errors, name) for name in columns)) for kernel, side, errors in sides]
        return pd.DataFrame(rows, columns=["kernel", "side", *columns]).set_index(["kernel", "side"])

    def plot(self) -> Figure:
        """Predicted against measured times, a panel a kernel."""
        from hermes_sim.calibration.fit_figure import draw_fits

        return draw_fits(self.fits)


def calibrate_own(device: Device, tables: Mapping[str, pd.DataFrame], files: str) -> OwnCalibration:
    """Better coefficients of every kernel with at least three points; tables in the public format.

    files: what the cost model names as its source. The tables are taken for what a benchmark sees that repeats a call:
    small operands may come from a cache.
    """
    analytic = device.model_copy(update={"residuals": None})
    cost_model, fits, left_out = device.cost_model, [], []
    for operator, table in tables.items():
        if operator not in FITS:
            left_out.append(f"{operator}: {len(table)} points, no fit for a single device")
            continue
        for kernel, rows in KERNELS[operator](table):
            why = _useless(analytic, kernel, rows)
            if why:
                left_out.append(f"{operator} {kernel}: {why}")
                continue
            found, update = FITS[operator](analytic, kernel, rows)
            fits.append(found)
            cost_model = update(cost_model)
    if fits:
        num_points = sum(len(fit.measured_s) for fit in fits)
        kernels = ", ".join(fit.kernel for fit in fits)
        where = f"{num_points} points of {files} for {kernels}; before: {device.cost_model.source.title}"
        source = Source(title="Fitted to own measurements", where=where, kind="fitted")
        cost_model = cost_model.model_copy(update={"source": source})
    better = device.model_copy(update={"cost_model": cost_model})
    return OwnCalibration(better, tuple(fits), tuple(left_out))


def _useless(device: Device, kernel: str, rows: pd.DataFrame) -> str:
    if len(rows) < FEWEST_POINTS:
        return f"{len(rows)} points, at least {FEWEST_POINTS} are needed"
    if kernel in STREAMS.values() or (kernel in get_args(Dtype) and supported_dtype(device, cast(Dtype, kernel))):
        return ""
    return f"the device has no {kernel}" if kernel in get_args(Dtype) else f"no model of {kernel}"


def _gemm(device: Device, dtype: str, rows: pd.DataFrame) -> tuple[OwnFit, Callable[[CostModel], CostModel]]:
    own = cast(Dtype, dtype)
    before = gemm_efficiency(device, own)
    quantize = gemm.QUANTIZE_COEFFICIENTS if DTYPE_BYTES[own] < 2.0 else ()
    coefficients = (*gemm.COEFFICIENTS, *quantize, *gemm.WARM)
    start = _start(coefficients, before)

    shapes = [rows[name].to_numpy(np.float64) for name in ("m", "n", "k")]

    def predict(values: Mapping[str, float], chosen: IntArray) -> FloatArray:
        efficiency = GemmEfficiency.model_construct(**_own(values), dispatch=before.dispatch)
        cost_model = device.cost_model.model_copy(update={"gemm": {own: efficiency}})
        priced = device.model_copy(update={"cost_model": cost_model})
        m, n, k = (column[chosen] for column in shapes)
        return gemm.predict_shapes(priced, own, m, n, k, benchmark=True)

    found = _fitted(f"gemm {dtype}", coefficients, start, predict, rows)
    efficiency = before.model_copy(update={**_own(found.fit.values), **_errors(found.fit)})
    return found, lambda cost: cost.model_copy(update={"gemm": {**cost.gemm, own: efficiency}})


def _attention(phase: str) -> Callable[[Device, str, pd.DataFrame], tuple[OwnFit, Callable[[CostModel], CostModel]]]:
    every = attention.DECODE_COEFFICIENTS if phase == "decode" else attention.PREFILL_COEFFICIENTS
    price: Any = attention.predict_decode if phase == "decode" else attention.predict_prefill

    def fit(device: Device, dtype: str, rows: pd.DataFrame) -> tuple[OwnFit, Callable[[CostModel], CostModel]]:
        before = _whole(device.cost_model)
        start = _start(every, before)
        kinds = [attention.layer_kinds(rows.iloc[[row]], attention.layers_of_heads) for row in range(len(rows))]

        def predict(values: Mapping[str, float], chosen: IntArray) -> FloatArray:
            efficiency = before.model_copy(update=dict(values))
            places = np.arange(len(chosen))
            layers = (places, [kinds[row][1][0] for row in chosen])
            return cast(FloatArray, price(device, rows.iloc[chosen], efficiency, kinds=layers))

        found = _fitted(f"attention {phase} {dtype}", every, start, predict, rows)
        errors = {f"{phase}_{side}": error for side, error in _errors(found.fit).items()}
        values = {**found.fit.values, **errors}

        def update(cost: CostModel) -> CostModel:
            fitted = _whole(cost).model_copy(update=values)
            shares = {
                "attention_prefill_compute_frac": fitted.prefill_compute_frac,
                "attention_decode_memory_frac": fitted.decode_memory_frac,
            }
            return cost.model_copy(update={"attention": fitted, **shares})

        return found, update

    return fit


def _whole(cost: CostModel) -> AttentionEfficiency:
    """The default kernels with the two shares that are stated beside them."""
    stated = {
        "prefill_compute_frac": cost.attention.prefill_compute_frac or cost.attention_prefill_compute_frac,
        "decode_memory_frac": cost.attention.decode_memory_frac or cost.attention_decode_memory_frac,
    }
    return cost.attention.model_copy(update=stated)


def _stream(device: Device, kind: str, rows: pd.DataFrame) -> tuple[OwnFit, Callable[[CostModel], CostModel]]:
    own, cost_model = cast(ElementwiseKind, kind), device.cost_model
    before = cost_model.elementwise.get(own) or ElementwiseEfficiency(
        launch=cost_model.elementwise_launch_s, memory_frac=cost_model.elementwise_memory_frac
    )
    start = _start(elementwise.COEFFICIENTS, before)

    def predict(values: Mapping[str, float], chosen: IntArray) -> FloatArray:
        named: dict[str, Any] = dict(values)
        return elementwise.predict_elementwise(
            device, ElementwiseEfficiency.model_construct(**named), rows.iloc[chosen]
        )

    found = _fitted(f"stream {kind}", elementwise.COEFFICIENTS, start, predict, rows)
    efficiency = before.model_copy(update={**found.fit.values, **_errors(found.fit)})
    return found, lambda cost: cost.model_copy(update={"elementwise": {**cost.elementwise, own: efficiency}})


def _fitted(
    kernel: str,
    coefficients: tuple[Coefficient, ...],
    start: dict[str, float],
    predict: Callable[[dict[str, float], IntArray], FloatArray],
    rows: pd.DataFrame,
) -> OwnFit:
    measured_s = rows["measured_s"].to_numpy(np.float64)
    every = np.arange(len(rows))
    fit = fit_few_points(coefficients, start, predict, measured_s)
    return OwnFit(kernel, fit, measured_s, predict(start, every), predict(fit.values, every))


def _start(coefficients: tuple[Coefficient, ...], efficiency: object) -> dict[str, float]:
    """Where the coefficients are now, within their bounds; a benchmark's own where a fit would start."""
    values = {}
    for coefficient in coefficients:
        stated = getattr(efficiency, coefficient.name, None)
        value = coefficient.start if stated is None else float(stated)
        values[coefficient.name] = min(max(value, coefficient.lower), coefficient.upper)
    return values


def _own(values: Mapping[str, float]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in BENCHMARK}


def _errors(fit: FewPointsFit) -> dict[str, FitError]:
    """In sample: on the points themselves; held out: on points that were left out in turn."""
    return {"in_sample": fit_error(fit.after), "held_out": fit_error(fit.left_out)}


def _by_dtype(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    plain = table.assign(dtype=table["dtype"].astype(str).replace("fp16", "bf16"))
    if "kv_dtype" in plain:  # kernels of another cache are none of the default ones
        plain = plain[plain["kv_dtype"].astype(str).isin(["bf16", "fp16"])]
    return [(str(dtype), rows.reset_index(drop=True)) for dtype, rows in plain.groupby("dtype")]


def _by_kind(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    kinds = table["kernel"].astype(str).map(lambda kernel: STREAMS.get(kernel, kernel))
    return [(str(kind), rows.reset_index(drop=True)) for kind, rows in table.groupby(kinds)]


Fit = Callable[[Device, str, pd.DataFrame], tuple[OwnFit, Callable[[CostModel], CostModel]]]
FITS: Final[dict[str, Fit]] = {
    "gemm": _gemm,
    "attention_decode": _attention("decode"),
    "attention_prefill": _attention("prefill"),
    "stream": _stream,
}
KERNELS: Final[dict[str, Callable[[pd.DataFrame], list[tuple[str, pd.DataFrame]]]]] = {
    "gemm": _by_dtype,
    "attention_decode": _by_dtype,
    "attention_prefill": _by_dtype,
    "stream": _by_kind,
}
"""Operator -> its table in parts that have coefficients of their own."""
