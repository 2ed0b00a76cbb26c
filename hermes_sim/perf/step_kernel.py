"""Time of one step of an LLM engine: what depends on token counts from tables, attention from sums of contexts.

The tables are filled once per engine by the functions that price single operators; a step then takes three look-ups and
a few multiplications, and the same step always has the same bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled
from hermes_sim.perf.attention_layers import MAX_LAYER_KINDS
from hermes_sim.perf.operator_rows import COMPUTE, HOST, MEMORY, NETWORK
from hermes_sim.perf.operators.attention import (
    DECODE_LAUNCH_S,
    MIXED_ROW_TOKENS,
    NUM_LAYER_COEFFICIENTS,
    NUM_LAYERS,
    PREFILL_LAUNCH_S,
)
from hermes_sim.perf.operators.corrected_attention import corrected_decode_seconds, corrected_prefill_seconds

FloatArray = npt.NDArray[np.float64]

HOST_STEP_S = 0  # host time of every step
LAUNCH_FLOOR_S = 1  # host time to launch all kernels of a step that is not captured
MAX_CAPTURED_TOKENS = 2  # decode batches up to this size replay a captured graph
NUM_KINDS = 3  # kinds of attention layers
RECURRENCE_S = 4  # launches of the recurrent layers
RECURRENCE_SEQUENCE_S = 5  # state read and written, per sequence
RECURRENCE_TOKEN_S = 6  # per new token
HOST_SEQUENCE_S = 7  # host time of a sequence; `sampled` has it for every token with logits, drafts included
HAS_ENCODER = 8  # 1: prompts go through an encoder of their own
ENCODER_LAUNCH_FLOOR_S = 9  # host time to launch the encoder's kernels
PROMPT_LAUNCH_FLOOR_S = 10  # LAUNCH_FLOOR_S of a step with prompts
INTERLEAVED_LAYERS = 11  # layers over which two parts of a batch take turns; 0: a batch runs whole
INTERLEAVED_FROM_SEQS = 18  # ... where so many sequences decode
DECODE_UNIT = 12  # device group that attends for decodes, among those an engine spans
DECODE_COMPUTE_W = 13  # power of that group above idle while its compute limits
DECODE_MEMORY_W = 14  # ... its memory
PROMPT_UNIT = 15  # the same of prompts
PROMPT_COMPUTE_W = 16
PROMPT_MEMORY_W = 17
FIRST_KIND = 19
NUM_ATTENTION_COEFFICIENTS = FIRST_KIND + MAX_LAYER_KINDS * NUM_LAYER_COEFFICIENTS  # residual tables follow


@compiled
def takes_turns(attention: FloatArray, num_decode: int) -> bool:
    """Parts of the batch run side by side on two kinds of devices."""
    return bool(attention[INTERLEAVED_LAYERS] > 0.0 and num_decode >= attention[INTERLEAVED_FROM_SEQS])


@compiled
def decode_attention_seconds(
    num_decode: int,
    num_tokens: int,
    context_sum: float,
    context_max: float,
    attention: FloatArray,
    start: int,
    in_halves: bool,
) -> tuple[float, bool]:
    """Seconds of one layer's attention of the decodes, and whether compute limits; of both halves of the batch."""
    if in_halves:
        seconds, is_compute = corrected_decode_seconds(
            (num_decode + 1) // 2, (num_tokens + 1) // 2, 0.5 * context_sum, context_max, attention, start
        )
        return 2.0 * seconds, is_compute
    return corrected_decode_seconds(num_decode, num_tokens, context_sum, context_max, attention, start)


