"""One pipeline on its own: unique names, known predecessors, no cycle, a prefill before every decode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.scenario.workload import Pipeline, stage_kind

Finding = tuple[tuple[str | int, ...], str]
"""Key path below the pipeline, and what is wrong there."""


def check_pipeline(pipeline: Pipeline) -> Iterator[Finding]:
    """All that is wrong with the order of one pipeline's stages."""
    found = [*_names(pipeline), *_predecessors(pipeline)]
    yield from found
    if found:
        return
    cycle = _cycle({stage.name: stage.after for stage in pipeline.stages})
    if cycle:
        names = [stage.name for stage in pipeline.stages]
        index = min(names.index(name) for name in cycle)
        start = cycle.index(names[index])
        circle = [*cycle[start:], *cycle[:start], names[index]]
        yield ("stages", index, "after"), f"stages wait for each other in a circle: {' -> '.join(circle)}"
    else:
        yield from _decodes(pipeline)


def ancestors(pipeline: Pipeline) -> dict[str, frozenset[str]]:
    """Stage -> all stages that must have ended before it. The pipeline has no cycle."""
    after = {stage.name: stage.after for stage in pipeline.stages}
    known: dict[str, frozenset[str]] = {}
    for name in after:
        pending = [name]
        while pending:
            here = pending[-1]
            missing = [previous for previous in after[here] if previous not in known]
            if here not in known and missing:
                pending += missing
                continue
            known[here] = frozenset(after[here]).union(*(known[previous] for previous in after[here]))
            pending.pop()
    return known


def _names(pipeline: Pipeline) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, stage in enumerate(pipeline.stages):
        if stage.name in seen:
            yield ("stages", index, "name"), f"a second stage named {stage.name!r}"
        seen.add(stage.name)


def _predecessors(pipeline: Pipeline) -> Iterator[Finding]:
    names = [stage.name for stage in pipeline.stages]
    for index, stage in enumerate(pipeline.stages):
        for position, previous in enumerate(stage.after):
            path = ("stages", index, "after", position)
            if previous not in names:
                others = [name for name in names if name != stage.name]
                yield path, f"there is no stage {previous!r} ({listed(others)}).{did_you_mean(previous, others)}"
            elif previous in stage.after[:position]:
                yield path, f"{previous!r} is there twice"


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


def _decodes(pipeline: Pipeline) -> Iterator[Finding]:
    """A decode needs the KV cache that a prefill has left."""
    prefills = {stage.name for stage in pipeline.stages if stage_kind(stage) == "prefill"}
    before = ancestors(pipeline)
    for index, stage in enumerate(pipeline.stages):
        if stage_kind(stage) == "decode" and not before[stage.name] & prefills:
            hint = f"after: [{sorted(prefills)[0]}]" if prefills else "the pipeline has none"
            yield ("stages", index), f"decode {stage.name!r} needs a prefill before it ({hint})"
