"""What one engine's steps cost and what its memory holds: tables of the model and its drafts, blocks, block traffic."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_sim.batching import TokenBatching
from hermes_sim.hardware.device import Device, beside_the_array
from hermes_sim.hardware.network import GroupLink
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.perf.adapters import AdapterCost, adapter_cost
from hermes_sim.perf.block_traffic import copy_block_seconds, num_swap_blocks, swap_block_seconds
from hermes_sim.perf.collective_coefficients import group_collectives
from hermes_sim.perf.drafts import DraftCost, DraftKind, build_draft_cost
from hermes_sim.perf.memory import MemoryPlan
from hermes_sim.perf.step_cost import LlmCost, build_llm_cost
from hermes_sim.perf.unit import UnitLink, UnitPlacement
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.engine_memory import plan_memory
from hermes_sim.scenario.speculative import Draft, DraftHeads, DraftModel, MedusaHeads, Speculative


@dataclass(frozen=True, slots=True)
class Links:
    """What the devices of one engine talk over."""

    tensor: GroupLink
    """Devices of one rank and pipeline stage."""
    pipeline: GroupLink
    experts: GroupLink
    """All devices of the replica, every rank's."""
    host_bytes_per_s: float
    """Each device to the host's memory; 0 where nothing is swapped."""
    between_units: tuple[tuple[tuple[int, int], UnitLink], ...] = ()
    """Between device groups of the engine, by number."""
    inside_units: tuple[GroupLink, ...] = ()
    """Among the devices of each of these groups."""
    adapters_bytes_per_s: float = 0.0
    """From where the adapters lie to each device; 0 where there are none."""


@dataclass(frozen=True, slots=True)
class EngineCosts:
    """Memory plan and cost tables of one engine, or of one rank of it."""

    plan: MemoryPlan
    cost: LlmCost
    draft: DraftCost | None
    swap_blocks: int
    """Room for swapped blocks on the host; 0: preempted sequences are computed again."""
    swap_block_s: float
    copy_block_s: float
    offload_blocks: int
    """Room on the host for the KV of requests that are away."""
    adapters: AdapterCost | None
    """None: the engine has no slots for any."""
    adapter_load_s: float
    memory_share_frac: float = 1.0
    """Of its devices' bandwidth that the engine can draw alone."""


def build_engine_costs(
    engine: Engine,
    model: ModelArchitecture,
    draft_model: ModelArchitecture | None,
    device: Device,
    links: Links,
    longest_sequence: int,
    beside_bytes: float,
    placement: UnitPlacement | None = None,
) -> EngineCosts:
    """`longest_sequence`: prompt and output tokens of the longest request, which bounds a step's prompt.

    beside_bytes: what other engines keep on each device. placement: operators on several device groups, or in arrays;
    the device is then one of those with the KV cache.
    """
    plan = plan_memory(engine, model, draft_model, device, beside_bytes, placement)
    assert isinstance(engine.batching, TokenBatching)
    cost = build_cost(engine, model, device, links, longest_sequence, placement)
    draft = None
    if engine.speculative is not None and engine.speculative.on is None:
        draft = build_draft(engine, engine.speculative, cost, draft_model, device, links.tensor)
    adapters = build_adapters(engine, model, device)
    load_s = 0.0
    if adapters is not None:  # every device gets its part at the same time
        load_s = adapters.weight_bytes / engine.parallel.pp / links.adapters_bytes_per_s
    return EngineCosts(
        plan=plan,
        cost=cost,
        draft=draft,
        swap_blocks=num_swap_blocks(engine.kv_cache.swap_space_bytes, plan.block_bytes) if swaps(engine) else 0,
        swap_block_s=swap_block_seconds(plan.block_bytes, links.host_bytes_per_s) if uses_host(engine) else 0.0,
        copy_block_s=copy_block_seconds(plan.block_bytes, device),
        adapters=adapters,
        adapter_load_s=load_s,
        offload_blocks=num_swap_blocks(engine.kv_cache.swap_space_bytes, plan.block_bytes) if offloads(engine) else 0,
    )


def build_adapters(engine: Engine, model: ModelArchitecture, device: Device) -> AdapterCost | None:
    """What low-rank adapters cost in a step."""
    lora = engine.lora
    return None if lora is None else adapter_cost(model, device, lora.targets, lora.rank, engine.parallel.tp)


def swaps(engine: Engine) -> bool:
    """Victims may be copied to the host. Only sequences that decode are: an unfinished prompt is computed again."""
    batching = engine.batching
    return isinstance(batching, TokenBatching) and batching.preemption == "swap" and "decode" in engine.serves


def offloads(engine: Engine) -> bool:
    """KV of requests that are away between two passes may go to the host."""
    return isinstance(engine.batching, TokenBatching) and engine.kv_cache.while_waiting in ("offload", "auto")


def uses_host(engine: Engine) -> bool:
    """Whether any KV goes to the host's memory and back."""
    return swaps(engine) or offloads(engine)


