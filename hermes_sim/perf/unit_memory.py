"""What the device groups of an engine hold: weights where their products are, the KV cache where attention is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import bytes_per_weight, part_parameters, weight_bytes
from hermes_sim.perf.memory import RUNTIME_BYTES, MemoryPlan, activation_bytes, memory_plan
from hermes_sim.perf.placed_lowering import needed_tiles
from hermes_sim.perf.unit import UnitPlacement


@dataclass(frozen=True, slots=True)
class UnitRoom:
    """One device of a group: what the engine may use of its memory, and what it puts there beside the KV cache."""

    group: str
    device: str
    usable_bytes: float
    weights_bytes: float
    activation_bytes: float

    @property
    def shortfall_bytes(self) -> float:
        """> 0: it does not fit."""
        return max(self.weights_bytes + self.activation_bytes - self.usable_bytes, 0.0)


@dataclass(frozen=True, slots=True)
class ArrayRoom:
    """Cells of one device with an array, and what the weights there take, in macros (tiers of tiles)."""

    group: str
    device: str
    num_tiles: float
    needed_tiles: float
    residency: str

    @property
    def fits(self) -> bool:
        return self.residency == "reload" or self.needed_tiles <= self.num_tiles


def unit_memory_plan(
    model: ModelArchitecture,
    placement: UnitPlacement,
    *,
    pp: int,
    layers_per_stage: tuple[int, ...] | None,
    memory_fraction: float,
    block_tokens: int,
    kv_dtype: Dtype,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    activation_reserve_bytes: float | None = None,
    num_gpu_blocks: int | None = None,
    beside_bytes: Mapping[str, float] | None = None,
) -> MemoryPlan:
    """The KV cache of the group that attends; arguments as of memory_plan, beside_bytes by group."""
    number = placement.unit_of["attention"]
    unit = placement.units[number]
    reserve = activation_reserve_bytes
    if reserve is None:
        reserve = unit_activation_bytes(model, placement, number, max_num_batched_tokens, max_num_seqs)
    return memory_plan(
        model,
        unit.device,
        tp=unit.tp,
        pp=pp,
        ep=1,
        layers_per_stage=layers_per_stage,
        memory_fraction=memory_fraction,
        block_tokens=block_tokens,
        kv_dtype=kv_dtype,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
        activation_reserve_bytes=reserve,
        num_gpu_blocks=num_gpu_blocks,
        beside_bytes=(beside_bytes or {}).get(unit.group, 0.0),
        weights_frac=unit_weight_bytes(model, placement, number) / weight_bytes(model),
    )


def unit_rooms(
    model: ModelArchitecture,
    placement: UnitPlacement,
    *,
    pp: int,
    memory_fraction: float,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    activation_reserve_bytes: float | None = None,
) -> Iterator[UnitRoom]:
    """Of every group, the KV cache apart."""
    for number, unit in enumerate(placement.units):
        reserve = activation_reserve_bytes
        if reserve is None:
            reserve = unit_activation_bytes(model, placement, number, max_num_batched_tokens, max_num_seqs)
        yield UnitRoom(
            group=unit.group,
            device=unit.device.name,
            usable_bytes=memory_fraction * unit.device.memory.capacity_bytes,
            weights_bytes=unit_weight_bytes(model, placement, number) / unit.tp / pp,
            activation_bytes=reserve,
        )


def array_rooms(model: ModelArchitecture, placement: UnitPlacement, pp: int) -> Iterator[ArrayRoom]:
    """Of every group with an array that has weights. KeyError for a dtype that the array does not multiply."""
    for number, unit in enumerate(placement.units):
        array, classes = unit.device.array, placement.classes(number)
        if array is None or not classes & {"linear", "experts"}:
            continue
        tiles = float(array.num_macros * array.num_tiers)
        yield ArrayRoom(unit.group, unit.device.name, tiles, needed_tiles(model, unit, classes, pp), array.residency)


def unit_weight_bytes(model: ModelArchitecture, placement: UnitPlacement, number: int) -> float:
    """In the memory of a group, all its devices: weights that stay in the cells of an array are not."""
    array, classes = placement.units[number].device.array, placement.classes(number)
    parts = part_parameters(model)
    embedding = parts["embedding"] * DTYPE_BYTES[model.activation_dtype]
    experts = parts["experts"] * bytes_per_weight(model, "experts")
    total = embedding if "rest" in classes else 0.0
    if array is not None and array.residency == "resident":
        return total
    if "experts" in classes:
        total += experts
    if "linear" in classes:
        total += weight_bytes(model) - embedding - experts
    return total


def unit_activation_bytes(
    model: ModelArchitecture, placement: UnitPlacement, number: int, max_num_batched_tokens: int, max_num_seqs: int
) -> float:
    """Peak activations where the layers run; a group that attends only keeps none to speak of."""
    unit = placement.units[number]
    if placement.classes(number) & {"linear", "experts", "rest"}:
        return activation_bytes(model, unit.device, unit.tp, max_num_batched_tokens, max_num_seqs)
    return RUNTIME_BYTES[unit.device.kind]
