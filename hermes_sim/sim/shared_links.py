"""Which devices and links each engine keeps busy, and with whom it shares them.

Devices that the same engines use are one resource; of an engine that is on some of another's devices, only those count.

Of links, for a token of a step: seconds that each needs at its full bandwidth for what the collectives send over it.
Links that two engines use tie them into one group, whose steps slow each other (sim/contention.py); on all others only
bulk transfers can be in the way (sim/step_traffic.py). Ranks that step together are left out of groups: all wait for
the slowest anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hermes_sim.hardware.network import Endpoint, Network
from hermes_sim.perf.lowered_operators import LoweredOperators
from hermes_sim.perf.placed_operators import PlacedOperators
from hermes_sim.perf.wire_bytes import expert_bytes_per_token, tensor_bytes_per_token
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.sim.plans import PipelinePlan
from hermes_sim.sim.replicas import Replica, engine_groups, num_lanes
from hermes_sim.state.arrays import DEVICE_COLUMNS, JOBS, EngineArrays

Loads = Mapping[int, float]
"""Link -> its seconds per token of a step."""


@dataclass(frozen=True, slots=True)
class SharedLinks:
    """Groups of engines that move together, and the links in their demand vectors."""

    loads: tuple[Loads, ...]
    """[num_engines] of those links that anybody else may use."""
    groups: tuple[tuple[int, ...], ...]
    device_users: tuple[tuple[tuple[int, ...], ...], ...]
    """[num_groups] engines that are on the same devices, for each such set of devices."""
    links: tuple[tuple[int, ...], ...]
    """[num_groups] links, those first that two engines of the group use."""
    num_contended: tuple[int, ...]
    """[num_groups] how many those are."""

    @property
    def num_columns(self) -> int:
        """Of the largest demand vector."""
        both = zip(self.device_users, self.links, strict=True)
        return max((DEVICE_COLUMNS * len(sets) + len(links) for sets, links in both), default=DEVICE_COLUMNS)

    @property
    def most_sets(self) -> int:
        """Of devices that one engine is on."""
        counts = (Counter(e for users in sets for e in users) for sets in self.device_users)
        return max((max(count.values(), default=1) for count in counts), default=1)

    @property
    def listeners(self) -> set[int]:
        """Engines whose steps transfers may slow."""
        return {e for e, loads in enumerate(self.loads) if loads}

    def column(self, group: int, link_id: int) -> int:
        """Of a link in the demand vectors of a group."""
        return DEVICE_COLUMNS * len(self.device_users[group]) + self.links[group].index(link_id)


def share_links(replicas: Sequence[Replica], network: Network, *, any_transfers: bool) -> SharedLinks:
    """any_transfers: bulk transfers may cross the engines' links during the run."""
    loads = collective_loads(replicas, network)
    users = Counter(link_id for e, own in enumerate(loads) for link_id in own if not _in_step(replicas[e]))
    tied = {link_id for link_id, number in users.items() if number > 1}
    groups = engine_groups(replicas, [() if _in_step(one) else tied & set(loads[e]) for e, one in enumerate(replicas)])
    device_users, links, num_contended = [], [], []
    for group in groups:
        device_users.append(users_of_devices(replicas, group))
        used = {link_id for e in group for link_id in loads[e]}
        contended = sorted(used & tied) if len(group) > 1 and not _in_step(replicas[group[0]]) else []
        others = sorted(used - set(contended)) if any_transfers else []
        links.append((*contended, *others))
        num_contended.append(len(contended))
    links_of = {e: set(links[number]) for number, group in enumerate(groups) for e in group}
    return SharedLinks(
        loads=tuple({i: own[i] for i in own if i in links_of[e]} for e, own in enumerate(loads)),
        groups=tuple(map(tuple, groups)),
        device_users=tuple(device_users),
        links=tuple(links),
        num_contended=tuple(num_contended),
    )


