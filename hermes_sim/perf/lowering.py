"""The operators of a model as rows of numbers, priced by one compiled function for any number of tokens.

models/forward.py lists the operators of one step at a given number of tokens. Their bytes and FLOPs are affine in that
number (grouped products apart, whose weights follow the distinct experts), so two listings give every row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.expert_residual import ExpertLayer, ExpertResidual
from hermes_sim.hardware.gemm_efficiency import GemmKernel
from hermes_sim.models.architecture import ModelArchitecture, Moe
from hermes_sim.models.forward import (
    encoder_pass_operators,
    expected_distinct_experts,
    sampling_operators,
    token_operators,
)
from hermes_sim.models.operator import Operator
from hermes_sim.perf.coefficients import Product, gemm_kernel, gemm_table
from hermes_sim.perf.elementwise_coefficients import stream_coefficients
from hermes_sim.perf.expert_coefficients import expert_coefficients, expert_format, expert_residual
from hermes_sim.perf.expert_residual import layer_correction
from hermes_sim.perf.expert_routing import busiest_rows, distinct_experts, mean_distinct_experts, skewed_experts
from hermes_sim.perf.operators.collective import (
    NUM_COLLECTIVE_COEFFICIENTS,
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    fitted_all_reduce_seconds,
    fitted_exchange_seconds,
    send_seconds,
)
from hermes_sim.perf.operators.elementwise import stream_seconds
from hermes_sim.perf.operators.experts import (
    NUM_EXPERT_COEFFICIENTS,
    expert_stream_seconds,
    grouped_product_seconds,
    passed_rows,
)
from hermes_sim.perf.operators.gemm import NUM_GEMM_COEFFICIENTS, corrected_gemm_seconds
from hermes_sim.perf.residual import NO_RESIDUAL, residual_log_ratio

FloatArray = npt.NDArray[np.float64]

COMPUTE, MEMORY, NETWORK, HOST = 0, 1, 2, 3
NUM_RESOURCES = 4
RESOURCES = ("compute", "memory", "network", "host")

GEMM, GROUPED_GEMM, STREAM, ALL_REDUCE, ALL_GATHER, SEND, ALL_TO_ALL, EXPERT_STREAM = 0, 1, 2, 3, 4, 5, 6, 7
REDUCE_SCATTER = 8
NETWORK_KINDS = (ALL_REDUCE, ALL_GATHER, SEND, ALL_TO_ALL, REDUCE_SCATTER)

# Columns of a row
KIND = 0
COUNT = 1  # calls per step
ROWS_PER_TOKEN = 2  # m of one call
N = 3  # of a pass over experts' rows: rows it writes per token beside
K = 4
WEIGHT_BYTES = 5  # per call, whatever the number of tokens; grouped: of one expert
TOKEN_BYTES = 6  # per call and token
TOKEN_FLOPS = 7  # per call and token
COEFFICIENTS = 8  # row of the table of GEMM coefficients, by dtype and kernel
NUM_EXPERTS = 9  # of the whole model
EXPERTS_PER_TOKEN = 10
EXPERT_DEVICES = 11  # shares the experts are spread over (ep)
PRICED_FRAC = 12  # 0 where the kernel's time is counted elsewhere
EXPERT_RANKS = 13  # ranks whose tokens meet in the experts (dp)
STREAM_BYTES_PER_S = 14  # what a small kernel reaches
STREAM_LAUNCH_S = 15
STREAM_CACHE_BYTES = 16
STREAM_CACHE_SPEEDUP = 17
NUM_COLUMNS = 18

# Settings beside the rows
TP = 0
TP_BANDWIDTH = 1
TP_LATENCY_S = 2
PP_BANDWIDTH = 3
PP_LATENCY_S = 4
EP_BANDWIDTH = 5
EP_LATENCY_S = 6
EP_DEVICES = 7  # devices that the experts' tokens come from and go to: tp x dp
EXPERTS = 8  # coefficients of a layer of experts (perf/operators/experts.py) from here on
TP_ALL_REDUCE = EXPERTS + NUM_EXPERT_COEFFICIENTS  # coefficients of collectives (perf/operators/collective.py)
TP_ALL_GATHER = TP_ALL_REDUCE + NUM_COLLECTIVE_COEFFICIENTS
EP_ALL_TO_ALL = TP_ALL_GATHER + NUM_COLLECTIVE_COEFFICIENTS
TP_REDUCE_SCATTER = EP_ALL_TO_ALL + NUM_COLLECTIVE_COEFFICIENTS
NUM_SETTINGS = TP_REDUCE_SCATTER + NUM_COLLECTIVE_COEFFICIENTS

NO_RATES = np.zeros((0, 0))
"""Every expert alike: formulas instead of a table."""

COLLECTIVES = {
    "logits_all_gather": ALL_GATHER,
    "experts_dispatch": ALL_TO_ALL,
    "experts_return": ALL_TO_ALL,
}
"""Those that are no all-reduce."""

GROUPED_PRODUCTS = frozenset({"experts_up", "experts_down"})
"""Products of a layer of experts, also where a share holds one expert only."""

EXPERT_STREAMS = {"experts_act": 0.0, "experts_combine": 1.0}
"""Passes over the rows of a layer of experts -> rows they write per token beside."""

PRICED_WITH_ATTENTION = frozenset({"kv_write", "cross_kv_write"})
"""Kernels whose time is part of the measured attention layer; their bytes are counted here."""


@dataclass(frozen=True, slots=True)
class LoweredOperators:
    """Operators that depend on one count only (new tokens, or sampled sequences)."""

    names: tuple[str, ...]
    rows: FloatArray
    """[num_operators, NUM_COLUMNS]"""
    gemm_table: FloatArray
    """[num_products, NUM_GEMM_COEFFICIENTS + residual table] by dtype and kernel"""
    settings: FloatArray
    """[NUM_SETTINGS]"""
    expert_rates: FloatArray
    """[ep, experts of a share] chance that a token chooses the expert; NO_RATES where all are alike."""
    expert_residual: FloatArray
    """ln(measured / analytic) of a layer of experts over tokens, packed (perf/residual.py)."""
    comm_overlap_frac: float = 0.0
    """Share of the network's time that other work of the same step can hide."""

    def table(self, max_count: int) -> FloatArray:
        """[max_count + 1, NUM_RESOURCES] seconds by limiting resource; row 0 is zero."""
        out = np.zeros((max_count + 1, NUM_RESOURCES))
        fill_table(self.rows, self.gemm_table, self.settings, self.expert_rates, self.expert_residual, out)
        out[:, NETWORK] -= self._hidden_s(out)
        return out

    def _hidden_s(self, seconds: FloatArray) -> FloatArray:
        """[...] of the network's seconds, behind the device's own work and no longer than it. [..., NUM_RESOURCES]"""
        device_s = seconds[..., COMPUTE] + seconds[..., MEMORY]
        return np.minimum(self.comm_overlap_frac * seconds[..., NETWORK], device_s)

    def seconds(self, index: int, count: int) -> tuple[float, int]:
        """Seconds of all calls of one operator, and the resource that limits it."""
        seconds, resource = self._seconds_alone(index, count)
        if self.comm_overlap_frac == 0.0 or resource != NETWORK:
            return seconds, resource
        parts = np.zeros(NUM_RESOURCES)
        for other in range(len(self.names)):
            others_s, part = self._seconds_alone(other, count)
            parts[part] += others_s
        return seconds * (1.0 - float(self._hidden_s(parts)) / parts[NETWORK]) if seconds > 0.0 else 0.0, resource

    def _seconds_alone(self, index: int, count: int) -> tuple[float, int]:
        """With nothing beside it."""
        num_rows, distinct = skewed_experts(self.expert_rates, count * self.rows[index, EXPERT_RANKS])
        return row_seconds(
            self.rows, index, float(count), self.gemm_table, self.settings, self.expert_residual, num_rows, distinct
        )

    def support_frac(self, index: int, count: int) -> float:
        """How much of an operator's time at `count` rests on measurements nearby (0 to 1)."""
        row = self.rows[index]
        if row[KIND] == GEMM:
            residual = self.gemm_table[int(row[COEFFICIENTS]), NUM_GEMM_COEFFICIENTS:]
            return residual_log_ratio(residual, row[ROWS_PER_TOKEN] * count, row[N], row[K], 1.0)[1]
        if row[KIND] not in (GROUPED_GEMM, EXPERT_STREAM):
            return 0.0
        return residual_log_ratio(self.expert_residual, row[EXPERT_RANKS] * count, 1.0, 1.0, 1.0)[1]

    @property
    def num_kernels(self) -> float:
        """Kernels launched per step."""
        return float(self.rows[:, COUNT].sum())

    def flops(self, num_counts: FloatArray) -> FloatArray:
        """FLOPs of one device for so many tokens (or sequences), over any number of steps."""
        return num_counts * float((self.rows[:, COUNT] * self.rows[:, TOKEN_FLOPS]).sum())

    def bytes(self, num_steps: FloatArray, num_counts: FloatArray) -> FloatArray:
        """Bytes moved by one device; grouped products at the mean number of tokens per step. Arrays of one shape."""
        moving = self.rows[~np.isin(self.rows[:, KIND], NETWORK_KINDS)]
        is_grouped = moving[:, KIND] == GROUPED_GEMM
        weight_bytes = moving[:, COUNT] * moving[:, WEIGHT_BYTES]
        token_bytes = (moving[:, COUNT] * moving[:, TOKEN_BYTES]).sum()
        step_bytes = weight_bytes[~is_grouped].sum()
        if is_grouped.any():  # a model has one kind of experts
            row = moving[is_grouped][0]
            per_step = np.divide(num_counts, num_steps, out=np.zeros(np.shape(num_steps)), where=num_steps > 0.0)
            distinct = self._distinct_experts(row, row[EXPERT_RANKS] * per_step)
            step_bytes = step_bytes + weight_bytes[is_grouped].sum() * distinct
        return np.where(num_steps > 0.0, num_steps * step_bytes + num_counts * token_bytes, 0.0)

    def _distinct_experts(self, row: FloatArray, num_tokens: FloatArray) -> FloatArray:
        """Experts read on a device, on average over the devices."""
        each = num_tokens.ravel().tolist()
        if self.expert_rates.size > 0:
            distinct = [mean_distinct_experts(self.expert_rates, tokens) for tokens in each]
        else:
            num_experts, chosen = float(row[NUM_EXPERTS]), float(row[EXPERTS_PER_TOKEN])
            distinct = [distinct_experts(tokens, num_experts, chosen) / row[EXPERT_DEVICES] for tokens in each]
        return np.array(distinct).reshape(num_tokens.shape)


