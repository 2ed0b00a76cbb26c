"""What fits into the memory of one replica: weights, activations, and the KV blocks that remain.

KV memory = share of the device's memory the engine may use, less weights, peak activations and the runtime's own. This
is how vLLM sizes its cache (Worker.determine_available_memory, after a profiling run).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import (
    bytes_per_weight,
    kv_bytes_per_token,
    part_parameters,
    state_bytes_per_sequence,
    weight_bytes,
)
from hermes_sim.perf.kv_layout import kv_layout
from hermes_sim.perf.pipeline import stage_layers

RUNTIME_BYTES = {"gpu": 1.0e9, "tpu": 1.0e9, "npu": 0.0, "fpga": 0.0, "cpu": 1.0e9, "cim": 0.0, "pim": 0.0}
"""Driver context, library workspaces and captured graphs per device. An estimate: about 0.5 GB of CUDA context and as
much of workspaces and graphs."""

COMMUNICATOR_BYTES = 0.6e9
"""Buffers of the collectives per device of a tensor-parallel group. An estimate."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of one device of the replica (of the rank), and the KV blocks of the whole of it.

    With a pipeline: of the stage with room for the fewest blocks.
    """

    weights_bytes: float
    """Draft model included."""
    activation_bytes: float
    """Peak activations and the runtime's own memory."""
    kv_bytes: float
    """Left for the KV cache."""
    kv_bytes_per_token: float
    """Of the whole replica, all layers, copies of KV heads included."""
    num_blocks: int
    """Of the pool that all groups of layers share."""
    shortfall_bytes: float
    """> 0: weights, activations and one block do not fit, and by how much."""
    block_tokens: int
    block_bytes: float
    """Of one block of the pool on one device: the layers of one group."""
    window_blocks: int
    """Blocks of a sequence that can lie inside a window; 0 where nothing slides."""
    window_groups: int
    """Blocks of the pool that each of the first `window_blocks` of a sequence takes beside its own."""
    full_layers: bool
    """Some layers look at everything; False: all slide, and no more than `window_blocks` are kept."""

    def blocks_of(self, num_tokens: int) -> int:
        """Blocks of the pool that a sequence of that many tokens holds."""
        own = ceil(num_tokens / self.block_tokens)
        inside = min(own, self.window_blocks)
        if not self.full_layers:
            return inside
        return own + self.window_groups * inside


