"""Every operator of one step with its work, its time and what limits it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from hermes_sim.models.forward import (
    Batch,
    context_operators,
    encoder_pass_operators,
    sampling_operators,
    token_operators,
)
from hermes_sim.models.operator import Operator
from hermes_sim.perf.attention_layers import layer_kind
from hermes_sim.perf.lowered_operators import LoweredOperators
from hermes_sim.perf.operator_rows import COMPUTE, HOST, MEMORY
from hermes_sim.perf.operators.attention import (
    DECODE_LAUNCH_S,
    DECODE_RESIDUAL,
    MIXED_ROW_TOKENS,
    NUM_LAYER_COEFFICIENTS,
    PREFILL_LAUNCH_S,
    PREFILL_RESIDUAL,
)
from hermes_sim.perf.operators.corrected_attention import (
    corrected_prefill_seconds,
    plane_ratio,
)
from hermes_sim.perf.placed_operators import PlacedOperators
from hermes_sim.perf.step_kernel import (
    FIRST_KIND,
    INTERLEAVED_LAYERS,
    MAX_CAPTURED_TOKENS,
    RECURRENCE_S,
    RECURRENCE_SEQUENCE_S,
    RECURRENCE_TOKEN_S,
    decode_attention_seconds,
    takes_turns,
)

if TYPE_CHECKING:
    from hermes_sim.perf.step_cost import LlmCost

Bound = Literal["compute", "memory", "network", "host"]
Provenance = Literal["measured", "interpolated", "analytic", "estimate"]

BOUNDS: tuple[Bound, ...] = ("compute", "memory", "network", "host")
"""By column of the seconds."""

NEEDED_SUPPORT_FRAC = 0.9
"""Of a point's surroundings in a residual table that must have been measured for its time to count as interpolated."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One step, in the counts and sums that step_cost takes."""

    num_tokens: int
    num_sampled: int
    num_decode: int = 0
    decode_context_sum: int = 0
    decode_context_max: int = 0
    num_prefill: int = 0
    prefill_token_pairs: int = 0
    prefill_context_sum: int = 0
    num_draft_tokens: int = 0
    """Verified beside the token of each decode; counted in num_tokens and num_sampled."""

    @property
    def num_decode_tokens(self) -> int:
        return self.num_decode + self.num_draft_tokens

    @property
    def num_prompt_tokens(self) -> int:
        return self.num_tokens - self.num_decode_tokens


class OperatorCost(NamedTuple):
    """One line of the operator table: all calls of one step, all devices of the replica."""

    operator: str
    flops: float
    bytes: float
    seconds: float
    bound: Bound
    provenance: Provenance


def operator_costs(cost: LlmCost, batch: StepBatch) -> list[OperatorCost]:
    """In the order of the forward pass, the host last. Work is that of the real batch, time that of the padded one."""
    context = Batch(
        num_decode=batch.num_decode,
        num_draft_tokens=batch.num_draft_tokens,
        decode_context_sum=batch.decode_context_sum,
        num_prefill=batch.num_prefill,
        num_prefill_tokens=batch.num_prompt_tokens,
        prefill_token_pairs=batch.prefill_token_pairs,
        prefill_context_sum=batch.prefill_context_sum,
        num_sampled=batch.num_sampled,
    )
    hidden_s = _hidden_s(cost, batch)
    hidden = [OperatorCost("side_by_side", 0.0, 0.0, -hidden_s, "memory", cost.provenance)] if hidden_s else []
    sampling = sampling_operators(
        cost.model, batch.num_sampled, tp=cost.tp, sort_bytes_per_logit=cost.sort_bytes_per_logit
    )
    host_s = float(cost.seconds(batch)[HOST])
    between_s = cost.between_steps_s if batch.num_sampled > 0 else 0.0
    between = [OperatorCost("between_steps", 0.0, 0.0, between_s, "memory", cost.provenance)] if between_s else []
    return [
        *_by_tokens(cost, batch),
        *_contextual(cost, batch, context_operators(cost.model, context, tp=cost.tp, kv_dtype=cost.kv_dtype)),
        *_counted(cost, cost.sampling_operators, sampling, batch.num_sampled),
        *between,
        *hidden,
        OperatorCost("host", 0.0, 0.0, host_s, "host", cost.provenance),
    ]


