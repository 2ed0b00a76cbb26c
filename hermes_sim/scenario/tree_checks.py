"""Searches against the engines that run them: what a round's sequences cannot do yet is refused."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_sim.core.words import listed
from hermes_sim.scenario.document import KeyPath
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.serving import serving_engines
from hermes_sim.stages.tree_search import TreeSearch

Finding = tuple[KeyPath, str]


def check_trees(scenario: Scenario) -> Iterator[Finding]:
    """Key paths of the workload: candidates are written where their prefixes were read, by engines that do not fail."""
    failing = _failing(scenario)
    for index, pipeline in enumerate(scenario.workload.pipelines):
        for place, stage in enumerate(pipeline.stages):
            if not isinstance(stage, TreeSearch):
                continue
            path = ("pipelines", index, "stages", place)
            reads, writes, scores = (
                {engine.name for engine in serving_engines(scenario, inner)} for inner in stage.inside
            )
            if reads - writes:
                yield (
                    path,
                    (
                        f"{stage.name!r} writes candidates where it has read their prefixes: engine "
                        f"{listed(sorted(reads - writes))} must serve decode too"
                    ),
                )
            lost = sorted(failing & (reads | scores))
            if lost:
                yield path, f"{stage.name!r} runs on engine {listed(lost)}: failures amid a search are not modelled"


def _failing(scenario: Scenario) -> set[str]:
    """Engines that can fail; all of them, where nodes, devices or links can."""
    availability = scenario.cluster.availability
    named = {one.engine for one in availability.outages if one.kind == "failure"}
    named |= {one.engine for one in availability.failures if one.kind == "failure"}
    everyone = {engine.name for engine in scenario.cluster.engines}
    return everyone if None in named else everyone & named