def lower_tokens(
    model: ModelArchitecture,
    device: Device,
    settings: FloatArray,
    *,
    tp: int,
    pp: int,
    ep: int,
    dp: int = 1,
    expert_rates: FloatArray = NO_RATES,
    kernels: KernelLibrary = "vllm",
    sequence_parallel: bool = False,
    comm_overlap_frac: float = 0.0,
) -> LoweredOperators:
    """Everything whose work depends on the number of new tokens of a step, pipeline hand-overs included.

    With dp > 1 the tokens are those of one rank; the experts see as many from each of the others. sequence_parallel:
    norms on 1/tp of the tokens. comm_overlap_frac: share of the network's time that runs beside other work.
    """
    lowered = _lower(
        lambda count: token_operators(model, count, tp=tp, ep=ep, dp=dp),
        model, device, settings, ep, dp, expert_rates, kernels,
    )  # fmt: skip
    lowered = replace(lowered, comm_overlap_frac=comm_overlap_frac)
    if pp > 1:
        lowered = _with_hand_overs(lowered, model, tp, pp)
    return _sequence_parallel(lowered, tp) if sequence_parallel and tp > 1 else lowered


def _sequence_parallel(lowered: LoweredOperators, tp: int) -> LoweredOperators:
    """Each all-reduce as a reduce-scatter and an all-gather, norms in between on each device's share of the tokens.

    Source: Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", MLSys 2023.
    """
    rows = lowered.rows.copy()
    place = lowered.names.index("all_reduce")
    rows[[index for index, name in enumerate(lowered.names) if name == "norm"], TOKEN_BYTES] /= tp
    gather = rows[place].copy()
    rows[place, KIND], gather[KIND] = REDUCE_SCATTER, ALL_GATHER
    names = list(lowered.names)
    names[place] = "reduce_scatter"
    names.insert(place + 1, "all_gather")
    return replace(lowered, names=tuple(names), rows=np.insert(rows, place + 1, gather, axis=0))