@dataclass(frozen=True, slots=True)
class _StageRoom:
    """One pipeline stage: what its device holds, and what is left."""

    weights_bytes: float
    kv_bytes: float
    block_bytes: float

    def num_blocks(self) -> int:
        return max(int(self.kv_bytes // self.block_bytes), 0)


def memory_plan(
    model: ModelArchitecture,
    device: Device,
    *,
    tp: int,
    pp: int,
    ep: int,
    memory_fraction: float,
    block_tokens: int,
    kv_dtype: Dtype,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    activation_reserve_bytes: float | None = None,
    num_gpu_blocks: int | None = None,
    dp: int = 1,
    layers_per_stage: tuple[int, ...] | None = None,
    draft_weights_bytes: float = 0.0,
    draft_kv_bytes_per_token: float = 0.0,
    beside_bytes: float = 0.0,
    weights_frac: float = 1.0,
) -> MemoryPlan:
    """Weights and KV cache of a model on tp x pp equal devices, or of one of dp ranks that share the experts.

    activation_reserve_bytes: replaces the estimate of activations and runtime, per device. num_gpu_blocks: replaces the
    number of blocks that follows from the memory. Spreading experts (ep) over the devices moves no bytes.
    draft_weights_bytes, draft_kv_bytes_per_token: of a draft model, on each device; its KV lies in the same blocks.
    beside_bytes: what other engines keep on each device (indexes, encoders): the KV cache gives way. weights_frac:
    share of the weights that lie in this memory; others are with the operators on other devices, or in arrays.
    """
    if activation_reserve_bytes is None:
        activation_reserve_bytes = activation_bytes(model, device, tp, max_num_batched_tokens, max_num_seqs)
    usable = memory_fraction * device.memory.capacity_bytes - activation_reserve_bytes - draft_weights_bytes
    usable -= beside_bytes
    layout = kv_layout(model)
    token_bytes = device_kv_bytes_per_token(model, kv_dtype, tp=tp, num_layers=model.num_layers)
    states = state_bytes_per_sequence(model) * max_num_seqs / tp
    layers = stage_layers(model.num_layers, pp, layers_per_stage)
    rooms = []
    for number, weights in zip(layers, stage_weight_bytes(model, layers, tp=tp, ep=ep, dp=dp), strict=True):
        frac, weights = number / model.num_layers, weights_frac * weights
        pool_bytes = layout.group_frac * device_kv_bytes_per_token(model, kv_dtype, tp=tp, num_layers=number)
        block_bytes = block_tokens * (pool_bytes + draft_kv_bytes_per_token)
        rooms.append(_StageRoom(weights + draft_weights_bytes, usable - weights - states * frac, block_bytes))
    if all(room.block_bytes > 0.0 for room in rooms):
        room = min(rooms, key=lambda room: (room.num_blocks(), room.kv_bytes - room.block_bytes))
        num_blocks = room.num_blocks()
    else:  # nothing is cached: sequences are limited by their number alone
        room = min(rooms, key=lambda room: room.kv_bytes)
        num_blocks = max_num_seqs * ceil(model.max_model_len / block_tokens) if room.kv_bytes >= 0.0 else 0
    needed = num_gpu_blocks if num_gpu_blocks is not None else 1
    return MemoryPlan(
        weights_bytes=room.weights_bytes,
        activation_bytes=activation_reserve_bytes,
        kv_bytes=max(room.kv_bytes, 0.0),
        kv_bytes_per_token=(token_bytes + draft_kv_bytes_per_token) * tp,
        num_blocks=num_gpu_blocks if num_gpu_blocks is not None else num_blocks,
        shortfall_bytes=max(*(needed * room.block_bytes - room.kv_bytes for room in rooms), 0.0),
        block_tokens=block_tokens,
        block_bytes=room.block_bytes,
        window_blocks=layout.window_blocks(block_tokens),
        window_groups=layout.window_groups,
        full_layers=layout.full_layers,
    )


def device_weight_bytes(
    model: ModelArchitecture,
    *,
    tp: int,
    pp: int,
    ep: int = 1,
    dp: int = 1,
    layers_per_stage: tuple[int, ...] | None = None,
) -> float:
    """Weights on one device of the stage that has most."""
    return max(stage_weight_bytes(model, stage_layers(model.num_layers, pp, layers_per_stage), tp=tp, ep=ep, dp=dp))


def stage_weight_bytes(
    model: ModelArchitecture, layers: Sequence[int], *, tp: int, ep: int = 1, dp: int = 1
) -> tuple[float, ...]:
    """Weights on one device of each pipeline stage; the first has the embedding, the last the logits.

    Layers are cut over tp; the experts over the tp x dp devices of all ranks, whether in whole experts or in parts; the
    device with most experts counts.
    """
    parts = part_parameters(model)
    total = weight_bytes(model)
    if model.moe is not None:
        most = ceil(model.moe.num_experts / ep) * ep / model.moe.num_experts
        total += parts["experts"] * bytes_per_weight(model, "experts") * (most / dp - 1.0)
    if len(layers) == 1:
        return (total / tp,)
    wide = DTYPE_BYTES[model.activation_dtype]
    embedding = parts["embedding"] * wide
    logits = parts["lm_head"] * bytes_per_weight(model, "lm_head")
    if model.tied_embeddings:
        logits = embedding
        total += embedding  # the last stage needs its own copy
    inner = total - embedding - logits
    ends = [embedding, *[0.0] * (len(layers) - 2), logits]
    return tuple((inner * (number / model.num_layers) + end) / tp for number, end in zip(layers, ends, strict=True))


def device_kv_bytes_per_token(
    model: ModelArchitecture, kv_dtype: Dtype, *, tp: int, num_layers: int | None = None
) -> float:
    """KV bytes of one token in `num_layers` layers (all if not given) on one device.

    KV heads are cut over tp, copied where there are fewer; latents are always copied.
    """
    share = 1.0
    if model.mla is None and model.num_kv_heads > 0:
        share = ceil(model.num_kv_heads / tp) / model.num_kv_heads
    stage = 1.0 if num_layers is None else num_layers / model.num_layers
    return kv_bytes_per_token(model, kv_dtype) * share * stage


def activation_bytes(
    model: ModelArchitecture, device: Device, tp: int, max_num_batched_tokens: int, max_num_seqs: int
) -> float:
    """Peak activations of a full step on one device, and the runtime's own memory.

    The widest moment of a layer is the feed-forward: its input, the residual, the gate and up projections and their
    product; then the logits in fp32 with one copy for sampling.
    """
    wide = DTYPE_BYTES[model.activation_dtype]
    width = model.intermediate_size
    if model.moe is not None:
        width = max(width, model.moe.num_experts_per_token * model.moe.expert_intermediate_size)
    inputs = 2 if model.gated_mlp else 1
    per_token = 3 * model.hidden_size + (inputs + 1) * ceil(width / tp)
    attention = 3 * model.hidden_size + (model.num_heads + 2 * model.num_kv_heads) * model.head_dim / tp
    layer_bytes = max_num_batched_tokens * max(per_token, attention) * wide
    logits_bytes = max_num_seqs * model.vocab_size * (wide + 2 * DTYPE_BYTES["fp32"])
    runtime = RUNTIME_BYTES[device.kind] + (COMMUNICATOR_BYTES if tp > 1 else 0.0)
    return max(layer_bytes, logits_bytes) + runtime
