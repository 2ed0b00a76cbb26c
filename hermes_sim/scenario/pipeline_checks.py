"""One pipeline on its own: unique names, known predecessors and outcomes, no cycle, a prefill before every decode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.scenario.visited import Visited, ancestors, visited_stages
from hermes_sim.scenario.workload import Pipeline
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.repeat import Repeat
from hermes_sim.stages.route import Route
from hermes_sim.stages.stage import Stage
from hermes_sim.stages.tree_search import ReadBeams

Path = tuple[str | int, ...]
Finding = tuple[Path, str]
"""Key path below the pipeline, and what is wrong there."""


def check_pipeline(pipeline: Pipeline) -> Iterator[Finding]:
    """All that is wrong with the order of one pipeline's stages."""
    lists: list[tuple[Path, Sequence[Stage], Sequence[Stage]]] = [(("stages",), pipeline.stages, ())]
    for index, stage in enumerate(pipeline.stages):
        if isinstance(stage, Repeat):
            lists.append((("stages", index, "stages"), stage.stages, pipeline.stages))
    found = [finding for path, stages, _ in lists for finding in (*_names(path, stages), *_predecessors(path, stages))]
    if not found:
        found = [finding for path, stages, _ in lists for finding in _circles(path, stages)]
    if not found:
        found = [finding for path, stages, outer in lists for finding in _outcomes(path, stages, outer)]
    yield from found
    if not found:
        yield from _decodes(pipeline)
        yield from _retrievals(pipeline)


def _names(path: Path, stages: Sequence[Stage]) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, stage in enumerate(stages):
        if stage.name in seen:
            yield (*path, index, "name"), f"a second stage named {stage.name!r}"
        seen.add(stage.name)


def _predecessors(path: Path, stages: Sequence[Stage]) -> Iterator[Finding]:
    names = [stage.name for stage in stages]
    for index, stage in enumerate(stages):
        for position, previous in enumerate(stage.after):
            place = (*path, index, "after", position)
            if previous not in names:
                others = [name for name in names if name != stage.name]
                where = "in the round" if len(path) > 1 else ""
                message = " ".join(("there is no stage", repr(previous), where)).rstrip()
                yield place, f"{message} ({listed(others)}).{did_you_mean(previous, others)}"
            elif previous in stage.after[:position]:
                yield place, f"{previous!r} is there twice"


def _circles(path: Path, stages: Sequence[Stage]) -> Iterator[Finding]:
    cycle = _cycle({stage.name: stage.after for stage in stages})
    if cycle:
        names = [stage.name for stage in stages]
        index = min(names.index(name) for name in cycle)
        start = cycle.index(names[index])
        circle = [*cycle[start:], *cycle[:start], names[index]]
        yield (*path, index, "after"), f"stages wait for each other in a circle: {' -> '.join(circle)}"


