"""Coefficients of the matrix-multiply model from a measured table of shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.bands import left_out_errors
from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, fit_error, summarize, thin
from hermes_sim.calibration.residual import NUM_FOLDS, fit_residual, shape_folds
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.device_class import DeviceClass
from hermes_sim.hardware.fit_error import FitError
from hermes_sim.hardware.gemm_efficiency import GemmDispatch, GemmEfficiency, GemmKernel
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.perf.coefficients import gemm_efficiency, gemm_table, peak_flops_per_s
from hermes_sim.perf.operators.gemm import LAUNCH_S, corrected_gemm_seconds
from hermes_sim.perf.residual import residuals_at

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

ACTIVATION_BYTES = 2.0
"""Inputs arrive and outputs leave in bf16, whatever the multiply's dtype."""

KERNEL_DTYPES: Final[dict[GemmKernel, Dtype]] = {
    "trtllm_bf16": "bf16",
    "trtllm_fp8": "fp8",
    "trtllm_fp8_block": "fp8",
    "trtllm_fp4": "fp4",
    "trtllm_int8": "int8",
    "trtllm_w8a16": "bf16",
    "trtllm_w4a16": "bf16",
}
"""Kernel -> the dtype it multiplies in."""

KERNEL_WEIGHT_BYTES: Final[dict[GemmKernel, float]] = {
    "trtllm_fp8_block": 1.0 + 4.0 / 128**2,
    "trtllm_fp4": 0.5 + 1.0 / 16,
    "trtllm_w8a16": 1.0,
    "trtllm_w4a16": 0.5,
}
"""Of one weight with its share of the scales, where it is not that of the dtype; one scale a column counts as none."""

DYNAMIC_SCALE: Final[GemmKernel] = "trtllm_fp8"
"""Measured with inputs whose scale is found first, over all of them; checkpoints for TensorRT-LLM state it.
Source: AIConfigurator, collector/trtllm/collect_gemm.py, which gives the layer no input scale."""

KERNEL_LAUNCH: Final = Coefficient("launch_s", 5e-6, 5e-7, 3e-5, 1e-6)
"""A product with the kernels that quantise its input may be several launches."""

WARM: Final = (
    Coefficient("benchmark_warm_frac", 0.15, 0.01, 1.0, 0.1),
    Coefficient("benchmark_warm_cost", 0.5, 0.1, 1.0),
)
"""The benchmark repeats a few equal products in turn: weights of which all fit the cache stay there. Stated with the
coefficients, but not part of the serving model."""

COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("compute_frac", 0.85, 0.3, 1.0),
    Coefficient("memory_frac", 0.9, 0.4, 1.0),
    Coefficient("launch_s", 2.5e-6, 5e-7, 1e-5, 1e-6),
    Coefficient("prologue_elements", 200.0, 0.0, 2000.0, 100.0),
    Coefficient("wave_frac", 0.3, 0.0, 1.0),
    Coefficient("serial_frac", 0.2, 0.0, 1.0),
    Coefficient("core_streams", 2.5, 1.0, 16.0),
    Coefficient("depth_s", 9e-10, 0.0, 1e-8, 1e-9),
    Coefficient("cache_speedup", 1.8, 1.0, 8.0),
    Coefficient("cache_frac", 0.5, 0.05, 1.0),
    Coefficient("operand_speedup", 4.0, 1.0, 12.0),
    Coefficient("write_frac", 0.85, 0.3, 1.0),
    Coefficient("ramp_s", 4e-7, 0.0, 1e-5, 1e-6),
)
SPLIT: Final = Coefficient("split_s", 2e-6, 0.0, 2e-5, 1e-6)
"""Where the library splits sums."""
QUANTIZE_COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("quantize_row_s", 5e-9, 0.0, 2e-8, 1e-9),
    Coefficient("quantize_element_s", 1e-12, 0.0, 2e-11, 1e-12),
)

