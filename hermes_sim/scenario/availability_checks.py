"""Outages, failures and autoscaling against the engines they name."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.scenario.cluster import ClusterFile, Engine

Finding = tuple[tuple[str | int, ...], str]


def check_availability(cluster: ClusterFile) -> Iterator[Finding]:
    """Key path in the cluster file, and what is wrong there."""
    engines = {engine.name: engine for engine in cluster.engines}
    for index, outage in enumerate(cluster.availability.outages):
        path = ("availability", "outages", index)
        engine = engines.get(outage.engine)
        if engine is None:
            yield (*path, "engine"), _unknown(outage.engine, engines)
            continue
        if outage.replica is not None and outage.replica >= engine.replicas:
            yield (*path, "replica"), f"engine {engine.name!r} has replicas 0 to {engine.replicas - 1}"
        if outage.kind == "failure":
            yield from ((path, message) for message in _cannot_fail(engine))
    for index, failures in enumerate(cluster.availability.failures):
        path = ("availability", "failures", index)
        engine = engines.get(failures.engine)
        if engine is None:
            yield (*path, "engine"), _unknown(failures.engine, engines)
        else:
            yield from ((path, message) for message in _cannot_fail(engine))
    for index, engine in enumerate(cluster.engines):
        yield from ((("engines", index, "autoscaling", *path), message) for path, message in _scaling(cluster, engine))


def _unknown(name: str, engines: dict[str, Engine]) -> str:
    return f"there is no engine {name!r} ({listed(engines)}).{did_you_mean(name, engines)}"


def _cannot_fail(engine: Engine) -> Iterator[str]:
    """What a failure would leave half done elsewhere is not modelled."""
    split = {"prefill", "decode"} & set(engine.serves)
    if len(split) == 1:
        yield (
            f"engine {engine.name!r} serves {split.pop()} only: failures while KV is on its way are not modelled "
            "(kind: maintenance is)"
        )
    if engine.parallel.dp > 1:
        yield f"engine {engine.name!r} has data-parallel ranks, whose failures are not modelled"
    if engine.host.tokenize is not None:
        yield f"engine {engine.name!r} has tokenizers (host.tokenize), whose failures are not modelled"


def _scaling(cluster: ClusterFile, engine: Engine) -> Iterator[Finding]:
    scaling = engine.autoscaling
    if scaling is None:
        return
    start = scaling.min_replicas if scaling.start_replicas is None else scaling.start_replicas
    if scaling.min_replicas > engine.replicas:
        yield ("min_replicas",), f"is more than the {engine.replicas} replicas of engine {engine.name!r}"
    elif not scaling.min_replicas <= start <= engine.replicas:
        yield ("start_replicas",), f"must lie between min_replicas and replicas ({engine.replicas}), got {start}"
    groups = {name for node in cluster.nodes for name in node.devices}
    if scaling.weights_on is not None and scaling.weights_on not in groups:
        near = did_you_mean(scaling.weights_on, sorted(groups))
        yield ("weights_on",), f"no node has devices {scaling.weights_on!r} ({listed(sorted(groups))}).{near}"
