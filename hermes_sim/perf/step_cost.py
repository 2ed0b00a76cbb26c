"""Cost tables of one LLM engine, built once from a model, a device and the degrees of parallelism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.perf import lowering
from hermes_sim.perf.attention_layers import (
    AttentionLayers,
    RecurrentLayers,
    attention_layers,
    layer_coefficients,
    recurrent_layers,
)
from hermes_sim.perf.lowering import HOST, LoweredOperators, lower_sampling, lower_tokens
from hermes_sim.perf.operator_table import OperatorCost, Provenance, StepBatch, captured_size, operator_costs
from hermes_sim.perf.operators.attention import NUM_LAYER_COEFFICIENTS
from hermes_sim.perf.step_kernel import (
    FIRST_KIND,
    HOST_STEP_S,
    LAUNCH_FLOOR_S,
    MAX_CAPTURED_SEQS,
    NUM_ATTENTION_COEFFICIENTS,
    NUM_KINDS,
    RECURRENCE_S,
    RECURRENCE_SEQUENCE_S,
    RECURRENCE_TOKEN_S,
    step_cost,
)

__all__ = ["NUM_ATTENTION_COEFFICIENTS", "LlmCost", "StepBatch", "build_llm_cost", "step_cost"]

FloatArray = npt.NDArray[np.float64]

GROUPED_PRODUCTS_PER_LAYER = 2
"""Gate and up together, down."""

SMALL_KERNELS_PER_ATTENTION = 2
"""Kernel launches of one attention layer: cache write, attention."""


@dataclass(frozen=True, slots=True)
class LlmCost:
    """What one step of an engine costs. The arrays are what step_cost reads."""

    linear: FloatArray
    """[max_tokens + 1, 4] seconds by limiting resource of all that depends on the number of tokens alone."""
    decode_linear: FloatArray
    """[max_seqs + 1, 4] the same for decode-only steps, padded to the next captured size."""
    sampled: FloatArray
    """[max_seqs + 1, 4] logits, sampling and host time per sequence."""
    attention: FloatArray
    """[NUM_ATTENTION_COEFFICIENTS]"""
    stage_interval_frac: float
    """Time of the slowest pipeline stage over that of the whole pass; 1 without a pipeline."""
    power_w: FloatArray
    """[4] watts of all devices of the replica while each resource limits."""
    idle_w: float
    model: ModelArchitecture
    kv_dtype: Dtype
    tp: int
    ep: int
    provenance: Provenance
    token_operators: LoweredOperators
    sampling_operators: LoweredOperators
    attention_layers: tuple[AttentionLayers, ...]
    recurrent_layers: RecurrentLayers | None

    def seconds(self, batch: StepBatch) -> FloatArray:
        """[4] seconds of one step by limiting resource."""
        out = np.zeros(lowering.NUM_RESOURCES)
        step_cost(
            self.linear, self.decode_linear, self.sampled, self.attention,
            batch.num_tokens, batch.num_sampled, batch.num_decode, batch.decode_context_sum, batch.decode_context_max,
            batch.num_prefill, batch.prefill_token_pairs, batch.prefill_context_sum, out,
        )  # fmt: skip
        return out

    def flops_bytes(
        self,
        num_steps: float,
        num_tokens: float,
        num_sampled: float,
        decode_context_sum: float,
        prefill_token_pairs: float,
        prefill_context_sum: float,
    ) -> tuple[float, float]:
        """FLOPs and bytes of any number of steps, all devices of the replica, for MFU and MBU.

        Exact, but for three things: experts are read as in a step of the mean size, windows clip the sums of all
        sequences together, and every sampled token is taken for a decode (the last of a prompt is not).
        """
        num_prompt_tokens = max(num_tokens - num_sampled, 0.0)
        history = max(prefill_context_sum - num_prompt_tokens, 0.0)
        flops = self.token_operators.flops(num_tokens) + self.sampling_operators.flops(num_sampled)
        moved = self.token_operators.bytes(num_steps, num_tokens) + self.sampling_operators.bytes(
            min(num_steps, num_sampled), num_sampled
        )
        for layers in self.attention_layers:
            pairs, context, decode_context = prefill_token_pairs, prefill_context_sum, decode_context_sum
            if layers.window_tokens:
                pairs = min(pairs, num_tokens * layers.window_tokens)
                decode_context = min(decode_context, num_sampled * layers.window_tokens)
            layer_flops = (
                decode_context * layers.decode_flops_per_token
                + pairs * layers.flops_per_pair
                + history * layers.history_flops_per_token
            )
            flops += layers.num_layers * layer_flops
            moved += layers.num_layers * (
                decode_context * layers.decode_bytes_per_token
                + context * layers.prefill_bytes_per_token
                + num_prompt_tokens * layers.prefill_bytes_per_query
                + num_sampled * layers.decode_bytes_per_query
            )
        if self.recurrent_layers is not None:
            recurrent = self.recurrent_layers
            flops += recurrent.num_layers * num_tokens * recurrent.flops_per_token
            moved += recurrent.num_layers * (
                num_tokens * recurrent.bytes_per_token + num_sampled * recurrent.bytes_per_sequence
            )
        return flops * self.tp, moved * self.tp

    def operator_table(
        self,
        *,
        num_tokens: int,
        num_sampled: int,
        num_decode: int = 0,
        decode_context_sum: int = 0,
        decode_context_max: int = 0,
        num_prefill: int = 0,
        prefill_token_pairs: int = 0,
        prefill_context_sum: int = 0,
    ) -> list[OperatorCost]:
        """Every operator of one step, priced as step_cost prices it; the seconds add up to the step's."""
        batch = StepBatch(
            num_tokens, num_sampled, num_decode, decode_context_sum, decode_context_max,
            num_prefill, prefill_token_pairs, prefill_context_sum,
        )  # fmt: skip
        return operator_costs(self, batch)


