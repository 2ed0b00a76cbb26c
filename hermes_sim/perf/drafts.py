"""What drafting costs in speculative decoding: time tables for the drafting passes, weights and KV cache.

A draft position is one pass of a small model over one token of each sequence (Leviathan et al., arXiv 2211.17192), of
heads on the target's own hidden states (EAGLE, arXiv 2401.15077; multi-token prediction, arXiv 2412.19437), or a
look-up on the host (n-grams of the prompt); Medusa's heads (arXiv 2401.10774) give all positions in one pass. The first
pass of a step also takes in the tokens that are new since the last: prompts, and what was accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import bytes_per_weight, part_parameters
from hermes_sim.perf.collective_coefficients import FROM_BANDWIDTH, Collectives
from hermes_sim.perf.memory import device_kv_bytes_per_token, device_weight_bytes
from hermes_sim.perf.operators.attention import NUM_LAYER_COEFFICIENTS, NUM_LAYERS
from hermes_sim.perf.step_cost import LlmCost, build_llm_cost
from hermes_sim.perf.step_kernel import (
    FIRST_KIND,
    HOST_SEQUENCE_S,
    HOST_STEP_S,
    LAUNCH_FLOOR_S,
    NUM_KINDS,
    PROMPT_LAUNCH_FLOOR_S,
    RECURRENCE_S,
    RECURRENCE_SEQUENCE_S,
    RECURRENCE_TOKEN_S,
)

DraftKind = Literal["model", "heads", "medusa", "ngram"]

PER_LAYER = (RECURRENCE_S, RECURRENCE_SEQUENCE_S, RECURRENCE_TOKEN_S, LAUNCH_FLOOR_S)
"""Coefficients that grow with the number of layers."""


@dataclass(frozen=True, slots=True)
class DraftCost:
    """Drafting on the devices of one engine."""

    cost: LlmCost | None
    """Tables of a drafting pass, without host time; None where the devices do nothing."""
    draft_step_s: float
    """Host seconds per draft position beside the tables."""


@dataclass(frozen=True, slots=True)
class DraftMemory:
    """Bytes that drafting takes on each device."""

    weights_bytes: float
    kv_bytes_per_token: float


def build_draft_cost(
    target: LlmCost,
    device: Device,
    *,
    kind: DraftKind,
    draft_model: ModelArchitecture | None = None,
    layers_frac: float = 0.0,
    num_heads: int = 0,
    tp_bandwidth_bytes_per_s: float,
    tp_latency_s: float,
    max_tokens: int,
    max_seqs: int,
    max_draft_tokens: int,
    kv_dtype: Dtype | None = None,
    graph_capture: bool,
    max_captured_seqs: int,
    host_per_draft_s: float = 0.0,
    kernels: KernelLibrary = "vllm",
    collectives: Collectives = FROM_BANDWIDTH,
) -> DraftCost:
    """Price the drafts of an engine whose own steps cost `target`.

    draft_model: of kind `model`; it runs on the target's tensor-parallel devices, on one of them if its heads cannot be
    cut that often. layers_frac: of kind `heads`, the share of the target's layers that one position goes through;
    embedding and logits are the target's. num_heads: of kind `medusa`, one a draft position. max_tokens, max_seqs,
    max_draft_tokens, captured sizes: as in build_llm_cost, so that any batch of the target has a place in the tables.
    ValueError for kind `model` without a draft_model.
    """
    cost: LlmCost | None = None
    if kind == "heads":
        cost = _heads(target, layers_frac)
    elif kind == "medusa":
        cost = _medusa(target, num_heads)
    elif kind == "model":
        cost = build_llm_cost(
            _required(draft_model),
            device,
            tp=draft_tp(_required(draft_model), target.tp),
            pp=1,
            ep=1,
            max_tokens=max_tokens,
            max_seqs=max_seqs,
            tp_bandwidth_bytes_per_s=tp_bandwidth_bytes_per_s,
            tp_latency_s=tp_latency_s,
            pp_bandwidth_bytes_per_s=tp_bandwidth_bytes_per_s,
            pp_latency_s=tp_latency_s,
            kernels=kernels,
            collectives=collectives,
            kv_dtype=kv_dtype or _required(draft_model).kv_dtype,
            host_per_step_s=0.0,
            host_per_sequence_s=0.0,
            graph_capture=graph_capture,
            max_captured_seqs=max_captured_seqs,
            max_draft_tokens=max_draft_tokens,
        )
    return DraftCost(cost, host_per_draft_s)


def draft_memory(
    model: ModelArchitecture,
    kind: DraftKind,
    draft_model: ModelArchitecture | None = None,
    layers_frac: float = 0.0,
    num_heads: int = 0,
    *,
    tp: int,
    kv_dtype: Dtype | None = None,
) -> DraftMemory:
    """Weights and KV bytes of a token that drafting for `model` adds to each of tp devices."""
    if kind == "ngram":
        return DraftMemory(0.0, 0.0)
    if kind == "heads":
        parts = part_parameters(model)
        wide = bytes_per_weight(model, "lm_head")
        shared = (parts["embedding"] + parts["lm_head"]) * wide / tp
        layers_bytes = device_weight_bytes(model, tp=tp, pp=1) - shared
        token_bytes = device_kv_bytes_per_token(model, kv_dtype or model.kv_dtype, tp=tp)
        return DraftMemory(layers_frac * layers_bytes, layers_frac * token_bytes)
    if kind == "medusa":
        head_bytes = (part_parameters(model)["lm_head"] + model.hidden_size**2) * bytes_per_weight(model, "lm_head")
        return DraftMemory(num_heads * head_bytes / tp, 0.0)
    draft = _required(draft_model)
    own_tp = draft_tp(draft, tp)
    return DraftMemory(
        device_weight_bytes(draft, tp=own_tp, pp=1),
        device_kv_bytes_per_token(draft, kv_dtype or draft.kv_dtype, tp=own_tp),
    )


def draft_tp(draft_model: ModelArchitecture, tp: int) -> int:
    """Devices the draft model is cut over: the target's, or one where its heads do not divide among them."""
    return tp if draft_model.num_heads % tp == 0 and draft_model.num_heads > 0 else 1