def _with_hand_overs(lowered: LoweredOperators, model: ModelArchitecture, tp: int, pp: int) -> LoweredOperators:
    """What one stage of the pipeline sends to the next."""
    row = np.zeros((1, NUM_COLUMNS))
    row[0, [KIND, COUNT]] = SEND, pp - 1
    all_reduce = [index for index, name in enumerate(lowered.names) if name == "all_reduce"]
    hidden_bytes = lowered.rows[all_reduce[0], TOKEN_BYTES] if all_reduce else _hidden_bytes(model)
    row[0, TOKEN_BYTES] = hidden_bytes / tp  # each rank sends its share
    rows = np.concatenate([lowered.rows, row])
    return replace(lowered, names=(*lowered.names, "pipeline_send"), rows=rows)


def lower_encoder(
    model: ModelArchitecture, device: Device, settings: FloatArray, *, tp: int, kernels: KernelLibrary = "vllm"
) -> LoweredOperators:
    """What an encoder-decoder model does with its prompts, by the number of their tokens."""
    return _lower(lambda count: encoder_pass_operators(model, count, tp=tp), model, device, settings, kernels=kernels)


def lower_sampling(
    model: ModelArchitecture,
    device: Device,
    settings: FloatArray,
    *,
    tp: int,
    sort_bytes_per_logit: float = 0.0,
    kernels: KernelLibrary = "vllm",
) -> LoweredOperators:
    """Logits and sampling, by the number of sequences that get a token."""

    def operators(count: int) -> tuple[Operator, ...]:
        return sampling_operators(model, count, tp=tp, sort_bytes_per_logit=sort_bytes_per_logit)

    return _lower(operators, model, device, settings, kernels=kernels)