def _cycle(after: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    """Names along one cycle, each before the one that waits for it; None if there is none."""
    done: set[str] = set()
    for start in after:
        trail: list[str] = []
        waiting = [iter((start,))]
        while waiting:
            name = next(waiting[-1], None)
            if name is None:
                waiting.pop()
                if trail:
                    done.add(trail.pop())
            elif name in trail:
                return trail[trail.index(name) :][::-1]
            elif name not in done:
                trail.append(name)
                waiting.append(iter(after[name]))
    return None


def _outcomes(path: Path, stages: Sequence[Stage], outer: Sequence[Stage]) -> Iterator[Finding]:
    """Every `when` names an outcome of a route that has been decided by then."""
    for index, stage in enumerate(stages):
        decided = {one.name: one for one in _before(stage, stages) if isinstance(one, Route)}
        if outer:
            whole = next(one for one in outer if isinstance(one, Repeat) and one.stages is stages)
            decided = {one.name: one for one in _before(whole, outer) if isinstance(one, Route)} | decided
        for position, condition in enumerate(stage.when):
            name, outcome = condition.split(".")
            place = (*path, index, "when", position) if len(stage.when) > 1 else (*path, index, "when")
            if name not in decided:
                near = did_you_mean(name, decided)
                known = f" ({listed(decided)})" if decided else ""
                yield place, f"no route {name!r} is decided before {stage.name!r}{known}.{near}"
            elif outcome not in decided[name].outcomes:
                outcomes = list(decided[name].outcomes)
                near = did_you_mean(outcome, outcomes)
                yield place, f"{outcome!r} is no outcome of {name!r} ({listed(outcomes)}).{near}"


def _before(stage: Stage, stages: Sequence[Stage]) -> list[Stage]:
    """Stages of the list that must have ended before this one."""
    by_name = {one.name: one for one in stages}
    found: dict[str, Stage] = {}
    pending = list(stage.after)
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = by_name[name]
            pending += by_name[name].after
    return list(found.values())


def _decodes(pipeline: Pipeline) -> Iterator[Finding]:
    """A decode needs the KV cache that a prefill has left; one that goes on where another ended is not left out."""
    paths = {id(stage): path for path, stage in pipeline.leaves()}
    stages = visited_stages(pipeline)
    before = ancestors(stages)
    seen: set[int] = set()
    for place, visited in enumerate(stages):
        stage = visited.stage
        if not isinstance(stage, Decode) or id(stage) in seen:
            continue
        seen.add(id(stage))
        path = paths[id(stage)]
        if not any(stages[previous].kind == "prefill" for previous in before[place]):
            names = sorted(one.name for one in stages if one.kind == "prefill")
            hint = f"after: [{names[0]}]" if names else "the pipeline has none"
            yield path, f"decode {stage.name!r} needs a prefill before it ({hint})"
        elif (first := continued_by(stages, place)) is not None:
            yield from ((path, message) for message in _going_on(first, visited))


def _retrievals(pipeline: Pipeline) -> Iterator[Finding]:
    """KV is retrieved for one prefill, which waits for nothing else."""
    paths = {id(stage): path for path, stage in pipeline.leaves()}
    stages = visited_stages(pipeline)
    seen: set[int] = set()
    for place, visited in enumerate(stages):
        if visited.kind != "kv_retrieval" or id(visited.stage) in seen:
            continue
        seen.add(id(visited.stage))
        behind = [one for one in stages if place in one.after]
        if len(behind) != 1 or behind[0].kind != "prefill" or behind[0].after != (place,):
            name = visited.stage.name
            message = f"{name!r} needs one prefill behind it that waits for nothing else (after: [{name}])"
            yield paths[id(visited.stage)], message
            continue
        if isinstance(behind[0].stage, ReadBeams):
            message = f"{visited.stage.name!r} fetches the prompt of a prefill, not of a search: put a prefill between"
            yield paths[id(visited.stage)], message
        encoders = [stages[before].stage.name for before in ancestors(stages)[place] if stages[before].kind == "encode"]
        if encoders:
            message = f"{visited.stage.name!r} reads prompts of text: no encoder ({listed(encoders)}) can be before it"
            yield paths[id(visited.stage)], message


def continued_by(stages: Sequence[Visited], place: int) -> Visited | None:
    """The decode in whose sequence the decode at `place` goes on: the only one directly before it."""
    after = stages[place].after
    if stages[place].kind == "decode" and len(after) == 1 and stages[after[0]].kind == "decode":
        return stages[after[0]]
    return None


def _going_on(first: Visited, second: Visited) -> Iterator[str]:
    one, other = first.stage, second.stage
    assert isinstance(one, Decode)
    assert isinstance(other, Decode)
    where = f"decode {other.name!r} goes on where {one.name!r} ends, so"
    if one.num_samples > 1 or other.num_samples > 1:
        yield f"{where} neither can have several samples: put a prefill between them"
    if other.probability < 1.0 or second.when != first.when:
        yield f"{where} it cannot be left out alone: give both the same `when`, and it no probability"
    if one.model != other.model:
        yield f"{where} both need the same model"