CUTLASS: Final[dict[DeviceClass, GemmDispatch]] = {
    "datacenter_hopper": "rows_sm90",
    "datacenter_ada": "rows_sm89",
    "consumer_ada": "rows_sm89",
    "datacenter_blackwell": "rows_sm100",
}
"""Who may choose the tile of a narrow dtype, beside the library's best choice; what fits better stays."""
BLOCKS: Final[dict[DeviceClass, GemmDispatch]] = {"datacenter_ada": "blocks_sm89", "consumer_ada": "blocks_sm89"}
"""The same of fp8 in blocks by TensorRT-LLM."""

ROW_KNOTS: Final = (
    1, 2, 4, 8, 16, 32, 64, 96, 128, 129, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 32768,
)  # fmt: skip
"""Rows where kernels change tiles."""
RESIDUAL_GRIDS: Final[tuple[dict[str, tuple[float, ...]], ...]] = (
    {
        "m": ROW_KNOTS,
        "n": (32, 128, 512, 1024, 2048, 4096, 8192, 16384, 65536),
        "k": (32, 128, 512, 1024, 2048, 4096, 8192, 16384, 65536),
    },
    {
        "m": ROW_KNOTS,
        "n": (32, 64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768, 65536),
        "k": (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
    },
)
"""Knots of a table, coarse or fine in outputs and depths; what serves shapes left out better stays."""


FASTEST_FACTOR: Final = 2.0
"""How much faster than the data sheet allows a measured product may seem: boosted clocks, rounded times."""

FEWEST_CORRECTED_SHAPES: Final = 20
"""(n, k) shapes without which a table would know those of a few models only."""


MOST_LEFT_OUT: Final = 100
"""(n, k) shapes up to which each of them pulls at the coefficients, so that errors on them say too little."""


@dataclass(frozen=True, slots=True)
class GemmFit:
    """What one table of products gives, with errors on the shapes it saw and on those it did not."""

    efficiency: GemmEfficiency
    fitted: ErrorSummary
    held_out: ErrorSummary
    residual: ResidualTable | None
    """None where it would not help unseen shapes."""
    corrected_fitted: ErrorSummary
    """With the residual table."""
    corrected_held_out: ErrorSummary


def fit_gemm(
    device: Device, dtype: Dtype, table: pd.DataFrame, kernel: GemmKernel | None = None, *, repeated: bool = True
) -> GemmFit:
    """Coefficients, then the table of what they leave, both from the fitted (n, k) shapes alone.

    repeated: whether the benchmark calls one product again and again, rather than all of a layer in turn.
    """
    efficiency = _fit_coefficients(device, dtype, table, kernel, repeated)
    analytic_s = _predict_analytic(device, dtype, efficiency, table, kernel)
    residual = fit_gemm_residual(table, analytic_s)
    corrected_s = analytic_s
    if residual is not None:
        log_ratios, _ = residuals_at(residual, {name: table[name].to_numpy() for name in residual.axes})
        corrected_s = analytic_s * np.exp(log_ratios)
    left_out = _left_out(device, dtype, table[~held_out(table["n"], table["k"])], kernel, repeated)
    efficiency = efficiency.model_copy(update={"left_out": left_out})
    return GemmFit(efficiency, *_errors(analytic_s, table), residual, *_errors(corrected_s, table))


def without_dynamic_scale(efficiency: GemmEfficiency, plain: GemmEfficiency) -> GemmEfficiency:
    """The launch parted into what serving has, two kernels (one quantises, one multiplies), and what it is spared.

    plain: of the same engine's products that quantise nothing, whose launch is that of one kernel.
    """
    served_s = min(2.0 * plain.launch_s, efficiency.launch_s)
    spared_s = float(f"{efficiency.launch_s - served_s:.4g}")
    return efficiency.model_copy(update={"launch_s": served_s, "dynamic_scale_s": spared_s})


def fit_gemm_residual(table: pd.DataFrame, analytic_s: FloatArray) -> ResidualTable | None:
    """Table of measured over analytic time from the fitted (n, k) shapes; None where it would not help others."""
    fitted = ~held_out(table["n"], table["k"])
    rows = table[fitted]
    if len(rows[["n", "k"]].drop_duplicates()) < FEWEST_CORRECTED_SHAPES:
        return None
    log_ratio = np.log(rows["measured_s"].to_numpy() / analytic_s[fitted])
    features = {name: rows[name].to_numpy() for name in ("m", "n", "k")}
    shapes = rows.groupby(["n", "k"]).ngroup()
    found = (fit_residual(features, log_ratio, grid, shapes) for grid in RESIDUAL_GRIDS)
    return min((table for table in found if table is not None), key=lambda table: table.after_frac or 0.0, default=None)


def _fit_coefficients(
    device: Device, dtype: Dtype, table: pd.DataFrame, kernel: GemmKernel | None, repeated: bool
) -> GemmEfficiency:
    """Coefficients, with the dispatch that fits better."""
    rows = table[thin(~held_out(table["n"], table["k"]))]
    measured_s = rows["measured_s"].to_numpy()
    is_narrow = DTYPE_BYTES[dtype] < 2.0
    dispatches: list[GemmDispatch] = ["best"]
    others = CUTLASS if is_narrow and kernel is None else BLOCKS if kernel == "trtllm_fp8_block" else {}
    if device.device_class in others:
        dispatches.append(others[device.device_class])
    found: list[tuple[float, int, GemmEfficiency]] = []
    for dispatch in dispatches:
        coefficients = (
            *(KERNEL_LAUNCH if one.name == KERNEL_LAUNCH.name and kernel else one for one in COEFFICIENTS),
            *(WARM if repeated and device.cache is not None else ()),
            *((SPLIT,) if dispatch == "best" else ()),
            *(QUANTIZE_COEFFICIENTS if is_narrow else ()),
        )

        def predict(values: dict[str, float], dispatch: GemmDispatch = dispatch) -> FloatArray:
            return _predict_analytic(device, dtype, _efficiency(values, dispatch), rows, kernel)

        values = fit_coefficients(coefficients, predict, measured_s)
        error = summarize(predict(values), measured_s).mean_frac
        found.append((error, len(found), _efficiency(values, dispatch)))
    return min(found)[2]


def _left_out(
    device: Device, dtype: Dtype, rows: pd.DataFrame, kernel: GemmKernel | None, repeated: bool
) -> FitError | None:
    """Errors of shapes by coefficients fitted without them; None where so many were measured that none of them counts.

    rows: of the fitted side.
    """
    shapes = rows.groupby(["n", "k"]).ngroup().to_numpy()
    num_shapes = int(shapes.max()) + 1
    if not NUM_FOLDS <= num_shapes <= MOST_LEFT_OUT:
        return None
    folds, log_errors = shape_folds(shapes), np.zeros(len(rows))
    for fold in np.unique(folds):
        out = folds == fold
        efficiency = _fit_coefficients(device, dtype, rows[~out], kernel, repeated)
        predicted_s = _predict_analytic(device, dtype, efficiency, rows[out], kernel)
        log_errors[out] = np.log(rows["measured_s"].to_numpy()[out] / predicted_s)
    return fit_error(left_out_errors(log_errors, num_shapes))


def _errors(predicted_s: FloatArray, table: pd.DataFrame) -> tuple[ErrorSummary, ErrorSummary]:
    held, measured_s = held_out(table["n"], table["k"]), table["measured_s"].to_numpy()
    return summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])


