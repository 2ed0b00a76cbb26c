"""Does an engine fit its devices: weights, what makes the drafts, activations, and at least one block of KV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hermes_sim.batching import TokenBatching
from hermes_sim.core.units import format_quantity
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.combination_checks import Finding
from hermes_sim.scenario.speculative import DraftHeads, DraftModel, MedusaHeads

if TYPE_CHECKING:
    from hermes_sim.perf.drafts import DraftMemory
    from hermes_sim.perf.memory import MemoryPlan
    from hermes_sim.perf.unit import UnitPlacement


def check_memory(
    engine: Engine,
    model: ModelArchitecture,
    draft: ModelArchitecture | None,
    device: Device,
    placement: UnitPlacement | None = None,
) -> Iterator[Finding]:
    """What is wrong with the memory of every device of a replica; with a placement, of those with the KV cache."""
    plan = plan_memory(engine, model, draft, device, placement=placement)
    usable_bytes = device.memory.capacity_bytes * engine.kv_cache.memory_fraction
    if plan.shortfall_bytes > 0:
        yield (
            ("model",),
            f"{model.name} does not fit: {_size(plan.weights_bytes)} of weights and {_size(plan.activation_bytes)} of "
            f"activations per device, {device.name} x memory_fraction {engine.kv_cache.memory_fraction:g} has "
            f"{_size(usable_bytes)}: {_size(plan.shortfall_bytes)} short",
        )
    elif plan.num_blocks < 1:
        left_bytes = usable_bytes - plan.weights_bytes - plan.activation_bytes
        yield (
            ("kv_cache",),
            f"no room for a single KV block of {engine.kv_cache.block_tokens} tokens: {_size(left_bytes)} left per "
            f"device beside {_size(plan.weights_bytes)} of weights and {_size(plan.activation_bytes)} of activations",
        )


def check_draft_device(draft: ModelArchitecture, device: Device) -> Iterator[Finding]:
    """What is wrong with a device of its own for a draft model: it computes the model, and holds it with the longest
    sequence that the model takes."""
    from hermes_sim.perf.coefficients import supported_dtype
    from hermes_sim.perf.drafts import draft_memory

    if supported_dtype(device, draft.weight_dtype) is None:
        words = f"{draft.name} computes in {draft.weight_dtype}, {device.name} multiplies neither that nor wider"
        yield ("speculative", "draft", "on"), words
        return
    memory = draft_memory(draft, "model", draft, tp=1)
    needed_bytes = memory.weights_bytes + draft.max_model_len * memory.kv_bytes_per_token
    if needed_bytes > device.memory.capacity_bytes:
        words = (
            f"{draft.name} and one sequence of {draft.max_model_len} tokens take {_size(needed_bytes)}, "
            f"{device.name} has {_size(device.memory.capacity_bytes)}"
        )
        yield ("speculative", "draft", "on"), words


def plan_memory(
    engine: Engine,
    model: ModelArchitecture,
    draft: ModelArchitecture | None,
    device: Device,
    beside_bytes: float = 0.0,
    placement: UnitPlacement | None = None,
) -> MemoryPlan:
    """Memory of one device of a replica, or of one data-parallel rank, with room left for what makes the drafts and for
    what other engines keep there. placement: operators on several device groups, or in arrays.
    """
    from hermes_sim.perf.memory import memory_plan

    batching, parallel, kv_cache = engine.batching, engine.parallel, engine.kv_cache
    assert isinstance(batching, TokenBatching)
    if placement is not None:
        from hermes_sim.perf.unit_memory import unit_memory_plan

        return unit_memory_plan(
            model,
            placement,
            pp=parallel.pp,
            layers_per_stage=parallel.layers_per_stage,
            memory_fraction=kv_cache.memory_fraction,
            block_tokens=kv_cache.block_tokens,
            kv_dtype=kv_cache.dtype or model.kv_dtype,
            max_num_batched_tokens=batching.max_num_batched_tokens,
            max_num_seqs=batching.max_num_seqs,
            activation_reserve_bytes=kv_cache.activation_reserve_bytes,
            num_gpu_blocks=kv_cache.num_gpu_blocks,
            beside_bytes={placement.of("attention").group: beside_bytes},
        )
    drafts = _draft_memory(engine, model, draft)
    adapters_bytes = adapter_slots_bytes(engine, model)
    return memory_plan(
        model,
        device,
        tp=parallel.tp,
        pp=parallel.pp,
        ep=parallel.ep,
        dp=parallel.dp,
        layers_per_stage=parallel.layers_per_stage,
        memory_fraction=kv_cache.memory_fraction,
        block_tokens=kv_cache.block_tokens,
        kv_dtype=kv_cache.dtype or model.kv_dtype,
        max_num_batched_tokens=batching.max_num_batched_tokens,
        max_num_seqs=batching.max_num_seqs,
        activation_reserve_bytes=kv_cache.activation_reserve_bytes,
        num_gpu_blocks=kv_cache.num_gpu_blocks,
        draft_weights_bytes=drafts.weights_bytes + adapters_bytes,
        draft_kv_bytes_per_token=drafts.kv_bytes_per_token,
        beside_bytes=beside_bytes,
    )


def adapter_slots_bytes(engine: Engine, model: ModelArchitecture) -> float:
    """Of all slots for low-rank adapters, on each device."""
    from hermes_sim.perf.adapters import adapter_weight_bytes

    lora = engine.lora
    if lora is None:
        return 0.0
    one_bytes = adapter_weight_bytes(model, lora.targets, lora.rank, engine.parallel.tp)
    return lora.max_loras * one_bytes / engine.parallel.pp


def _draft_memory(engine: Engine, model: ModelArchitecture, draft: ModelArchitecture | None) -> DraftMemory:
    from hermes_sim.perf.drafts import DraftMemory, draft_memory

    kv_dtype = engine.kv_cache.dtype or model.kv_dtype
    speculative = engine.speculative
    if speculative is None or speculative.on is not None:
        return DraftMemory(0.0, 0.0)
    made_by = speculative.draft
    if isinstance(made_by, DraftModel):
        return draft_memory(model, "model", draft, tp=engine.parallel.tp, kv_dtype=kv_dtype)
    if isinstance(made_by, DraftHeads):
        frac = made_by.layers_frac
        return draft_memory(model, "heads", layers_frac=frac, tp=engine.parallel.tp, kv_dtype=kv_dtype)
    if isinstance(made_by, MedusaHeads):
        return draft_memory(model, "medusa", num_heads=speculative.num_draft_tokens, tp=engine.parallel.tp)
    return DraftMemory(0.0, 0.0)


def _size(num_bytes: float) -> str:
    return format_quantity(num_bytes, "bytes")