def _hidden_s(cost: LlmCost, batch: StepBatch) -> float:
    """What two halves of a batch that take turns on two kinds of devices save: a line of its own, less than zero."""
    if not takes_turns(cost.attention, batch.num_decode):
        return 0.0
    attention = cost.attention.copy()
    attention[INTERLEAVED_LAYERS] = 0.5  # one part after the other, nothing hidden
    one_after_the_other = replace(cost, attention=attention)
    device_s = one_after_the_other.seconds(batch)[:HOST].sum() - cost.seconds(batch)[:HOST].sum()
    return float(device_s)


def _by_tokens(cost: LlmCost, batch: StepBatch) -> Iterator[OperatorCost]:
    """What the number of tokens decides. The start tokens of prompts that an encoder reads are decoded beside."""
    max_captured = int(cost.attention[MAX_CAPTURED_TOKENS])
    through_encoder = cost.encoder_operators is not None and batch.num_prefill > 0
    num_tokens = batch.num_decode_tokens + batch.num_prefill if through_encoder else batch.num_tokens
    alone = batch.num_prefill == 0 or through_encoder
    if through_encoder:
        assert cost.encoder_operators is not None
        encoder = encoder_pass_operators(cost.model, batch.num_prompt_tokens, tp=cost.tp)
        yield from _counted(cost, cost.encoder_operators, encoder, batch.num_prompt_tokens)
    operators = token_operators(cost.model, num_tokens, tp=cost.tp, ep=cost.ep, dp=cost.dp)
    captured = alone and (num_tokens <= max_captured or cost.placement is not None)
    lowered = cost.captured_operators if captured else cost.token_operators
    padded = captured_size(num_tokens, max_captured) if alone else num_tokens
    yield from _counted(cost, lowered, operators, padded, num_tokens)