def _hidden_bytes(model: ModelArchitecture) -> float:
    (message,) = (op.bytes for op in token_operators(model, 1, tp=2) if op.name == "all_reduce")
    return message


def _lower(
    list_operators: Callable[[int], Sequence[Operator]],
    model: ModelArchitecture,
    device: Device,
    settings: FloatArray,
    ep: int = 1,
    dp: int = 1,
    expert_rates: FloatArray = NO_RATES,
    kernels: KernelLibrary = "vllm",
) -> LoweredOperators:
    # Multiples of ep: rows per device come out whole. Large enough that the largest count leaves no rounding.
    few, many = list_operators(64 * ep), list_operators(128 * ep)
    products: list[Product] = []
    rows = np.zeros((len(few), NUM_COLUMNS))
    for row, first, second in zip(rows, few, many, strict=True):
        assert first.name == second.name
        _fill_row(row, first, second, 64 * ep)
        if row[KIND] == GEMM and first.name not in GROUPED_PRODUCTS:
            row[COEFFICIENTS] = _place(products, (first.dtype, _kernel(device, row, first, kernels)))
        if row[KIND] == STREAM:
            row[STREAM_BYTES_PER_S:NUM_COLUMNS] = stream_coefficients(device, first.name, row[TOKEN_BYTES])
        if first.name in GROUPED_PRODUCTS:
            assert model.moe is not None
            _fill_groups(row, first, second, model.moe, ep, dp)
        elif row[KIND] in (ALL_TO_ALL, EXPERT_STREAM):
            assert model.moe is not None
            row[ROWS_PER_TOKEN] = dp * model.moe.num_experts_per_token / ep
            row[NUM_EXPERTS], row[EXPERTS_PER_TOKEN] = model.moe.num_experts, model.moe.num_experts_per_token
            row[EXPERT_DEVICES], row[EXPERT_RANKS] = ep, dp
    settings, table = _with_experts(settings, device, rows, few, kernels)
    names = tuple(operator.name for operator in few)
    residual = _layer_residual(table, few, model.moe, ep)
    return LoweredOperators(names, rows, gemm_table(device, products), settings, expert_rates, residual)


def _kernel(device: Device, row: FloatArray, operator: Operator, kernels: KernelLibrary) -> GemmKernel | None:
    return gemm_kernel(device, operator.dtype, row[WEIGHT_BYTES] / (operator.n * operator.k), kernels)


def _place(products: list[Product], product: Product) -> int:
    """Number of the product in the list, put there if it is new."""
    if product not in products:
        products.append(product)
    return products.index(product)


def _with_experts(
    settings: FloatArray, device: Device, rows: FloatArray, operators: Sequence[Operator], kernels: KernelLibrary
) -> tuple[FloatArray, ExpertResidual | None]:
    """Settings with the coefficients of the format in which the model's experts multiply, and what they leave over."""
    settings, table = settings.copy(), None
    for row, operator in zip(rows, operators, strict=True):
        if row[KIND] == GROUPED_GEMM:
            experts = expert_format(operator.dtype, row[WEIGHT_BYTES] / (operator.n * operator.k))
            settings[EXPERTS:TP_ALL_REDUCE] = expert_coefficients(device, operator.dtype, experts, kernels)
            table = expert_residual(device, experts, kernels)
    return settings, table


