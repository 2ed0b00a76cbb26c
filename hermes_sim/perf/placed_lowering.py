"""The operators of a model spread over the device groups of an engine, each lowered for the devices that have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import DTYPE_BYTES
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.device import beside_the_array
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.forward import sampling_operators, token_operators
from hermes_sim.models.operator import Operator
from hermes_sim.perf.array_operators import Array, ArrayOperators, ArrayProduct, array_products, total_tiles
from hermes_sim.perf.lowered_operators import LoweredOperators
from hermes_sim.perf.lowering import lower_sampling, lower_tokens
from hermes_sim.perf.operator_classes import (
    Crossing,
    OperatorClass,
    Phase,
    operator_class,
    sampling_crossings,
    token_crossings,
)
from hermes_sim.perf.operator_rows import COUNT
from hermes_sim.perf.pipeline import stage_layers
from hermes_sim.perf.placed_operators import Crossings, Part, PlacedOperators
from hermes_sim.perf.unit import Unit, UnitPlacement

FloatArray = npt.NDArray[np.float64]
UnitSettings = Callable[[Unit], FloatArray]
"""Settings of perf/operator_rows.py for the links of a unit."""

_MANY = 64
"""Tokens at which operators are listed, for their shapes."""


def lower_placed_tokens(
    model: ModelArchitecture,
    placement: UnitPlacement,
    settings: UnitSettings,
    *,
    pp: int,
    phase: Phase,
    expert_rates: FloatArray,
    kernels: KernelLibrary,
    comm_overlap_frac: float = 0.0,
) -> PlacedOperators:
    """All that the number of new tokens decides. phase: of the steps; it decides what attention is sent."""
    parts: list[tuple[int, Part]] = []
    for number, unit in enumerate(placement.units):
        classes = placement.classes(number)
        lowered = lower_tokens(
            model, beside_the_array(unit.device), settings(unit), tp=unit.tp, pp=pp, ep=1, expert_rates=expert_rates,
            kernels=kernels, comm_overlap_frac=comm_overlap_frac,
        )  # fmt: skip
        operators = token_operators(model, _MANY, tp=unit.tp)
        lowered = _own_all_reduces(lowered, model, classes)
        parts += _parts(number, unit, lowered, operators, classes, model, pp)
    return PlacedOperators(
        placement=placement,
        parts=tuple(parts),
        crossings=_crossings(placement, token_crossings(model, placement.unit_of, phase)),
        tp=placement.of("attention").tp,
        list_operators=lambda count, tp: token_operators(model, count, tp=tp),
        halves_from=placement.interleave_from_seqs if phase == "decode" else None,
    )


def lower_placed_sampling(
    model: ModelArchitecture,
    placement: UnitPlacement,
    settings: UnitSettings,
    *,
    pp: int,
    sort_bytes_per_logit: float,
    kernels: KernelLibrary,
) -> PlacedOperators:
    """Logits and sampling, by the number of sequences that get a token."""
    parts: list[tuple[int, Part]] = []
    listed = partial(_sampling_operators, model, sort_bytes_per_logit)
    for number, unit in enumerate(placement.units):
        lowered = lower_sampling(
            model, beside_the_array(unit.device), settings(unit), tp=unit.tp, kernels=kernels,
            sort_bytes_per_logit=sort_bytes_per_logit,
        )  # fmt: skip
        parts += _parts(number, unit, lowered, listed(_MANY, unit.tp), placement.classes(number), model, pp)
    crossings = _crossings(placement, sampling_crossings(model, placement.unit_of))
    return PlacedOperators(placement, tuple(parts), crossings, placement.of("attention").tp, listed)


def _sampling_operators(
    model: ModelArchitecture, sort_bytes_per_logit: float, count: int, tp: int
) -> tuple[Operator, ...]:
    return sampling_operators(model, count, tp=tp, sort_bytes_per_logit=sort_bytes_per_logit)


def _parts(
    number: int,
    unit: Unit,
    lowered: LoweredOperators,
    operators: Sequence[Operator],
    classes: frozenset[OperatorClass],
    model: ModelArchitecture,
    pp: int,
) -> list[tuple[int, Part]]:
    """What of the lowered operators lies on the unit: products on its array, if it has one, the rest beside it."""
    array = unit.device.array
    kinds = {operator.name: operator.kind for operator in operators}
    own = [operator for operator in operators if operator_class(operator.name, operator.kind) in classes]
    on_array = [operator for operator in own if operator.kind == "gemm"] if array is not None else []
    taken = {operator.name for operator in on_array}
    beside = [
        index for index, name in enumerate(lowered.names)
        if operator_class(name, kinds.get(name, "collective")) in classes and name not in taken
    ]  # fmt: skip
    found: list[tuple[int, Part]] = []
    if beside:
        names = tuple(lowered.names[index] for index in beside)
        found.append((number, replace(lowered, names=names, rows=lowered.rows[beside])))
    if on_array and array is not None:
        found.append((number, _on_array(array, unit, on_array, model, classes, pp)))
    return found


def _on_array(
    array: Array, unit: Unit, operators: Sequence[Operator], model: ModelArchitecture,
    classes: frozenset[OperatorClass], pp: int,
) -> ArrayOperators:  # fmt: skip
    return ArrayOperators(
        array=array,
        num_devices=unit.tp,
        products=_products(model, operators, array),
        names=tuple(dict.fromkeys(operator.name for operator in operators)),
        activation_bytes=DTYPE_BYTES[model.activation_dtype],
        read_bytes_per_s=unit.device.memory.bandwidth_bytes_per_s,
        stays_frac=min(array.num_macros * array.num_tiers / needed_tiles(model, unit, classes, pp), 1.0),
    )


def _products(model: ModelArchitecture, operators: Sequence[Operator], array: Array) -> tuple[ArrayProduct, ...]:
    moe = model.moe
    return array_products(
        operators, array, _MANY,
        num_experts=moe.num_experts if moe is not None else 0.0,
        experts_per_token=moe.num_experts_per_token if moe is not None else 0.0,
    )  # fmt: skip


def needed_tiles(model: ModelArchitecture, unit: Unit, classes: frozenset[OperatorClass], pp: int) -> float:
    """Macros (tiers of tiles) that the weights of these classes take on one device, of the largest pipeline stage.

    KeyError for a dtype that the array does not multiply.
    """
    array = unit.device.array
    assert array is not None
    layers = [
        operator for operator in token_operators(model, _MANY, tp=unit.tp)
        if operator.kind == "gemm" and operator_class(operator.name, operator.kind) in classes
    ]  # fmt: skip
    tiles = total_tiles(_products(model, layers, array), array)
    tiles *= max(stage_layers(model.num_layers, pp)) / model.num_layers
    if "linear" in classes:
        logits = [one for one in sampling_operators(model, _MANY, tp=unit.tp) if one.kind == "gemm"]
        tiles += total_tiles(_products(model, logits, array), array)
    return tiles


def _own_all_reduces(
    lowered: LoweredOperators, model: ModelArchitecture, classes: frozenset[OperatorClass]
) -> LoweredOperators:
    """Experts on a unit of their own sum up there; the matrices then have one all-reduce less in each such layer."""
    if model.moe is None or {"linear", "experts"} <= classes or "all_reduce" not in lowered.names:
        return lowered
    rows = lowered.rows.copy()
    place = lowered.names.index("all_reduce")
    if "experts" in classes:
        rows[place, COUNT] = model.num_moe_layers
        return replace(lowered, names=_renamed(lowered.names, place), rows=rows)
    if model.moe.shared_width == 0:
        rows[place, COUNT] -= model.num_moe_layers
    return replace(lowered, rows=rows)


def _renamed(names: tuple[str, ...], place: int) -> tuple[str, ...]:
    return (*names[:place], "experts_all_reduce", *names[place + 1 :])


def _crossings(placement: UnitPlacement, crossings: tuple[Crossing, ...]) -> Crossings:
    groups = [unit.group for unit in placement.units]
    return Crossings(
        crossings=crossings,
        links=tuple(placement.links[one.source, one.target] for one in crossings),
        names=tuple(f"{groups[one.source]}_to_{groups[one.target]}" for one in crossings),
    )
