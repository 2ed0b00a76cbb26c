"""Coefficients of layers of experts from measured ones, per format of the experts and library of kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.expert_draws import EVEN, timed_rank
from hermes_sim.calibration.expert_residual import fit_expert_residual
from hermes_sim.calibration.expert_tables import ALWAYS_GATED, SHAPE, UNGATED, shares_weights
from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, fit_error, summarize, thin
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency
from hermes_sim.hardware.expert_residual import ExpertResidual
from hermes_sim.perf.coefficients import peak_flops_per_s
from hermes_sim.perf.expert_coefficients import PEAK_DTYPES, pack, plain_format
from hermes_sim.perf.expert_residual import corrections_at
from hermes_sim.perf.operators.experts import expert_stream_seconds, grouped_product_seconds, passed_rows

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

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
UNTUNED_RATIO: Final = 1.35
"""A layer whose weights have the shape of another model's and whose median time is so much above the fitted one ran
with a tactic that was not chosen for it."""

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
    num_untuned: int
    """Rows on the fitted side that were left out of the fit, yet not of its errors (`untuned_layers`)."""
    residual: ExpertResidual | None
    """With its errors; None where it would not help unseen layers."""
    corrected_fitted: ErrorSummary
    """With the residual curves; the band is that of layers left out in turn, the untuned apart."""
    corrected_held_out: ErrorSummary


def fit_experts(device: Device, name: str, table: pd.DataFrame) -> ExpertFit:
    """Coefficients of a format, then the curves of what they leave, both from the fitted layer shapes alone."""
    held = held_out(*(table[column] for column in SHAPE))
    shapes, measured_s = expert_shapes(table), table["measured_s"].to_numpy(np.float64)

    def fit(rows: BoolArray) -> tuple[ExpertEfficiency, FloatArray]:
        chosen = thin(rows)
        values = fit_coefficients(
            (*COEFFICIENTS, *_warm(device)),
            lambda values: predict_benchmark(device, name, _efficiency(values), shapes[chosen]),
            measured_s[chosen],
            num_starts=1,
        )
        return _efficiency(values), predict_benchmark(device, name, _efficiency(values), shapes)

    efficiency, analytic_s = fit(~held)
    untuned = untuned_layers(table, measured_s / analytic_s) & ~held
    if untuned.any():
        efficiency, analytic_s = fit(~held & ~untuned)
        untuned = untuned_layers(table, measured_s / analytic_s) & ~held
    fitted = ~held & ~untuned
    found = fit_expert_residual(
        layers_of(table)[fitted],
        shapes[fitted, 0],
        even_rows(table)[fitted],
        np.log(measured_s[fitted] / analytic_s[fitted]),
    )
    analytic = summarize(analytic_s[~held], measured_s[~held]), summarize(analytic_s[held], measured_s[held])
    if found is None:
        return ExpertFit(efficiency, *analytic, int(untuned.sum()), None, *analytic)
    residual, left_out = found
    corrected_s = analytic_s * np.exp(correction(residual, table))
    unseen_s = corrected_s.copy()
    unseen_s[fitted] = analytic_s[fitted] * np.exp(left_out)
    in_turn = summarize(unseen_s[fitted], measured_s[fitted])
    seen = replace(
        summarize(corrected_s[~held], measured_s[~held]), low_frac=in_turn.low_frac, high_frac=in_turn.high_frac
    )
    kept_out = summarize(corrected_s[held], measured_s[held])
    residual = residual.model_copy(update={"in_sample": fit_error(seen), "held_out": fit_error(kept_out)})
    return ExpertFit(efficiency, *analytic, int(untuned.sum()), residual, seen, kept_out)


def untuned_layers(table: pd.DataFrame, ratio: FloatArray) -> BoolArray:
    """Rows of layers that ran with a tactic chosen for another model's, of measured over fitted times.

    TensorRT-LLM's autotuner remembers the quickest kernel by the shapes of the weights on the device. Where two models
    of one benchmark have the same there, at other numbers of experts per token or of devices, either may run with what
    was found, or not found, for the other: half of such layers on Hopper take 2 to 5 times as long, no layer else does.
    """
    median = pd.Series(ratio, table.index).groupby([table[column] for column in SHAPE]).transform("median")
    return shares_weights(table) & (median > UNTUNED_RATIO).to_numpy()


def layers_of(table: pd.DataFrame) -> FloatArray:
    """[rows, 5] as `ExpertLayer`; at least one expert a device."""
    return np.column_stack(
        [
            np.maximum(table["num_experts"] / table["moe_ep"], 1.0), np.maximum(table["width"] / table["moe_tp"], 1.0),
            table["hidden"], table["num_experts_per_token"], table["moe_ep"],
        ]
    ).astype(np.float64)  # fmt: skip


def even_rows(table: pd.DataFrame) -> BoolArray:
    """Where every expert has as many rows."""
    return np.asarray(table["distribution"].isin(EVEN), bool)


def correction(residual: ExpertResidual, table: pd.DataFrame) -> FloatArray:
    """ln(measured / analytic) of measured layers by their format's curves."""
    num_tokens = table["num_tokens"].to_numpy(np.float64)
    return corrections_at(residual, layers_of(table), num_tokens, even_rows(table))


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
        weights = shapes[:, 6] * shapes[:, 2] * shapes[:, 1] * (shapes[:, 4] + 1.0) * bytes_per_weight
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