def _layer_residual(
    table: ExpertResidual | None, operators: Sequence[Operator], moe: Moe | None, ep: int
) -> FloatArray:
    """Over tokens, for the model's experts on one device."""
    down = next((operator for operator in operators if operator.name == "experts_down"), None)
    if table is None or down is None or moe is None:
        return NO_RESIDUAL
    num_local_experts = max(moe.num_experts / ep, 1.0)
    return layer_correction(table, ExpertLayer(num_local_experts, down.k, down.n, moe.num_experts_per_token, ep))


def _fill_row(row: FloatArray, first: Operator, second: Operator, count: int) -> None:
    if first.kind == "collective":
        row[KIND] = COLLECTIVES.get(first.name, ALL_REDUCE)
    elif first.kind == "gemm":
        row[KIND] = GEMM
    else:
        row[KIND] = EXPERT_STREAM if first.name in EXPERT_STREAMS else STREAM
    row[COUNT] = first.count
    row[ROWS_PER_TOKEN] = first.m / count
    row[N], row[K] = EXPERT_STREAMS.get(first.name, first.n), first.k
    row[TOKEN_BYTES] = (second.bytes_per_call - first.bytes_per_call) / count
    row[WEIGHT_BYTES] = max(2.0 * first.bytes_per_call - second.bytes_per_call, 0.0)
    row[TOKEN_FLOPS] = first.flops_per_call / count
    row[PRICED_FRAC] = 0.0 if first.name in PRICED_WITH_ATTENTION else 1.0


def _fill_groups(row: FloatArray, first: Operator, second: Operator, moe: Moe, ep: int, dp: int) -> None:
    """bytes(T) = distinct(dp T) / ep x expert + T x token, at T and at 2 T."""
    num_experts, num_experts_per_token = moe.num_experts, moe.num_experts_per_token
    count = 64 * ep
    once = expected_distinct_experts(num_experts, num_experts_per_token, dp * count) / ep
    twice = expected_distinct_experts(num_experts, num_experts_per_token, 2 * dp * count) / ep
    expert_bytes = (second.bytes_per_call - 2.0 * first.bytes_per_call) / (twice - 2.0 * once)
    row[KIND] = GROUPED_GEMM
    row[WEIGHT_BYTES] = expert_bytes
    row[TOKEN_BYTES] = (first.bytes_per_call - once * expert_bytes) / count
    row[NUM_EXPERTS], row[EXPERTS_PER_TOKEN] = num_experts, num_experts_per_token
    row[EXPERT_DEVICES], row[EXPERT_RANKS] = ep, dp


@compiled
def _all_reduce_seconds(num_bytes: float, settings: FloatArray) -> float:
    """As fitted to the engine's kernels on this link, else by latency and bandwidth."""
    if settings[TP_ALL_REDUCE] > 0.0:
        return fitted_all_reduce_seconds(num_bytes, int(settings[TP]), settings[TP_ALL_REDUCE:])
    return all_reduce_seconds(num_bytes, int(settings[TP]), settings[TP_BANDWIDTH], settings[TP_LATENCY_S])


@compiled
def _all_to_all_seconds(num_bytes: float, settings: FloatArray) -> float:
    """The same between the devices that hold the experts."""
    if settings[EP_ALL_TO_ALL] > 0.0:
        return fitted_exchange_seconds(num_bytes, int(settings[EP_DEVICES]), settings[EP_ALL_TO_ALL:])
    return all_to_all_seconds(num_bytes, int(settings[EP_DEVICES]), settings[EP_BANDWIDTH], settings[EP_LATENCY_S])


@compiled
def _expert_ratio(row: FloatArray, num_tokens: float, expert_residual: FloatArray) -> float:
    """Measured over analytic time of the layer of experts that the row belongs to; 1 without measured ones."""
    if expert_residual[0] == 0.0:
        return 1.0
    return math.exp(residual_log_ratio(expert_residual, row[EXPERT_RANKS] * num_tokens, 1.0, 1.0, 1.0)[0])


