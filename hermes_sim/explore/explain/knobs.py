"""What a cluster could have more of, one thing at a time: 10% of each resource that a run has spent time on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from hermes_sim.analysis.explanation import RunExplanation
from hermes_sim.analysis.explanation_links import engine_endpoints
from hermes_sim.analysis.results import Results
from hermes_sim.batching import TokenBatching
from hermes_sim.explore.explain.turns import (
    MORE,
    fits,
    turn_batching,
    turn_cores,
    turn_device,
    turn_host,
    turn_kv,
    turn_link,
    turn_replicas,
    turn_service,
    turn_store,
)
from hermes_sim.hardware.placement import Slots
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.stages.timed import Timed

LEAST_FRAC = 0.01
"""Of E2E: what less time is spent on is not turned."""
TOO_LITTLE = "less than 1% of the time"
LEAST_KV_FRAC = 0.8
"""Peak use of the KV blocks from which more of them may matter."""

Turn = Callable[[Scenario], Scenario]


@dataclass(frozen=True, slots=True)
class Knob:
    """One change to a scenario."""

    name: str
    """What there is more of: `memory bandwidth of a100_sxm_80gb`."""
    resource: str
    amount: float
    """How much more: 1.1; of whole things the nearest there is."""
    turn: Turn
    """Gives the changed scenario. Pickled for other processes."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was not turned, and why."""

    name: str
    why: str


def knobs_of(results: Results, found: RunExplanation) -> tuple[list[Knob], list[LeftOut]]:
    """Those that may matter to the requests of this run, and the others."""
    builder = _Knobs(results, found)
    knobs = [*builder.devices(), *builder.links(), *builder.engines(), *builder.stores(), *builder.stages()]
    return knobs, builder.left_out


