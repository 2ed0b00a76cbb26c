"""Residual tables of attention: what the fitted side leaves over, by sequences, tokens and heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.attention import (
    SHAPE,
    LayerKinds,
    LayersOf,
    layer_kinds,
    layers_of_heads,
    predict_decode,
    predict_prefill,
)
from hermes_sim.calibration.fit import ErrorSummary, summarize
from hermes_sim.calibration.mla import latent_layers
from hermes_sim.calibration.residual import fit_residual
from hermes_sim.calibration.split import held_out
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.perf.attention_residual import SEQUENCES, TOKENS, head_axes
from hermes_sim.perf.residual import residuals_at

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

HEAD_AXES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "decode": (("num_kv_heads", "head_dim"), ("num_kv_heads", "group")),
    "prefill": (("num_kv_heads", "head_dim"), ("kv_width", "group")),
}
"""What else a table may depend on; what tells most of shapes left out in turn is taken."""
LATENT_AXES: Final = (("num_heads",),)

MOST_ROWS: Final = 6000
WARMEST: Final = 1.15
"""Rows that a benchmark finds in the cache, longer by this factor from memory, say nothing about a server."""
DENSE_UP_TO: Final = 4.0
"""Groups of query heads beyond lie two octaves apart."""


@dataclass(frozen=True, slots=True)
class AttentionRows:
    """Measured calls of one kernel, with their analytic times."""

    phase: str
    table: pd.DataFrame
    kinds: LayerKinds
    predicted_s: FloatArray
    held: BoolArray
    served: BoolArray
    """Rows that say something about a server: from memory, over whole contexts."""

    @property
    def measured_s(self) -> FloatArray:
        """Seconds of every row."""
        return self.table["measured_s"].to_numpy(np.float64)

    def features(self) -> dict[str, FloatArray]:
        """Every axis that a table may have, for every row."""
        rows, layers = self.kinds
        heads = [head_axes(kind) for kind in layers]
        found = {name: self.table[name].to_numpy(np.float64) for name in (SEQUENCES, TOKENS[self.phase])}
        for name in heads[0]:
            found[name] = np.array([kind[name] for kind in heads])[rows]
        return found


def attention_rows(
    device: Device, efficiency: AttentionEfficiency, phase: str, table: pd.DataFrame, held_by: Sequence[str] = ()
) -> AttentionRows:
    """Rows of one kernel and dtype of the cache; held_by: columns of the split, those of the fit if not given."""
    latent = "num_kv_heads" not in table
    layers_of: LayersOf = latent_layers if latent else layers_of_heads
    held_by = held_by or (["num_heads", TOKENS[phase]] if latent else SHAPE)
    kinds = layer_kinds(table, layers_of)
    served = np.ones(len(table), bool) if latent else (table["window_tokens"] == 0).to_numpy()
    if phase == "decode":
        predicted_s = predict_decode(device, table, efficiency, kinds=kinds)
        cold_s = predict_decode(device, table, efficiency, kinds=kinds, benchmark=False)
        served = served & (cold_s <= WARMEST * predicted_s)
    else:
        predicted_s = predict_prefill(device, table, efficiency, kinds=kinds)
    return AttentionRows(phase, table, kinds, predicted_s, held_out(*(table[name] for name in held_by)), served)


def fit_attention_residual(rows: AttentionRows) -> ResidualTable | None:
    """The table that helps shapes left out in turn most, from the fitted side; None where none does."""
    features = rows.features()
    chosen = _thinned(rows.served & ~rows.held)
    if not chosen.any():
        return None
    log_ratio = np.log(rows.measured_s / rows.predicted_s)[chosen]
    latent = "num_kv_heads" not in rows.table
    shape = ["num_heads", TOKENS[rows.phase]] if latent else list(SHAPE)
    groups = rows.table.groupby(shape).ngroup().to_numpy()[chosen]
    found: list[ResidualTable] = []
    for heads in LATENT_AXES if latent else HEAD_AXES[rows.phase]:
        used = {name: features[name][chosen] for name in (SEQUENCES, TOKENS[rows.phase], *heads)}
        knots = {name: octaves(values, sparse=name == "group") for name, values in used.items()}
        table = fit_residual(used, log_ratio, knots, groups, bridges=latent)
        if table is not None:
            found.append(table)
    return min(found, key=lambda table: table.after_frac or 0.0, default=None)


def corrected_errors(rows: AttentionRows, table: ResidualTable) -> tuple[ErrorSummary, ErrorSummary]:
    """Errors with the table, on all fitted and held-out rows; windows have none."""
    log_ratios, _ = residuals_at(table, {name: rows.features()[name] for name in table.axes})
    unclipped = rows.table["window_tokens"] == 0 if "window_tokens" in rows.table else np.ones(len(rows.table), bool)
    predicted_s = rows.predicted_s * np.exp(np.where(unclipped, log_ratios, 0.0))
    fitted, held = (summarize(predicted_s[side], rows.measured_s[side]) for side in (~rows.held, rows.held))
    return fitted, held


def octaves(values: npt.ArrayLike, *, sparse: bool = False) -> tuple[float, ...]:
    """Powers of two around the values, at which a step looks them up; sparse: every other one beyond the first."""
    positive = np.maximum(np.asarray(values, np.float64), 1.0)
    low, high = int(np.floor(np.log2(positive.min()))), int(np.ceil(np.log2(positive.max())))
    all_of_them = [2.0**octave for octave in range(low, high + 1)]
    if not sparse:
        return tuple(all_of_them)
    coarse = all_of_them[-1:0:-2]
    return tuple(knot for knot in all_of_them if knot <= DENSE_UP_TO or knot in coarse)


def _thinned(chosen: BoolArray) -> BoolArray:
    """About MOST_ROWS of them, scattered over the table."""
    scattered: Any = np.arange(len(chosen), dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return np.asarray(chosen & (scattered < (1 << 32) * min(MOST_ROWS / max(chosen.sum(), 1), 1.0)))
