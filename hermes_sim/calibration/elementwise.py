"""Coefficients of streaming kernels from measured layers of models: norms, additions, rotary embedding, activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize, thin
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency, ElementwiseKind
from hermes_sim.perf.elementwise_coefficients import Stream, kind_coefficients
from hermes_sim.perf.operators.elementwise import stream_seconds

FloatArray = npt.NDArray[np.float64]

COEFFICIENTS: Final = (
    Coefficient("launch_s", 3e-6, 5e-8, 5e-5, 1e-6),
    Coefficient("memory_frac", 0.6, 0.05, 1.0),
    Coefficient("cache_speedup", 1.5, 1.0, 16.0),
    Coefficient("cache_share", 0.5, 0.05, 3.0),
    Coefficient("row_s_per_byte", 5e-12, 0.0, 5e-10, 1e-11),
)
KERNELS: Final[dict[str, ElementwiseKind]] = {
    "emb": "embedding", "input_layernorm": "norm", "post_attention_layernorm": "norm", "attn_rope": "rope",
    "mlp_act": "activation", "add": "residual_add",
}  # fmt: skip
"""Columns of vidur's layer tables, less `_ms`."""


def read_elementwise(folder: Path, device: str) -> pd.DataFrame | None:
    """Streaming kernels of vidur's layer tables; None where not measured.

    Columns kind, model, num_tokens, num_bytes (read and written, fp16), measured_s. Times have a resolution of 1 us.
    """
    files = sorted((folder / "kernels" / "vidur").glob("mlp_*.csv.gz"))
    tables = [table for table in map(pd.read_csv, files) if str(table["device"].iloc[0]) == device]
    parts = [part for table in tables for part in _kernels(table)]
    if not parts:
        return None
    found = pd.concat(parts, ignore_index=True).dropna()
    return pd.DataFrame(found[found["measured_s"] > 0.0].reset_index(drop=True))


def fit_elementwise(device: Device, table: pd.DataFrame) -> tuple[ElementwiseEfficiency, ErrorSummary, ErrorSummary]:
    """Coefficients of one kind of kernel; errors on fitted and on held-out sizes."""
    held = held_out(table["num_bytes"])
    measured_s = table["measured_s"].to_numpy(np.float64)
    chosen = thin(~held)
    fitted = table[chosen]

    def predict(values: dict[str, Any], rows: pd.DataFrame) -> FloatArray:
        return predict_elementwise(device, ElementwiseEfficiency.model_construct(**values), rows)

    values = fit_coefficients(COEFFICIENTS, lambda values: predict(values, fitted), measured_s[chosen])
    predicted_s = predict(values, table)
    named: dict[str, Any] = {**values}
    efficiency = ElementwiseEfficiency.model_construct(**named)
    return efficiency, summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])


def predict_elementwise(device: Device, efficiency: ElementwiseEfficiency, table: pd.DataFrame) -> FloatArray:
    """Seconds of one kind of kernel for rows with num_bytes; their own latency too where num_tokens says how long."""
    seconds = predict_stream(kind_coefficients(device, efficiency), table)
    if "num_tokens" in table:
        row_bytes = (table["num_bytes"] / table["num_tokens"]).where(table["num_tokens"] >= 1.0, 0.0)
        seconds = seconds + efficiency.row_s_per_byte * row_bytes.to_numpy(np.float64)
    return np.asarray(seconds)


def predict_stream(stream: Stream, table: pd.DataFrame) -> FloatArray:
    """Seconds by numbers of bytes alone."""
    out = np.empty(len(table))
    _fill(table["num_bytes"].to_numpy(np.float64), *stream, out)
    return out


def _kernels(table: pd.DataFrame) -> list[pd.DataFrame]:
    """One frame a measured kernel. A norm reads and writes the hidden state, an addition reads two and writes one.

    A layer with one norm runs attention and feed-forward side by side, and adds both: two additions.
    """
    additions = 1.0 if "post_attention_layernorm_ms" in table else 2.0
    hidden, tp = table["n_embd"], table["tp"]
    width = table["n_expanded_embd"] / tp
    head_dim = hidden / table["n_head"]
    rotated = (table["n_head"] / tp + np.maximum(table["n_kv_head"] / tp, 1.0)) * head_dim
    elements: dict[ElementwiseKind, Any] = {
        "embedding": 2.0 * hidden,
        "norm": 2.0 * hidden,
        "rope": 2.0 * rotated,
        "activation": width * np.where(table["use_gated_mlp"].astype(bool), 3.0, 2.0),
        "residual_add": additions * 3.0 * hidden,
    }
    return [
        pd.DataFrame(
            {
                "kind": kind,
                "model": table["model"],
                "num_tokens": table["num_tokens"],
                "num_bytes": 2.0 * table["num_tokens"] * elements[kind],
                "measured_s": table[f"{column}_ms"] * 1e-3,
            }
        )
        for column, kind in KERNELS.items()
        if f"{column}_ms" in table
    ]


@compiled
def _fill(
    num_bytes: FloatArray,
    reached_bytes_per_s: float,
    launch_s: float,
    cache_bytes: float,
    cache_speedup: float,
    out: FloatArray,
) -> None:
    for row in range(len(num_bytes)):
        out[row] = stream_seconds(num_bytes[row], reached_bytes_per_s, launch_s, cache_bytes, cache_speedup)
