"""Which engines of a cluster can take the visits of a stage."""

from __future__ import annotations

from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.stages.stage import Stage


def serving_engines(scenario: Scenario, stage: Stage) -> list[Engine]:
    """Engines that serve the kind of a stage and, where it runs a language model, host the one it names."""
    serving = [engine for engine in scenario.cluster.engines if stage_kind(stage) in engine.serves]
    wanted = {scenario.models[name].name for name in stage.model_names()}
    if stage.runs_on == "jobs" or not wanted:
        return serving
    return [engine for engine in serving if engine.model is not None and scenario.models[engine.model].name in wanted]
