"""The residual tables of attention that hold for a layer kind, cut down to what the step kernel looks up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.perf.attention_layers import AttentionLayers, attention_kernel, layer_coefficients
from hermes_sim.perf.operators.attention import DECODE_RESIDUAL, PREFILL_RESIDUAL
from hermes_sim.perf.operators.corrected_attention import FIRST_RATIO
from hermes_sim.perf.residual import NO_RESIDUAL, pad_residuals, residual_log_ratio, slice_residual

FloatArray = npt.NDArray[np.float64]

WINDOW: Final = "_window"
"""Before the size of a window, in the name of a table."""
NEAREST_WINDOW: Final = 0.5
"""Octaves between a window and the measured one whose table holds for it."""
SEQUENCES: Final = "num_seqs"
TOKENS: Final = {"decode": "context_tokens", "prefill": "new_tokens"}
"""Axis of a phase's tables, per sequence: the context with the new token, or the new tokens of a whole prompt."""
COLUMNS: Final = {"decode": DECODE_RESIDUAL, "prefill": PREFILL_RESIDUAL}


def attention_residual(
    layers: AttentionLayers, device: Device, phase: str, engine: str = "vllm", *, serving: bool = False
) -> ResidualTable | None:
    """The table of the coefficients in use, `attention_[phase]_[kernel]`; `vllm` is the kernel without a name.

    Under a window it is the table of the measured window that is nearest, no more than NEAREST_WINDOW away. None where
    nothing of the kind was measured: also in encoders and decoders of their own.
    """
    if device.residuals is None or layers.bidirectional or layers.num_decode_calls > 1:
        return None
    tables = device.residuals.tables
    name = residual_name(phase, attention_kernel(layers, device, engine, serving=serving))
    if layers.window_tokens == 0:
        return tables.get(name)
    own, start = math.log2(layers.window_tokens), f"{name}{WINDOW}"
    distances = {key: abs(math.log2(int(key.removeprefix(start))) - own) for key in tables if key.startswith(start)}
    nearest = min(distances, key=lambda key: distances[key], default=None)
    return tables[nearest] if nearest is not None and distances[nearest] <= NEAREST_WINDOW else None


def residual_name(phase: str, kernel: str, window_tokens: int = 0) -> str:
    """Name of a kernel's table; kernel: as in `attention_kernels`, nothing for the device's own `attention`."""
    return f"attention_{phase}_{kernel or 'vllm'}{f'{WINDOW}{window_tokens}' if window_tokens else ''}"


def head_axes(layers: AttentionLayers) -> dict[str, float]:
    """What an engine fixes of the axes of a table."""
    return {
        "num_heads": float(layers.num_heads),
        "num_kv_heads": float(layers.num_kv_heads),
        "group": layers.num_heads / layers.num_kv_heads,
        "head_dim": layers.head_dim,
        "kv_width": layers.num_kv_heads * layers.head_dim,
    }


def plane_of(table: ResidualTable | None, layers: AttentionLayers, phase: str) -> FloatArray:
    """Packed for `plane_ratio`, at the heads of the layers, over whole octaves and one more to each side.

    ValueError for a table without sequences and tokens, or over something else than heads.
    """
    if table is None:
        return np.zeros(0)
    own = (SEQUENCES, TOKENS[phase])
    if [name for name in table.axes if name in own] != list(own):
        raise ValueError(f"a table of {phase} attention needs the axes {', '.join(own)}, in this order")
    heads = head_axes(layers)
    if unknown := set(table.axes) - set(own) - set(heads):
        raise ValueError(f"no axis {sorted(unknown)} in a table of attention, but {', '.join((*own, *heads))}")
    packed = slice_residual(table, {name: value for name, value in heads.items() if name in table.axes})
    if packed is NO_RESIDUAL:
        return np.zeros(0)
    (first_seqs, num_seqs), (first_tokens, num_tokens) = (_octaves(table.axes[name]) for name in own)
    values = [
        residual_log_ratio(packed, 2.0 ** (first_seqs + row), 2.0 ** (first_tokens + column), 1.0, 1.0)[0]
        if first_seqs + row >= 0 and first_tokens + column >= 0
        else 0.0
        for row in range(num_seqs)
        for column in range(num_tokens)
    ]
    head = np.zeros(FIRST_RATIO)
    head[:] = first_seqs, num_seqs, first_tokens, num_tokens
    return np.concatenate([head, np.exp(values)])


def with_residuals(
    coefficients: FloatArray, starts: dict[int, AttentionLayers], device: Device, engine: str, *, serving: bool = True
) -> FloatArray:
    """Coefficients of the layer kinds at `starts`, with the tables that hold for them behind."""
    found = [coefficients.copy()]
    end = len(coefficients)
    for start, layers in starts.items():
        for phase, column in COLUMNS.items():
            plane = plane_of(attention_residual(layers, device, phase, engine, serving=serving), layers, phase)
            if len(plane) > 0:
                found[0][start + column] = end
                found.append(plane)
                end += len(plane)
    return np.concatenate(found)


def corrected_coefficients(kinds: Sequence[AttentionLayers], device: Device, engine: str) -> FloatArray:
    """[num_kinds, NUM_LAYER_COEFFICIENTS and the longest tables]: of the engine's kernels as they were measured."""
    return pad_residuals([
        with_residuals(layer_coefficients(kind, device, engine), {0: kind}, device, engine, serving=False)
        for kind in kinds
    ])  # fmt: skip


def _octaves(knots: tuple[float, ...]) -> tuple[int, int]:
    """The octave below the first knot, and how many octaves there are up to the one above the last."""
    first = math.floor(math.log2(max(knots[0], 1.0))) - 1
    return first, math.ceil(math.log2(max(knots[-1], 1.0))) + 2 - first
