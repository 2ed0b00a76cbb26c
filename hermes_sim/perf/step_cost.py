"""Cost tables of one LLM engine, built once from a model, a device and the degrees of parallelism."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.expert_load import ExpertLoad, UniformLoad
from hermes_sim.perf import operator_rows
from hermes_sim.perf.attention_layers import (
    AttentionLayers,
    RecurrentLayers,
    attention_layers,
    layer_coefficients,
    recurrent_layers,
)
from hermes_sim.perf.attention_residual import with_residuals
from hermes_sim.perf.collective_coefficients import FROM_BANDWIDTH, Collectives
from hermes_sim.perf.expert_routing import expert_rates
from hermes_sim.perf.lowered_operators import LoweredOperators
from hermes_sim.perf.lowering import lower_encoder, lower_sampling, lower_tokens
from hermes_sim.perf.operator_rows import COMPUTE, HOST, MEMORY, NO_RATES
from hermes_sim.perf.operator_table import OperatorCost, Provenance, StepBatch, captured_size, operator_costs
from hermes_sim.perf.operators.attention import NUM_LAYER_COEFFICIENTS
from hermes_sim.perf.pipeline import stage_interval_frac, stage_layers
from hermes_sim.perf.placed_attention import with_placed_layers
from hermes_sim.perf.placed_lowering import lower_placed_sampling, lower_placed_tokens
from hermes_sim.perf.placed_operators import PlacedOperators
from hermes_sim.perf.step_kernel import (
    ENCODER_LAUNCH_FLOOR_S,
    FIRST_KIND,
    HAS_ENCODER,
    HOST_SEQUENCE_S,
    HOST_STEP_S,
    INTERLEAVED_FROM_SEQS,
    LAUNCH_FLOOR_S,
    MAX_CAPTURED_TOKENS,
    NUM_ATTENTION_COEFFICIENTS,
    NUM_KINDS,
    PROMPT_LAUNCH_FLOOR_S,
    RECURRENCE_S,
    RECURRENCE_SEQUENCE_S,
    RECURRENCE_TOKEN_S,
    step_cost,
)
from hermes_sim.perf.unit import Unit, UnitPlacement
from hermes_sim.state.arrays import UNIT_J

__all__ = ["NUM_ATTENTION_COEFFICIENTS", "LlmCost", "StepBatch", "build_llm_cost", "step_cost"]

FloatArray = npt.NDArray[np.float64]

TYPICAL_CLOCK_HZ = 1.5e9
"""Of a device that states none."""

SMALL_KERNELS_PER_ATTENTION = 2
"""Kernel launches of one attention layer: cache write, attention."""


@dataclass(frozen=True, slots=True)
class LlmCost:
    """What one step of an engine (with data-parallel attention: of one rank) costs. step_cost reads the arrays."""

    linear: FloatArray
    """[max_tokens + 1, 4] seconds by limiting resource of all that depends on the number of tokens alone.

    With data-parallel attention: by the tokens of the largest rank. Encoder-decoder models: by tokens of prompts.
    """
    decode_linear: FloatArray
    """[max_seqs (1 + max_draft_tokens) + 1, 4] the same for decode-only steps, padded to the next captured size."""
    sampled: FloatArray
    """[max_seqs (1 + max_draft_tokens) + 1, 4] logits, sampling and host time by tokens that get logits."""
    attention: FloatArray
    """[NUM_ATTENTION_COEFFICIENTS], and what the residual tables of its layers take behind them."""
    stage_interval_frac: float
    """Time of the slowest pipeline stage over that of the whole pass; 1 without a pipeline."""
    power_w: FloatArray
    """[4] watts of all devices of the replica (of the rank) while each resource limits."""
    idle_w: float
    model: ModelArchitecture
    kv_dtype: Dtype
    tp: int
    ep: int
    dp: int
    provenance: Provenance
    token_operators: LoweredOperators | PlacedOperators
    captured_operators: LoweredOperators | PlacedOperators
    """The same in a captured step; of an engine that spans device groups, in a step without prompts."""
    encoder_operators: LoweredOperators | None
    """What an encoder-decoder model does with its prompts; the others put them through `token_operators`."""
    sampling_operators: LoweredOperators | PlacedOperators
    sort_bytes_per_logit: float
    between_steps_s: float
    """Device time outside the layers of a step that gives tokens."""
    attention_layers: tuple[AttentionLayers, ...]
    recurrent_layers: RecurrentLayers | None
    placement: UnitPlacement | None = None
    """Device groups with an account of their own; None: one kind of device, power_w says it all."""
    linear_units: FloatArray | None = None
    """[max_tokens + 1, NUM_UNIT_COLUMNS] beside `linear`: perf/unit_kernel.py."""
    decode_units: FloatArray | None = None
    sampled_units: FloatArray | None = None

    def seconds(self, batch: StepBatch) -> FloatArray:
        """[4] seconds of one step by limiting resource."""
        out = np.zeros(operator_rows.NUM_RESOURCES)
        step_cost(
            self.linear, self.decode_linear, self.sampled, self.attention,
            batch.num_tokens, batch.num_sampled, batch.num_decode, batch.num_decode_tokens, batch.decode_context_sum,
            batch.decode_context_max, batch.num_prefill, batch.prefill_token_pairs, batch.prefill_context_sum, out,
        )  # fmt: skip
        return out

    def flops_bytes(
        self,
        num_steps: FloatArray,
        num_tokens: FloatArray,
        num_sampled: FloatArray,
        decode_context_sum: FloatArray,
        prefill_token_pairs: FloatArray,
        prefill_context_sum: FloatArray,
        tokens_per_decode: FloatArray | float = 1.0,
    ) -> tuple[FloatArray, FloatArray]:
        """FLOPs and bytes of any number of steps, all devices of the replica (of the rank), for MFU and MBU.

        Arrays of one shape, one entry for each set of steps; so are the two results. tokens_per_decode: mean tokens of
        a decoding sequence in a step, drafts included. Exact, but for three things: experts are read as in a step of
        the mean size, windows clip the sums of all sequences together, and every sampled token is taken for a decode
        (the last of a prompt is not).
        """
        num_prompt_tokens = np.maximum(num_tokens - num_sampled, 0.0)
        history = np.maximum(prefill_context_sum - num_prompt_tokens, 0.0)
        flops = self.sampling_operators.flops(num_sampled)
        moved = self.sampling_operators.bytes(np.minimum(num_steps, num_sampled), num_sampled)
        if self.encoder_operators is None:
            flops += self.token_operators.flops(num_tokens)
            moved += self.token_operators.bytes(num_steps, num_tokens)
        else:
            flops += self.encoder_operators.flops(num_prompt_tokens) + self.token_operators.flops(num_sampled)
            moved += self.encoder_operators.bytes(np.minimum(num_steps, num_prompt_tokens), num_prompt_tokens)
            moved += self.token_operators.bytes(num_steps, num_sampled)
        for layers in self.attention_layers:
            pairs, decode_context = prefill_token_pairs, decode_context_sum
            if layers.window_tokens:
                pairs = np.minimum(pairs, num_tokens * layers.window_tokens)
                decode_context = np.minimum(decode_context, num_sampled * layers.window_tokens)
            pairs = layers.prompt_pairs(pairs, num_prompt_tokens)
            prompt_flops = pairs * layers.flops_per_pair + history * layers.history_flops_per_token
            flops += layers.num_prompt_layers * prompt_flops
            flops += layers.num_layers * decode_context * tokens_per_decode * layers.decode_flops_per_token
            moved += layers.num_prompt_layers * (
                prefill_context_sum * layers.prefill_bytes_per_token
                + num_prompt_tokens * layers.prefill_bytes_per_query
            )
            moved += layers.num_layers * (
                decode_context * layers.decode_bytes_per_token + num_sampled * layers.decode_bytes_per_query
            )
        if self.recurrent_layers is not None:
            recurrent = self.recurrent_layers
            flops += recurrent.num_layers * num_tokens * recurrent.flops_per_token
            moved += recurrent.num_layers * (
                num_tokens * recurrent.bytes_per_token + num_sampled / tokens_per_decode * recurrent.bytes_per_sequence
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
        num_draft_tokens: int = 0,
    ) -> list[OperatorCost]:
        """Every operator of one step, priced as step_cost prices it; the seconds add up to the step's."""
        batch = StepBatch(
            num_tokens, num_sampled, num_decode, decode_context_sum, decode_context_max,
            num_prefill, prefill_token_pairs, prefill_context_sum, num_draft_tokens,
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
    between_steps_s: float = 0.0,
    launch_factor: float = 1.0,
    prompt_launch_factor: float = 1.0,
    compute_slowdown: float = 1.0,
    captured_frac: float = 1.0,
    sort_bytes_per_logit: float = 0.0,
    sort_cycles_per_logit: float = 0.0,
    dp: int = 1,
    ep_bandwidth_bytes_per_s: float = 0.0,
    ep_latency_s: float = 0.0,
    layers_per_stage: tuple[int, ...] | None = None,
    expert_load: ExpertLoad | None = None,
    max_draft_tokens: int = 0,
    kernels: KernelLibrary = "vllm",
    collectives: Collectives = FROM_BANDWIDTH,
    sequence_parallel: bool = False,
    comm_overlap_frac: float = 0.0,
    placement: UnitPlacement | None = None,
) -> LlmCost:
    """Price a model on `tp` x `pp` devices. Bandwidths are what one device's port reaches, per direction.

    With dp > 1 ranks that share the experts it is the cost of one rank, on tp devices; the experts lie in `ep` shares
    on all tp x dp devices, which the ep link joins. expert_load: how tokens choose experts, all alike if not given.
    between_steps_s: what a step that gives tokens needs on the device outside its layers. launch_factor: time to
    launch a kernel that is not captured, over that of a bare launch; prompt_launch_factor: launches of a step with
    prompts over those of one without. compute_slowdown: of products that compute limits.
    captured_frac: of the small kernels of the layers in captured steps.
    sort_bytes_per_logit, sort_cycles_per_logit: top-p sampling sorts, rows side by side, one core each.
    kernels: whose products, experts and attention; collectives: what is fitted to the tp and ep links, before their
    bandwidths. sequence_parallel: reduce-scatter and all-gather in the place of an all-reduce. comm_overlap_frac: of
    the network's time beside other work. max_draft_tokens: most drafts of one sequence that are verified in one step.
    placement: operators on several device groups (then tp is that of the group with the KV cache, and the device one of
    it), or on arrays that count energy by operation. ValueError if what is stated does not fit the model.
    """
    _refuse(model, pp, dp, ep_bandwidth_bytes_per_s)

    def settings_of(tp: int, bandwidth_bytes_per_s: float, latency_s: float, fitted: Collectives) -> FloatArray:
        settings = np.zeros(operator_rows.NUM_SETTINGS)
        settings[operator_rows.TP] = tp
        settings[operator_rows.TP_BANDWIDTH], settings[operator_rows.TP_LATENCY_S] = bandwidth_bytes_per_s, latency_s
        settings[operator_rows.PP_BANDWIDTH] = pp_bandwidth_bytes_per_s
        settings[operator_rows.PP_LATENCY_S] = pp_latency_s
        settings[operator_rows.EP_BANDWIDTH] = ep_bandwidth_bytes_per_s
        settings[operator_rows.EP_LATENCY_S] = ep_latency_s
        settings[operator_rows.EP_DEVICES] = tp * dp
        settings[operator_rows.TP_ALL_REDUCE : operator_rows.NUM_SETTINGS] = np.concatenate(fitted)
        return settings

    def unit_settings(unit: Unit) -> FloatArray:
        return settings_of(unit.tp, unit.bandwidth_bytes_per_s, unit.latency_s, unit.collectives)

    settings = settings_of(tp, tp_bandwidth_bytes_per_s, tp_latency_s, collectives)
    rates = _expert_rates(model, expert_load, ep)
    lowered: LoweredOperators | PlacedOperators
    without_prompts: LoweredOperators | PlacedOperators
    sampling: LoweredOperators | PlacedOperators
    if placement is None:
        lowered = without_prompts = lower_tokens(
            model, device, settings, tp=tp, pp=pp, ep=ep, dp=dp, expert_rates=rates, kernels=kernels,
            sequence_parallel=sequence_parallel, comm_overlap_frac=comm_overlap_frac,
        )  # fmt: skip
        sampling = lower_sampling(
            model, device, settings, tp=tp, sort_bytes_per_logit=sort_bytes_per_logit, kernels=kernels
        )
    else:
        lower_phase = partial(
            lower_placed_tokens, model, placement, unit_settings, pp=pp, expert_rates=rates, kernels=kernels,
            comm_overlap_frac=comm_overlap_frac,
        )  # fmt: skip
        lowered, without_prompts = lower_phase(phase="prefill"), lower_phase(phase="decode")
        sampling = lower_placed_sampling(
            model, placement, unit_settings, pp=pp, sort_bytes_per_logit=sort_bytes_per_logit, kernels=kernels
        )
    encoder = lower_encoder(model, device, settings, tp=tp, kernels=kernels) if model.num_encoder_layers > 0 else None
    layers = attention_layers(model, tp=tp, kv_dtype=kv_dtype)
    recurrent = recurrent_layers(model, tp=tp)

    captured = max_captured_seqs if graph_capture else 0
    most_decode_tokens = max_seqs * (1 + max_draft_tokens)
    table = lowered.table(max(max_tokens, captured_size(most_decode_tokens, captured)))
    table[:, COMPUTE] *= compute_slowdown
    without_prompts_table = table if without_prompts is lowered else without_prompts.table(len(table) - 1)
    padded = [captured_size(num_tokens, captured) for num_tokens in range(most_decode_tokens + 1)]
    decode_linear = without_prompts_table[padded]
    in_graph = without_prompts.with_small_kernels(captured_frac)
    num_captured = min(captured, most_decode_tokens)
    if captured_frac < 1.0:
        decode_linear[: num_captured + 1] = in_graph.table(max(padded[: num_captured + 1]))[padded[: num_captured + 1]]
        decode_linear[: num_captured + 1, COMPUTE] *= compute_slowdown
    sampled = sampling.table(most_decode_tokens)
    sampled[:, HOST] += host_per_sequence_s * np.arange(most_decode_tokens + 1)
    between_steps_s += model.vocab_size * sort_cycles_per_logit / (device.clock_hz or TYPICAL_CLOCK_HZ)
    sampled[1:, MEMORY] += between_steps_s

    num_kernels = lowered.num_kernels + sampling.num_kernels
    num_kernels += SMALL_KERNELS_PER_ATTENTION * sum(kind.num_layers * kind.num_decode_calls for kind in layers)
    attention = np.zeros(NUM_ATTENTION_COEFFICIENTS)
    attention[HOST_STEP_S] = host_per_step_s
    attention[HOST_SEQUENCE_S] = host_per_sequence_s
    launch_s = launch_factor * device.cost_model.kernel_launch_s
    attention[LAUNCH_FLOOR_S] = num_kernels * launch_s
    attention[PROMPT_LAUNCH_FLOOR_S] = num_kernels * launch_s * prompt_launch_factor
    attention[MAX_CAPTURED_TOKENS] = captured
    attention[NUM_KINDS] = len(layers)
    if encoder is not None:
        num_encoder_kernels = encoder.num_kernels + sum(kind.num_prompt_layers for kind in layers)
        attention[HAS_ENCODER] = 1.0
        attention[ENCODER_LAUNCH_FLOOR_S] = num_encoder_kernels * launch_s
    starts = {FIRST_KIND + number * NUM_LAYER_COEFFICIENTS: kind for number, kind in enumerate(layers)}
    if placement is None:
        for start, kind in starts.items():
            own = layer_coefficients(kind, device, kernels, serving=True)
            attention[start : start + NUM_LAYER_COEFFICIENTS] = own
        attention = with_residuals(attention, starts, device, kernels)
    else:
        attention = with_placed_layers(attention, model, placement, layers, kv_dtype, kernels)
        if placement.interleave_from_seqs is not None:  # as soon as the batch is padded to so many
            whole = [number for number, size in enumerate(padded) if size < placement.interleave_from_seqs]
            attention[INTERLEAVED_FROM_SEQS] = len(whole)
    if recurrent is not None:
        _fill_recurrence(attention, recurrent, device)

    stages = stage_layers(model.num_layers, pp, layers_per_stage)
    power_w, idle_w = _power_w(device, tp * pp), device.power.idle_w * tp * pp
    if placement is not None:
        power_w, idle_w = placement.power_w * pp, placement.idle_w * pp
    cost = LlmCost(
        linear=encoder.table(max_tokens) if encoder is not None else table[: max_tokens + 1],
        decode_linear=decode_linear,
        sampled=sampled,
        attention=attention,
        stage_interval_frac=stage_interval_frac(
            stages, float(decode_linear[max_seqs].sum()), float(sampled[max_seqs, :HOST].sum())
        ),
        power_w=power_w,
        idle_w=idle_w,
        model=model,
        kv_dtype=kv_dtype,
        tp=tp,
        ep=ep,
        dp=dp,
        provenance=_provenance([device] if placement is None else [unit.device for unit in placement.units]),
        token_operators=lowered,
        captured_operators=in_graph,
        encoder_operators=encoder,
        sampling_operators=sampling,
        sort_bytes_per_logit=sort_bytes_per_logit,
        between_steps_s=between_steps_s,
        attention_layers=layers,
        recurrent_layers=recurrent,
    )
    return cost if placement is None else _with_accounts(cost, placement, padded)


