"""A scenario with 10% more of one thing: how each knob is turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hermes_sim.explore.explain.rates import device_sped_up, everything, sped_up
from hermes_sim.hardware.placement import PlacementError, Slots
from hermes_sim.scenario.cluster import ClusterFile, Engine
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.stages.timed import Timed

MORE: Final = 1.1


def fits(scenario: Scenario) -> bool:
    """Whether all replicas find devices."""
    slots = Slots(scenario.cluster.nodes, scenario.devices)
    try:
        for engine in scenario.cluster.engines:
            wants = {name: (share.devices, share.cores) for name, share in engine.placement.items()}
            slots.allocate_replicas(engine.node, wants, engine.replicas)
            on = None if engine.speculative is None else engine.speculative.on
            if on is not None:
                slots.allocate_replicas(on.node, {on.device: (on.count, None)}, engine.replicas)
    except PlacementError:
        return False
    return True


MEMORY_KEYS = (
    "memory.bandwidth_bytes_per_s", "memory.internal_bandwidth_bytes_per_s", "processor.core_bandwidth_bytes_per_s",
    "processor.remote_bandwidth_bytes_per_s", "cost_model.search.stream_bytes_per_s",
    "cost_model.search.block_stream_bytes_per_s",
)  # fmt: skip
LAUNCH = "cost_model.kernel_launch_s"
"""Of the host: turned with its time."""


def is_memory(path: str) -> bool:
    return path in MEMORY_KEYS


def is_compute(path: str) -> bool:
    """Peaks, and the clock that cycles are counted in and caches go with."""
    return not path.startswith("cost_model.") and path not in MEMORY_KEYS


def is_kernel_time(path: str) -> bool:
    """What a kernel takes whatever its work: launches, ramps, latencies inside it."""
    return path.startswith("cost_model.") and path not in (*MEMORY_KEYS, LAUNCH)


DEVICE_KEYS: Mapping[str, Callable[[str], bool]] = {
    "memory": is_memory, "compute": is_compute, "kernels": is_kernel_time, "launch": LAUNCH.__eq__,
}  # fmt: skip


def turn_device(profile: str, keys: str, scenario: Scenario) -> Scenario:
    """One kind of device, wherever it is, with more of one resource."""
    device = device_sped_up(scenario.devices[profile], MORE, DEVICE_KEYS[keys])
    return scenario.model_copy(update={"devices": {**scenario.devices, profile: device}})


def is_bandwidth(path: str) -> bool:
    return path.endswith("_per_s")


def is_latency(path: str) -> bool:
    return not path.endswith("_per_s")


def turn_link(name: str, keys: str, scenario: Scenario) -> Scenario:
    """One kind of link; in collectives too."""
    link = sped_up(scenario.links[name], MORE, is_bandwidth if keys == "bandwidth" else is_latency)
    return scenario.model_copy(update={"links": {**scenario.links, name: link}})


def with_engine(scenario: Scenario, name: str, change: Callable[[Engine], Mapping[str, Any]]) -> Scenario:
    """The scenario with other keys of one engine."""
    engines = tuple(one.model_copy(update=change(one)) if one.name == name else one for one in scenario.cluster.engines)
    return with_cluster(scenario, engines=engines)


def with_cluster(scenario: Scenario, **changes: Any) -> Scenario:
    cluster: ClusterFile = scenario.cluster.model_copy(update=changes)
    return scenario.model_copy(update={"cluster": cluster})


def turn_host(name: str, profiles: tuple[str, ...], scenario: Scenario) -> Scenario:
    """All that the host does for one engine, launching kernels included."""
    for profile in profiles:
        scenario = turn_device(profile, "launch", scenario)
    return with_engine(scenario, name, lambda one: {"host": sped_up(one.host, MORE, everything)})


def turn_kv(name: str, num_blocks: int, scenario: Scenario) -> Scenario:
    """So many KV blocks in each replica."""
    return with_engine(
        scenario, name, lambda one: {"kv_cache": one.kv_cache.model_copy(update={"num_gpu_blocks": num_blocks})}
    )


def turn_batching(name: str, key: str, limit: int, scenario: Scenario) -> Scenario:
    return with_engine(scenario, name, lambda one: {"batching": one.batching.model_copy(update={key: limit})})


def turn_cores(name: str, group: str, cores: int, scenario: Scenario) -> Scenario:
    def change(engine: Engine) -> Mapping[str, Any]:
        share = engine.placement[group].model_copy(update={"cores": cores})
        return {"placement": {**engine.placement, group: share}}

    return with_engine(scenario, name, change)


def turn_replicas(name: str, replicas: int, more_nodes: int, scenario: Scenario) -> Scenario:
    """So many replicas; more_nodes: of the kind of node that the engine is on."""
    engine = next(one for one in scenario.cluster.engines if one.name == name)
    wants = {group: (share.devices, share.cores) for group, share in engine.placement.items()}
    group = Slots(scenario.cluster.nodes, scenario.devices).node_group(engine.node, wants)
    nodes = tuple(
        one.model_copy(update={"count": one.count + more_nodes}) if one.name == group.name else one
        for one in scenario.cluster.nodes
    )
    changed = with_engine(scenario, name, lambda one: {"replicas": replicas})
    return with_cluster(changed, nodes=nodes)


def turn_store(name: str, what: str, scenario: Scenario) -> Scenario:
    def change(store: Any) -> Any:
        if store.name != name:
            return store
        if what == "capacity":
            return store.model_copy(update={"capacity_bytes": MORE * store.capacity_bytes})
        return sped_up(store, MORE, is_bandwidth)

    return with_cluster(scenario, kv_stores=tuple(change(one) for one in scenario.cluster.kv_stores))


def turn_service(name: str, scenario: Scenario) -> Scenario:
    """A stated time, shorter."""

    def change(stage: Any) -> Any:
        if isinstance(stage, Timed) and stage.name == name:
            return stage.model_copy(update={"service_time": sped_up(stage.service_time, MORE, everything)})
        inner = getattr(stage, "stages", None)
        if inner:
            return stage.model_copy(update={"stages": tuple(change(one) for one in inner)})
        return stage

    pipelines = tuple(
        one.model_copy(update={"stages": tuple(change(stage) for stage in one.stages)})
        for one in scenario.workload.pipelines
    )
    workload = scenario.workload.model_copy(update={"pipelines": pipelines})
    return scenario.model_copy(update={"workload": workload})
