"""One engine on its own: does what it serves fit its policy, its model its parallel degrees and its devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hermes_sim.batching import JOB_POLICIES, TOKEN_POLICIES, TokenBatching
from hermes_sim.core.schema import Dtype
from hermes_sim.core.units import format_quantity
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.expert_load import GivenLoad, UniformLoad
from hermes_sim.models.parameters import weight_bytes
from hermes_sim.scenario.cluster import Engine, Parallel
from hermes_sim.scenario.combination_checks import Finding, check_combinations
from hermes_sim.scenario.engine_memory import check_draft_device, check_memory
from hermes_sim.scenario.unit_placement import check_unit_engine, check_unit_names, check_units, unit_placement
from hermes_sim.stages import STAGES

LARGEST_STEP_TOKENS = 1_000_000
LARGEST_STEP_SEQS = 65_536
LARGEST_BATCH_SIZE = 65_536
"""Cost tables have a row for each."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An engine with what its names stand for."""

    engine: Engine
    model: ModelArchitecture | None
    devices: dict[str, Device]
    """By device group of the placement."""
    draft: ModelArchitecture | None = None
    """Language model that drafts, for speculative decoding."""
    draft_device: Device | None = None
    """What it runs on, where that is not the engine's own devices."""

    @property
    def takes_tokens(self) -> bool:
        """It serves prefill or decode."""
        return any(kind in STAGES and STAGES[kind].runs_on == "tokens" for kind in self.engine.serves)

    @property
    def num_devices(self) -> int:
        """Of one replica."""
        return sum(placement.devices for placement in self.engine.placement.values())


def check_engine(placed: Placed) -> Iterator[Finding]:
    """All that is wrong with one engine; memory last, and only where the rest is right."""
    found = [*_serves(placed), *_batching(placed), *_numa(placed)]
    if placed.takes_tokens:
        found += [*_model(placed), *_parallel(placed), *_experts(placed), *_draft(placed), *_dtypes(placed)]
        if isinstance(placed.engine.batching, TokenBatching):
            found += check_combinations(placed.engine, placed.engine.batching, placed.model)
    else:
        found += _of_tokens_only(placed.engine)
    yield from found
    if not found and placed.takes_tokens and placed.model is not None:
        yield from _memory(placed, placed.model)


def _memory(placed: Placed, model: ModelArchitecture) -> Iterator[Finding]:
    """Weights, activations and a KV block have room; on several device groups each where it belongs."""
    engine, devices = placed.engine, placed.devices
    placement = unit_placement(engine, devices) if devices else None
    if placement is None:
        for device in devices.values():
            yield from check_memory(engine, model, placed.draft, device)
        return
    found = [*check_unit_engine(engine, model), *check_units(engine, model, devices)]
    yield from found
    if not found:
        yield from check_memory(engine, model, placed.draft, placement.of("attention").device, placement)


def engine_notes(placed: Placed) -> Iterator[str]:
    """What a reader of the results should know about this engine."""
    from hermes_sim.perf.coefficients import supported_dtype

    if placed.model is None or not placed.takes_tokens:
        return
    yield from _without_effect(placed.engine, placed.model)
    yield from _served_format(placed.engine, placed.model)
    for device in placed.devices.values():
        for dtype in _compute_dtypes(placed.model):
            computed = supported_dtype(device, dtype)
            if computed not in (None, dtype):
                yield (
                    f"engine '{placed.engine.name}': {device.name} does not multiply {dtype}; "
                    f"{placed.model.name} is computed in {computed}"
                )


def _served_format(engine: Engine, model: ModelArchitecture) -> Iterator[str]:
    """What the engine's quantisation makes of the model."""
    if engine.quantization is not None:
        name = engine.quantization.scheme or "formats of its own"
        weights = format_quantity(weight_bytes(model), "bytes")
        yield f"engine '{engine.name}': {model.name} is served in {name}, {weights} of weights in all"


def _without_effect(engine: Engine, model: ModelArchitecture) -> Iterator[str]:
    """Options that change nothing, or not what their name says."""
    batching, kv_cache = engine.batching, engine.kv_cache
    if not isinstance(batching, TokenBatching):
        return
    if batching.queue_order == "longest_prefix" and not kv_cache.prefix_caching:
        yield f"engine '{engine.name}': queue_order longest_prefix finds no prefixes, prefix_caching is off: as fcfs"
    if batching.preemption == "swap" and kv_cache.swap_space_bytes == 0:
        yield f"engine '{engine.name}': preemption swap has no swap_space: as recompute"
    if engine.parallel.dp > 1 and model.moe is None:
        yield (
            f"engine '{engine.name}': {model.name} has no experts that dp ranks would share, yet they step together; "
            f"replicas would not wait for each other"
        )