def _provenance(devices: Sequence[Device]) -> Provenance:
    """Of arrays nothing is measured."""
    judged = any(one.array is not None or one.cost_model.source.kind == "estimate" for one in devices)
    return "estimate" if judged else "analytic"


def _with_accounts(cost: LlmCost, placement: UnitPlacement, padded: Sequence[int]) -> LlmCost:
    """What each device group does, for every row of the tables."""
    assert isinstance(cost.token_operators, PlacedOperators)
    assert isinstance(cost.captured_operators, PlacedOperators)
    assert isinstance(cost.sampling_operators, PlacedOperators)
    sampled = cost.sampling_operators.unit_table(len(cost.sampled) - 1)
    rest = placement.unit_of["rest"]
    sampled[1:, rest] += cost.between_steps_s
    sampled[1:, UNIT_J + rest] += cost.between_steps_s * placement.units[rest].active_w[MEMORY]
    return replace(
        cost,
        placement=placement,
        linear_units=cost.token_operators.unit_table(len(cost.linear) - 1),
        decode_units=cost.captured_operators.unit_table(max(padded))[list(padded)],
        sampled_units=sampled,
    )


def _refuse(model: ModelArchitecture, pp: int, dp: int, ep_bandwidth_bytes_per_s: float) -> None:
    if dp > 1 and ep_bandwidth_bytes_per_s <= 0.0 and model.moe is not None:
        raise ValueError("ranks that share experts need the bandwidth of the links between them")
    if model.num_encoder_layers > 0 and pp > 1:
        raise ValueError(f"{model.name} has an encoder of its own: it cannot be cut into pipeline stages")