def users_of_devices(replicas: Sequence[Replica], group: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Engines of a group that are on the same devices, set by set.

    Where all users of one set are among those of another, the other is always the fuller one, and stands for both.
    """
    users: dict[Endpoint, list[int]] = {}
    for e in group:
        for endpoint in dict.fromkeys(replicas[e].endpoints):
            users.setdefault(endpoint, []).append(e)
    sets = list(dict.fromkeys(tuple(sorted(found)) for found in users.values()))
    return tuple(one for one in sets if not any(set(one) < set(other) for other in sets))


def any_transfers(scenario: Scenario, plans: Sequence[PipelinePlan]) -> bool:
    """Whether bulk transfers may cross links of engines: KV between them or from stores, weights of new replicas."""
    stages = [stage for plan in plans for stage in plan.stages]
    loads_weights = any(one.autoscaling and one.autoscaling.weights_on for one in scenario.cluster.engines)
    return loads_weights or any(stage.may_split or stage.prefill is not None for stage in stages)


def fill_groups(state: EngineArrays, replicas: Sequence[Replica], shared: SharedLinks) -> None:
    """Engines that share a device or a link move together, in time order; ranks of a replica begin and end together."""
    first = 0
    for number, group in enumerate(shared.groups):
        members = list(group)
        state.group_first[number] = first
        state.group_size[number] = len(members)
        state.group_members[first : first + len(members)] = members
        state.group_of[members] = number
        lanes = int(state.num_lanes[members].sum())
        jobs = bool((state.engine_kind[members] == JOBS).any())
        state.group_lockstep[number] = _in_step(replicas[members[0]])
        state.group_contended[number] = not _in_step(replicas[members[0]]) and lanes > 1 and (jobs or len(members) > 1)
        state.group_first_link[number] = DEVICE_COLUMNS * len(shared.device_users[number])
        state.group_num_columns[number] = state.group_first_link[number] + shared.num_contended[number]
        state.group_num_links[number] = len(shared.links[number])
        for e in members:
            sets = [place for place, users in enumerate(shared.device_users[number]) if e in users]
            state.device_columns[e, : len(sets)] = DEVICE_COLUMNS * np.array(sets)
        for e in members:
            for link_id, token_s in shared.loads[e].items():
                state.link_token_s[e, shared.column(number, link_id)] = token_s
        first += len(members)
    for e, replica in enumerate(replicas):
        if replica.costs is not None:  # of several steps in flight one is on the devices, or on each stage
            state.memory_share_frac[e] = replica.costs.memory_share_frac / num_lanes(replica.engine)
        state.compute_share_frac[e] = _compute_share(replica)


def _compute_share(replica: Replica) -> float:
    """Of the devices' compute, what a step has that it limits. Cores of processors are given out, not shared."""
    if replica.device.kind == "cpu":
        return 0.0
    share = 1.0
    if replica.cost is None:
        share = replica.num_cores / (replica.device.num_cores * replica.num_devices)
    return share / num_lanes(replica.engine)


def _in_step(replica: Replica) -> bool:
    return replica.engine.parallel.dp > 1


def collective_loads(replicas: Sequence[Replica], network: Network) -> list[dict[int, float]]:
    """[num_engines]"""
    all_ends: dict[tuple[str, int], tuple[Endpoint, ...]] = {}
    for one in replicas:
        key = (one.engine.name, one.number)
        all_ends[key] = all_ends.get(key, ()) + one.endpoints
    return [_loads(one, all_ends[one.engine.name, one.number], network) for one in replicas]


def _loads(replica: Replica, all_ends: Sequence[Endpoint], network: Network) -> dict[int, float]:
    cost, parallel = replica.cost, replica.engine.parallel
    found: dict[int, float] = {}
    if cost is None:
        return found
    if isinstance(cost.captured_operators, PlacedOperators):
        return _placed_loads(replica, cost.captured_operators, network)
    assert isinstance(cost.token_operators, LoweredOperators)
    tensor_bytes = tensor_bytes_per_token(cost.token_operators, parallel.tp) / parallel.pp
    for first in range(0, len(replica.endpoints), parallel.tp) if tensor_bytes > 0.0 else ():
        for link_id, load in network.ring_loads(replica.endpoints[first : first + parallel.tp]).items():
            found[link_id] = found.get(link_id, 0.0) + tensor_bytes * load
    expert_bytes = expert_bytes_per_token(cost.token_operators, len(all_ends)) if parallel.dp > 1 else 0.0
    if expert_bytes > 0.0:
        for link_id, load in network.exchange_loads(replica.endpoints, all_ends).items():
            found[link_id] = found.get(link_id, 0.0) + expert_bytes * load
    return {link_id: num_bytes / network.links[link_id].bandwidth_bytes_per_s for link_id, num_bytes in found.items()}


def _placed_loads(replica: Replica, operators: PlacedOperators, network: Network) -> dict[int, float]:
    """Collectives inside each device group of an engine, and activations between groups, as in a step of decodes."""
    units, found = operators.placement.units, dict[int, float]()
    pp = replica.engine.parallel.pp
    ends = [[one for one in replica.endpoints if one.device_group == unit.group] for unit in units]
    for number, part in operators.parts:
        tp = units[number].tp
        tensor_bytes = tensor_bytes_per_token(part, tp) / pp if isinstance(part, LoweredOperators) else 0.0
        for first in range(0, len(ends[number]), tp) if tensor_bytes > 0.0 else ():
            for link_id, load in network.ring_loads(ends[number][first : first + tp]).items():
                found[link_id] = found.get(link_id, 0.0) + tensor_bytes * load
    for crossing in operators.crossings.crossings:
        route = network.group_route(ends[crossing.source], ends[crossing.target])
        for link_id, share in zip(route.link_ids, route.share_frac, strict=True):
            found[link_id] = found.get(link_id, 0.0) + crossing.bytes_per_token * share
    return {link_id: num_bytes / network.links[link_id].bandwidth_bytes_per_s for link_id, num_bytes in found.items()}