@compiled
def row_seconds(
    rows: FloatArray,
    index: int,
    num_tokens: float,
    gemm_table: FloatArray,
    settings: FloatArray,
    expert_residual: FloatArray,
    skewed_rows: float,
    skewed_distinct: float,
) -> tuple[float, int]:
    """Seconds of all calls of one operator at `num_tokens`, and the resource that limits it.

    skewed_rows, skewed_distinct: rows and experts read of the busiest share of the experts; 0 where all are alike.
    """
    row = rows[index]
    kind = int(row[KIND])
    token_bytes = row[TOKEN_BYTES] * num_tokens
    resource = MEMORY
    if kind == GEMM:
        seconds, is_compute = corrected_gemm_seconds(
            row[ROWS_PER_TOKEN] * num_tokens, row[N], row[K], row[WEIGHT_BYTES], token_bytes,
            gemm_table[int(row[COEFFICIENTS])],
        )  # fmt: skip
        resource = COMPUTE if is_compute else MEMORY
    elif kind == GROUPED_GEMM:
        mean_rows = row[ROWS_PER_TOKEN] * num_tokens
        if skewed_rows > 0.0:
            num_rows, distinct = skewed_rows, skewed_distinct
        else:
            num_rows = busiest_rows(mean_rows, row[EXPERT_DEVICES])
            distinct = distinct_experts(row[EXPERT_RANKS] * num_tokens, row[NUM_EXPERTS], row[EXPERTS_PER_TOKEN])
            distinct /= row[EXPERT_DEVICES]
        seconds, is_compute = grouped_product_seconds(
            num_rows, distinct, row[N], row[K], distinct * row[WEIGHT_BYTES],
            token_bytes * num_rows / mean_rows, False, settings[EXPERTS:],
        )  # fmt: skip
        resource = COMPUTE if is_compute else MEMORY
    elif kind == EXPERT_STREAM:
        mean_rows = row[ROWS_PER_TOKEN] * num_tokens
        num_rows = skewed_rows if skewed_rows > 0.0 else busiest_rows(mean_rows, row[EXPERT_DEVICES])
        all_tokens = row[EXPERT_RANKS] * num_tokens
        passed = passed_rows(num_rows, all_tokens * row[EXPERTS_PER_TOKEN], settings[EXPERTS:]) + row[N] * num_tokens
        seconds = expert_stream_seconds(
            all_tokens, token_bytes * passed / (mean_rows + row[N] * num_tokens), settings[EXPERTS:]
        )
    elif kind == STREAM:
        seconds = stream_seconds(
            row[WEIGHT_BYTES] + token_bytes, row[STREAM_BYTES_PER_S], row[STREAM_LAUNCH_S],
            row[STREAM_CACHE_BYTES], row[STREAM_CACHE_SPEEDUP],
        ) * row[PRICED_FRAC]  # fmt: skip
    else:
        resource = NETWORK
        if kind == ALL_REDUCE:
            seconds = _all_reduce_seconds(token_bytes, settings)
        elif kind in (ALL_GATHER, REDUCE_SCATTER):
            start = TP_ALL_GATHER if kind == ALL_GATHER else TP_REDUCE_SCATTER
            if settings[start] > 0.0:
                seconds = fitted_exchange_seconds(token_bytes, int(settings[TP]), settings[start:])
            else:
                seconds = all_gather_seconds(
                    token_bytes, int(settings[TP]), settings[TP_BANDWIDTH], settings[TP_LATENCY_S]
                )
        elif kind == ALL_TO_ALL:  # as long as the busiest share takes to receive its rows
            mean_rows = row[ROWS_PER_TOKEN] * num_tokens
            num_rows = skewed_rows if skewed_rows > 0.0 else busiest_rows(mean_rows, row[EXPERT_DEVICES])
            seconds = _all_to_all_seconds(token_bytes * num_rows / mean_rows, settings)
        else:
            seconds = send_seconds(token_bytes, settings[PP_BANDWIDTH], settings[PP_LATENCY_S])
    if kind in (GROUPED_GEMM, EXPERT_STREAM):
        seconds *= _expert_ratio(row, num_tokens, expert_residual)
    return row[COUNT] * seconds, resource


@compiled
def fill_table(
    rows: FloatArray,
    gemm_table: FloatArray,
    settings: FloatArray,
    expert_rates: FloatArray,
    expert_residual: FloatArray,
    out: FloatArray,
) -> None:
    """out[count, resource] = seconds of all operators at that count; row 0 stays zero."""
    num_ranks = 1.0
    for index in range(rows.shape[0]):
        num_ranks = max(num_ranks, rows[index, EXPERT_RANKS])
    for num_tokens in range(1, out.shape[0]):
        skewed_rows, distinct = skewed_experts(expert_rates, num_ranks * num_tokens)
        for index in range(rows.shape[0]):
            seconds, resource = row_seconds(
                rows, index, float(num_tokens), gemm_table, settings, expert_residual, skewed_rows, distinct
            )
            out[num_tokens, resource] += seconds