@compiled
def hide_beside(
    compute_s: float,
    memory_s: float,
    network_s: float,
    attending_compute_s: float,
    attending_memory_s: float,
    beside_frac: float,
    num_layers: float,
) -> tuple[float, float, float]:
    """Sub-batch interleaving: decodes of one part of the batch attend while the other part has all else.

    Of two halves and L layers, each with a turn on either side, the shorter side shows in one of its 2 L turns:
    max(a, b) + min(a, b) / (2 L). beside_frac: share of all else that the other part is, 1 of two halves. Source:
    NeuPIMs (arXiv 2403.00579).
    """
    attending_s = attending_compute_s + attending_memory_s
    rest_s = compute_s + memory_s + network_s - attending_s
    beside_s = rest_s * beside_frac
    if attending_s <= 0.0 or beside_s <= 0.0:
        return compute_s, memory_s, network_s
    frac = 1.0 - 0.5 / num_layers
    if attending_s <= beside_s:
        return compute_s - attending_compute_s * frac, memory_s - attending_memory_s * frac, network_s
    frac *= beside_frac
    return (
        compute_s - (compute_s - attending_compute_s) * frac,
        memory_s - (memory_s - attending_memory_s) * frac,
        network_s - network_s * frac,
    )


@compiled
def decode_seconds(
    tokens_s: tuple[float, float, float, float],
    attention: FloatArray,
    num_decode: int,
    context_sum: int,
    context_max: int,
) -> tuple[float, float, float, float]:
    """Seconds by limiting resource of a decode-only step without drafts: step_cost, for callers in a hurry.

    tokens_s: decode_linear plus sampled of that many sequences. The same operations in the same order, on numbers
    instead of arrays, so the same bits.
    """
    compute_s, memory_s, network_s, host_s = tokens_s
    attending_compute_s = 0.0
    attending_memory_s = 0.0
    in_halves = takes_turns(attention, num_decode)
    for kind in range(int(attention[NUM_KINDS])):
        start = FIRST_KIND + kind * NUM_LAYER_COEFFICIENTS
        seconds, is_compute = decode_attention_seconds(
            num_decode, num_decode, float(context_sum), float(context_max), attention, start, in_halves
        )
        if is_compute:
            compute_s += attention[start + NUM_LAYERS] * seconds
            attending_compute_s += attention[start + NUM_LAYERS] * seconds
        else:
            memory_s += attention[start + NUM_LAYERS] * seconds
            attending_memory_s += attention[start + NUM_LAYERS] * seconds
    if attention[RECURRENCE_S] > 0.0:
        memory_s += (
            attention[RECURRENCE_S]
            + num_decode * attention[RECURRENCE_SEQUENCE_S]
            + num_decode * attention[RECURRENCE_TOKEN_S]
        )
    if in_halves:
        compute_s, memory_s, network_s = hide_beside(
            compute_s, memory_s, network_s, attending_compute_s, attending_memory_s, 1.0, attention[INTERLEAVED_LAYERS]
        )
    if num_decode > attention[MAX_CAPTURED_TOKENS]:
        device_s = compute_s + memory_s + network_s
        if device_s < attention[LAUNCH_FLOOR_S]:
            host_s += attention[LAUNCH_FLOOR_S] - device_s
    host_s += attention[HOST_STEP_S]
    return compute_s, memory_s, network_s, host_s


