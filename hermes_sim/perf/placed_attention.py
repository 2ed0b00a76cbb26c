"""Attention of an engine that spans device groups: decodes where the KV cache lies, prompts there or elsewhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.device import beside_the_array
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.perf.attention_layers import AttentionLayers, attention_layers, layer_coefficients
from hermes_sim.perf.attention_residual import with_residuals
from hermes_sim.perf.operators import attention as layer
from hermes_sim.perf.step_kernel import (
    DECODE_COMPUTE_W,
    DECODE_MEMORY_W,
    DECODE_UNIT,
    FIRST_KIND,
    INTERLEAVED_LAYERS,
    PROMPT_COMPUTE_W,
    PROMPT_MEMORY_W,
    PROMPT_UNIT,
)
from hermes_sim.perf.unit import UnitPlacement

FloatArray = npt.NDArray[np.float64]

_PROMPT_COLUMNS = [
    layer.PREFILL_LAUNCH_S,
    layer.PAIR_S,
    layer.TOKEN_PAIRS,
    layer.PREFILL_TILE_HEADS,
    layer.PREFILL_TILE_ROWS,
    layer.PREFILL_CORE_SHARE,
    layer.PREFILL_TILE_S,
    layer.PREFILL_WAVE_FRAC,
    layer.LONGEST_ROW_S,
    layer.WINDOW_ROW_TOKENS,
    layer.PREFILL_SERIAL_FRAC,
    layer.PREFILL_BYTE_S,
    layer.PREFILL_TOKEN_S,
    layer.PREFILL_TOKEN_WARM_S,
    layer.PREFILL_CACHE_TOKENS,
    layer.PREFILL_TOKEN_ISSUE_S,
    layer.PREFILL_MEMORY_SERIAL_FRAC,
    layer.HISTORY_S,
]


def placed_attention_layers(
    model: ModelArchitecture, placement: UnitPlacement, kv_dtype: Dtype
) -> tuple[AttentionLayers, ...]:
    """As the devices see it that hold the KV cache."""
    return attention_layers(model, tp=placement.of("attention").tp, kv_dtype=kv_dtype)


def with_placed_layers(
    attention: FloatArray,
    model: ModelArchitecture,
    placement: UnitPlacement,
    layers: tuple[AttentionLayers, ...],
    kv_dtype: Dtype,
    kernels: KernelLibrary,
) -> FloatArray:
    """Coefficients of every kind of layer, with residual tables behind, and the accounts of the two units.

    Prompts that attend elsewhere read the keys and values of earlier chunks over the link. Kernels of prompts and
    decodes together are none of an engine's that spans devices.
    """
    deciding, prompting = placement.of("attention"), placement.of("prefill_attention")
    own_device, prompt_device = beside_the_array(deciding.device), beside_the_array(prompting.device)
    starts = {FIRST_KIND + number * layer.NUM_LAYER_COEFFICIENTS: kind for number, kind in enumerate(layers)}
    prompt_layers = attention_layers(model, tp=prompting.tp, kv_dtype=kv_dtype)
    apart = placement.unit_of["attention"] != placement.unit_of["prefill_attention"]
    for (start, kind), prompt_kind in zip(starts.items(), prompt_layers, strict=True):
        values = layer_coefficients(kind, own_device, kernels, serving=True)
        values[layer.MIXED_ROW_TOKENS] = 0.0
        if apart:
            prompts = layer_coefficients(prompt_kind, prompt_device, kernels, serving=True)
            values[_PROMPT_COLUMNS] = prompts[_PROMPT_COLUMNS]
            link = placement.links[placement.unit_of["attention"], placement.unit_of["prefill_attention"]]
            read_bytes = kind.prefill_bytes_per_token * deciding.tp
            values[layer.HISTORY_S] += read_bytes / link.bandwidth_bytes_per_s
        attention[start : start + layer.NUM_LAYER_COEFFICIENTS] = values
    attention = with_residuals(attention, starts, own_device, kernels)
    if apart:
        attention = _with_prompt_tables(attention, dict(zip(starts, prompt_layers, strict=True)), placement, kernels)
    if placement.interleave_from_seqs is not None:
        attention[INTERLEAVED_LAYERS] = model.num_layers
    attention[DECODE_UNIT] = placement.unit_of["attention"]
    attention[[DECODE_COMPUTE_W, DECODE_MEMORY_W]] = deciding.active_w[:2]
    attention[PROMPT_UNIT] = placement.unit_of["prefill_attention"]
    attention[[PROMPT_COMPUTE_W, PROMPT_MEMORY_W]] = prompting.active_w[:2]
    return attention


def _with_prompt_tables(
    attention: FloatArray, starts: dict[int, AttentionLayers], placement: UnitPlacement, kernels: KernelLibrary
) -> FloatArray:
    """Tables of prompts are those of the device that attends for them, tables of decodes stay."""
    decodes = {start: attention[start + layer.DECODE_RESIDUAL] for start in starts}
    for start in starts:
        attention[start + layer.PREFILL_RESIDUAL] = 0.0
    device = beside_the_array(placement.of("prefill_attention").device)
    attention = with_residuals(attention, starts, device, kernels)
    for start, table in decodes.items():
        attention[start + layer.DECODE_RESIDUAL] = table
    return attention