def build_llm_cost(
    model: ModelArchitecture,
    device: Device,
    *,
    tp: int,
    pp: int,
    ep: int,
    max_tokens: int,
    max_seqs: int,
    tp_bandwidth_bytes_per_s: float,
    tp_latency_s: float,
    pp_bandwidth_bytes_per_s: float,
    pp_latency_s: float,
    kv_dtype: Dtype,
    host_per_step_s: float,
    host_per_sequence_s: float,
    graph_capture: bool,
    max_captured_seqs: int,
) -> LlmCost:
    """Price a model on `tp` x `pp` devices. Bandwidths are what one device's port reaches, per direction."""
    settings = np.zeros(lowering.NUM_SETTINGS)
    settings[lowering.TP] = tp
    settings[lowering.TP_BANDWIDTH], settings[lowering.TP_LATENCY_S] = tp_bandwidth_bytes_per_s, tp_latency_s
    settings[lowering.PP_BANDWIDTH], settings[lowering.PP_LATENCY_S] = pp_bandwidth_bytes_per_s, pp_latency_s
    settings[lowering.STREAM_BANDWIDTH] = device.memory.bandwidth_bytes_per_s
    settings[lowering.STREAM_FRAC] = device.cost_model.elementwise_memory_frac
    settings[lowering.STREAM_LAUNCH_S] = device.cost_model.elementwise_launch_s
    settings[lowering.EXPERT_SLOWDOWN] = device.cost_model.expert_slowdown
    settings[lowering.EXPERT_LAUNCH_S] = device.cost_model.expert_launch_s / GROUPED_PRODUCTS_PER_LAYER
    lowered = lower_tokens(model, device, settings, tp=tp, pp=pp, ep=ep)
    sampling = lower_sampling(model, device, settings, tp=tp)
    layers = attention_layers(model, tp=tp, kv_dtype=kv_dtype)
    recurrent = recurrent_layers(model, tp=tp)

    largest = max(max_tokens, captured_size(max_seqs, max_captured_seqs if graph_capture else 0))
    table = lowered.table(largest)
    captured = max_captured_seqs if graph_capture else 0
    padded = [captured_size(num_seqs, captured) for num_seqs in range(max_seqs + 1)]
    sampled = sampling.table(max_seqs)
    sampled[:, HOST] += host_per_sequence_s * np.arange(max_seqs + 1)

    num_kernels = lowered.num_kernels + sampling.num_kernels
    num_kernels += SMALL_KERNELS_PER_ATTENTION * sum(kind.num_layers for kind in layers)
    attention = np.zeros(NUM_ATTENTION_COEFFICIENTS)
    attention[HOST_STEP_S] = host_per_step_s
    attention[LAUNCH_FLOOR_S] = num_kernels * device.cost_model.kernel_launch_s
    attention[MAX_CAPTURED_SEQS] = captured
    attention[NUM_KINDS] = len(layers)
    for number, kind in enumerate(layers):
        start = FIRST_KIND + number * NUM_LAYER_COEFFICIENTS
        attention[start : start + NUM_LAYER_COEFFICIENTS] = layer_coefficients(kind, device)
    if recurrent is not None:
        _fill_recurrence(attention, recurrent, device)

    decode_linear = table[padded]
    return LlmCost(
        linear=table[: max_tokens + 1],
        decode_linear=decode_linear,
        sampled=sampled,
        attention=attention,
        stage_interval_frac=_stage_interval_frac(
            decode_linear[-1].sum(), sampled[-1, :HOST].sum(), model.num_layers, pp
        ),
        power_w=_power_w(device, tp * pp),
        idle_w=device.power.idle_w * tp * pp,
        model=model,
        kv_dtype=kv_dtype,
        tp=tp,
        ep=ep,
        provenance="estimate" if device.cost_model.source.kind == "estimate" else "analytic",
        token_operators=lowered,
        sampling_operators=sampling,
        attention_layers=layers,
        recurrent_layers=recurrent,
    )


def _fill_recurrence(attention: FloatArray, recurrent: RecurrentLayers, device: Device) -> None:
    bandwidth = device.memory.bandwidth_bytes_per_s * device.cost_model.elementwise_memory_frac
    attention[RECURRENCE_S] = recurrent.num_layers * device.cost_model.elementwise_launch_s
    attention[RECURRENCE_SEQUENCE_S] = recurrent.num_layers * recurrent.bytes_per_sequence / bandwidth
    attention[RECURRENCE_TOKEN_S] = recurrent.num_layers * recurrent.bytes_per_token / bandwidth


def _stage_interval_frac(layers_s: float, sampling_s: float, num_layers: int, pp: int) -> float:
    """Slowest stage over the whole pass: most layers, or the last stage with the logits (full decode batch)."""
    if pp == 1:
        return 1.0
    most, last = -(-num_layers // pp) / num_layers, (num_layers // pp) / num_layers
    return float(max(most * layers_s, last * layers_s + sampling_s) / (layers_s + sampling_s))


def _power_w(device: Device, num_devices: int) -> FloatArray:
    power = device.power
    shares = [power.compute_bound_frac, power.memory_bound_frac, power.network_bound_frac, power.host_bound_frac]
    return num_devices * power.tdp_w * np.array(shares)