def captured_size(num_tokens: int, max_captured: int) -> int:
    """The batch a captured graph runs `num_tokens` of decodes at: 1, 2, 4, 8, 16, 24 ... 256, 272 ...; itself if eager.

    Source: vLLM, VllmConfig._set_cudagraph_sizes (V1).
    """
    if num_tokens <= 2:
        size = num_tokens
    elif num_tokens <= 4:
        size = 4
    else:
        step = 8 if num_tokens <= 256 else 16
        size = -(-num_tokens // step) * step
    return size if size <= max_captured else num_tokens


def _counted(
    cost: LlmCost,
    lowered: LoweredOperators | PlacedOperators,
    operators: tuple[Operator, ...],
    count: int,
    num_real: int | None = None,
) -> Iterator[OperatorCost]:
    """Operators priced by the number of tokens (or samples). The hand-over between stages is none of the model's.

    num_real: tokens without the padding of `count`, which the operators are of.
    """
    if not operators:
        return
    if isinstance(lowered, PlacedOperators):
        for line in lowered.lines(count if num_real is None else num_real, count):
            provenance: Provenance = cost.provenance
            if provenance == "analytic" and line.support_frac >= NEEDED_SUPPORT_FRAC:
                provenance = "interpolated"
            yield OperatorCost(line.name, line.flops, line.bytes, line.seconds, BOUNDS[line.resource], provenance)
        return
    for index, name in enumerate(lowered.names):
        seconds, resource = lowered.seconds(index, count)
        flops = operators[index].total_flops * cost.tp if index < len(operators) else 0.0
        moved = operators[index].total_bytes * cost.tp if index < len(operators) else 0.0
        yield OperatorCost(name, flops, moved, seconds, BOUNDS[resource], _provenance(cost, lowered, index, count))


def _provenance(cost: LlmCost, lowered: LoweredOperators, index: int, count: int) -> Provenance:
    """Interpolated where measurements of the device itself are near on (almost) all sides."""
    if cost.provenance == "analytic" and lowered.support_frac(index, count) >= NEEDED_SUPPORT_FRAC:
        return "interpolated"
    return cost.provenance


def _contextual(cost: LlmCost, batch: StepBatch, operators: tuple[Operator, ...]) -> Iterator[OperatorCost]:
    """Attention and recurrence; what MLA computes again is priced with its attention."""
    for operator in operators:
        provenance = cost.provenance
        if operator.kind == "scan":
            seconds, bound = _recurrence_seconds(cost, batch), MEMORY
        elif operator.kind == "attention":
            seconds, bound = _attention_seconds(cost, batch, operator)
            provenance = _attention_provenance(cost, batch, operator)
        else:
            seconds, bound = 0.0, COMPUTE
        flops, moved = operator.total_flops * cost.tp, operator.total_bytes * cost.tp
        yield OperatorCost(operator.name, flops, moved, seconds, BOUNDS[bound], provenance)


def _layer_start(cost: LlmCost, operator: Operator) -> tuple[int, int]:
    """Number of the operator's layer kind, and where its coefficients start."""
    number = [layers.kind for layers in cost.attention_layers].index(layer_kind(operator))
    return number, FIRST_KIND + number * NUM_LAYER_COEFFICIENTS


def _attention_provenance(cost: LlmCost, batch: StepBatch, operator: Operator) -> Provenance:
    """Interpolated where all of its kernels lie among measured ones: decodes without drafts, (almost) whole prompts.

    A table that holds nothing at a point leaves the time as it is there, so that what it changes is what it knows.
    """
    if cost.provenance != "analytic":
        return cost.provenance
    _, start = _layer_start(cost, operator)
    known = []
    if batch.num_decode > 0 and "prefill" not in operator.name:
        apart = batch.num_prefill == 0 or cost.attention[start + MIXED_ROW_TOKENS] == 0.0
        mean_context = batch.decode_context_sum / batch.num_decode
        near = _is_near_measured(cost, start + DECODE_RESIDUAL, batch.num_decode, mean_context)
        known.append(near and apart and batch.num_draft_tokens == 0)
    if batch.num_prefill > 0 and "decode" not in operator.name:
        whole = batch.num_prompt_tokens >= NEEDED_SUPPORT_FRAC * batch.prefill_context_sum
        mean_prompt = batch.num_prompt_tokens / batch.num_prefill
        known.append(whole and _is_near_measured(cost, start + PREFILL_RESIDUAL, batch.num_prefill, mean_prompt))
    return "interpolated" if known and all(known) else "analytic"


def _is_near_measured(cost: LlmCost, column: int, num_seqs: int, num_tokens: float) -> bool:
    table = int(cost.attention[column])
    return table > 0 and plane_ratio(cost.attention, table, float(num_seqs), num_tokens) != 1.0


def _recurrence_seconds(cost: LlmCost, batch: StepBatch) -> float:
    sequences_s = (batch.num_decode + batch.num_prefill) * cost.attention[RECURRENCE_SEQUENCE_S]
    return float(cost.attention[RECURRENCE_S] + sequences_s + batch.num_tokens * cost.attention[RECURRENCE_TOKEN_S])


def _attention_seconds(cost: LlmCost, batch: StepBatch, operator: Operator) -> tuple[float, int]:
    """Prompts and decodes of one step are one kernel, launched with the prompts; an encoder's are not."""
    number, start = _layer_start(cost, operator)
    num_layers = cost.attention_layers[number].num_layers
    total_s, is_compute = 0.0, False
    through_encoder = batch.num_prefill > 0 and cost.encoder_operators is not None
    num_starts = batch.num_prefill if through_encoder else 0
    if batch.num_decode + num_starts > 0 and "prefill" not in operator.name:
        context_sum = batch.decode_context_sum + (batch.prefill_context_sum if num_starts else 0)
        mean_prompt = batch.prefill_context_sum // num_starts if num_starts else 0
        total_s, is_compute = decode_attention_seconds(
            batch.num_decode + num_starts,
            batch.num_decode_tokens + num_starts,
            float(context_sum),
            float(max(batch.decode_context_max, mean_prompt)),
            cost.attention,
            start,
            batch.num_prefill == 0 and takes_turns(cost.attention, batch.num_decode),
        )
        together = batch.num_prefill > 0 and not through_encoder
        if together and cost.attention[start + MIXED_ROW_TOKENS] > 0.0:
            joint_s, is_compute = _prefill_seconds(cost, batch, start, with_decodes=True)
            total_s = joint_s - _prefill_seconds(cost, batch, start)[0]
        elif together:
            total_s -= float(min(cost.attention[start + DECODE_LAUNCH_S], cost.attention[start + PREFILL_LAUNCH_S]))
    if batch.num_prefill > 0 and "decode" not in operator.name:
        prompt_s, is_compute = _prefill_seconds(cost, batch, start)
        total_s += prompt_s
    return num_layers * total_s, COMPUTE if is_compute else MEMORY


def _prefill_seconds(cost: LlmCost, batch: StepBatch, start: int, *, with_decodes: bool = False) -> tuple[float, bool]:
    return corrected_prefill_seconds(
        batch.num_prefill,
        float(batch.num_prompt_tokens),
        float(batch.prefill_token_pairs),
        float(batch.prefill_context_sum),
        batch.num_decode if with_decodes else 0,
        float(batch.decode_context_sum) if with_decodes else 0.0,
        float(batch.decode_context_max) if with_decodes else 0.0,
        cost.attention,
        start,
    )