def predict_gemm(
    device: Device, dtype: Dtype, table: pd.DataFrame, kernel: GemmKernel | None = None, *, benchmark: bool = False
) -> FloatArray:
    """Seconds of every row of m, n, k, residual table included where the device has one.

    benchmark: as measured by one that repeats each product, where small weights come from the cache.
    kernel: one with coefficients of its own.
    """
    m, n, k = (table[name].to_numpy(np.float64) for name in ("m", "n", "k"))
    return predict_shapes(device, dtype, m, n, k, kernel, benchmark=benchmark)


def predict_measured(device: Device, dtype: Dtype, table: pd.DataFrame, kernel: GemmKernel | None = None) -> FloatArray:
    """The same, each row as it was measured, by its column timing.

    A graph holds one product many times, which finds small weights in the cache; the products of a layer, called in
    turn, all find theirs in memory, as in a server.
    """
    repeated = (table["timing"] == "graph").to_numpy()
    found = np.empty(len(table))
    for rows, benchmark in ((repeated, True), (~repeated, False)):
        if rows.any():
            found[rows] = predict_gemm(device, dtype, table[rows], kernel, benchmark=benchmark)
    return found


def too_fast(device: Device, dtype: Dtype, table: pd.DataFrame, bytes_per_weight: float) -> BoolArray:
    """Rows that no device of this data sheet can do in the measured time, by a factor of two: no time of a product.

    Either the FLOPs at the dense peak take longer, or streaming weights that no cache holds.
    """
    m, n, k, measured_s = (table[name].to_numpy(np.float64) for name in ("m", "n", "k", "measured_s"))
    compute_s = 2.0 * m * n * k / peak_flops_per_s(device, dtype)
    cache_bytes = device.cache.capacity_bytes if device.cache else 0.0
    memory_s = (bytes_per_weight * n * k - cache_bytes) / device.memory.bandwidth_bytes_per_s
    return np.asarray(FASTEST_FACTOR * measured_s < np.maximum(compute_s, memory_s))


