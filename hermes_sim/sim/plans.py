"""Pipelines as the coordinator walks them: successors, candidate engines, queues and routers of every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import SimulationError
from hermes_sim.routing import RoutingConfig
from hermes_sim.routing.router import HEAVY_THRESHOLD_TOKENS, LIGHT_SHARE, NUM_CHOICES, Router
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.serving import serving_engines
from hermes_sim.scenario.workload import Pipeline, stage_kind
from hermes_sim.sim.replicas import Replica
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.stage import Stage

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of a pipeline, as the coordinator walks it."""

    stage: Stage
    successors: tuple[int, ...]
    num_predecessors: int
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


@dataclass(frozen=True, slots=True)
class Queues:
    """Waiting lists: one per token engine, one per (job engine, stage of the workload)."""

    owners: tuple[tuple[int, str], ...]
    first: tuple[int, ...]
    """Engine -> its first queue."""
    stages: tuple[Stage | None, ...]

    @staticmethod
    def of(scenario: Scenario, replicas: Sequence[Replica]) -> Queues:
        owners: list[tuple[int, str]] = []
        stages: list[Stage | None] = []
        first: list[int] = []
        for e, replica in enumerate(replicas):
            first.append(len(owners))
            if replica.cost is not None:
                owners.append((e, ""))
                stages.append(None)
                continue
            for pipeline in scenario.workload.pipelines:
                for stage in pipeline.stages:
                    if stage.runs_on == "jobs" and replica.engine in serving_engines(scenario, stage):
                        owners.append((e, f"{pipeline.name}.{stage.name}"))
                        stages.append(stage)
            if len(owners) == first[-1]:  # nothing in this workload is for it
                owners.append((e, ""))
                stages.append(None)
        return Queues(tuple(owners), tuple(first), tuple(stages))

    def of_engine(self, e: int) -> range:
        last = self.first[e + 1] if e + 1 < len(self.first) else len(self.owners)
        return range(self.first[e], last)


def plan_pipeline(scenario: Scenario, pipeline: Pipeline, replicas: Sequence[Replica], queues: Queues) -> PipelinePlan:
    """Successors, candidates and routers of every stage."""
    stages = list(pipeline.stages)
    place = {stage.name: number for number, stage in enumerate(stages)}
    after = [[place[name] for name in stage.after] for stage in stages]
    successors = [tuple(n for n, before in enumerate(after) if s in before) for s in range(len(stages))]
    candidates = []
    for stage in stages:
        names = {engine.name for engine in serving_engines(scenario, stage)}
        candidates.append([e for e, replica in enumerate(replicas) if replica.engine.name in names])
    plans = []
    for number, stage in enumerate(stages):
        decode = None
        if stage_kind(stage) == "prefill":
            decode = next(
                (
                    n
                    for n in successors[number]
                    if stage_kind(stages[n]) == "decode" and after[n] == [number] and stages[n].probability == 1.0
                ),
                None,
            )
        routing = scenario.cluster.routing_per_stage.get(
            stage.name, scenario.cluster.routing_per_stage.get(stage_kind(stage), scenario.cluster.routing)
        )
        label = f"{pipeline.name}.{stage.name}"
        plans.append(
            StagePlan(
                stage=stage,
                successors=successors[number],
                num_predecessors=len(after[number]),
                candidates=np.array(candidates[number], np.int64),
                queues={
                    e: next((q for q in queues.of_engine(e) if queues.owners[q][1] == label), queues.first[e])
                    for e in candidates[number]
                },
                router=routing.router(),
                options=router_options(routing),
                decode=decode,
                same_engine=frozenset(candidates[number]) & frozenset(candidates[decode])
                if decode is not None
                else frozenset(),
            )
        )
    check_samples(pipeline.name, plans)
    return PipelinePlan(
        name=pipeline.name,
        stages=tuple(plans),
        roots=tuple(n for n, before in enumerate(after) if not before),
        terminals=tuple(n for n in range(len(stages)) if not successors[n]),
    )


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
