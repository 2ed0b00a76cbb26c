"""Which links a transfer between two engines crosses, and how busy they were."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_sim.analysis.trust import engine_name
from hermes_sim.core.errors import HermesError
from hermes_sim.hardware.network import Network
from hermes_sim.hardware.placement import Slots
from hermes_sim.hardware.topology import Endpoint

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results
    from hermes_sim.scenario.scenario import Scenario

_REPLICA = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class SharedLink:
    """One direction of a link, and its load over the run."""

    name: str
    profile: str
    bandwidth_bytes_per_s: float
    utilization_frac: float


def slowest_link(results: Results, source: str, target: str) -> SharedLink | None:
    """On the way between two engine instances (`prefill[0]`, `decode[1]`): the link that limits a lone transfer.

    None where nothing is between them, or where one of them is no engine.
    """
    ends = engine_endpoints(results.scenario)
    first, second = replica_of(source), replica_of(target)
    if first not in ends or second not in ends or first == second:
        return None
    cluster = results.scenario.cluster
    try:
        network = Network(cluster.nodes, results.scenario.links, cluster.network, cluster.fabric)
        route = network.group_route(ends[first], ends[second])
    except HermesError:
        return None
    shares = dict(zip(route.link_ids, route.share_frac, strict=True))
    if not shares:
        return None
    slowest = network.links[max(shares, key=lambda link: shares[link] / network.links[link].bandwidth_bytes_per_s)]
    busy = results.links.loc[results.links["link"] == slowest.name, "utilization_frac"]
    return SharedLink(
        slowest.name, slowest.profile, slowest.bandwidth_bytes_per_s, float(busy.iloc[0]) if len(busy) else 0.0
    )


def engine_endpoints(scenario: Scenario) -> dict[tuple[str, int], list[Endpoint]]:
    """Engine and number of a replica -> its devices, as the simulator places them: in the order of the file."""
    slots = Slots(scenario.cluster.nodes, scenario.devices)
    found: dict[tuple[str, int], list[Endpoint]] = {}
    for engine in scenario.cluster.engines:
        wants = {name: (share.devices, share.cores) for name, share in engine.placement.items()}
        for number, endpoints in enumerate(slots.allocate_replicas(engine.node, wants, engine.replicas)):
            found[engine.name, number] = endpoints
        on = None if engine.speculative is None else engine.speculative.on
        if on is not None:
            slots.allocate_replicas(on.node, {on.device: (on.count, None)}, engine.replicas)
    return found


def replica_of(instance: str) -> tuple[str, int]:
    """`llm[2].dp1` -> (`llm`, 2)."""
    number = _REPLICA.search(instance)
    return engine_name(instance), int(number[1]) if number else 0