def predict_shapes(
    device: Device,
    dtype: Dtype,
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    kernel: GemmKernel | None = None,
    *,
    benchmark: bool = False,
) -> FloatArray:
    """The same, for shapes as arrays."""
    coefficients = gemm_table(device, [(dtype, kernel)], benchmark=benchmark)[0]
    if kernel is not None:
        coefficients[LAUNCH_S] += gemm_efficiency(device, dtype, kernel).dynamic_scale_s
    out = np.empty(len(m))
    weight_bytes = DTYPE_BYTES[dtype] if kernel is None else KERNEL_WEIGHT_BYTES.get(kernel, DTYPE_BYTES[dtype])
    _fill(m, n, k, weight_bytes, ACTIVATION_BYTES, coefficients, out)
    return out


@compiled
def _fill(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    weight_bytes: float,
    activation_bytes: float,
    coefficients: FloatArray,
    out: FloatArray,
) -> None:
    for row in range(len(m)):
        out[row] = corrected_gemm_seconds(
            m[row], n[row], k[row], weight_bytes * n[row] * k[row], activation_bytes * m[row] * (n[row] + k[row]),
            coefficients,
        )[0]  # fmt: skip


def _predict_analytic(
    device: Device, dtype: Dtype, efficiency: GemmEfficiency, table: pd.DataFrame, kernel: GemmKernel | None
) -> FloatArray:
    """As the benchmark saw it, by coefficients alone."""
    update = {"gemm": {dtype: efficiency}} if kernel is None else {"gemm_kernels": {kernel: efficiency}}
    cost_model = device.cost_model.model_copy(update=update)
    analytic = device.model_copy(update={"cost_model": cost_model, "residuals": None})
    return predict_gemm(analytic, dtype, table, kernel, benchmark=True)


def _efficiency(values: dict[str, float], dispatch: GemmDispatch) -> GemmEfficiency:
    """From base units, without the checks of a file: the optimiser tries thousands."""
    known: dict[str, Any] = {name: value for name, value in values.items() if name in GemmEfficiency.model_fields}
    return GemmEfficiency.model_construct(**known, dispatch=dispatch)
