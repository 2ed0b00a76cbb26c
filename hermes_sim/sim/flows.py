"""Bulk transfers: flows over the links of their routes, which they share max-min fairly.

Progressive filling (Bertsekas and Gallager, Data Networks, section 6.5.2): the rates of all flows rise together, each
up to what its route can carry alone; a flow stops rising when one of its links is full. Rates change when a flow of the
same links starts or ends. A flow that was never disturbed ends at start + latency + bytes / bandwidth, to the bit.

A link may lose some or all of its speed during the run (`set_link_speed`): flows over a dead one go on over what is
left, or wait for its repair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hermes_sim.hardware.network import Network, PhysicalLink, Route, through
from hermes_sim.sim.clock import Clock
from hermes_sim.sim.ranks import TRANSFER
from hermes_sim.sim.step_traffic import StepTraffic
from hermes_sim.sim.transfer_log import TransferLog

NO_SPEEDS: Mapping[int, float] = {}
"""All links have all of their bandwidth."""


@dataclass(slots=True, eq=False)
class Flow:
    """One transfer on its way."""

    id: int
    route: Route
    num_bytes: float
    remaining_bytes: float
    updated_s: float
    end_s: float
    on_arrival: Callable[[float], None]
    rate_bytes_per_s: float = 0.0
    version: int = 0
    entered_s: float = 0.0
    """When it began on its present route."""
    entered_bytes: float = 0.0
    """What it had left then."""


@dataclass(slots=True)
class LinkUse:
    """What a link has carried."""

    num_bytes: float = 0.0
    num_transfers: int = 0
    busy_s: float = 0.0
    flows: dict[Flow, float] = field(default_factory=dict)
    """Flow -> share of its bytes on this link, in order of start."""
    busy_since_s: float = 0.0


class Flows:
    """All transfers of a run."""

    def __init__(
        self,
        clock: Clock,
        links: Sequence[PhysicalLink],
        network: Network | None = None,
        steps: StepTraffic | None = None,
    ) -> None:
        """`network`: finds other ways round dead links; without one, flows over them wait. `steps`: what collectives
        of engines send over the same links; nothing if not given."""
        self._clock = clock
        self._network = network
        self._steps = steps
        self.links = list(links)
        self.uses = [LinkUse() for _ in links]
        self.log = TransferLog()
        self._speeds: dict[int, float] = {}
        """Share of their bandwidth that links have which do not have all of it."""
        self._count = 0

    def add_link(self, link: PhysicalLink) -> PhysicalLink:
        """One more link that transfers share; its id is the number of those before it."""
        assert link.id == len(self.links)
        self.links.append(link)
        self.uses.append(LinkUse())
        return link

    def estimated_s(self, transfers: Sequence[tuple[Route, float]], now_s: float) -> float:
        """Time until transfers (route, bytes) that all start now would have come, if nothing else started meanwhile.

        On each link as with equal shares: (own bytes + the smaller of these and what is left of each other flow)
        / bandwidth, exact for one link and for a lone transfer; the slowest link decides.
        """
        own: dict[int, float] = {}
        for route, num_bytes in transfers:
            for link_id, share in zip(route.link_ids, route.share_frac, strict=True):
                own[link_id] = own.get(link_id, 0.0) + num_bytes * share
        slowest_s = max((num_bytes / route.bandwidth_bytes_per_s for route, num_bytes in transfers), default=0.0)
        for link_id, num_bytes in own.items():
            others = sum(
                min(num_bytes, share * left_bytes(flow, now_s)) for flow, share in self.uses[link_id].flows.items()
            )
            capacity = self.capacity_bytes_per_s(link_id)
            slowest_s = max(slowest_s, (num_bytes + others) / capacity if capacity > 0.0 else math.inf)
        return slowest_s + max((route.latency_s for route, _ in transfers), default=0.0)

    def start(self, route: Route, num_bytes: float, on_arrival: Callable[[float], None]) -> Flow:
        """Send now; `on_arrival(time_s)` is called when the last byte is there."""
        now_s = float(self._clock.now)
        self._count += 1
        if self._speeds:
            route = self._way_round(route) or route
        flow = Flow(self._count, route, num_bytes, num_bytes, now_s, now_s, on_arrival)
        self._enter(flow, num_bytes, now_s)
        self._set_rates(flow, now_s)
        return flow

    def cancel(self, flow: Flow) -> None:
        """An end of it is gone: the transfer stops where it is, and nobody is told. Nothing happens if it is over."""
        now_s = float(self._clock.now)
        flow.on_arrival = nobody
        if not any(flow in self.uses[link_id].flows for link_id in flow.route.link_ids):
            return
        left = left_bytes(flow, now_s)
        flow.version += 1
        for link_id, share in zip(flow.route.link_ids, flow.route.share_frac, strict=True):
            self.uses[link_id].num_bytes -= left * share
        self._set_rates_of(self._leave(flow, now_s), now_s)

    def capacity_bytes_per_s(self, link_id: int) -> float:
        """What the link carries at present."""
        return self.links[link_id].bandwidth_bytes_per_s * self._speeds.get(link_id, 1.0)

    def set_link_speed(self, link_id: int, speed_frac: float) -> None:
        """From now on the link has this share of its bandwidth; 0: it is dead, until it is given another.

        Flows over a dead link take another way where the network has one, with what they have left; the others wait.
        Flows that went round do not come back after the repair.
        """
        if speed_frac == 1.0:
            self._speeds.pop(link_id, None)
        else:
            self._speeds[link_id] = speed_frac
        now_s = float(self._clock.now)
        touched = list(self.uses[link_id].flows)
        for flow in touched if speed_frac == 0.0 else []:
            way_round = self._way_round(flow.route)
            if way_round is not None:
                self._move(flow, way_round, now_s)
        self._set_rates_of(touched, now_s)

    def _way_round(self, route: Route) -> Route | None:
        """A route between the same ends without dead links; None where the route has none, or there is no other."""
        dead = frozenset(link_id for link_id, speed_frac in self._speeds.items() if speed_frac == 0.0)
        if self._network is None or dead.isdisjoint(route.link_ids) or not dead.isdisjoint(route.beyond):
            return None
        found = self._network.way_round(route, dead)
        if found is None:
            return None
        for link_id in route.beyond:
            found = through(found, self.links[link_id])
        return found

    def _move(self, flow: Flow, route: Route, now_s: float) -> None:
        """The rest of a flow goes another way."""
        left = left_bytes(flow, now_s)
        neighbours = self._leave(flow, now_s)
        for link_id, share in zip(flow.route.link_ids, flow.route.share_frac, strict=True):
            self.uses[link_id].num_bytes -= left * share
        flow.route = route
        self._enter(flow, left, now_s)
        self._set_rates_of(neighbours, now_s)

    def _enter(self, flow: Flow, num_bytes: float, now_s: float) -> None:
        """The flow is on the links of its route."""
        flow.entered_s = now_s
        flow.entered_bytes = num_bytes
        for link_id, share in zip(flow.route.link_ids, flow.route.share_frac, strict=True):
            use = self.uses[link_id]
            if not use.flows:
                use.busy_since_s = now_s
            use.flows[flow] = share
            use.num_bytes += num_bytes * share
            use.num_transfers += 1

    def _leave(self, flow: Flow, now_s: float) -> list[Flow]:
        """The flow is on no link any more; returns those that shared with it."""
        self.log.add(flow.route, flow.entered_s, now_s, flow.entered_bytes - left_bytes(flow, now_s))
        neighbours = [other for other in self._sharing(flow) if other is not flow]
        for link_id in flow.route.link_ids:
            use = self.uses[link_id]
            del use.flows[flow]
            if not use.flows:
                use.busy_s += now_s - use.busy_since_s
                if self._steps is not None and self._steps.uses(link_id):
                    self._steps.leave(link_id, 1.0)
        return neighbours

    def count_sent(self, route: Route, num_bytes: float) -> None:
        """Bytes that have crossed a route beside something else, whose time is not the links'."""
        now_s = float(self._clock.now)
        self.log.add(route, now_s, now_s, num_bytes)
        for link_id, share in zip(route.link_ids, route.share_frac, strict=True):
            self.uses[link_id].num_bytes += num_bytes * share

    def energy_j(self, route: Route, num_bytes: float) -> float:
        """Of moving so many bytes over all links of the route."""
        shares = zip(route.link_ids, route.share_frac, strict=True)
        return num_bytes * sum(share * self.links[link_id].energy_per_byte_j for link_id, share in shares)

    def _sharing(self, flow: Flow) -> list[Flow]:
        """Flows linked with this one through shared links, itself included, in order of start."""
        found = {flow: None}
        stack = [flow]
        while stack:
            for link_id in stack.pop().route.link_ids:
                for other in self.uses[link_id].flows:
                    if other not in found:
                        found[other] = None
                        stack.append(other)
        return sorted(found, key=lambda other: other.id)

    def _set_rates_of(self, flows: Sequence[Flow], now_s: float) -> None:
        """New rates for these and everybody who shares with them."""
        seen: set[Flow] = set()
        for flow in flows:
            if flow not in seen:
                seen.update(self._sharing(flow))
                self._set_rates(flow, now_s)

    def _set_rates(self, changed: Flow, now_s: float) -> None:
        """New rates for everybody who shares with `changed`."""
        flows = [flow for flow in self._sharing(changed) if flow.remaining_bytes > 0.0 or flow is changed]
        rates = fill(flows, self.links, self._speeds) if self._steps is None else self._beside_steps(flows, self._steps)
        for flow in flows:
            rate = rates[flow]
            if rate == flow.rate_bytes_per_s and flow.version > 0:
                continue
            flow.remaining_bytes = left_bytes(flow, now_s)
            flow.updated_s = now_s
            flow.rate_bytes_per_s = rate
            flow.version += 1
            self._schedule_end(flow)

    def _beside_steps(self, flows: Sequence[Flow], steps: StepTraffic) -> dict[Flow, float]:
        """Rates where engines want their part of some of the links, which they are told."""
        on_links = dict.fromkeys(link_id for flow in flows for link_id in flow.route.link_ids)
        demands = steps.demands(on_links)
        if not demands:
            return fill(flows, self.links, self._speeds)
        engines = []
        for link_id, wanted in demands.items():
            for frac in wanted:
                rate = frac * self.links[link_id].bandwidth_bytes_per_s
                if rate > 0.0:
                    engines.append(Flow(0, Route((link_id,), (1.0,), 0.0, rate), 0.0, 0.0, 0.0, 0.0, nobody))
        rates = fill([*flows, *engines], self.links, self._speeds)
        for link_id, wanted in demands.items():
            capacity = self.capacity_bytes_per_s(link_id)
            on_link = self.uses[link_id].flows
            taken = sum(rates.get(flow, 0.0) * share for flow, share in on_link.items())
            even_frac = 1.0 / (len(on_link) + len(wanted))
            left_frac = 1.0 - taken / capacity if capacity > 0.0 else 1.0
            steps.leave(link_id, max(left_frac, even_frac))
        return rates

    def _schedule_end(self, flow: Flow) -> None:
        version = flow.version
        if flow.rate_bytes_per_s == 0.0:
            flow.end_s = math.inf
            return
        flow.end_s = flow.updated_s + flow.remaining_bytes / flow.rate_bytes_per_s

        def end(event: Any) -> None:
            if flow.version == version:
                self._end(flow)

        self._clock.at(flow.end_s, TRANSFER, end, row=flow.id)

    def _end(self, flow: Flow) -> None:
        """The last byte has left: the links are free; it arrives a latency later."""
        now_s = flow.end_s
        flow.remaining_bytes = 0.0
        self._set_rates_of(self._leave(flow, now_s), now_s)
        arrival_s = now_s + flow.route.latency_s
        self._clock.at(arrival_s, TRANSFER, lambda event: flow.on_arrival(arrival_s), kind=1, row=flow.id)


