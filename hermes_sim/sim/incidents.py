"""Failures, maintenance and slowness on the clock: of engines, of nodes and devices with all on them, of links."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_sim.core.rng import stream
from hermes_sim.scenario.availability import Incident, Outage, RandomFailures
from hermes_sim.scenario.targets import cable_of, means_cable, parts_of
from hermes_sim.sim.advance import pull_all
from hermes_sim.sim.fleet import DRAINING, Fleet, Key
from hermes_sim.sim.kv_stores import Instance
from hermes_sim.sim.ranks import CONTROL, FAILURE
from hermes_sim.sim.speeds import links_between

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

NO_LINKS: frozenset[int] = frozenset()
KEPT_MEDIA = frozenset({"local_ssd", "rack", "remote"})
"""KV stores that hold what they held when their node is back."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What fails as one: a replica, a node, a device, a cable."""

    name: str
    number: int
    """Of its kind and name: its random numbers are its own."""
    replicas: tuple[Key, ...]
    links: frozenset[int] = NO_LINKS
    node: tuple[str, int] | None = None


class Incidents:
    """All that is to happen to the hardware of a run."""

    def __init__(self, coordinator: Coordinator, fleet: Fleet) -> None:
        self._coordinator = coordinator
        self._fleet = fleet
        self._scenario = coordinator.lowered.scenario
        self._clock = coordinator.clock
        self._speeds = coordinator.speeds
        self._link_causes: dict[int, dict[object, float]] = {}
        replicas, network = coordinator.lowered.replicas, coordinator.lowered.network
        self._links_of = {
            key: links_between(network, [replicas[e] for e in members.tolist()])
            for key, members in fleet.members.items()
        }
        self._cables: dict[frozenset[str], list[int]] = {}
        for link in network.links:
            self._cables.setdefault(cable_of(link.name), []).append(link.id)

    def start(self) -> None:
        """Everything that is known before the run."""
        availability = self._scenario.cluster.availability
        for number, outage in enumerate(availability.outages):
            for unit in self._units(outage):
                self._at(outage.at_s, FAILURE, unit, partial(self._befall, outage, unit, number))
        for number, failures in enumerate(availability.failures):
            for unit in self._units(failures):
                draws = stream(self._scenario.seed, f"failures {unit.name}", unit.number)
                self._plan(failures, unit, len(availability.outages) + number, draws)

    # ----- what is meant

    def _units(self, incident: Incident) -> Iterator[Unit]:
        """Everything that it befalls, each on its own."""
        if incident.engine is not None:
            for key in self._fleet.replicas_of(incident.engine, incident.replica):
                yield Unit(key[0], key[1], (key,))
        if incident.node is not None:
            (wanted,) = parts_of(incident.node)
            for group in self._scenario.cluster.nodes:
                for index in range(group.count):
                    if wanted.covers(group.name, index):
                        node = f"{group.name}[{index}]"
                        yield Unit(f"node {group.name}", index, self._on(node), node=(group.name, index))
        if incident.device is not None:
            yield from self._devices(incident.device)
        if incident.link is not None:
            for number, (cable, links) in enumerate(sorted(self._cables.items(), key=lambda one: one[1])):
                if means_cable(incident.link, cable):
                    held = tuple(key for key, used in self._links_of.items() if used.intersection(links))
                    yield Unit("link", number, held, frozenset(links))

    def _devices(self, text: str) -> Iterator[Unit]:
        node, device = parts_of(text)
        for group in self._scenario.cluster.nodes:
            for index in range(group.count):
                for name, devices in group.devices.items():
                    for place in range(devices.count):
                        if node.covers(group.name, index) and device.covers(name, place):
                            end = f"{group.name}[{index}].{name}[{place}]"
                            yield Unit(f"device {end}", 0, self._on(end))

    def _on(self, place: str) -> tuple[Key, ...]:
        """Replicas with a device there."""
        replicas = self._coordinator.lowered.replicas
        return tuple(
            key
            for key, members in self._fleet.members.items()
            if any(f"{end}.".startswith(f"{place}.") for e in members.tolist() for end in replicas[e].endpoints)
        )

    # ----- when

    def _at(self, time_s: float, rank: int, unit: Unit, act: Callable[[float], None]) -> None:
        """Call act(time_s) then, unless the run is over."""

        def on_time(event: Any) -> None:
            if self._coordinator.ends.num_open > 0:
                act(time_s)

        first = int(self._fleet.members[unit.replicas[0]][0]) if unit.replicas else 0
        self._clock.at(time_s, rank, on_time, engine=first, row=min(unit.links, default=0))

    def _plan(self, failures: RandomFailures, unit: Unit, number: int, draws: np.random.Generator) -> None:
        at_s = float(self._clock.now) + float(draws.exponential(failures.mtbf_s))
        lasts_s = float(draws.exponential(failures.repair_s))

        def befall(time_s: float) -> None:
            self._begin(failures, failures.kind, unit, number, time_s)
            self._at(time_s + lasts_s, CONTROL, unit, repair)

        def repair(time_s: float) -> None:
            self._end(failures.kind, unit, number, time_s)
            self._plan(failures, unit, number, draws)

        self._at(at_s, FAILURE, unit, befall)

    def _befall(self, outage: Outage, unit: Unit, number: int, time_s: float) -> None:
        self._begin(outage, outage.kind, unit, number, time_s)
        self._at(time_s + outage.lasts_s, CONTROL, unit, lambda at_s: self._end(outage.kind, unit, number, at_s))

    # ----- what

    def _begin(self, incident: Incident, kind: str, unit: Unit, number: int, time_s: float) -> None:
        if kind == "maintenance":
            for key in unit.replicas:
                self._fleet.drain(key, time_s)
        elif kind == "slow":
            assert incident.speed_frac is not None
            self._slow(incident, unit, number, incident.speed_frac, time_s)
        else:
            self._fail(unit, number, time_s)

    def _end(self, kind: str, unit: Unit, number: int, time_s: float) -> None:
        if kind == "maintenance":
            for key in unit.replicas:
                if self._fleet.status(key) == DRAINING:
                    self._fleet.bring_up(key, time_s)
        elif kind == "slow":
            self._set_links(unit, number, None)
            for e in self._engines(unit, time_s, CONTROL):
                self._speeds.restore(e, (number, unit))
        else:
            self._set_links(unit, number, None)
            for instance in self._stores_of(unit):
                instance.is_away = False
            self._fleet.repair(unit.replicas, time_s)

    def _fail(self, unit: Unit, number: int, time_s: float) -> None:
        """Engines lose all they hold; a link is dead, and with it the engines whose devices talk over it."""
        coordinator = self._coordinator
        lost = self._fleet.fail(unit.replicas, time_s)
        stores = self._stores_of(unit)
        for instance in stores:
            assert coordinator.retrievals is not None
            lost += coordinator.retrievals.lose([instance], content=instance.store.medium not in KEPT_MEDIA)
        coordinator.retries.send_again(lost, time_s)
        self._set_links(unit, number, 0.0)

    def _slow(self, incident: Incident, unit: Unit, number: int, speed_frac: float, time_s: float) -> None:
        self._set_links(unit, number, speed_frac)
        slowed = ("network",) if unit.links else incident.slows
        for e in self._engines(unit, time_s, FAILURE):
            self._speeds.slow(e, (number, unit), dict.fromkeys(slowed, 1.0 / speed_frac))

    def _engines(self, unit: Unit, time_s: float, rank: int) -> list[int]:
        """Engines of the unit, brought to the present."""
        engines = [e for key in unit.replicas for e in self._fleet.members[key].tolist()]
        if engines:
            pull_all(self._coordinator.handle, np.array(engines), time_s, rank)
        return engines

    def _set_links(self, unit: Unit, number: int, speed_frac: float | None) -> None:
        """The slowest of what befalls a link at a time counts; None: this is over."""
        for link_id in sorted(unit.links):
            causes = self._link_causes.setdefault(link_id, {})
            causes.pop((number, unit), None)
            if speed_frac is not None:
                causes[number, unit] = speed_frac
            self._coordinator.flows.set_link_speed(link_id, min(causes.values(), default=1.0))

    def _stores_of(self, unit: Unit) -> list[Instance]:
        """KV stores that stand in the node alone: what is spread over several nodes survives one of them."""
        retrievals = self._coordinator.retrievals
        if retrievals is None or unit.node is None:
            return []
        return [one for one in retrievals.stores.instances if retrievals.stores.stands_in(one) == {unit.node}]
