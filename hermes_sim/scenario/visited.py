"""A pipeline as its requests walk it: rounds one after the other, every stage with the places of those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hermes_sim.scenario.workload import Pipeline, stage_kind
from hermes_sim.stages.repeat import Rounds
from hermes_sim.stages.stage import Stage


@dataclass(frozen=True, slots=True)
class Visited:
    """One stage, in one round."""

    stage: Stage
    name: str
    """`hop.retrieve` for stage `retrieve` of the repeat `hop`, in all its rounds."""
    after: tuple[int, ...]
    """Places of the stages that must have ended."""
    when: tuple[tuple[tuple[int, str], ...], ...]
    """Lists of (place of a route, outcome): of each list the request must have had one."""
    repeat: Rounds | None
    round: int
    """From 0."""

    @property
    def kind(self) -> str:
        return stage_kind(self.stage)

    @property
    def stream_name(self) -> str:
        """Names the random numbers of this stage in this round."""
        return self.name if self.round == 0 else f"{self.name} {self.round}"


def visited_stages(pipeline: Pipeline) -> tuple[Visited, ...]:
    """Every stage in every round, those before it first. The pipeline has been checked."""
    found: list[Visited] = []
    ends: dict[str, tuple[int, ...]] = {}
    """Name -> places whose end is the end of the stage."""
    for stage in in_order(pipeline.stages):
        before = tuple(sorted({place for name in stage.after for place in ends[name]}))
        outside = {name: places[0] for name, places in ends.items() if len(places) == 1}
        if not isinstance(stage, Rounds):
            ends[stage.name] = (len(found),)
            found.append(Visited(stage, stage.name, before, _conditions(outside, stage), None, 0))
            continue
        for number in range(stage.most_rounds):
            inside: dict[str, int] = {}
            for inner in in_order(stage.inside):
                after = tuple(sorted(inside[name] for name in inner.after)) or before
                conditions = _conditions(outside, stage) + _conditions(outside | inside, inner)
                inside[inner.name] = len(found)
                found.append(Visited(inner, f"{stage.name}.{inner.name}", after, conditions, stage, number))
            waited_for = {name for inner in stage.inside for name in inner.after}
            before = tuple(place for name, place in inside.items() if name not in waited_for)
        ends[stage.name] = before
    return tuple(found)


def in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Those that others wait for first, else as they stand."""
    left, done, found = list(stages), set[str](), list[Stage]()
    while left:
        following = next(stage for stage in left if done.issuperset(stage.after))
        left.remove(following)
        done.add(following.name)
        found.append(following)
    return found


def _conditions(places: Mapping[str, int], stage: Stage) -> tuple[tuple[tuple[int, str], ...], ...]:
    """The one list of a stage's `when`, if it has any."""
    if not stage.when:
        return ()
    named = [condition.split(".") for condition in stage.when]
    return (tuple((places[name], outcome) for name, outcome in named),)


def ancestors(stages: Sequence[Visited]) -> list[frozenset[int]]:
    """[num_stages] places of all stages that must have ended before each."""
    found: list[frozenset[int]] = []
    for stage in stages:
        found.append(frozenset(stage.after).union(*(found[place] for place in stage.after)))
    return found
