"""KV stores of a cluster, and the stages of a workload that ask them: names that exist, ways to the engines, one size
of chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.hardware.network import Endpoint, NoRouteError
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.scenario.cluster import ClusterFile, Engine
from hermes_sim.scenario.document import KeyPath
from hermes_sim.scenario.kv_store import KvStore
from hermes_sim.scenario.placement_checks import Layout
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.stages.kv_retrieval import KvRetrieval

Finding = tuple[KeyPath, str]
WIDTHS = ("engine", "node", "rack", "cluster")


def check_kv_stores(cluster: ClusterFile, layout: Layout) -> Iterator[Finding]:
    """All that is wrong with the stores of a cluster, whatever the workload; `layout` has been checked."""
    found = [finding for index, store in enumerate(cluster.kv_stores) for finding in _store(cluster, index, store)]
    yield from found
    if not found and layout.replicas:
        yield from _ways(cluster, layout)


def _store(cluster: ClusterFile, index: int, store: KvStore) -> Iterator[Finding]:
    path = ("kv_stores", index)
    names = [other.name for other in cluster.kv_stores]
    if store.name in names[:index] or store.name in [engine.name for engine in cluster.engines]:
        yield (*path, "name"), f"a second engine or store named {store.name!r}"
    yield from (((*path, *key), message) for key, message in _place(cluster, store))
    racks = cluster.fabric.nodes_per_rack if cluster.fabric is not None else None
    if store.nodes_per_rack is not None and racks not in (None, store.nodes_per_rack):
        yield (*path, "nodes_per_rack"), f"a rack has {racks} nodes in `fabric`, and {store.nodes_per_rack} here"
    if store.evict_to is None:
        return
    lower = next((other for other in cluster.kv_stores if other.name == store.evict_to), None)
    if lower is None:
        near = did_you_mean(store.evict_to, names)
        yield (*path, "evict_to"), f"there is no store {store.evict_to!r} ({listed(names)}).{near}"
        return
    trail = [store.name]
    following: KvStore | None = lower
    while following is not None and following.name not in trail:
        trail.append(following.name)
        following = next((other for other in cluster.kv_stores if other.name == following.evict_to), None)
    if following is not None:
        yield (*path, "evict_to"), f"stores evict to each other in a circle: {' -> '.join([*trail, following.name])}"
    if WIDTHS.index(lower.shared_by) < WIDTHS.index(store.shared_by) or (
        store.shared_by == lower.shared_by == "rack" and store.nodes_per_rack != lower.nodes_per_rack
    ):
        yield (*path, "evict_to"), f"{lower.name!r} is shared by fewer than {store.name!r}: which of them would get it?"
    if lower.chunk_tokens != store.chunk_tokens:
        sizes = f"{store.chunk_tokens} and {lower.chunk_tokens}"
        yield (*path, "chunk_tokens"), f"{store.name!r} and {lower.name!r} need chunks of one size, they have {sizes}"


def _place(cluster: ClusterFile, store: KvStore) -> Iterator[Finding]:
    nodes = {node.name: node for node in cluster.nodes}
    if store.node is not None and store.node not in nodes:
        yield ("node",), f"there is no node {store.node!r} ({listed(nodes)}).{did_you_mean(store.node, nodes)}"
        return
    if store.attached_to is None:
        return
    own = [nodes[store.node]] if store.node is not None else _nodes_of_prompts(cluster)
    for node in own:
        if store.attached_to not in node.devices:
            near = did_you_mean(store.attached_to, node.devices)
            message = f"node {node.name!r} has no {store.attached_to!r} ({listed(node.devices)}).{near}"
            yield ("attached_to",), message
            return
    if store.shared_by == "rack" and store.node is not None and store.nodes_per_rack is not None:
        num_racks = -(-sum(node.count for node in cluster.nodes) // store.nodes_per_rack)
        if nodes[store.node].count < num_racks:
            has = nodes[store.node].count
            yield ("node",), f"{num_racks} racks need as many nodes {store.node!r}, one each; there are {has}"


def _nodes_of_prompts(cluster: ClusterFile) -> list[NodeGroup]:
    """Node groups that engines with a prefill may stand in."""
    wanted = [engine for engine in cluster.engines if "prefill" in engine.serves]
    return [node for node in cluster.nodes if any(_may_stand(engine, node) for engine in wanted)]


def _may_stand(engine: Engine, node: NodeGroup) -> bool:
    return engine.node in (None, node.name) and all(name in node.devices for name in engine.placement)


def _ways(cluster: ClusterFile, layout: Layout) -> Iterator[Finding]:
    """Every engine that reads or writes KV has a route to each store and back."""
    groups = {node.name: node for node in cluster.nodes}
    for index, store in enumerate(cluster.kv_stores):
        if store.attached_to is None:
            continue
        for engine in cluster.engines:
            if not {"prefill", "decode"} & set(engine.serves):
                continue
            message = _missing_way(store, layout, groups, layout.replicas[engine.name])
            if message is not None:
                yield ("kv_stores", index, "attached_to"), f"engine {engine.name!r} cannot reach it: {message}"
                break


def _missing_way(
    store: KvStore, layout: Layout, groups: dict[str, NodeGroup], replicas: Sequence[Sequence[Endpoint]]
) -> str | None:
    """Of the first and the last replica: the others lie between them, in equal nodes."""
    assert store.attached_to is not None
    for end in dict.fromkeys([replicas[0][0], replicas[-1][-1]]):
        group = store.node or end.node_group
        if store.attached_to not in groups[group].devices:
            return f"node {group!r} has no {store.attached_to!r}"
        node_index = end.node_index if store.node is None else 0
        for device in range(groups[group].devices[store.attached_to].count):
            stands = Endpoint(group, node_index, store.attached_to, device)
            try:
                layout.network.route(stands, end)
                layout.network.route(end, stands)
            except NoRouteError as error:
                return str(error)
    return None


def check_retrievals(scenario: Scenario) -> Iterator[Finding]:
    """Stages of kind kv_retrieval name stores of the cluster, of one size of chunks."""
    stores = {store.name: store for store in scenario.cluster.kv_stores}
    for index, pipeline in enumerate(scenario.workload.pipelines):
        for place, stage in pipeline.leaves():
            if not isinstance(stage, KvRetrieval):
                continue
            path = ("pipelines", index, *place, "stores")
            unknown = [(n, name) for n, name in enumerate(stage.stores) if name not in stores]
            for position, name in unknown:
                known = f" ({listed(stores)})" if stores else ": it has no `kv_stores`"
                yield (*path, position), f"the cluster has no KV store {name!r}{known}.{did_you_mean(name, stores)}"
            sizes = {stores[name].chunk_tokens for name in stage.stores if name in stores}
            if len(sizes) > 1:
                yield path, f"stores that are asked together need chunks of one size: {listed(map(str, sorted(sizes)))}"
