"""Options of a token engine that do not go together: each refusal a sentence that says what to write instead."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_sim.batching import Switches, TokenBatching
from hermes_sim.batching.python_batching import PythonOptions, RegisteredBatching
from hermes_sim.core.words import listed
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.document import KeyPath
from hermes_sim.scenario.lora import Lora
from hermes_sim.scenario.policy_options import check_options

Finding = tuple[KeyPath, str]
"""Key path below the engine, and what is wrong there."""


def check_combinations(engine: Engine, batching: TokenBatching, model: ModelArchitecture | None) -> Iterator[Finding]:
    """All that one engine asks for and no engine could do."""
    switches = batching.switches()
    yield from _data_parallel(engine, switches)
    yield from _pipeline(engine, batching, switches)
    if switches.by_layers and batching.async_scheduling:
        yield (
            ("batching", "async_scheduling"),
            "a wave of prompts moves on when its step has ended: layered_prefill needs async_scheduling: false",
        )
    yield from _cache(engine)
    yield from _drafts(engine, batching, switches)
    if isinstance(batching, PythonOptions):
        yield from _in_python(engine, batching)
    if engine.lora is not None and model is not None:
        yield from _adapters(engine.lora, model)
    if model is not None and model.family == "encoder_decoder":
        yield from _whole_prompts(batching, switches, model)


def _data_parallel(engine: Engine, switches: Switches) -> Iterator[Finding]:
    parallel = engine.parallel
    if parallel.dp == 1:
        return
    if parallel.pp > 1:
        yield ("parallel", "dp"), f"DP attention has no pipeline: dp {parallel.dp} needs pp 1, got {parallel.pp}"
    if switches.static_batch:
        yield (
            ("parallel", "dp"),
            f"DP ranks step together, which a static batch does not: dp {parallel.dp} needs another policy",
        )
    elif switches.by_layers or switches.padding != "none":
        yield (
            ("parallel", "dp"),
            f"DP ranks are padded to the tokens of the largest, not to rectangles or groups of layers: "
            f"dp {parallel.dp} needs another policy",
        )


def _pipeline(engine: Engine, batching: TokenBatching, switches: Switches) -> Iterator[Finding]:
    parallel = engine.parallel
    stages = parallel.layers_per_stage
    if stages is not None and len(stages) != parallel.pp:
        yield (
            ("parallel", "layers_per_stage"),
            f"needs one entry for each of the {parallel.pp} stages, got {len(stages)}",
        )
    if parallel.pp == 1:
        return
    if batching.async_scheduling:
        yield (
            ("batching", "async_scheduling"),
            f"a pipeline of {parallel.pp} stages has {parallel.pp} steps in flight already: "
            "needs pp 1, or async_scheduling: false",
        )
    if switches.by_layers:
        yield (
            ("parallel", "pp"),
            f"prefill by groups of layers wants all layers on every device: needs pp 1, got {parallel.pp}",
        )
    if engine.speculative is not None:
        yield ("speculative",), f"drafts wait for the step before them: needs pp 1, got {parallel.pp}"


def _cache(engine: Engine) -> Iterator[Finding]:
    if engine.kv_cache.prefix_cache == "radix" and engine.kv_cache.insert_at == "schedule":
        yield (
            ("kv_cache", "insert_at"),
            "a radix tree takes blocks when they are computed: prefix_cache: radix needs insert_at: step_end",
        )


def _drafts(engine: Engine, batching: TokenBatching, switches: Switches) -> Iterator[Finding]:
    if engine.speculative is None:
        return
    kind = getattr(batching, "kind", "")
    if batching.async_scheduling:
        yield (
            ("batching", "async_scheduling"),
            "how many drafts are accepted is known at the end of a step only: "
            "needs async_scheduling: false, or no speculative",
        )
    if switches.by_layers or switches.padding != "none":
        yield ("speculative",), f"the policy {kind!r} has no drafts: leave speculative out, or take another policy"
    elif engine.speculative.on is not None and engine.parallel.dp > 1:
        yield (
            ("speculative", "draft", "on"),
            f"DP ranks step together, drafts from elsewhere come one by one: needs dp 1, got {engine.parallel.dp}",
        )


def _in_python(engine: Engine, batching: PythonOptions) -> Iterator[Finding]:
    """What a policy in Python is not asked about."""
    wants = "a policy in Python decides one step at a time, when the last one has ended: needs"
    if engine.parallel.dp > 1:
        yield ("parallel", "dp"), f"{wants} dp 1, got {engine.parallel.dp}"
    if batching.async_scheduling:
        yield ("batching", "async_scheduling"), f"{wants} async_scheduling: false"
    if engine.speculative is not None:
        yield ("speculative",), f"{wants} no drafts"
    if engine.lora is not None:
        yield ("lora",), f"{wants} no adapters"
    if isinstance(batching, RegisteredBatching):
        yield from check_options(("batching", "options"), batching.policy, batching.options)


def _adapters(lora: Lora, model: ModelArchitecture) -> Iterator[Finding]:
    """Matrices that the model has and that adapters can stand beside."""
    if model.mla is not None or model.num_encoder_layers > 0:
        yield ("lora",), f"adapters beside the matrices of {model.name} (latent or cross-attention) are not modelled"
        return
    missing = set() if model.num_dense_layers else {"up", "down"}
    missing |= set() if model.num_attention_layers else {"qkv", "out"}
    for place, target in enumerate(lora.targets):
        if target in missing:
            known = [name for name in ("qkv", "out", "up", "down") if name not in missing]
            yield ("lora", "targets", place), f"{model.name} has no dense {target!r}: take some of {listed(known)}"
        elif target in lora.targets[:place]:
            yield ("lora", "targets", place), f"{target!r} is there twice"


def _whole_prompts(batching: TokenBatching, switches: Switches, model: ModelArchitecture) -> Iterator[Finding]:
    """An encoder sees the whole prompt before the first token, in a step without decodes."""
    does = [word for word, is_on in (("mixes", switches.mix), ("chunks", switches.chunk_prefill)) if is_on]
    if does:
        kind = getattr(batching, "kind", "")
        yield (
            ("batching", "kind"),
            f"{kind!r} {' and '.join(does)} prompts, and {model.name} has an encoder that needs them whole and alone: "
            "take prefill_first, static, padded or prepacked",
        )