def _heads(target: LlmCost, layers_frac: float) -> LlmCost:
    """The target's tables with a share of its layers, logits in full, and no host time."""
    attention = target.attention.copy()
    attention[[HOST_STEP_S, HOST_SEQUENCE_S]] = 0.0
    for column in PER_LAYER:
        attention[column] *= layers_frac
    for number in range(int(attention[NUM_KINDS])):
        attention[FIRST_KIND + number * NUM_LAYER_COEFFICIENTS + NUM_LAYERS] *= layers_frac
    return replace(
        target,
        linear=layers_frac * target.linear,
        decode_linear=layers_frac * target.decode_linear,
        sampled=target.sampling_operators.table(len(target.sampled) - 1),
        attention=np.ascontiguousarray(attention),
    )


def _medusa(target: LlmCost, num_heads: int) -> LlmCost:
    """One pass through the heads: logits of each, made longer by its residual block (hidden x hidden weights beside
    vocabulary x hidden). No layers and no attention."""
    attention = target.attention.copy()
    attention[[HOST_STEP_S, HOST_SEQUENCE_S, LAUNCH_FLOOR_S, PROMPT_LAUNCH_FLOOR_S, RECURRENCE_S]] = 0.0
    attention[NUM_KINDS] = 0.0
    block = 1.0 + target.model.hidden_size / target.model.vocab_size
    return replace(
        target,
        linear=np.zeros_like(target.linear),
        decode_linear=np.zeros_like(target.decode_linear),
        sampled=num_heads * block * target.sampling_operators.table(len(target.sampled) - 1),
        attention=np.ascontiguousarray(attention),
    )


def _required(draft_model: ModelArchitecture | None) -> ModelArchitecture:
    if draft_model is None:
        raise ValueError("drafts of a model need that model")
    return draft_model
