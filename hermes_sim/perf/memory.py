"""What fits into the memory of one replica: weights, activations, and the KV blocks that remain.

KV memory = share of the device's memory the engine may use, less weights, peak activations and the runtime's own. This
is how vLLM sizes its cache (Worker.determine_available_memory, after a profiling run).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import kv_bytes_per_token, part_parameters, state_bytes_per_sequence, weight_bytes

RUNTIME_BYTES = {"gpu": 1.0e9, "tpu": 1.0e9, "cpu": 1.0e9, "cim": 0.0}
"""Driver context, library workspaces and captured graphs per device. An estimate: about 0.5 GB of CUDA context and as
much of workspaces and graphs."""

COMMUNICATOR_BYTES = 0.6e9
"""Buffers of the collectives per device of a tensor-parallel group. An estimate."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of one device of the replica, and the KV blocks of the whole replica."""

    weights_bytes: float
    activation_bytes: float
    """Peak activations and the runtime's own memory."""
    kv_bytes: float
    """Left for the KV cache."""
    kv_bytes_per_token: float
    """Of the whole replica, copies of KV heads included."""
    num_blocks: int
    shortfall_bytes: float
    """> 0: weights, activations and one block do not fit, and by how much."""


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
) -> MemoryPlan:
    """Weights and KV cache of a model on tp x pp equal devices; the pipeline stage with most weights decides.

    activation_reserve_bytes: replaces the estimate of activations and runtime, per device. num_gpu_blocks: replaces the
    number of blocks that follows from the memory. Spreading experts (ep) over tensor-parallel devices moves no bytes.
    """
    weights = device_weight_bytes(model, tp=tp, pp=pp, ep=ep)
    if activation_reserve_bytes is None:
        activation_reserve_bytes = activation_bytes(model, device, tp, max_num_batched_tokens, max_num_seqs)
    states = state_bytes_per_sequence(model) * max_num_seqs / (tp * pp)
    usable = memory_fraction * device.memory.capacity_bytes
    kv_bytes = usable - weights - activation_reserve_bytes - states
    token_bytes = device_kv_bytes_per_token(model, kv_dtype, tp=tp, pp=pp)
    block_bytes = token_bytes * block_tokens
    if num_gpu_blocks is not None:
        num_blocks = num_gpu_blocks
    elif block_bytes > 0.0:
        num_blocks = max(int(kv_bytes // block_bytes), 0)
    else:  # nothing is cached: sequences are limited by their number alone
        num_blocks = max_num_seqs * ceil(model.max_model_len / block_tokens) if kv_bytes >= 0.0 else 0
    needed = num_gpu_blocks if num_gpu_blocks is not None else 1
    return MemoryPlan(
        weights_bytes=weights,
        activation_bytes=activation_reserve_bytes,
        kv_bytes=max(kv_bytes, 0.0),
        kv_bytes_per_token=token_bytes * tp * pp,
        num_blocks=num_blocks,
        shortfall_bytes=max(needed * block_bytes - kv_bytes, 0.0),
    )


def device_weight_bytes(model: ModelArchitecture, *, tp: int, pp: int, ep: int = 1) -> float:
    """Weights on one device. Layers are cut over tp and pp, the first stage has the embedding, the last the logits."""
    parts = part_parameters(model)
    total = weight_bytes(model)
    if pp == 1:
        return total / tp
    wide = DTYPE_BYTES[model.activation_dtype]
    embedding = parts["embedding"] * wide
    logits = parts["lm_head"] * DTYPE_BYTES[model.weight_dtype]
    if model.tied_embeddings:
        logits = embedding
        total += embedding  # the last stage needs its own copy
    layers = total - embedding - logits
    most_layers = ceil(model.num_layers / pp) / model.num_layers
    return (layers * most_layers + max(embedding, logits)) / tp


def device_kv_bytes_per_token(model: ModelArchitecture, kv_dtype: Dtype, *, tp: int, pp: int) -> float:
    """KV bytes of one token on one device: KV heads cut over tp, copied where fewer; latents always copied."""
    share = 1.0
    if model.mla is None and model.num_kv_heads > 0:
        share = ceil(model.num_kv_heads / tp) / model.num_kv_heads
    stage = ceil(model.num_layers / pp) / model.num_layers
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
