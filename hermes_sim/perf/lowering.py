"""The operators of a model as rows of numbers, for any number of tokens.

models/forward.py lists the operators of one step at a given number of tokens. Their bytes and FLOPs are affine in that
number (grouped products apart, whose weights follow the distinct experts), so two listings give every row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import DTYPE_BYTES
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
from hermes_sim.perf.coefficients import Product, StoredWeights, gemm_kernel, gemm_table
from hermes_sim.perf.elementwise_coefficients import stream_coefficients
from hermes_sim.perf.expert_coefficients import expert_coefficients, expert_format, expert_residual
from hermes_sim.perf.expert_residual import layer_correction
from hermes_sim.perf.lowered_operators import LoweredOperators
from hermes_sim.perf.operator_rows import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    COEFFICIENTS,
    COUNT,
    EXPERT_DEVICES,
    EXPERT_RANKS,
    EXPERT_STREAM,
    EXPERTS,
    EXPERTS_PER_TOKEN,
    GEMM,
    GROUPED_GEMM,
    KIND,
    NO_RATES,
    NUM_COLUMNS,
    NUM_EXPERTS,
    PRICED_FRAC,
    REDUCE_SCATTER,
    ROWS_PER_TOKEN,
    SEND,
    STREAM,
    STREAM_BYTES_PER_S,
    TOKEN_BYTES,
    TOKEN_FLOPS,
    TP_ALL_REDUCE,
    WEIGHT_BYTES,
    K,
    N,
)
from hermes_sim.perf.residual import NO_RESIDUAL

FloatArray = npt.NDArray[np.float64]

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
            kernel = _kernel(device, row, first, kernels)
            row[COEFFICIENTS] = _place(products, Product(first.dtype, kernel, stored_weights(first)))
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
    return gemm_kernel(device, operator.dtype, dense_bytes_per_weight(row, operator), kernels)


def dense_bytes_per_weight(row: FloatArray, operator: Operator) -> float:
    """Stored bytes of a weight that tell its format: zeros that are left out do not make it another one."""
    if operator.sparsity is not None:
        return DTYPE_BYTES[operator.weight_dtype or operator.dtype]
    return float(row[WEIGHT_BYTES] / (operator.n * operator.k))


def stored_weights(operator: Operator) -> StoredWeights | None:
    """How the weights of a product lie in memory; None: as they are multiplied."""
    stored = operator.weight_dtype or operator.dtype
    if stored == operator.dtype and operator.sparsity is None:
        return None
    return StoredWeights(stored, operator.sparsity)


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
            experts = expert_format(operator.dtype, dense_bytes_per_weight(row, operator))
            settings[EXPERTS:TP_ALL_REDUCE] = expert_coefficients(
                device, operator.dtype, experts, kernels, stored_weights(operator)
            )
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
