"""Coefficients of layers of experts from measured ones, per format of the experts and library of kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.expert_draws import timed_rank
from hermes_sim.calibration.expert_tables import ALWAYS_GATED, SHAPE, UNGATED
from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize, thin
from hermes_sim.calibration.residual import fit_residual, octave_knots
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.perf.coefficients import peak_flops_per_s
from hermes_sim.perf.expert_coefficients import PEAK_DTYPES, pack, plain_format
from hermes_sim.perf.operators.experts import expert_stream_seconds, grouped_product_seconds, passed_rows
from hermes_sim.perf.residual import residuals_at

FloatArray = npt.NDArray[np.float64]

ACTIVATION_BYTES: Final = 2.0
WEIGHT_BYTES: Final[dict[str, float]] = {
    "bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0 + 4.0 / 128**2, "fp4": 0.5 + 1.0 / 16, "mxfp4": 0.5 + 1.0 / 32,
    "w4a16": 0.5 + 2.0 / 128, "w4a8": 0.5 + 1.0 / 32,
}  # fmt: skip
"""Bytes of one weight with its share of the scales."""

COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("launch_s", 3e-5, 1e-6, 2e-4, 1e-5),
    Coefficient("compute_frac", 0.6, 0.05, 1.0),
    Coefficient("memory_frac", 0.8, 0.2, 1.0),
    Coefficient("half_rate_rows", 16.0, 0.0, 256.0, 16.0),
    Coefficient("wave_frac", 0.3, 0.0, 1.0),
    Coefficient("serial_frac", 0.2, 0.0, 1.0),
    Coefficient("depth_s", 2e-9, 0.0, 1e-7, 1e-9),
    Coefficient("away_frac", 0.3, 0.0, 1.0),
    Coefficient("stream_frac", 0.5, 0.05, 1.0),
    Coefficient("token_s", 1e-9, 0.0, 1e-7, 1e-8),
    Coefficient("expert_s", 1e-9, 0.0, 1e-6, 1e-7),
    Coefficient("cache_speedup", 1.5, 1.0, 8.0),
)
RESIDUAL_GRIDS: Final[tuple[dict[str, float], ...]] = (
    {"tokens": 0.5, "active": 0.5, "width": 0.5, "hidden": 0.5},
    {"tokens": 0.5, "active": 0.5, "width": 1.0, "hidden": 1.0},
    {"tokens": 1.0, "active": 0.5, "width": 0.5, "hidden": 0.5},
    {"tokens": 0.35, "active": 1.0, "width": 0.5, "hidden": 1.0},
)
"""Grids to choose a residual table from: axis -> knots per octave."""

LARGEST_WARM: Final = 1.1
"""In last-level caches: larger layers come from memory."""


@dataclass(frozen=True, slots=True)
class ExpertFit:
    """What one table of layers of experts gives, with errors on the shapes it saw and on those it did not.

    Errors are of the benchmark, its warm cache included.
    """

    efficiency: ExpertEfficiency
    fitted: ErrorSummary
    held_out: ErrorSummary
    residual: ResidualTable | None
    """None where it would not help unseen shapes."""
    corrected_fitted: ErrorSummary
    """With the residual table."""
    corrected_held_out: ErrorSummary


def fit_experts(device: Device, name: str, table: pd.DataFrame) -> ExpertFit:
    """Coefficients of a format, then the table of what they leave, both from the fitted layer shapes alone."""
    held = held_out(*(table[column] for column in SHAPE))
    shapes, measured_s = expert_shapes(table), table["measured_s"].to_numpy(np.float64)
    chosen = thin(~held)

    def predict(values: dict[str, float], rows: FloatArray) -> FloatArray:
        return predict_benchmark(device, name, _efficiency(values), rows)

    values = fit_coefficients(
        (*COEFFICIENTS, *_warm(device)),
        lambda values: predict(values, shapes[chosen]),
        measured_s[chosen],
        num_starts=1,
    )
    analytic_s = predict(values, shapes)
    groups = table.groupby(list(SHAPE)).ngroup().to_numpy()
    log_ratio = np.log(measured_s / analytic_s)
    residual = _fit_residual(shapes[chosen], log_ratio[chosen], groups[chosen])
    corrected_s = analytic_s
    if residual is not None:
        corrected_s = analytic_s * np.exp(residuals_at(residual, residual_features(shapes))[0])

    def errors(seconds: FloatArray) -> tuple[ErrorSummary, ErrorSummary]:
        return summarize(seconds[~held], measured_s[~held]), summarize(seconds[held], measured_s[held])

    return ExpertFit(_efficiency(values), *errors(analytic_s), residual, *errors(corrected_s))


def _fit_residual(
    shapes: FloatArray, log_ratio: FloatArray, groups: npt.NDArray[np.integer[Any]]
) -> ResidualTable | None:
    """The best of the grids by cross-validation; None where none helps shapes that were left out."""
    features = residual_features(shapes)
    found: list[tuple[float, int, ResidualTable]] = []
    for number, grid in enumerate(RESIDUAL_GRIDS):
        knots = {axis: octave_knots(features[axis], per_octave) for axis, per_octave in grid.items()}
        table = fit_residual(features, log_ratio, knots, groups)
        if table is not None and table.after_frac is not None:
            found.append((table.after_frac, number, table))
    return min(found)[2] if found else None


def residual_features(shapes: FloatArray) -> dict[str, FloatArray]:
    """Axes of a residual table for the rows of `expert_shapes`."""
    return {"tokens": shapes[:, 0], "active": shapes[:, 6], "width": shapes[:, 2], "hidden": shapes[:, 1]}


def expert_shapes(table: pd.DataFrame) -> FloatArray:
    """[rows, 8]: tokens, hidden, width of the shard, experts per token, input matrices, own rows, active experts, even.

    ValueError for a distribution of rows that is not known.
    """
    width = table["width"] / table["moe_tp"]
    names = ["num_tokens", "num_experts", "num_experts_per_token", "moe_ep", "distribution"]
    ranks = [timed_rank(*row) for row in table[names].itertuples(index=False, name=None)]
    if None in ranks:
        unknown = sorted({row for row, rank in zip(table["distribution"], ranks, strict=True) if rank is None})
        raise ValueError(f"distributions of rows over experts that are not known: {', '.join(unknown)}")
    kinds = zip(table["width"], table["num_experts"], table["num_experts_per_token"], strict=True)
    is_single = np.array([kind in UNGATED for kind in kinds], bool) & (table["kernel"] != ALWAYS_GATED).to_numpy()
    inputs = np.where(is_single, 1.0, 2.0)
    return np.column_stack(
        [table["num_tokens"], table["hidden"], width, table["num_experts_per_token"], inputs, np.array(ranks, float)]
    ).astype(np.float64)


def predict_benchmark(device: Device, name: str, efficiency: ExpertEfficiency, shapes: FloatArray) -> FloatArray:
    """Seconds of the rows of `expert_shapes` in a benchmark that repeats one layer."""
    plain = plain_format(name)
    coefficients = pack(device, peak_flops_per_s(device, PEAK_DTYPES[plain]), efficiency)
    bytes_per_weight = np.full(len(shapes), WEIGHT_BYTES[plain])
    if efficiency.benchmark_warm_bytes > 0.0:
        features = residual_features(shapes)
        weights = features["active"] * features["width"] * features["hidden"] * (shapes[:, 4] + 1.0) * bytes_per_weight
        size = np.log(weights / efficiency.benchmark_warm_bytes)
        kept_frac = 1.0 / (1.0 + np.exp(efficiency.benchmark_warm_exponent * size))
        bytes_per_weight *= 1.0 - kept_frac * (1.0 - efficiency.benchmark_warm_cost)
    out = np.empty(len(shapes))
    _fill(shapes, bytes_per_weight, coefficients, out)
    return out


def _warm(device: Device) -> tuple[Coefficient, ...]:
    """The benchmark runs one layer again and again: small experts stay in the cache, if the device has one."""
    if device.cache is None:
        return ()
    largest = LARGEST_WARM * device.cache.capacity_bytes
    return (
        Coefficient("benchmark_warm_bytes", 0.5 * largest, 1e6, largest, 1e7),
        Coefficient("benchmark_warm_exponent", 6.0, 2.0, 16.0),
        Coefficient("benchmark_warm_cost", 0.3, 0.05, 1.0),
    )


def _efficiency(values: dict[str, float]) -> ExpertEfficiency:
    own: dict[str, Any] = values
    return ExpertEfficiency.model_construct(**own)


@compiled
def _fill(shapes: FloatArray, bytes_per_weight: FloatArray, coefficients: FloatArray, out: FloatArray) -> None:
    for row in range(len(shapes)):
        tokens, hidden, width, per_token, inputs, num_rows, active, is_even = shapes[row]
        passed = passed_rows(num_rows, tokens * per_token, coefficients)
        out[row] = expert_stream_seconds(tokens, ACTIVATION_BYTES * passed * (inputs + 1.0) * width, coefficients)
        out[row] += expert_stream_seconds(tokens, ACTIVATION_BYTES * (passed + tokens) * hidden, coefficients)
        for n, k in ((inputs * width, hidden), (hidden, width)):
            weights = active * n * k * bytes_per_weight[row]
            moved = ACTIVATION_BYTES * num_rows * (n + k)
            out[row] += grouped_product_seconds(num_rows, active, n, k, weights, moved, is_even > 0.0, coefficients)[0]
