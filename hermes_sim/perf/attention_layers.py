"""The attention of one model on one device as coefficients: one entry per kind of layer, and the recurrent layers.

What a kind of layer costs per token of context, per query and per pair is read off the operators of models/forward.py,
which are linear in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, cast

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency, AttentionKernel
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.narrow_weights import WIDENING_OPS
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.forward import Batch, context_operators, token_operators
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import kv_elements_per_token_per_layer
from hermes_sim.models.shards import share
from hermes_sim.perf.coefficients import gemm_efficiency, peak_flops_per_s, vector_ops_per_s
from hermes_sim.perf.operators import attention as layer

FloatArray = npt.NDArray[np.float64]

MAX_LAYER_KINDS = 3
"""Full and sliding layers, or latent attention and its indexer."""

_PROMPT_SECONDS = (
    layer.PREFILL_LAUNCH_S,
    layer.PAIR_S,
    layer.PREFILL_TILE_S,
    layer.LONGEST_ROW_S,
    layer.PREFILL_BYTE_S,
    layer.PREFILL_TOKEN_S,
    layer.PREFILL_TOKEN_WARM_S,
    layer.PREFILL_TOKEN_ISSUE_S,
    layer.HISTORY_S,
)

NOT_CAPTURED: Final[tuple[AttentionKernel, ...]] = ("vllm_mla", "vllm_mla_fp8")
"""Measured with the host's time to launch them, ten times that of a captured graph."""

EAGER: Final = "_eager"
"""After the name of an engine: its kernels of another version, called one by one and not in captured graphs."""
FP8_MATH: Final = "_fmha"
"""After the name of an engine: its kernels that multiply queries, keys and values of fp8 in fp8."""

MEASURED_KV: Final[tuple[Dtype, ...]] = ("fp8",)
"""Formats of the cache that kernels were measured with: widening them is part of their coefficients."""

TILE_HEAD_DIM = 128.0
"""Cycles of a tile are stated for this head dimension."""

UNSTATED_CLOCK_HZ = 1e9

_PROBE = 4096
"""Queries and pairs of a probing batch; its context is one or two keys a query, so that no window clips."""


@dataclass(frozen=True, slots=True)
class AttentionLayers:
    """Work of one kind of attention layer on one device, per layer."""

    kind: str
    """As the operators name it: full, sliding, latent, indexer_scores."""
    num_layers: int
    window_tokens: int
    """0: looks at everything."""
    num_heads: int
    """Query heads of one device."""
    num_kv_heads: int
    """KV heads of one device; 1 where all heads share a latent."""
    decode_flops_per_token: float
    decode_bytes_per_token: float
    decode_bytes_per_query: float
    flops_per_pair: float
    prefill_bytes_per_token: float
    prefill_bytes_per_query: float
    cache_write_bytes: float
    """Bytes of keys and values read and written per new token; counted as bytes by the operator `kv_write`."""
    history_flops_per_token: float
    """Cached tokens of a prompt's history that are multiplied again (latent attention)."""
    dtype: Dtype
    kv_dtype: Dtype
    num_prompt_layers: int
    """Layers that prompts go through: num_layers, or those of the encoder."""
    bidirectional: bool = False
    """Prompts attend both ways: n^2 pairs instead of n (n + 1) / 2."""
    num_decode_calls: int = 1
    """Kernels of one decode layer: self-attention, and cross-attention."""
    kv_elements_per_token: float = 0.0
    """Numbers of one token in the cache of one device, where they may have to be widened."""

    @property
    def head_dim(self) -> float:
        """Mean of the dimensions of a query and of a value."""
        return self.flops_per_pair / (4.0 * self.num_heads)

    def prompt_pairs(self, causal_pairs: FloatArray, num_tokens: FloatArray) -> FloatArray:
        """Query-key pairs of whole prompts from those under the causal mask."""
        return 2.0 * causal_pairs - num_tokens if self.bidirectional else causal_pairs


