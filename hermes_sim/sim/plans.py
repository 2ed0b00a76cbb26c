"""Pipelines as the coordinator walks them: successors, candidate engines, queues and routers of every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import SimulationError
from hermes_sim.routing import RoutingConfig
from hermes_sim.routing.hedge import Hedge
from hermes_sim.routing.router import HEAVY_THRESHOLD_TOKENS, LIGHT_SHARE, NUM_CHOICES, Router
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.serving import serving_engines
from hermes_sim.scenario.visited import Visited, ancestors
from hermes_sim.sim.embeddings import encoders_before
from hermes_sim.sim.replicas import Replica
from hermes_sim.sim.sequences import goes_on_as, sequence_from
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.kv_retrieval import KvRetrieval
from hermes_sim.stages.route import Route
from hermes_sim.stages.stage import Stage

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


NO_ENGINE = -1
"""All that could take a visit are away."""


@dataclass(frozen=True, slots=True)
class LoadChoice:
    """An outcome of a route that decides by load."""

    capacity: float
    """Of its engines, relative to those of the other outcomes."""
    engines: IntArray
    left_out: tuple[int, ...]
    """Stages that a request with this outcome does not pass."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of a pipeline, as the coordinator walks it."""

    stage: Stage
    name: str
    round: int
    successors: tuple[int, ...]
    predecessors: tuple[int, ...]
    candidates: IntArray
    """Engines that serve it."""
    queues: Mapping[int, int]
    """Engine -> queue of this stage there."""
    router: Router
    options: FloatArray
    decode: int | None
    """Prefill: the decode stage that follows directly, if any."""
    same_engine: frozenset[int]
    """Prefill: candidates that serve that decode stage too."""

    more_decode: int | None
    """Decode: the decode that goes on in its sequence, if any."""
    choices: tuple[LoadChoice, ...]
    """Route by load: what it chooses between."""
    prefill: int | None = None
    """KV retrieval: the prefill that it is for."""
    last_of_pass: int | None = None
    """KV retrieval: the stage whose end is that of the pass which begins with that prefill."""
    written_by: tuple[int, int] | None = None
    """Last stage of a pass whose KV is written to stores then: the retrieval before the pass, and its prefill."""
    encoded_by: tuple[int, ...] = ()
    """Prefill: the encoders whose vectors it is the first to read."""

    hedge: Hedge | None = None
    """A prefill or a job that is sent to a second engine if the first takes long."""

    @property
    def may_split(self) -> bool:
        """Prefill: decode may have to go on in another engine."""
        return self.decode is not None and len(self.same_engine) < len(self.candidates)


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The stages of one pipeline, in an order in which predecessors come first."""

    name: str
    stages: tuple[StagePlan, ...]
    roots: tuple[int, ...]
    terminals: tuple[int, ...]

    def head_of(self, place: int) -> int:
        """The stage that begins the sequence which this one is part of; itself if it is part of none."""
        before = next((n for n, one in enumerate(self.stages) if place in (one.decode, one.more_decode)), None)
        return place if before is None else self.head_of(before)

    def pass_of(self, place: int) -> tuple[int, ...]:
        """The stages of the pass, in order: the KV retrieval before its prefill, if any, to its last decode; a job
        alone."""
        head = place if self.stages[place].prefill is None else self.stages[place].prefill
        assert head is not None
        head = self.head_of(head)
        found = [n for n, one in enumerate(self.stages) if one.prefill == head]
        following: int | None = head
        while following is not None:
            found.append(following)
            stage = self.stages[following]
            following = stage.decode if stage.decode is not None else stage.more_decode
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Queues:
    """Waiting lists: one per token engine, one per (job engine, stage of the workload)."""

    owners: tuple[tuple[int, str], ...]
    first: tuple[int, ...]
    """Engine -> its first queue."""
    stages: tuple[Stage | None, ...]

    @staticmethod
    def of(scenario: Scenario, walks: Mapping[str, Sequence[Visited]], replicas: Sequence[Replica]) -> Queues:
        owners: list[tuple[int, str]] = []
        stages: list[Stage | None] = []
        first: list[int] = []
        for e, replica in enumerate(replicas):
            first.append(len(owners))
            if replica.cost is not None:
                owners.append((e, ""))
                stages.append(None)
                continue
            for pipeline, walk in walks.items():
                served = (one for one in walk if one.round == 0 and one.stage.runs_on == "jobs")
                for visited in served:  # all rounds of a stage wait in one line
                    if replica.engine in serving_engines(scenario, visited.stage):
                        owners.append((e, f"{pipeline}.{visited.name}"))
                        stages.append(visited.stage)
            if len(owners) == first[-1]:  # nothing in this workload is for it
                owners.append((e, ""))
                stages.append(None)
        return Queues(tuple(owners), tuple(first), tuple(stages))

    def of_engine(self, e: int) -> range:
        last = self.first[e + 1] if e + 1 < len(self.first) else len(self.owners)
        return range(self.first[e], last)


def plan_pipeline(
    scenario: Scenario, name: str, stages: Sequence[Visited], replicas: Sequence[Replica], queues: Queues
) -> PipelinePlan:
    """Successors, candidates and routers of every stage."""
    successors = [tuple(n for n, later in enumerate(stages) if place in later.after) for place in range(len(stages))]
    candidates = [candidates_of(scenario, visited.stage, replicas) for visited in stages]
    before = ancestors(stages)
    plans = []
    for place, visited in enumerate(stages):
        stage = visited.stage
        following = goes_on_as(stages, place)
        decode = following if visited.kind == "prefill" else None
        routing = scenario.cluster.routing_per_stage.get(
            stage.name, scenario.cluster.routing_per_stage.get(visited.kind, scenario.cluster.routing)
        )
        label = f"{name}.{visited.name}"
        plans.append(
            StagePlan(
                stage=stage,
                name=visited.name,
                round=visited.round,
                successors=successors[place],
                predecessors=visited.after,
                candidates=np.array(candidates[place], np.int64),
                queues={
                    e: next((q for q in queues.of_engine(e) if queues.owners[q][1] == label), queues.first[e])
                    for e in candidates[place]
                },
                router=routing.router(),
                options=router_options(routing),
                decode=decode,
                same_engine=frozenset(candidates[place]) & frozenset(candidates[decode])
                if decode is not None
                else frozenset(),
                more_decode=following if visited.kind == "decode" else None,
                choices=load_choices(stages, place, candidates),
                prefill=retrieved_for(stages, place),
                last_of_pass=last_of_pass(stages, place),
                written_by=written_by(stages, place),
                hedge=routing.hedge if visited.kind != "decode" and stage.runs_on != "nowhere" else None,
                encoded_by=encoders_before(stages, place, before),
            )
        )
    check_samples(name, plans)
    return PipelinePlan(
        name=name,
        stages=tuple(plans),
        roots=tuple(n for n, one in enumerate(stages) if not one.after),
        terminals=tuple(n for n in range(len(stages)) if not successors[n]),
    )


def candidates_of(scenario: Scenario, stage: Stage, replicas: Sequence[Replica]) -> list[int]:
    """Engines that can take visits to a stage."""
    if stage.runs_on == "nowhere":
        return []
    names = {engine.name for engine in serving_engines(scenario, stage)}
    return [e for e, replica in enumerate(replicas) if replica.engine.name in names]


def load_choices(stages: Sequence[Visited], place: int, candidates: Sequence[Sequence[int]]) -> tuple[LoadChoice, ...]:
    """Outcomes of a route that decides by load; none for all other stages."""
    route = stages[place].stage
    if not isinstance(route, Route) or route.by != "load":
        return ()
    choices = []
    for outcome, capacity in route.outcomes.items():
        left_out = left_out_by(stages, place, outcome)
        wanted = [n for n, one in enumerate(stages) if any((place, outcome) in group for group in one.when)]
        engines = {e for n in wanted if n not in left_out for e in candidates[n]}
        choices.append(LoadChoice(capacity, np.array(sorted(engines), np.int64), tuple(left_out)))
    return tuple(choices)


def retrieved_for(stages: Sequence[Visited], place: int) -> int | None:
    """The prefill behind a KV retrieval; None for all other stages."""
    if not isinstance(stages[place].stage, KvRetrieval):
        return None
    return next(number for number, one in enumerate(stages) if one.after == (place,) and one.kind == "prefill")


def last_of_pass(stages: Sequence[Visited], place: int) -> int | None:
    """The last stage of the pass behind a KV retrieval; None for all other stages."""
    head = retrieved_for(stages, place)
    return None if head is None else sequence_from(stages, head)[-1]


def written_by(stages: Sequence[Visited], place: int) -> tuple[int, int] | None:
    """(the KV retrieval, the prefill) of the pass that ends here, if what it has computed is written to stores."""
    for number, one in enumerate(stages):
        stage = one.stage
        head = retrieved_for(stages, number)
        if isinstance(stage, KvRetrieval) and head is not None and sequence_from(stages, head)[-1] == place:
            return (number, head) if stage.writes else None
    return None


def left_out_by(stages: Sequence[Visited], place: int, outcome: str) -> list[int]:
    """Stages that a request does not pass if the route at `place` has this outcome."""
    found: list[int] = []
    for number, one in enumerate(stages):
        for group in one.when:
            others = [route in found or (route == place and name != outcome) for route, name in group]
            if all(others):
                found += sequence_from(stages, number)
                break
    return list(dict.fromkeys(found))


def check_samples(pipeline: str, plans: Sequence[StagePlan]) -> None:
    """Samples fork from the sequence whose prompt a prefill has just computed."""
    forking = {plan.decode for plan in plans}
    for number, plan in enumerate(plans):
        if isinstance(plan.stage, Decode) and plan.stage.num_samples > 1 and number not in forking:
            raise SimulationError(
                f"pipeline '{pipeline}': stage '{plan.stage.name}' has {plan.stage.num_samples} samples, so it must "
                "come after one prefill, directly, with probability 1"
            )


def router_options(routing: RoutingConfig) -> FloatArray:
    """Options as the compiled routers read them."""
    options = np.zeros(3)
    options[HEAVY_THRESHOLD_TOKENS] = routing.heavy_threshold_tokens
    options[LIGHT_SHARE] = routing.light_share_frac
    options[NUM_CHOICES] = routing.choices
    return options
