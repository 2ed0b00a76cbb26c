"""What job engines keep on their devices: weights of encoders and indexes in memory, or in compute-in-memory cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hermes_sim.core.units import format_quantity
from hermes_sim.core.words import listed
from hermes_sim.hardware.device import Device
from hermes_sim.models.operator import Operator
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.serving import serving_engines
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.stages.stage import Models, Stage

if TYPE_CHECKING:
    from hermes_sim.perf.array_operators import Array
    from hermes_sim.scenario.engine_checks import Placed


def job_stages(scenario: Scenario, engine: Engine) -> list[Stage]:
    """That the engine serves as whole jobs; of stages that keep the same, one."""
    found: dict[tuple[object, ...], Stage] = {}
    for pipeline in scenario.workload.pipelines:
        for _, stage in pipeline.leaves():
            if stage.runs_on == "jobs" and engine in serving_engines(scenario, stage):
                key = (stage_kind(stage), stage.model_names(), stage.resident_bytes(scenario.models))
                found.setdefault(key, stage)
    return list(found.values())


def kept_passes(scenario: Scenario, engine: Engine) -> list[tuple[Operator, ...]]:
    """One pass through each network that the engine keeps."""
    return [stage.one_pass(scenario.models) for stage in job_stages(scenario, engine)]


def memory_bytes(stage: Stage, device: Device, models: Models) -> float:
    """That a stage keeps in the device's memory: without weights that never leave the cells of an array."""
    kept_bytes = stage.resident_bytes(models)
    if device.array is None or device.array.residency == "reload":
        return kept_bytes
    from hermes_sim.perf.job_arrays import product_weight_bytes

    return max(kept_bytes - product_weight_bytes([stage.one_pass(models)]), 0.0)


def memory_problem(placed: Placed, stages: Sequence[Stage], models: Models) -> str | None:
    """In words, where the memory of a replica has no room for all of these stages."""
    engine, (device, *_) = placed.engine, placed.devices.values()
    needs_bytes = sum(memory_bytes(stage, device, models) for stage in stages)
    has_bytes = sum(
        one.memory.capacity_bytes * engine.placement[group].devices for group, one in placed.devices.items()
    )
    if needs_bytes <= has_bytes:
        return None
    needs, has = format_quantity(needs_bytes, "bytes"), format_quantity(has_bytes, "bytes")
    return f"{_names(stages)} {_verb('need', stages)} {needs} of memory, a replica of engine {engine.name!r} has {has}"


def batch_problem(
    scenario: Scenario, engine: Engine, device: Device, num_devices: int, batch_bytes: float
) -> str | None:
    """In words, where a replica has no room for the activations of its workers' largest batches."""
    workers = getattr(engine.batching, "num_workers", 1)
    kept_bytes = sum(memory_bytes(stage, device, scenario.models) for stage in job_stages(scenario, engine))
    has_bytes = num_devices * device.memory.capacity_bytes
    if kept_bytes + workers * batch_bytes <= has_bytes:
        return None
    kept, batch, has = (format_quantity(one, "bytes") for one in (kept_bytes, batch_bytes, has_bytes))
    each = f"each of {workers} workers" if workers > 1 else "a batch"
    return (
        f"weights and indexes take {kept}, activations of {each} {batch}, a replica has {has}: take a smaller "
        "max_batch_size, or fewer workers"
    )


def array_problem(placed: Placed, stages: Sequence[Stage], models: Models) -> str | None:
    """In words, what the array of a replica's devices cannot do of these stages; None without an array."""
    from hermes_sim.perf.job_arrays import array_share, multiplies_weights, needed_tiles, num_tiles

    engine, (device, *_) = placed.engine, placed.devices.values()
    array = array_share(device, _worker_cores(engine, device))
    if array is None:
        return None
    passes = [stage.one_pass(models) for stage in stages]
    if device.companion is None and any(not multiplies_weights(one) for operators in passes for one in operators):
        return (
            f"{device.name} has an array and no companion for what has no weights: {_names(stages)} need another device"
        )
    for stage, operators in zip(stages, passes, strict=True):
        dtype = _unknown_dtype(operators, array)
        if dtype is not None:
            known = f"needs a dtype of {listed(device.peak_flops_per_s)}"
            return f"{stage.name!r} multiplies in {dtype}, which the array of {device.name} does not: {known}"
    needed, has = needed_tiles(passes, array), num_tiles(array)
    if array.residency == "reload" or needed <= has:
        return None
    workers = getattr(engine.batching, "num_workers", 1)
    return (
        f"weights of {_names(stages)} do not stay in the array: {needed:,.0f} macros, "
        f"{'each worker' if workers > 1 else 'a replica'} of engine {engine.name!r} has {has:,.0f} of {device.name}; "
        f"take more devices{', fewer workers' if workers > 1 else ''}, or residency: reload"
    )


def check_job_memory(scenario: Scenario, stage: Stage, placed: Placed) -> Iterator[str]:
    """What is wrong with one stage on an engine's devices; with the last that it serves, of all of them together."""
    if not placed.devices:
        return
    stages, models = job_stages(scenario, placed.engine), scenario.models
    alone = [problem(placed, [stage], models) for problem in (memory_problem, array_problem)]
    yield from filter(None, alone[:1] if alone[0] else alone)
    if any(alone) or len(stages) < 2 or stage is not stages[-1]:
        return
    if any(problem(placed, [one], models) for one in stages for problem in (memory_problem, array_problem)):
        return
    together = memory_problem(placed, stages, models) or array_problem(placed, stages, models)
    if together:
        yield together


def _worker_cores(engine: Engine, device: Device) -> int:
    """Of all devices of a replica, those that one batch runs on."""
    (placement, *_) = engine.placement.values()
    cores = placement.cores or device.num_cores * placement.devices
    return max(cores // getattr(engine.batching, "num_workers", 1), 1)


def _unknown_dtype(operators: tuple[Operator, ...], array: Array) -> str | None:
    from hermes_sim.perf.job_arrays import needed_tiles

    try:
        needed_tiles([operators], array)
    except KeyError as unknown:
        return str(unknown.args[0])
    return None


def _names(stages: Sequence[Stage]) -> str:
    return listed([repr(stage.name) for stage in stages])


def _verb(verb: str, stages: Sequence[Stage]) -> str:
    return verb if len(stages) > 1 else f"{verb}s"
