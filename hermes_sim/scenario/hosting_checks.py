"""The stages of a workload on the engines of a cluster: who serves them, hosts their models, and hands over to whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.hardware.network import Endpoint, NoRouteError
from hermes_sim.scenario.document import KeyPath
from hermes_sim.scenario.engine_checks import Placed
from hermes_sim.scenario.job_memory import check_job_memory
from hermes_sim.scenario.placement_checks import Layout
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.serving import serving_engines
from hermes_sim.scenario.visited import Visited, visited_stages
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.stages.stage import Stage

Finding = tuple[KeyPath, str]


def check_hosting(scenario: Scenario, engines: Sequence[Placed]) -> Iterator[Finding]:
    """Every stage has an engine that serves its kind, hosts its model and has the memory for it."""
    for index, pipeline in enumerate(scenario.workload.pipelines):
        for place, stage in pipeline.leaves():
            for path, message in _hosting(scenario, stage, engines):
                yield ("pipelines", index, *place, *path), message


def check_stage_routing(scenario: Scenario) -> Iterator[Finding]:
    """`routing_per_stage` of the cluster names stages, or kinds of stages, that the workload has."""
    stages = [stage for pipeline in scenario.workload.pipelines for _, stage in pipeline.leaves()]
    names = [name for stage in stages for name in (stage.name, stage_kind(stage))]
    for name in scenario.cluster.routing_per_stage:
        if name not in names:
            near = did_you_mean(name, names)
            known = listed(dict.fromkeys(names))
            yield ("routing_per_stage", name), f"the workload has no stage {name!r} ({known}).{near}"


def check_hand_overs(scenario: Scenario, engines: Sequence[Placed], layout: Layout) -> Iterator[Finding]:
    """Between the engines of consecutive stages there is a route, and a decode runs the model of its prefill."""
    for index, pipeline in enumerate(scenario.workload.pipelines):
        paths = {id(stage): path for path, stage in pipeline.leaves()}
        stages = visited_stages(pipeline)
        seen: set[tuple[int, int]] = set()
        for stage in stages:
            for previous in _working(stages, stage.after):
                pair = (id(previous.stage), id(stage.stage))
                if pair in seen or stage.stage.runs_on == "nowhere":
                    continue
                seen.add(pair)
                sources = hosts(scenario, previous.stage, engines)
                targets = hosts(scenario, stage.stage, engines)
                message = _missing_route(sources, targets, layout)
                if message is not None:
                    path = ("pipelines", index, *paths[id(stage.stage)], "after")
                    yield path, f"{previous.name!r} cannot hand over to {stage.name!r}: {message}"
                if (previous.kind, stage.kind) in {("prefill", "decode"), ("decode", "decode")}:
                    for message in _other_model(sources, targets):
                        yield ("pipelines", index, *paths[id(stage.stage)]), message


def _working(stages: Sequence[Visited], places: Sequence[int]) -> Iterator[Visited]:
    """The stages of these places; for those that take no time, the ones before them."""
    for place in places:
        if stages[place].stage.runs_on == "nowhere":
            yield from _working(stages, stages[place].after)
        else:
            yield stages[place]


def hosts(scenario: Scenario, stage: Stage, engines: Sequence[Placed]) -> list[Placed]:
    """Engines that can take visits of this stage."""
    serving = serving_engines(scenario, stage)
    return [placed for placed in engines if placed.engine in serving]


def _hosting(scenario: Scenario, stage: Stage, engines: Sequence[Placed]) -> Iterator[Finding]:
    kind = stage_kind(stage)
    if stage.runs_on == "nowhere":
        return
    serving = [placed for placed in engines if kind in placed.engine.serves]
    if not serving:
        offers = "; ".join(f"{placed.engine.name}: {listed(placed.engine.serves)}" for placed in engines)
        yield ("kind",), f"no engine serves {kind!r} ({offers})"
    elif stage.runs_on == "tokens":
        yield from _model_hosting(scenario, stage, serving)
    else:
        for placed in serving:
            yield from (((), message) for message in check_job_memory(scenario, stage, placed))


def _model_hosting(scenario: Scenario, stage: Stage, serving: Sequence[Placed]) -> Iterator[Finding]:
    kind = stage_kind(stage)
    hosted = {placed.engine.name: placed.model.name for placed in serving if placed.model is not None}
    offers = "; ".join(f"{engine}: {model}" for engine, model in hosted.items())
    wanted = [scenario.models[name].name for name in stage.model_names()]
    for name in wanted:
        if name not in hosted.values():
            yield ("model",), f"no engine that serves {kind!r} hosts {name} ({offers})"
    if not wanted and len(set(hosted.values())) > 1:
        yield ("model",), f"is missing: the engines that serve {kind!r} host different models ({offers})"


def _missing_route(sources: Sequence[Placed], targets: Sequence[Placed], layout: Layout) -> str | None:
    for source, target in product(sources, targets):
        if source.engine.name == target.engine.name:
            continue  # a request stays on its replica
        ends = product(_ends(source, layout), _ends(target, layout))
        for start, end in ends:
            try:
                layout.network.route(start, end)
            except NoRouteError as error:
                return f"{source.engine.name} to {target.engine.name}: {error}"
    return None


def _ends(placed: Placed, layout: Layout) -> list[Endpoint]:
    """A device of the first and of the last replica: the others lie between them, in equal nodes."""
    replicas = layout.replicas[placed.engine.name]
    return list(dict.fromkeys([replicas[0][0], replicas[-1][0]]))


def _other_model(sources: Sequence[Placed], targets: Sequence[Placed]) -> Iterator[str]:
    """A decode must run the model that has computed its KV cache."""
    computed = {placed.model.name for placed in sources if placed.model is not None}
    decoded = {placed.model.name for placed in targets if placed.model is not None}
    if computed != decoded:
        yield f"decodes with {listed(sorted(decoded))} what was prefilled with {listed(sorted(computed))}"
