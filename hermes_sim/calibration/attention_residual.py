"""Residual tables of attention: what the fitted side leaves over, by sequences, tokens and heads, for each window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from hermes_sim.calibration.kriging import fit_kriged
from hermes_sim.calibration.mla import latent_layers
from hermes_sim.calibration.split import held_out
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.perf.attention_residual import SEQUENCES, TOKENS, head_axes, plane_of
from hermes_sim.perf.operators.corrected_attention import fill_ratios

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

HEADS: Final = ("num_heads", "num_kv_heads", "head_dim")
LATENT_HEADS: Final = ("num_heads",)
LENGTHS: Final[Mapping[str, float]] = {
    SEQUENCES: 2.0, **dict.fromkeys(TOKENS.values(), 1.0), "num_heads": 2.0, "num_kv_heads": 2.0, "head_dim": 1.0,
}  # fmt: skip
"""Octaves over which what is left over is alike."""
COARSE: Final = frozenset({SEQUENCES, *TOKENS.values()})
"""Axes whose knots lie two octaves apart."""
FEW_VALUES: Final = 4
"""Axes with no more values than these have a knot at each."""

MOST_ROWS: Final = 2000
WARMEST: Final = 1.15
"""Rows that a benchmark finds in the cache, longer by this factor from memory, say nothing about a server."""


@dataclass(frozen=True, slots=True)
class AttentionRows:
    """Measured calls of one kernel, with their analytic times."""

    phase: str
    table: pd.DataFrame
    kinds: LayerKinds
    predicted_s: FloatArray
    held: BoolArray
    served: BoolArray
    """Rows that say something about a server: from memory."""

    @property
    def measured_s(self) -> FloatArray:
        """Seconds of every row."""
        return self.table["measured_s"].to_numpy(np.float64)

    @property
    def latent(self) -> bool:
        """Whether they are of latent attention."""
        return "num_kv_heads" not in self.table

    @property
    def windows(self) -> npt.NDArray[np.int64]:
        """Window of every row; 0: none."""
        return np.zeros(len(self.table), np.int64) if self.latent else self.table["window_tokens"].to_numpy(np.int64)

    def features(self) -> dict[str, FloatArray]:
        """Every axis of a table, for every row."""
        rows, layers = self.kinds
        heads = [head_axes(kind) for kind in layers]
        found = {name: self.table[name].to_numpy(np.float64) for name in (SEQUENCES, TOKENS[self.phase])}
        for name in LATENT_HEADS if self.latent else HEADS:
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
    served = np.ones(len(table), bool)
    if phase == "decode":
        predicted_s = predict_decode(device, table, efficiency, kinds=kinds)
        cold_s = predict_decode(device, table, efficiency, kinds=kinds, benchmark=False)
        served = cold_s <= WARMEST * predicted_s
    else:
        predicted_s = predict_prefill(device, table, efficiency, kinds=kinds)
    return AttentionRows(phase, table, kinds, predicted_s, held_out(*(table[name] for name in held_by)), served)


def fit_attention_residuals(rows: AttentionRows) -> dict[int, ResidualTable]:
    """Window (0: none) -> the table of its rows, from the fitted side; not those that help no unseen shape."""
    shape = ["num_heads", TOKENS[rows.phase]] if rows.latent else list(SHAPE)
    groups = rows.table.groupby(shape).ngroup().to_numpy()
    features, log_ratio = rows.features(), np.log(rows.measured_s / rows.predicted_s)
    found = {}
    for window in sorted(set(rows.windows.tolist())):
        chosen = _thinned((rows.windows == window) & rows.served & ~rows.held)
        used = {name: values[chosen] for name, values in features.items()}
        if not chosen.any():
            continue
        axes = {name: knots(values, coarse=name in COARSE) for name, values in used.items()}
        table = fit_kriged(used, log_ratio[chosen], axes, LENGTHS, groups[chosen])
        if table is not None:
            found[window] = table
    return found


def corrected_errors(
    rows: AttentionRows, tables: Mapping[int, ResidualTable], window: int | None = None
) -> tuple[ErrorSummary, ErrorSummary]:
    """Errors with the tables as a step looks them up, on all fitted and held-out rows, or on those of one window."""
    predicted_s = rows.predicted_s.copy()
    numbers, layers = rows.kinds
    tokens, num_seqs = (rows.table[name].to_numpy(np.float64) for name in (TOKENS[rows.phase], SEQUENCES))
    for number, kind in enumerate(layers):
        plane = plane_of(tables.get(kind.window_tokens), kind, rows.phase)
        if len(plane):
            own = np.flatnonzero(numbers == number)
            ratios = np.empty(len(own))
            fill_ratios(plane, num_seqs[own], tokens[own], ratios)
            predicted_s[own] *= ratios
    counted = np.ones(len(predicted_s), bool) if window is None else rows.windows == window
    fitted, held = (
        summarize(predicted_s[side & counted], rows.measured_s[side & counted]) for side in (~rows.held, rows.held)
    )
    return fitted, held


def knots(values: npt.ArrayLike, *, coarse: bool) -> tuple[float, ...]:
    """Powers of two, or of four, around the values; the values themselves where they are few."""
    positive = np.unique(np.maximum(np.asarray(values, np.float64), 1.0))
    if len(positive) <= FEW_VALUES:
        return tuple(positive.tolist())
    low, high = int(np.floor(np.log2(positive[0]))), int(np.ceil(np.log2(positive[-1])))
    step = 2 if coarse else 1
    return tuple(2.0**octave for octave in range(low, high + step, step))


def _thinned(chosen: BoolArray) -> BoolArray:
    """About MOST_ROWS of them, scattered over the table."""
    scattered: Any = np.arange(len(chosen), dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return np.asarray(chosen & (scattered < (1 << 32) * min(MOST_ROWS / max(chosen.sum(), 1), 1.0)))