def build_cost(
    engine: Engine,
    model: ModelArchitecture,
    device: Device,
    links: Links,
    longest_sequence: int,
    placement: UnitPlacement | None = None,
) -> LlmCost:
    """Cost tables of one rank, as long as its largest step."""
    batching, parallel, host = engine.batching, engine.parallel, engine.host
    assert isinstance(batching, TokenBatching)
    return build_llm_cost(
        model,
        device if placement is None else beside_the_array(device),
        tp=parallel.tp if placement is None else placement.of("attention").tp,
        pp=parallel.pp,
        ep=parallel.ep,
        dp=parallel.dp,
        layers_per_stage=parallel.layers_per_stage,
        expert_load=engine.experts,
        max_tokens=max_step_tokens(batching, longest_sequence),
        max_seqs=batching.max_num_seqs,
        max_draft_tokens=max_draft_tokens(engine),
        tp_bandwidth_bytes_per_s=links.tensor.bandwidth_bytes_per_s,
        tp_latency_s=links.tensor.latency_s,
        pp_bandwidth_bytes_per_s=links.pipeline.bandwidth_bytes_per_s,
        pp_latency_s=links.pipeline.latency_s,
        ep_bandwidth_bytes_per_s=links.experts.exchange_bytes_per_s,
        ep_latency_s=links.experts.latency_s,
        kv_dtype=engine.kv_cache.dtype or model.kv_dtype,
        host_per_step_s=host.per_step_s,
        host_per_sequence_s=host.per_sequence_s,
        graph_capture=host.graph_capture,
        max_captured_seqs=host.max_captured_seqs,
        captured_frac=host.captured_frac,
        between_steps_s=host.between_steps_s,
        launch_factor=host.launch_factor,
        prompt_launch_factor=host.prompt_launch_factor,
        compute_slowdown=parallel.compute_slowdown,
        sort_bytes_per_logit=host.sort_bytes_per_logit if host.sampling == "top_p" else 0.0,
        sort_cycles_per_logit=host.sort_cycles_per_logit if host.sampling == "top_p" else 0.0,
        kernels=parallel.kernels,
        collectives=group_collectives(links.tensor, links.experts, parallel.kernels, parallel.collectives),
        sequence_parallel=parallel.sequence_parallel,
        comm_overlap_frac=parallel.comm_overlap_frac,
        placement=placement,
    )


def build_draft(
    engine: Engine,
    speculative: Speculative,
    cost: LlmCost,
    draft_model: ModelArchitecture | None,
    device: Device,
    link: GroupLink,
) -> DraftCost:
    """Cost tables of what makes the drafts, as long as the model's own."""
    assert isinstance(engine.batching, TokenBatching)
    return build_draft_cost(
        cost,
        device,
        kind=draft_kind(speculative),
        draft_model=draft_model,
        layers_frac=layers_frac(speculative),
        num_heads=speculative.num_draft_tokens,
        tp_bandwidth_bytes_per_s=link.bandwidth_bytes_per_s,
        tp_latency_s=link.latency_s,
        kernels=engine.parallel.kernels,
        collectives=group_collectives(link, link, engine.parallel.kernels, engine.parallel.collectives),
        max_tokens=len(cost.linear) - 1,
        max_seqs=engine.batching.max_num_seqs,
        max_draft_tokens=max_draft_tokens(engine),
        graph_capture=engine.host.graph_capture,
        max_captured_seqs=engine.host.max_captured_seqs,
    )


def draft_kind(speculative: Speculative) -> DraftKind:
    """As the cost model names it."""
    kinds: dict[type[Draft], DraftKind] = {DraftModel: "model", DraftHeads: "heads", MedusaHeads: "medusa"}
    return kinds.get(type(speculative.draft), "ngram")


def layers_frac(speculative: Speculative) -> float:
    """Share of the model's layers that one position of draft heads goes through."""
    return speculative.draft.layers_frac if isinstance(speculative.draft, DraftHeads) else 0.0


def draft_model_name(engine: Engine) -> str | None:
    """Model that makes the drafts, where it is one of its own."""
    if engine.speculative is None or not isinstance(engine.speculative.draft, DraftModel):
        return None
    return engine.speculative.draft.model


def max_draft_tokens(engine: Engine) -> int:
    """Most drafts of one sequence in one step."""
    speculative = engine.speculative
    return 0 if speculative is None else speculative.nodes[-1]


def most_blocks(engine: Engine, plan: MemoryPlan, num_tokens: int) -> int:
    """Blocks that a sequence of so many tokens may hold at once.

    Where all layers look back over a window only, what lies before it is given up between two chunks of the prompt.
    """
    batching, block_tokens = engine.batching, engine.kv_cache.block_tokens
    assert isinstance(batching, TokenBatching)
    if plan.full_layers:
        return plan.blocks_of(num_tokens)
    whole = -(-num_tokens // block_tokens)
    if not batching.switches().chunk_prefill:
        return whole
    return min(whole, plan.window_blocks + -(-batching.max_num_batched_tokens // block_tokens) + 1)


def max_step_tokens(batching: TokenBatching, longest_sequence: int) -> int:
    """Most tokens of a step: a whole prompt may run beside a budget of other tokens, layer groups beside any decode."""
    switches = batching.switches()
    if switches.chunk_prefill:
        return batching.max_num_batched_tokens
    beside = batching.max_num_seqs if switches.by_layers else 0
    return batching.max_num_batched_tokens + longest_sequence + beside