def _expert_rates(model: ModelArchitecture, expert_load: ExpertLoad | None, ep: int) -> FloatArray:
    """[ep, experts of a share]; none where all experts are alike."""
    if model.moe is None or expert_load is None or isinstance(expert_load, UniformLoad):
        return NO_RATES
    shares = np.array(expert_load.expert_shares(model.moe.num_experts))
    return expert_rates(shares, model.moe.num_experts_per_token, ep)


def _fill_recurrence(attention: FloatArray, recurrent: RecurrentLayers, device: Device) -> None:
    bandwidth = device.memory.bandwidth_bytes_per_s * device.cost_model.elementwise_memory_frac
    attention[RECURRENCE_S] = recurrent.num_layers * device.cost_model.elementwise_launch_s
    attention[RECURRENCE_SEQUENCE_S] = recurrent.num_layers * recurrent.bytes_per_sequence / bandwidth
    attention[RECURRENCE_TOKEN_S] = recurrent.num_layers * recurrent.bytes_per_token / bandwidth


def _power_w(device: Device, num_devices: int) -> FloatArray:
    power = device.power
    shares = [power.compute_bound_frac, power.memory_bound_frac, power.network_bound_frac, power.host_bound_frac]
    return num_devices * power.tdp_w * np.array(shares)