@compiled
def step_cost(
    linear: FloatArray,
    decode_linear: FloatArray,
    sampled: FloatArray,
    attention: FloatArray,
    num_tokens: int,
    num_sampled: int,
    num_decode: int,
    num_decode_tokens: int,
    decode_context_sum: int,
    decode_context_max: int,
    num_prefill: int,
    prefill_token_pairs: int,
    prefill_context_sum: int,
    out: FloatArray,
) -> float:
    """Seconds of one step, host included; `out` is overwritten with the parts by limiting resource.

    num_tokens: new tokens of the step, num_tokens - num_decode_tokens of them in prompts. num_sampled: tokens that get
    logits. num_decode_tokens: tokens of the num_decode decoding sequences, more than one each where drafts are
    verified. decode_context_sum and _max: KV tokens of the decoding sequences, their new tokens included.
    prefill_token_pairs: query-key pairs of the prompt chunks, sum of new x context + new (new + 1) / 2.
    prefill_context_sum: sum of context + new. Kernels that are not captured are launched ahead of the device, so the
    launches show only where the device is faster than the host. With an encoder, the step of a prompt takes its start
    token through the decoder as well, as one more decode that attends to the prompt. All counts may be zero: the host.
    """
    num_prompt_tokens = num_tokens - num_decode_tokens
    num_drafts = num_decode_tokens - num_decode
    captured = num_prefill == 0 and num_decode_tokens <= attention[MAX_CAPTURED_TOKENS]
    has_encoder = num_prefill > 0 and attention[HAS_ENCODER] > 0.0
    if has_encoder:
        num_decode += num_prefill
        num_decode_tokens += num_prefill
        decode_context_sum += prefill_context_sum
        decode_context_max = max(decode_context_max, prefill_context_sum // num_prefill)
        for resource in range(4):
            out[resource] = linear[num_prompt_tokens, resource] + decode_linear[num_decode_tokens, resource]
    else:
        tokens_s = decode_linear[num_decode_tokens] if num_prefill == 0 else linear[num_tokens]
        for resource in range(4):
            out[resource] = tokens_s[resource]
    for resource in range(4):
        out[resource] += sampled[num_sampled, resource]
    attending_compute_s = 0.0
    attending_memory_s = 0.0
    in_turns = takes_turns(attention, num_decode)
    in_halves = in_turns and num_prefill == 0
    for kind in range(int(attention[NUM_KINDS])):
        start = FIRST_KIND + kind * NUM_LAYER_COEFFICIENTS
        num_layers = attention[start + NUM_LAYERS]
        together = num_decode > 0 and num_prefill > 0 and not has_encoder
        one_kernel = together and attention[start + MIXED_ROW_TOKENS] > 0.0
        if num_decode > 0 and not one_kernel:
            seconds, is_compute = decode_attention_seconds(
                num_decode,
                num_decode_tokens,
                float(decode_context_sum),
                float(decode_context_max),
                attention,
                start,
                in_halves,
            )
            if together:  # launched behind the prompts
                seconds -= min(attention[start + DECODE_LAUNCH_S], attention[start + PREFILL_LAUNCH_S])
            out[COMPUTE if is_compute else MEMORY] += num_layers * seconds
            if is_compute:
                attending_compute_s += num_layers * seconds
            else:
                attending_memory_s += num_layers * seconds
        if num_prefill > 0:
            seconds, is_compute = corrected_prefill_seconds(
                num_prefill,
                float(num_prompt_tokens),
                float(prefill_token_pairs),
                float(prefill_context_sum),
                num_decode if one_kernel else 0,
                float(decode_context_sum) if one_kernel else 0.0,
                float(decode_context_max) if one_kernel else 0.0,
                attention,
                start,
            )
            out[COMPUTE if is_compute else MEMORY] += num_layers * seconds
    if attention[RECURRENCE_S] > 0.0 and num_tokens > 0:
        out[MEMORY] += (
            attention[RECURRENCE_S]
            + (num_decode + num_prefill) * attention[RECURRENCE_SEQUENCE_S]
            + num_tokens * attention[RECURRENCE_TOKEN_S]
        )
    if in_turns:
        beside_frac = 1.0 if in_halves else num_prompt_tokens / num_tokens
        out[COMPUTE], out[MEMORY], out[NETWORK] = hide_beside(
            out[COMPUTE], out[MEMORY], out[NETWORK],
            attending_compute_s, attending_memory_s, beside_frac, attention[INTERLEAVED_LAYERS],
        )  # fmt: skip
    if not captured:
        device_s = out[COMPUTE] + out[MEMORY] + out[NETWORK]
        launch_s = attention[PROMPT_LAUNCH_FLOOR_S] if num_prefill > 0 else attention[LAUNCH_FLOOR_S]
        if has_encoder:
            launch_s += attention[ENCODER_LAUNCH_FLOOR_S]
        if device_s < launch_s:
            out[HOST] += launch_s - device_s
    if num_drafts > 0:
        out[HOST] -= num_drafts * attention[HOST_SEQUENCE_S]
    out[HOST] += attention[HOST_STEP_S]
    total_s: float = out[COMPUTE] + out[MEMORY] + out[NETWORK] + out[HOST]
    return total_s