def _serves(placed: Placed) -> Iterator[Finding]:
    known = [kind for kind, stage in STAGES.items() if stage.runs_on != "nowhere"]
    for index, kind in enumerate(placed.engine.serves):
        if kind not in known:
            yield ("serves", index), f"{kind!r} is not a stage kind ({listed(known)}).{did_you_mean(kind, known)}"
        elif kind in placed.engine.serves[:index]:
            yield ("serves", index), f"{kind!r} is there twice"
    served = [kind for kind in placed.engine.serves if kind in STAGES]
    jobs = [kind for kind in served if STAGES[kind].runs_on == "jobs"]
    if placed.takes_tokens and jobs:
        tokens = [kind for kind in served if kind not in jobs]
        yield ("serves",), f"{listed(tokens)} run token by token, {listed(jobs)} as whole jobs: they need two engines"


def _batching(placed: Placed) -> Iterator[Finding]:
    batching = placed.engine.batching
    if placed.takes_tokens != isinstance(batching, TokenBatching):
        policies, served = (TOKEN_POLICIES, "prefill and decode") if placed.takes_tokens else (JOB_POLICIES, "jobs")
        kind = getattr(batching, "kind", "")
        yield ("batching", "kind"), f"{kind!r} does not batch {served}; one of: {listed(policies)}"
        return
    if not isinstance(batching, TokenBatching):
        if batching.max_batch_size > LARGEST_BATCH_SIZE:
            yield ("batching", "max_batch_size"), f"must be <= {LARGEST_BATCH_SIZE:,}, got {batching.max_batch_size:,}"
        return
    if batching.max_num_seqs > LARGEST_STEP_SEQS:
        yield ("batching", "max_num_seqs"), f"must be <= {LARGEST_STEP_SEQS:,}, got {batching.max_num_seqs:,}"
    if batching.max_num_batched_tokens > LARGEST_STEP_TOKENS:
        most = f"must be <= {LARGEST_STEP_TOKENS:,}, got {batching.max_num_batched_tokens:,}"
        yield ("batching", "max_num_batched_tokens"), most
    elif batching.max_num_batched_tokens < batching.max_num_seqs:
        yield (
            ("batching", "max_num_batched_tokens"),
            f"{batching.max_num_batched_tokens} is less than max_num_seqs {batching.max_num_seqs}: "
            "every running sequence needs a token of the budget",
        )


def _of_tokens_only(engine: Engine) -> Iterator[Finding]:
    """Keys that would do nothing where whole jobs run."""
    served = listed(engine.serves)
    token_keys = ("operators_on", "engine_preset", "speculative", "quantization", "lora")
    for key, is_set in ((key, getattr(engine, key)) for key in token_keys):
        if is_set is not None:
            yield (key,), f"is for engines that serve prefill or decode, this one serves {served}"
    if engine.parallel.dp > 1:
        message = f"DP attention is for engines that serve prefill or decode: needs dp 1, got {engine.parallel.dp}"
        yield ("parallel", "dp"), message


def _model(placed: Placed) -> Iterator[Finding]:
    if placed.engine.model is None:
        yield ("model",), f"is missing: an engine that serves {listed(placed.engine.serves)} needs one"
    elif placed.model is not None and placed.model.family == "encoder":
        yield ("model",), f"{placed.model.name} is an encoder: it cannot serve {listed(placed.engine.serves)}"


def _parallel(placed: Placed) -> Iterator[Finding]:
    engine, model, parallel = placed.engine, placed.model, placed.engine.parallel
    if model is not None:
        yield from _tensor_parallel(model, parallel.tp)
        yield from _expert_parallel(model, parallel)
        yield from _layers(model, parallel)
    if parallel.sequence_parallel and parallel.tp == 1:
        yield ("parallel", "sequence_parallel"), "splits norms over the tensor-parallel devices: needs tp above 1"
    yield from check_unit_names(engine)
    if engine.operators_on is None and len(engine.placement) == 1 and parallel.num_devices != placed.num_devices:
        (group,) = engine.placement
        ranks = f" x dp {parallel.dp}" if parallel.dp > 1 else ""
        yield (
            ("parallel",),
            f"tp {parallel.tp} x pp {parallel.pp}{ranks} makes {parallel.num_devices} devices, "
            f"placement gives a replica {placed.num_devices} {group}",
        )


