"""Classes, patience and the front door against pipelines and engines."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_sim.batching import TokenBatching
from hermes_sim.batching.python_batching import PythonOptions
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.scenario.document import KeyPath
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.workload import WorkloadFile, stage_kind
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.tree_search import TreeSearch

Finding = tuple[KeyPath, str]


def check_classes(workload: WorkloadFile) -> Iterator[Finding]:
    """Key paths of the workload."""
    names = [pipeline.name for pipeline in workload.pipelines]
    claimed: dict[str, str] = {}
    for index, one in enumerate(workload.classes):
        if one.name in [other.name for other in workload.classes[:index]]:
            yield ("classes", index, "name"), f"a second class named {one.name!r}"
        for place, name in enumerate(one.pipelines):
            path = ("classes", index, "pipelines", place)
            if name not in names:
                yield path, f"there is no pipeline {name!r} ({listed(names)}).{did_you_mean(name, names)}"
            elif name in claimed:
                yield path, f"pipeline {name!r} belongs to class {claimed[name]!r} already"
            claimed.setdefault(name, one.name)
    left = [name for name in names if name not in claimed]
    if workload.classes and left and all(one.pipelines for one in workload.classes):
        yield ("classes",), f"no class takes the requests of pipeline {left[0]!r}: give one without `pipelines`"
    waits = [*(one.patience for one in workload.classes), workload.patience]
    if any(one is not None and one.first_token_s is not None for one in waits):
        for index, pipeline in enumerate(workload.pipelines):
            if not any(stage_kind(stage) == "prefill" for _, stage in pipeline.leaves()):
                yield (
                    ("pipelines", index),
                    f"pipeline {pipeline.name!r} has no token that a client could wait for (patience: first_token)",
                )


def check_front_door(scenario: Scenario) -> Iterator[Finding]:
    """Key paths of the cluster."""
    cluster, workload = scenario.cluster, scenario.workload
    admission = cluster.admission
    if admission is not None and admission.early_rejection is not None and admission.early_rejection.ttft is None:
        promises = [workload.slo if one.slo is None else one.slo for one in workload.classes] or [workload.slo]
        if any(not slo.ttft for slo in promises):
            yield (
                ("admission", "early_rejection"),
                "a class without a bound on TTFT has no deadline: give `ttft` here, or `slo: {ttft: ...}` there",
            )
    yield from _check_hedges(scenario)
    by_ttft = [
        n for n, one in enumerate(cluster.engines) if one.autoscaling and one.autoscaling.metric == "missed_ttft"
    ]
    bounds = [limit for _, slo in workload.promises() for limit in slo.ttft.values()]
    if by_ttft and not any(limit.time_s is not None for limit in bounds):
        yield (
            ("engines", by_ttft[0], "autoscaling", "metric"),
            "missed_ttft needs a bound on TTFT that is a time: `slo: {ttft: {p99: 2 s}}` in the workload",
        )
    if not takes_back(scenario):
        return
    stages = [stage for pipeline in workload.pipelines for _, stage in pipeline.leaves()]
    for index, engine in enumerate(cluster.engines):
        batching = engine.batching
        if not isinstance(batching, TokenBatching):
            continue
        if engine.speculative is not None and engine.speculative.on is not None:
            yield (
                ("engines", index, "speculative"),
                "requests may be taken back here (patience, shedding, hedges), and drafts on devices of their own "
                "are not: leave one of them out",
            )
        if engine.kv_cache.while_waiting != "lru" or engine.lora is not None:
            key = "lora" if engine.lora is not None else "kv_cache"
            yield (
                ("engines", index, key),
                "requests may be taken back here (patience, shedding, hedges), which no engine can that has slots for "
                "adapters or keeps KV while a request is away: leave one of them out",
            )
        if any(isinstance(stage, TreeSearch) for stage in stages) and {"prefill", "decode"} & set(engine.serves):
            yield (
                ("engines", index),
                "requests may be taken back here (patience, shedding, hedges), which no search can: leave one out",
            )
        switches = batching.switches()
        if switches.static_batch or switches.by_layers or isinstance(batching, PythonOptions):
            yield (
                ("engines", index, "batching", "kind"),
                f"requests may be taken back here (patience, shedding, hedges), and the policy "
                f"{getattr(batching, 'kind', '')!r} keeps what it has begun together: take another, such as "
                "chunked_prefill",
            )


def _check_hedges(scenario: Scenario) -> Iterator[Finding]:
    """A copy goes from the router straight to an engine, and is one sequence."""
    if not scenario.cluster.any_hedges:
        return
    stages = [stage for pipeline in scenario.workload.pipelines for _, stage in pipeline.leaves()]
    path: KeyPath = ("routing", "hedge")
    if any(stage_kind(stage) == "kv_retrieval" for stage in stages):
        yield path, "a prompt whose KV comes from stores is not sent twice: leave hedge out, or kv_retrieval"
    if any(stage_kind(stage) == "encode" for stage in stages):
        yield path, "a prompt that waits for vectors of encoders is not sent twice: leave hedge out, or encode"
    if scenario.cluster.kv_transfer.reserve == "before_prefill":
        yield path, "a copy does not reserve room for its decode: needs kv_transfer: {reserve: after_prefill}"
    if any(isinstance(stage, Decode) and stage.num_samples > 1 for stage in stages):
        yield path, "a request for several samples is not sent twice: leave hedge out, or num_samples"
    for index, engine in enumerate(scenario.cluster.engines):
        if engine.host.tokenize is not None:
            yield ("engines", index, "host", "tokenize"), "a copy that must be tokenised again is not modelled (hedge)"


def takes_back(scenario: Scenario) -> bool:
    """Whether anything takes a request back that an engine has."""
    cluster, workload = scenario.cluster, scenario.workload
    sheds = cluster.admission is not None and cluster.admission.when_full == "shed"
    return sheds or workload.any_patience or cluster.any_hedges
