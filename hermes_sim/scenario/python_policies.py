"""Policy objects made in Python, put in the place of what the files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hermes_sim.batching import TokenBatching
from hermes_sim.batching.python_batching import GivenBatching, PythonBatching
from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.routing import RoutingConfig
from hermes_sim.routing.config import GivenRouting
from hermes_sim.routing.python_routing import PythonRouting
from hermes_sim.scenario.cluster import ClusterFile, Engine
from hermes_sim.scenario.combination_checks import check_combinations
from hermes_sim.scenario.document import key_text
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.workload import stage_kind

GivenRouters = PythonRouting | Mapping[str, PythonRouting]
"""One for all stages, or stage name or kind -> router."""
_BY_OBJECT: Final = "python"
"""`kind` of a policy that was passed from Python."""


def with_policies(
    scenario: Scenario, batching: Mapping[str, PythonBatching] | None, routing: GivenRouters | None
) -> Scenario:
    """The scenario with these policies: of engines by name, and of routing.

    An engine keeps the common options of its file: max_num_seqs, max_num_batched_tokens and so on. Raises ConfigError.
    """
    cluster = scenario.cluster
    problems: list[Problem] = []
    if batching:
        cluster = _with_batching(scenario, cluster, batching, problems)
    if routing is not None:
        cluster = _with_routing(scenario, cluster, routing, problems)
    if problems:
        raise ConfigError(problems)
    return scenario.model_copy(update={"cluster": cluster})


@dataclass(frozen=True, slots=True)
class SetAside:
    """Policies made in Python that a scenario has, while its description is changed without them."""

    batching: Mapping[str, PythonBatching]
    routing: PythonRouting | None
    routing_per_stage: Mapping[str, PythonRouting]

    def put_back(self, scenario: Scenario) -> Scenario:
        """With the policies where they were. Raises ConfigError."""
        per_stage = scenario.cluster.routing_per_stage
        if self.routing is not None:  # which is for all stages, but for those with one of their own
            scenario = with_policies(scenario, None, self.routing)
            update = {"routing_per_stage": per_stage}
            scenario = scenario.model_copy(update={"cluster": scenario.cluster.model_copy(update=update)})
        there = [engine.name for engine in scenario.cluster.engines]
        batching = {name: policy for name, policy in self.batching.items() if name in there}
        return with_policies(scenario, batching, self.routing_per_stage or None)


def set_aside(scenario: Scenario, cluster: dict[str, Any]) -> SetAside:
    """Takes the policies of a scenario out of what a cluster file would say of it, common options left; not where the
    file names another policy by now."""
    batching = {}
    said_of = {one.get("name"): one.get("batching") for one in cluster["engines"] if isinstance(one, dict)}
    for engine in scenario.cluster.engines:
        said = said_of.get(engine.name)
        if isinstance(engine.batching, GivenBatching) and isinstance(said, dict) and said.get("kind") == _BY_OBJECT:
            batching[engine.name] = engine.batching.given
            del said["policy"]
            said["kind"] = "chunked_prefill"
    routing = None
    if isinstance(scenario.cluster.routing, GivenRouting) and cluster["routing"].get("kind") == _BY_OBJECT:
        routing = scenario.cluster.routing.given
        cluster["routing"] = {}
    per_stage = {}
    for name, config in scenario.cluster.routing_per_stage.items():
        said = cluster["routing_per_stage"].get(name)
        if isinstance(config, GivenRouting) and isinstance(said, dict) and said.get("kind") == _BY_OBJECT:
            per_stage[name] = config.given
            del cluster["routing_per_stage"][name]
    return SetAside(batching, routing, per_stage)


def _with_batching(
    scenario: Scenario, cluster: ClusterFile, batching: Mapping[str, PythonBatching], problems: list[Problem]
) -> ClusterFile:
    names = [engine.name for engine in cluster.engines]
    for name in batching:
        if name not in names:
            message = f"there is no engine {name!r} ({listed(names)}).{did_you_mean(name, names)}"
            problems.append(Problem("batching=", None, name, message))
    engines = [
        _with_policy(scenario, engine, batching[engine.name], problems) if engine.name in batching else engine
        for engine in cluster.engines
    ]
    return cluster.model_copy(update={"engines": tuple(engines)})


def _with_policy(scenario: Scenario, engine: Engine, policy: object, problems: list[Problem]) -> Engine:
    options = engine.batching
    if not isinstance(policy, PythonBatching):
        message = f"needs an object of a class derived from PythonBatching, got {policy!r}"
        problems.append(Problem("batching=", None, engine.name, message))
        return engine
    if not isinstance(options, TokenBatching):
        message = f"serves {listed(engine.serves)}: only engines that serve prefill or decode take a batching policy"
        problems.append(Problem("batching=", None, engine.name, message))
        return engine
    given = GivenBatching.of(policy, options)
    model = scenario.models[engine.model] if engine.model is not None else None
    problems += [
        Problem("batching=", None, f"{engine.name}.{key_text(path)}", message)
        for path, message in check_combinations(engine, given, model)
    ]
    return engine.model_copy(update={"batching": given})


def _with_routing(
    scenario: Scenario, cluster: ClusterFile, routing: GivenRouters, problems: list[Problem]
) -> ClusterFile:
    if not isinstance(routing, Mapping):
        given = _given_routing("", routing, problems)
        return cluster.model_copy(update={"routing": given, "routing_per_stage": {}})
    stages = [stage for pipeline in scenario.workload.pipelines for _, stage in pipeline.leaves()]
    known = list(dict.fromkeys([*(stage.name for stage in stages), *(stage_kind(stage) for stage in stages)]))
    for name in routing:
        if name not in known:
            message = f"the workload has no stage {name!r} ({listed(known)}).{did_you_mean(name, known)}"
            problems.append(Problem("routing=", None, name, message))
    per_stage = {name: _given_routing(name, policy, problems) for name, policy in routing.items()}
    return cluster.model_copy(update={"routing_per_stage": {**cluster.routing_per_stage, **per_stage}})


def _given_routing(where: str, policy: object, problems: list[Problem]) -> RoutingConfig:
    if isinstance(policy, PythonRouting):
        return GivenRouting.of(policy)
    message = f"needs an object of a class derived from PythonRouting, got {policy!r}"
    problems.append(Problem("routing=", None, where, message))
    return RoutingConfig()