def nobody(time_s: float) -> None:
    """Told of the arrival of a transfer that was stopped, or of an engine's steps, which do not arrive."""


def left_bytes(flow: Flow, now_s: float) -> float:
    """What has not left yet."""
    return max(0.0, flow.remaining_bytes - (now_s - flow.updated_s) * flow.rate_bytes_per_s)


def fill(
    flows: Sequence[Flow], links: Sequence[PhysicalLink], speeds: Mapping[int, float] = NO_SPEEDS
) -> dict[Flow, float]:
    """Max-min fair rates [bytes/s] of flows over links; each at most its route's bandwidth alone.

    `speeds`: share of their bandwidth that links have which do not have all of it.
    """
    rates = dict.fromkeys(flows, 0.0)
    rising = [flow for flow in flows if flow.route.link_ids]
    for flow in flows:
        if not flow.route.link_ids:
            rates[flow] = float("inf")
    used: dict[int, float] = {}
    alone = {flow: alone_bytes_per_s(flow.route, links, speeds) for flow in rising}
    if len(rising) == 1:
        return {**rates, rising[0]: alone[rising[0]]}
    level = 0.0
    while rising:
        wanted: dict[int, float] = {}
        for flow in rising:
            for link_id, share in zip(flow.route.link_ids, flow.route.share_frac, strict=True):
                wanted[link_id] = wanted.get(link_id, 0.0) + share
        limits = {
            link_id: (links[link_id].bandwidth_bytes_per_s * speeds.get(link_id, 1.0) - used.get(link_id, 0.0)) / share
            for link_id, share in wanted.items()
        }
        rise = min(limits.values())
        rise = max(min(rise, min(alone[flow] for flow in rising) - level), 0.0)
        level += rise
        for link_id, share in wanted.items():
            used[link_id] = used.get(link_id, 0.0) + rise * share
        full = {link_id for link_id, limit in limits.items() if limit <= rise * (1 + 1e-12)}
        still: list[Flow] = []
        for flow in rising:
            if full.intersection(flow.route.link_ids) or alone[flow] <= level * (1 + 1e-12):
                rates[flow] = min(level, alone[flow])
            else:
                still.append(flow)
        rising = still
    return rates


def alone_bytes_per_s(route: Route, links: Sequence[PhysicalLink], speeds: Mapping[int, float]) -> float:
    """What the route carries with nobody else on it."""
    rate = route.bandwidth_bytes_per_s
    for link_id, share in zip(route.link_ids, route.share_frac, strict=True):
        if link_id in speeds:
            rate = min(rate, links[link_id].bandwidth_bytes_per_s * speeds[link_id] / share)
    return rate