def _numa(placed: Placed) -> Iterator[Finding]:
    """NUMA nodes are those of a CPU that states them, and of an engine that serves tokens."""
    for name, placement in placed.engine.placement.items():
        device = placed.devices.get(name)
        if placement.numa is None or device is None:
            continue
        path = ("placement", name, "numa")
        if device.kind != "cpu":
            yield path, f"is for CPUs, {device.name} is a {device.kind}"
        elif not placed.takes_tokens:
            yield path, f"is for engines that serve prefill or decode, this one serves {listed(placed.engine.serves)}"
        elif device.processor is None:
            yield path, f"{device.name} states no NUMA nodes (processor.numa_nodes)"


def _layers(model: ModelArchitecture, parallel: Parallel) -> Iterator[Finding]:
    if parallel.pp > model.num_layers:
        yield ("parallel", "pp"), f"{parallel.pp} is more than the {model.num_layers} layers of {model.name}"
    stages = parallel.layers_per_stage
    if stages is not None and sum(stages) != model.num_layers:
        words = f"makes {sum(stages)} layers, {model.name} has {model.num_layers}"
        yield ("parallel", "layers_per_stage"), words


def _tensor_parallel(model: ModelArchitecture, tp: int) -> Iterator[Finding]:
    recurrent_heads = model.state_space.num_heads if model.state_space is not None else 0
    whole = {
        "attention heads": model.num_heads,
        "heads of the state-space layers": recurrent_heads,
        "of hidden size": model.hidden_size,
        "of intermediate size": model.intermediate_size,
    }
    for noun, number in whole.items():
        if number % tp:
            yield ("parallel", "tp"), f"{tp} does not divide {number} {noun} of {model.name} ({_divisors(number)})"
            return
    heads = model.num_kv_heads
    if heads and heads % tp and tp % heads:
        yield (
            ("parallel", "tp"),
            f"{tp} neither divides {heads} KV heads of {model.name} nor is a multiple of them ({_divisors(heads)})",
        )


def _expert_parallel(model: ModelArchitecture, parallel: Parallel) -> Iterator[Finding]:
    ep, num_ranks = parallel.ep, parallel.tp * parallel.dp
    if ep == 1:
        return
    if model.moe is None:
        yield ("parallel", "ep"), f"{model.name} has no experts: ep must be 1, got {ep}"
    elif model.moe.num_experts % ep:
        experts = model.moe.num_experts
        yield ("parallel", "ep"), f"{ep} does not divide {experts} experts of {model.name} ({_divisors(experts)})"
    elif num_ranks % ep:
        ranks = f"tp {parallel.tp}" if parallel.dp == 1 else f"tp x dp = {num_ranks}"
        yield ("parallel", "ep"), f"{ep} does not divide {ranks} ({_divisors(num_ranks)})"


def _experts(placed: Placed) -> Iterator[Finding]:
    load, model = placed.engine.experts, placed.model
    if model is None or isinstance(load, UniformLoad):
        return
    if model.moe is None:
        yield ("experts",), f"{model.name} has no experts"
    elif isinstance(load, GivenLoad) and len(load.shares) != model.moe.num_experts:
        words = f"needs one share for each of the {model.moe.num_experts} experts of {model.name}"
        yield ("experts", "shares"), f"{words}, got {len(load.shares)}"


def _draft(placed: Placed) -> Iterator[Finding]:
    if placed.draft is not None and placed.draft.family in ("encoder", "encoder_decoder"):
        has = "is an encoder" if placed.draft.family == "encoder" else "has an encoder"
        yield ("speculative", "draft", "model"), f"{placed.draft.name} {has}: it drafts no tokens"
    elif placed.draft is not None and placed.draft_device is not None:
        yield from check_draft_device(placed.draft, placed.draft_device)


def _divisors(number: int) -> str:
    """The first few: '1, 2, 4, 8, ...'."""
    divisors = [divisor for divisor in range(1, min(number, 4096) + 1) if number % divisor == 0]
    return ", ".join(str(divisor) for divisor in divisors[:4]) + (", ..." if len(divisors) > 4 else "")


def _dtypes(placed: Placed) -> Iterator[Finding]:
    from hermes_sim.perf.coefficients import supported_dtype

    if placed.model is None:
        return
    for device in placed.devices.values():
        for dtype in (
            _compute_dtypes(placed.model) if placed.engine.operators_on is None and device.array is None else []
        ):
            if supported_dtype(device, dtype) is None:
                known = listed(device.peak_flops_per_s)
                able = f"{device.name} multiplies neither that nor wider ({known})"
                yield ("model",), f"{placed.model.name} computes in {dtype}, {able}"


def _compute_dtypes(model: ModelArchitecture) -> list[Dtype]:
    """Of the matrix multiplies, each once."""
    quantizations = [model.quantization, *model.quantization_by_part.values()]
    narrow = [quantization.compute_dtype for quantization in quantizations if quantization is not None]
    return list(dict.fromkeys([model.weight_dtype, *narrow]))
