"""The device groups of an engine that spans several, or that computes in arrays, as the cost model takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from hermes_sim.core.units import format_quantity
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.hardware.device import Device, at_the_banks
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.combination_checks import Finding

if TYPE_CHECKING:
    from hermes_sim.perf.unit import UnitLink, UnitPlacement

MOST_GROUPS: Final = 3
"""state/arrays.MAX_UNITS"""


def unit_placement(
    engine: Engine,
    devices: Mapping[str, Device],
    links: Mapping[tuple[int, int], UnitLink] | None = None,
) -> UnitPlacement | None:
    """None for an engine on one group of plain devices. `devices`: by group, as far as its cores reach
    (engine_device.py); `links`: between the groups by number."""
    from hermes_sim.perf.operator_classes import CLASSES
    from hermes_sim.perf.unit import Unit, UnitPlacement

    operators_on = engine.operators_on
    if operators_on is None:
        (group,) = engine.placement
        if devices[group].array is None:
            return None
        unit = Unit(group, devices[group], engine.parallel.tp)
        return UnitPlacement((unit,), dict.fromkeys(CLASSES, 0), {})
    groups = operators_on.groups
    return UnitPlacement(
        units=tuple(Unit(name, at_the_banks(devices[name]), engine.placement[name].devices) for name in groups),
        unit_of={one: groups.index(operators_on.group_of(one)) for one in CLASSES},
        links=links or {},
        interleave_from_seqs=operators_on.interleave_from_seqs if operators_on.interleave_sub_batches else None,
    )


def check_unit_names(engine: Engine) -> Iterator[Finding]:
    """Groups of operators_on and those of the placement are the same; what else does not go together."""
    operators_on, groups = engine.operators_on, list(engine.placement)
    if operators_on is None:
        if len(groups) > 1:
            words = f"an engine that serves prefill or decode on {listed(groups)} needs operators_on: which has what"
            yield ("placement",), words
        return
    for name in operators_on.groups:
        if name not in groups:
            key = next(key for key in type(operators_on).model_fields if getattr(operators_on, key) == name)
            near = did_you_mean(name, groups)
            yield ("operators_on", key), f"placement has no {name!r} ({listed(groups)}).{near}"
    for name in groups:
        if name not in operators_on.groups:
            yield ("placement", name), f"operators_on gives {name!r} nothing to do"
    if len(groups) > MOST_GROUPS:
        yield ("placement",), f"an engine spans at most {MOST_GROUPS} device groups, not {len(groups)}"
    parallel = engine.parallel
    if operators_on.linear in groups and parallel.tp != engine.placement[operators_on.linear].devices:
        devices = engine.placement[operators_on.linear].devices
        yield (
            ("parallel", "tp"),
            f"with operators_on the devices of a group share each of its operators: needs tp {devices}, as many as "
            f"{operators_on.linear!r} has, got {parallel.tp}",
        )
    for key in ("pp", "dp", "ep"):
        if getattr(parallel, key) > 1:
            yield ("parallel", key), f"with operators_on all layers lie on all groups: needs {key} 1"


def check_unit_engine(engine: Engine, model: ModelArchitecture) -> Iterator[Finding]:
    """What engines with accounts by device group do not do."""
    what = "operators_on" if engine.operators_on is not None else "a device with an array"
    if engine.speculative is not None:
        yield ("speculative",), f"drafts run on one kind of device: none with {what}"
    if getattr(engine.batching, "kind", "") == "layered_prefill":
        yield ("batching", "kind"), f"{what} runs whole passes: needs another policy than layered_prefill"
    if model.num_encoder_layers > 0:
        yield ("model",), f"{model.name} has an encoder: its products have no place with {what}"
    if engine.lora is not None:
        yield ("lora",), f"adapters multiply beside the matrices of one kind of device: none with {what}"
    if engine.parallel.dp > 1:
        yield ("parallel", "dp"), f"DP attention is not part of {what}: needs dp 1, got {engine.parallel.dp}"
    if engine.parallel.sequence_parallel:
        yield ("parallel", "sequence_parallel"), f"is not part of {what}"
    if engine.parallel.compute_slowdown != 1.0:
        yield ("parallel", "compute_slowdown"), f"is of one kind of device's products: none with {what}"


def check_units(engine: Engine, model: ModelArchitecture, devices: Mapping[str, Device]) -> Iterator[Finding]:
    """Operators that a group cannot do, and weights that do not fit where they belong."""
    from hermes_sim.perf.coefficients import supported_dtype
    from hermes_sim.perf.unit_memory import array_rooms, unit_rooms

    placement = unit_placement(engine, devices)
    if placement is None:
        return
    if len({unit.device.ownership is not None for unit in placement.units}) > 1:
        yield ("operators_on",), "devices of one engine are all rented (price) or all bought (ownership)"
    for number, unit in enumerate(placement.units):
        heads = model.num_heads
        if heads % unit.tp:
            yield ("placement", unit.group), f"{unit.tp} devices do not divide {heads} heads of {model.name}"
        array, needs = unit.device.array, placement.classes(number) - {"linear"}
        if model.moe is None:
            needs -= {"experts"}
        if array is None:
            if unit.device.companion is None and supported_dtype(unit.device, model.activation_dtype) is None:
                known = listed(unit.device.peak_flops_per_s)
                yield ("model",), f"{model.name} computes in {model.activation_dtype}, {unit.device.name} in {known}"
        elif unit.device.companion is None and needs - {"experts"}:
            key = ("operators_on",) if engine.operators_on is not None else ("placement", unit.group)
            yield key, f"{unit.device.name} has an array and no companion: {listed(sorted(needs))} need another device"
    found = False
    try:
        rooms = list(array_rooms(model, placement, engine.parallel.pp))
    except KeyError as unknown:
        names = listed(unit.device.name for unit in placement.units if unit.device.array is not None)
        yield ("model",), f"{model.name} multiplies in {unknown.args[0]}, which the array of {names} does not"
        return
    for array_room in rooms:
        if not array_room.fits:
            found = True
            yield (
                ("model",),
                f"{model.name} does not stay in the array: {array_room.needed_tiles:,.0f} macros a device, "
                f"{array_room.device} has {array_room.num_tiles:,.0f}; take more devices, or residency: reload",
            )
    batching = engine.batching
    for room in [] if found else unit_rooms(
        model, placement, pp=engine.parallel.pp, memory_fraction=engine.kv_cache.memory_fraction,
        max_num_batched_tokens=getattr(batching, "max_num_batched_tokens", 0),
        max_num_seqs=getattr(batching, "max_num_seqs", 0),
        activation_reserve_bytes=engine.kv_cache.activation_reserve_bytes,
    ):  # fmt: skip
        if room.shortfall_bytes > 0.0:
            yield (
                ("model",),
                f"{model.name} does not fit on {room.group!r}: {_size(room.weights_bytes)} of weights and "
                f"{_size(room.activation_bytes)} of activations per device, {room.device} x memory_fraction "
                f"{engine.kv_cache.memory_fraction:g} has {_size(room.usable_bytes)}",
            )


def _size(num_bytes: float) -> str:
    return format_quantity(num_bytes, "bytes")