@dataclass(frozen=True, slots=True)
class RecurrentLayers:
    """State-space layers: each step reads and writes the state of every sequence in it. Per layer."""

    num_layers: int
    flops_per_token: float
    bytes_per_token: float
    bytes_per_sequence: float


def attention_layers(model: ModelArchitecture, *, tp: int, kv_dtype: Dtype) -> tuple[AttentionLayers, ...]:
    """One entry per kind of attention layer."""
    contexts = (_PROBE, 2 * _PROBE)
    decodes, longer_decodes = (_probe(model, tp, kv_dtype, _decodes(context), "decode") for context in contexts)
    prompts, longer_prompts = (_probe(model, tp, kv_dtype, _prompts(context), "prefill") for context in contexts)
    written = {operator.name: operator for operator in token_operators(model, _PROBE, tp=tp)}.get("kv_write")
    found = []
    for kind, decode in decodes.items():
        if decode.kind != "attention":
            continue
        prompt, history = prompts[kind], longer_prompts.get("kv_up_context")
        decode_bytes_per_token = (longer_decodes[kind].bytes - decode.bytes) / _PROBE
        prefill_bytes_per_token = (longer_prompts[kind].bytes - prompt.bytes) / _PROBE
        found.append(
            AttentionLayers(
                kind=kind,
                num_layers=decode.count,
                window_tokens=_window(model, kind),
                num_heads=-(-model.num_heads // tp),
                num_kv_heads=1 if model.mla else -(-model.num_kv_heads // tp),
                decode_flops_per_token=decode.flops / _PROBE,
                decode_bytes_per_token=decode_bytes_per_token,
                decode_bytes_per_query=decode.bytes / _PROBE - decode_bytes_per_token,
                flops_per_pair=prompt.flops / _PROBE,
                prefill_bytes_per_token=prefill_bytes_per_token,
                prefill_bytes_per_query=prompt.bytes / _PROBE - prefill_bytes_per_token,
                cache_write_bytes=written.bytes / _PROBE if written and decode.count == written.count else 0.0,
                history_flops_per_token=history.flops / _PROBE if history and kind == "latent" else 0.0,
                dtype=decode.dtype,
                kv_dtype=kv_dtype,
                num_prompt_layers=prompt.count,
                bidirectional=model.num_encoder_layers > 0,
                num_decode_calls=2 if model.num_encoder_layers > 0 else 1,
                kv_elements_per_token=_kv_elements(model, decode, tp),
            )
        )
    return tuple(found)


def _kv_elements(model: ModelArchitecture, decode: Operator, tp: int) -> float:
    """Of one token and layer on one device; an indexer's keys are not in the engine's format."""
    if layer_kind(decode) == "indexer_scores":
        return 0.0
    if model.mla is not None:
        return float(kv_elements_per_token_per_layer(model))
    return 2.0 * share(model.num_kv_heads, tp) * model.head_dim


def recurrent_layers(model: ModelArchitecture, *, tp: int) -> RecurrentLayers | None:
    """The recurrence of a state-space or hybrid model; None for any other."""
    if model.state_space is None:
        return None
    prompt = _scan(model, tp, Batch(num_prefill=1, num_prefill_tokens=_PROBE))
    longer = _scan(model, tp, Batch(num_prefill=1, num_prefill_tokens=2 * _PROBE))
    bytes_per_token = (longer.bytes - prompt.bytes) / _PROBE
    return RecurrentLayers(
        num_layers=prompt.count,
        flops_per_token=prompt.flops / _PROBE,
        bytes_per_token=bytes_per_token,
        bytes_per_sequence=prompt.bytes - bytes_per_token * _PROBE,
    )


def attention_kernel(
    layers: AttentionLayers, device: Device, engine: str = "vllm", *, serving: bool = False
) -> AttentionKernel | Literal[""]:
    """The kernel that fits best: of the engine, of latent attention, of the cache's dtype, else the device's own ("").

    serving: as an engine runs it, in captured graphs, and not as NOT_CAPTURED were measured.
    """
    latent = "_mla" if layers.kind == "latent" else ""
    narrow = "_fp8" if layers.kv_dtype in ("fp8", "fp8_block") else ""
    library = engine.removesuffix(EAGER).removesuffix(FP8_MATH)
    for name in (
        f"{engine}{latent}{narrow}",
        f"{library}{latent}{narrow}",
        f"{latent}{narrow}",
        f"{engine}{latent}",
        f"{library}{latent}",
        latent,
    ):
        kernel = cast(AttentionKernel, name.lstrip("_"))
        if kernel in device.cost_model.attention_kernels and not (serving and kernel in NOT_CAPTURED):
            return kernel
    return ""


def attention_efficiency(
    layers: AttentionLayers, device: Device, engine: str = "vllm", *, serving: bool = False
) -> AttentionEfficiency:
    """The coefficients of the kernel that fits best."""
    kernel = attention_kernel(layers, device, engine, serving=serving)
    return device.cost_model.attention_kernels[kernel] if kernel else device.cost_model.attention


def layer_coefficients(
    layers: AttentionLayers,
    device: Device,
    engine: str = "vllm",
    efficiency: AttentionEfficiency | None = None,
    *,
    serving: bool = False,
) -> FloatArray:
    """[NUM_LAYER_COEFFICIENTS] seconds and shares of one kind of layer on the device, without residual tables."""
    shape = efficiency or attention_efficiency(layers, device, engine, serving=serving)
    values = np.zeros(layer.NUM_LAYER_COEFFICIENTS)
    _fill_decode(values, layers, device, shape)
    _fill_prefill(values, layers, device, shape)
    values[layer.WINDOW_TOKENS] = layers.window_tokens
    values[layer.NUM_LAYERS] = layers.num_layers
    if layers.bidirectional:
        _attend_both_ways(values, layers)
    return values


def _fill_decode(values: FloatArray, layers: AttentionLayers, device: Device, shape: AttentionEfficiency) -> None:
    memory_frac = shape.decode_memory_frac or device.cost_model.attention_decode_memory_frac
    bytes_per_s = device.memory.bandwidth_bytes_per_s * memory_frac
    peak = peak_flops_per_s(device, layers.dtype)
    cycle_s = _cycle_s(device)
    group = layers.num_heads // layers.num_kv_heads
    grouped = shape.decode_group_rows > 0.0 and group <= (shape.decode_largest_group or group)
    if not shape.decode_window_groups:
        grouped = grouped and layers.window_tokens == 0 and group > 1
    tiles = layers.num_kv_heads * math.ceil(group / shape.decode_group_rows) if grouped else layers.num_heads
    tile_s = cycle_s * (layers.head_dim / TILE_HEAD_DIM) ** shape.decode_dim_exponent
    query_bytes = layers.decode_bytes_per_query + layers.cache_write_bytes
    values[layer.DECODE_LAUNCH_S] = shape.decode_launch_s
    values[layer.DECODE_BYTE_S] = layers.decode_bytes_per_token / bytes_per_s
    values[layer.DECODE_FLOP_S] = layers.decode_flops_per_token / (peak * shape.decode_compute_frac)
    values[layer.DECODE_FLOP_S] += kv_widening_s_per_token(layers, device)
    values[layer.DECODE_SEQUENCE_S] = values[layer.DECODE_QUERY_S] = query_bytes / bytes_per_s
    values[layer.DECODE_WAVES] = tiles / device.num_cores
    single = 1.0 if grouped and group > 1 else shape.decode_single_tile_frac
    values[layer.DECODE_TILE_S] = shape.decode_tile_cycles * tile_s * single
    values[layer.DECODE_WAVE_FRAC] = shape.decode_wave_frac
    values[layer.DECODE_BLOCK_S] = shape.decode_block_cycles * tile_s
    values[layer.DECODE_WALK_S] = shape.decode_walk_cycles * tile_s
    values[layer.DECODE_SPLITS] = shape.decode_splits and (grouped or shape.decode_window_groups)
    values[layer.DECODE_COMBINE_S] = shape.decode_combine_s
    values[layer.DECODE_COMBINE_LOG_S] = shape.decode_combine_log_s
    values[layer.DECODE_REGROUP_S] = shape.decode_regroup_s if grouped and layers.num_kv_heads > 1 else 0.0
    values[layer.DECODE_RAMP_S] = shape.decode_ramp_s
    values[layer.DECODE_WINDOW_S] = shape.decode_window_s
    values[layer.DECODE_SERIAL_FRAC] = shape.decode_serial_frac
    # tiles are hidden no faster than a block of keys takes to read, so that a longer context never takes less time
    block_s = layer.BLOCK_TOKENS * values[layer.DECODE_BYTE_S] / max(values[layer.DECODE_WAVES], 1e-12)
    slower = max(values[layer.DECODE_TILE_S] / max(4.0 * block_s, 1e-12), 1.0)
    values[layer.DECODE_HIDDEN_BLOCKS] = shape.decode_hidden_blocks * slower
    cache_bytes = device.cache.capacity_bytes if device.cache else 0.0
    values[layer.MIXED_ROW_TOKENS] = shape.mixed_row_tokens
    values[layer.MIXED_TILE_S] = shape.mixed_tile_cycles * cycle_s
    values[layer.MIXED_EMPTY_S] = shape.mixed_empty_cycles * cycle_s
    values[layer.MIXED_GROUP] = group
    head_bytes = layers.decode_bytes_per_token / layers.num_kv_heads
    values[layer.MIXED_CACHE_TOKENS] = max(shape.mixed_cache_frac * cache_bytes / head_bytes, 1.0)
    values[layer.REPEATED_TOKENS] = shape.benchmark_cache_frac * cache_bytes / layers.decode_bytes_per_token
    values[layer.REPEATED_SHARE] = 1.0 / shape.benchmark_cache_speedup


def kv_widening_s_per_token(layers: AttentionLayers, device: Device) -> float:
    """Seconds of all vector units that bring one token's quantised keys and values to the activations' dtype.

    Once for all query heads of a KV head. fp8 is inside the coefficients of the kernels measured with it.
    """
    if layers.kv_dtype in MEASURED_KV:
        return 0.0
    ops = WIDENING_OPS.get(layers.kv_dtype, 0.0)
    return ops * layers.kv_elements_per_token / vector_ops_per_s(device)


def _fill_prefill(values: FloatArray, layers: AttentionLayers, device: Device, shape: AttentionEfficiency) -> None:
    bandwidth, peak = device.memory.bandwidth_bytes_per_s, peak_flops_per_s(device, layers.dtype)
    compute_frac = shape.prefill_compute_frac or device.cost_model.attention_prefill_compute_frac
    wide = 1.0 + shape.prefill_wide_frac * max(layers.head_dim / TILE_HEAD_DIM - 1.0, 0.0)
    core_cycle_s = _cycle_s(device)
    head_pair_s = layers.flops_per_pair / layers.num_heads * wide / (peak * compute_frac)
    head_pair_s += shape.softmax_cycles * core_cycle_s / device.num_cores
    values[layer.PREFILL_LAUNCH_S] = shape.prefill_launch_s
    values[layer.PAIR_S] = layers.num_heads * head_pair_s
    values[layer.TOKEN_PAIRS] = shape.diagonal_pairs
    values[layer.PREFILL_TILE_HEADS] = layers.num_kv_heads if shape.prefill_groups else layers.num_heads
    rows = layers.num_heads / layers.num_kv_heads if shape.prefill_groups else 1.0
    values[layer.PREFILL_TILE_ROWS] = rows / layer.BLOCK_TOKENS
    values[layer.PREFILL_CORE_SHARE] = 1.0 / device.num_cores
    dim_factor = (layers.head_dim / TILE_HEAD_DIM) ** shape.prefill_dim_exponent
    values[layer.PREFILL_TILE_S] = shape.prefill_tile_cycles * core_cycle_s * dim_factor
    values[layer.PREFILL_WAVE_FRAC] = shape.prefill_wave_frac
    values[layer.LONGEST_ROW_S] = shape.row_tokens * head_pair_s * device.num_cores
    values[layer.WINDOW_ROW_TOKENS] = shape.window_row_tokens
    values[layer.PREFILL_SERIAL_FRAC] = shape.prefill_serial_frac
    values[layer.PREFILL_BYTE_S] = layers.prefill_bytes_per_token / bandwidth + kv_widening_s_per_token(layers, device)
    # own keys and values are read once more than written: to attend to them; a decoder's layers are written for all
    # prompt tokens, however many layers the encoder has
    written = layers.cache_write_bytes * layers.num_layers / layers.num_prompt_layers
    token_bytes = layers.prefill_bytes_per_query + shape.prefill_write_factor * written
    reached = bandwidth * shape.prefill_memory_frac
    values[layer.PREFILL_TOKEN_S] = token_bytes / reached
    values[layer.PREFILL_TOKEN_WARM_S] = token_bytes / (reached * shape.prefill_cache_speedup)
    cache_bytes = device.cache.capacity_bytes if device.cache else 0.0
    values[layer.PREFILL_CACHE_TOKENS] = max(shape.prefill_cache_frac * cache_bytes / token_bytes, 1e-6)
    values[layer.PREFILL_TOKEN_ISSUE_S] = shape.prefill_token_cycles * core_cycle_s / device.num_cores
    values[layer.PREFILL_MEMORY_SERIAL_FRAC] = shape.prefill_memory_serial_frac
    widened = peak * gemm_efficiency(device, layers.dtype).compute_frac
    values[layer.HISTORY_S] = layers.history_flops_per_token / widened


def _cycle_s(device: Device) -> float:
    return 1.0 / (device.clock_hz or UNSTATED_CLOCK_HZ)


def _attend_both_ways(values: FloatArray, layers: AttentionLayers) -> None:
    """Prompts go through the encoder's layers with n^2 = 2 pairs - n pairs; decodes call two kernels a layer.

    The kernel multiplies everything by the decoder's number of layers, so times of prompts are in shares of that.
    """
    values[layer.DECODE_LAUNCH_S] *= layers.num_decode_calls
    values[layer.PAIR_S] *= 2.0
    values[layer.TOKEN_PAIRS] = -0.5  # no diagonal
    for column in _PROMPT_SECONDS:
        values[column] *= layers.num_prompt_layers / layers.num_layers


def _decodes(context: int) -> Batch:
    return Batch(num_decode=_PROBE, decode_context_sum=context)


def _prompts(context: int) -> Batch:
    """Chunks of one new token, so that a window clips neither pairs nor context."""
    return Batch(num_prefill=_PROBE, num_prefill_tokens=_PROBE, prefill_token_pairs=_PROBE, prefill_context_sum=context)


def _probe(model: ModelArchitecture, tp: int, kv_dtype: Dtype, batch: Batch, phase: str) -> dict[str, Operator]:
    """Attention operators of the batch by kind of layer, the others by name; without those of the other phase."""
    other = {"prefill": "attention_decode_", "decode": "attention_prefill_"}[phase]
    operators = context_operators(model, batch, tp=tp, kv_dtype=kv_dtype)
    return {layer_kind(operator): operator for operator in operators if not operator.name.startswith(other)}


def layer_kind(operator: Operator) -> str:
    """The kind of layer an attention operator belongs to. Latent layers expand the latent for prompts."""
    for phase in ("attention_prefill_", "attention_decode_"):
        if operator.name.startswith(phase):
            kind = operator.name.removeprefix(phase)
            return "latent" if kind == "expanded" else kind
    return operator.name


def _window(model: ModelArchitecture, kind: str) -> int:
    if kind == "sliding":
        return model.sliding_window
    if kind == "latent" and model.mla is not None and model.mla.indexer is not None:
        return model.mla.indexer.top_k
    return 0


def _scan(model: ModelArchitecture, tp: int, batch: Batch) -> Operator:
    (found,) = (operator for operator in context_operators(model, batch, tp=tp) if operator.kind == "scan")
    return found