class _Knobs:
    def __init__(self, results: Results, found: RunExplanation) -> None:
        self.results, self.found, self.scenario = results, found, results.scenario
        self.left_out: list[LeftOut] = []
        self.cluster = results.scenario.cluster
        self.slots = Slots(self.cluster.nodes, self.scenario.devices)

    def _frac(self, resource: str, owners: set[str] | None = None) -> float:
        """Share of E2E that is spent on a resource of these engines, waiting included."""
        return sum(
            one.frac
            for one in self.found.limits
            if one.resource == resource and (owners is None or one.owner in owners)
        )

    def _wanted(self, frac: float, name: str, why: str = "") -> bool:
        if frac < LEAST_FRAC:
            self.left_out.append(LeftOut(name, why or TOO_LITTLE))
        return frac >= LEAST_FRAC

    def devices(self) -> Iterator[Knob]:
        """Memory bandwidth, compute, and fixed times of kernels of every kind of device that an engine is on."""
        users: dict[str, set[str]] = {}
        for engine in self.cluster.engines:
            for profile in self._profiles(engine):
                users.setdefault(profile, set()).add(engine.name)
        for profile, owners in users.items():
            drafts = self._frac("drafts", owners)
            memory = self._frac("memory", owners) + drafts
            compute = self._frac("compute", owners) + drafts
            if self._wanted(memory, f"memory bandwidth of {profile}"):
                yield Knob(f"memory bandwidth of {profile}", "memory", MORE, partial(turn_device, profile, "memory"))
            if self._wanted(compute, f"compute of {profile}"):
                yield Knob(f"compute of {profile}", "compute", MORE, partial(turn_device, profile, "compute"))
            if self._wanted(memory + compute, f"fixed times of kernels on {profile}"):
                name = f"fixed times of kernels on {profile}"
                yield Knob(name, "kernels", MORE, partial(turn_device, profile, "kernels"))

    def _profiles(self, engine: Engine) -> list[str]:
        """Device profiles of an engine, and of those that draft for it."""
        wants = {name: (share.devices, share.cores) for name, share in engine.placement.items()}
        group = self.slots.node_group(engine.node, wants)
        profiles = [group.devices[name].profile for name in engine.placement]
        on = None if engine.speculative is None else engine.speculative.on
        if on is not None:
            profiles.append(self.slots.node_group(on.node, {on.device: (on.count, None)}).devices[on.device].profile)
        return list(dict.fromkeys(profiles))

    def links(self) -> Iterator[Knob]:
        """Bandwidth and latency of every kind of link that may carry what moves."""
        inside, between = self._frac("network"), self._frac("link") + self._frac("drafts")
        joins = self._links_of_engines()
        for name, link in self.scenario.links.items():
            title = f"{name} ({link.kind})"
            moved = between + (inside if name in joins else 0.0)
            if self._wanted(moved, title):
                yield Knob(f"bandwidth of {title}", "link", MORE, partial(turn_link, name, "bandwidth"))
                yield Knob(f"latency of {title}", "latency", MORE, partial(turn_link, name, "latency"))

    def _links_of_engines(self) -> set[str]:
        """Profiles of links between the devices of one engine: inside its device groups, and between nodes where one
        of its replicas lies on several."""
        found: set[str] = set()
        endpoints = engine_endpoints(self.scenario)
        for engine in self.cluster.engines:
            wants = {name: (share.devices, share.cores) for name, share in engine.placement.items()}
            group = self.slots.node_group(engine.node, wants)
            own = [link for link in group.links if set(link.between) <= set(wants)]
            pairs = {link.between for link in own}
            if all((name, name) not in pairs for name in wants):  # they talk through the root group
                own = list(group.links)
            found |= {link.profile for link in own}
            for number in range(engine.replicas):
                if len({one.node for one in endpoints[engine.name, number]}) > 1:
                    found |= {name for name in (group.uplink, self.cluster.network) if name is not None}
        return found

    def engines(self) -> Iterator[Knob]:
        """KV memory, limits of the batch, host time, cores, replicas."""
        states = {one.engine: one for one in self.found.engines}
        for engine in self.cluster.engines:
            name, own = engine.name, {engine.name}
            state = states[name]
            if isinstance(engine.batching, TokenBatching):
                yield from self._kv_and_batch(engine, state.peak_kv_used_frac or 0.0, state.wait_s)
            elif self._wanted(self._queued(own), f"max_batch_size of {name}", "nobody waits for it"):
                limit = int(engine.batching.max_batch_size)
                yield self._whole(engine, "max_batch_size", "batch", limit)
            on_host = self._frac("host", own) + self._frac("front_end", own)
            if self._wanted(on_host, f"host time of {name}"):
                yield Knob(
                    f"host time of {name}", "host", MORE, partial(turn_host, name, tuple(self._profiles(engine)))
                )
            cores = {group: share.cores for group, share in engine.placement.items() if share.cores}
            spent = sum(one.frac for one in self.found.limits if one.owner == name)
            if cores and self._wanted(spent, f"cores of {name}"):
                group, number = next(iter(cores.items()))
                more = math.ceil(MORE * number)
                turn = partial(turn_cores, name, group, more)
                if fits(turn(self.scenario)):
                    yield Knob(f"cores of {name} ({more}, not {number})", "cores", more / number, turn)
                else:
                    self.left_out.append(LeftOut(f"cores of {name}", f"the node has no {more}"))
            if self._wanted(spent, f"replicas of {name}"):
                yield from self._one_more(engine)

    def _queued(self, own: set[str]) -> float:
        return sum(one.waiting_frac for one in self.found.limits if one.owner in own)

    def _kv_and_batch(self, engine: Engine, peak_kv: float, wait_s: Mapping[str, float]) -> Iterator[Knob]:
        name = engine.name
        rows = self.results.engines[self.results.engines["engine"].astype("str").str.startswith(f"{name}[")]
        evicts = int(rows["num_hit_blocks"].sum()) > 0
        if peak_kv >= LEAST_KV_FRAC or evicts or self._frac("kv", {name}) >= LEAST_FRAC:
            num = int(rows["num_blocks"].min())
            more = math.ceil(MORE * num)
            yield Knob(f"KV memory of {name}", "kv", more / num, partial(turn_kv, name, more))
        else:
            self.left_out.append(LeftOut(f"KV memory of {name}", f"{peak_kv:.0%} of it used at most"))
        if self._wanted(self._frac("batch", {name}), f"max_num_seqs of {name}", "the batch was never full"):
            yield self._whole(engine, "max_num_seqs", "batch", int(engine.batching.max_num_seqs))  # type: ignore[union-attr]
        mean_s = self.found.mean_e2e_s
        held = wait_s.get("budget", 0.0) / mean_s if mean_s else 0.0
        if self._wanted(held, f"max_num_batched_tokens of {name}", "nobody waits for prompts ahead"):
            limit = int(engine.batching.max_num_batched_tokens)  # type: ignore[union-attr]
            yield self._whole(engine, "max_num_batched_tokens", "budget", limit)

    def _whole(self, engine: Engine, key: str, resource: str, limit: int) -> Knob:
        more = math.ceil(MORE * limit)
        return Knob(f"{key} of {engine.name} ({more}, not {limit})", resource, more / limit,
                    partial(turn_batching, engine.name, key, more))  # fmt: skip

    def _one_more(self, engine: Engine) -> Iterator[Knob]:
        """One replica more, on a further node where those there are full."""
        name = f"replicas of {engine.name} ({engine.replicas + 1}, not {engine.replicas})"
        if engine.autoscaling is not None:
            self.left_out.append(LeftOut(name, "the autoscaler decides"))
            return
        for more_nodes in (0, 1):
            turn = partial(turn_replicas, engine.name, engine.replicas + 1, more_nodes)
            if fits(turn(self.scenario)):
                yield Knob(name, "replicas", (engine.replicas + 1) / engine.replicas, turn)
                return
        self.left_out.append(LeftOut(name, "no room, nor on one node more"))

    def stores(self) -> Iterator[Knob]:
        """Bandwidth and size of KV stores that were asked."""
        asked = self.results.kv_stores
        for store in self.cluster.kv_stores:
            if asked is None:
                self.left_out.append(LeftOut(f"store {store.name}", "nobody asked it"))
                continue
            yield Knob(f"bandwidth of store {store.name}", "link", MORE, partial(turn_store, store.name, "bandwidth"))
            yield Knob(f"capacity of store {store.name}", "store", MORE, partial(turn_store, store.name, "capacity"))

    def stages(self) -> Iterator[Knob]:
        """Stated service times; a stage inside rounds is called `round.stage` where it was visited."""
        stated = [one for one in self.found.shares if one.part == "stated"]
        leaves = (stage for pipeline in self.scenario.workload.pipelines for _, stage in pipeline.leaves())
        for name in dict.fromkeys(stage.name for stage in leaves if isinstance(stage, Timed)):
            spent = sum(one.frac for one in stated if one.stage.rpartition(".")[2] == name)
            if self._wanted(spent, f"service time of {name}"):
                yield Knob(f"service time of {name}", "stated", MORE, partial(turn_service, name))
