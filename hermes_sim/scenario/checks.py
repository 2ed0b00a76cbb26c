"""Cluster and workload against each other, before anything runs: every problem, with the line it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_sim.batching import TokenBatching
from hermes_sim.core.errors import Problem
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.hardware.device import Device
from hermes_sim.scenario.admission_checks import check_classes, check_front_door
from hermes_sim.scenario.availability_checks import check_availability, check_links
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.engine_checks import Placed, check_engine, engine_notes
from hermes_sim.scenario.engine_device import engine_device
from hermes_sim.scenario.hosting_checks import check_hand_overs, check_hosting, check_stage_routing
from hermes_sim.scenario.kv_store_checks import check_kv_stores, check_retrievals
from hermes_sim.scenario.names import Hardware
from hermes_sim.scenario.pipeline_checks import check_pipeline
from hermes_sim.scenario.placement_checks import Layout
from hermes_sim.scenario.policy_options import check_routing_options
from hermes_sim.scenario.retrieval_notes import retrieval_notes
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.served_model import served_model
from hermes_sim.scenario.tree_checks import check_trees
from hermes_sim.scenario.waiting_checks import check_waiting
from hermes_sim.scenario.workload import WorkloadFile


def check_scenario(scenario: Scenario, cluster: Document, workload: Document) -> tuple[list[Problem], tuple[str, ...]]:
    """All problems, the cluster's first, and notes on what is allowed but worth knowing."""
    hardware = Hardware(scenario.cluster, scenario.devices, scenario.links, scenario.models)
    engines = placed_engines(hardware)
    layout = Layout(hardware)
    problems = check_cluster(engines, layout, cluster)
    problems += [cluster.problem(path, message) for path, message in check_stage_routing(scenario)]
    problems += [cluster.problem(path, message) for path, message in check_routing_options(scenario.cluster)]
    problems += [cluster.problem(path, message) for path, message in check_waiting(scenario)]
    problems += [cluster.problem(path, message) for path, message in check_front_door(scenario)]
    problems.sort(key=lambda problem: problem.line or 0)
    of_workload = check_pipelines(scenario.workload, workload)
    of_workload += [workload.problem(path, message) for path, message in check_hosting(scenario, engines)]
    of_workload += [workload.problem(path, message) for path, message in check_retrievals(scenario)]
    if scenario.workload.traffic.adapters is not None and not any(engine.lora for engine in scenario.cluster.engines):
        message = "no engine of the cluster has slots for adapters (lora)"
        of_workload.append(workload.problem(("traffic", "adapters"), message))
    of_workload += [workload.problem(path, message) for path, message in check_trees(scenario)]
    if not problems and not of_workload:
        found = check_hand_overs(scenario, engines, layout)
        of_workload = [workload.problem(path, message) for path, message in found]
    problems += sorted(of_workload, key=lambda problem: problem.line or 0)
    notes = [note for placed in engines for note in engine_notes(placed)]
    notes += retrieval_notes(scenario)
    return list(dict.fromkeys(problems)), tuple(dict.fromkeys(notes))


def check_cluster(engines: Sequence[Placed], layout: Layout, document: Document) -> list[Problem]:
    """What is wrong with the engines and their places, whatever the workload."""
    problems = [
        document.problem(("engines", index, *path), message)
        for index, placed in enumerate(engines)
        for path, message in check_engine(placed)
    ]
    problems += [document.problem(path, message) for path, message in layout.check()]
    problems += [document.problem(path, message) for path, message in check_availability(layout.cluster)]
    if not problems:
        found = [*check_kv_stores(layout.cluster, layout), *check_links(layout.cluster, layout.network)]
        problems += [document.problem(path, message) for path, message in found]
    return problems


def check_pipelines(workload: WorkloadFile, document: Document) -> list[Problem]:
    """What is wrong with the pipelines, whatever the cluster."""
    problems = []
    names: set[str] = set()
    for index, pipeline in enumerate(workload.pipelines):
        if pipeline.name in names:
            message = f"a second pipeline named {pipeline.name!r}"
            problems.append(document.problem(("pipelines", index, "name"), message))
        names.add(pipeline.name)
        problems += [
            document.problem(("pipelines", index, *path), message) for path, message in check_pipeline(pipeline)
        ]
    problems += [document.problem(path, message) for path, message in check_classes(workload)]
    taken = workload.traffic.trace.pipeline if workload.traffic.trace is not None else None
    if taken is not None and taken not in names:
        message = f"there is no pipeline {taken!r} ({listed(sorted(names))}).{did_you_mean(taken, sorted(names))}"
        problems.append(document.problem(("traffic", "trace", "pipeline"), message))
    return problems


def placed_engines(hardware: Hardware) -> list[Placed]:
    """Engines with their models and devices; no devices where no node group has all of a placement."""
    return [_placed(hardware, engine) for engine in hardware.cluster.engines]


def _placed(hardware: Hardware, engine: Engine) -> Placed:
    model = served_model(engine, hardware.models)
    drafting = engine.speculative.draft.model_names() if engine.speculative is not None else ()
    draft = hardware.models[drafting[0]] if drafting else None
    for node in hardware.cluster.nodes:
        if engine.node in (None, node.name) and all(name in node.devices for name in engine.placement):
            profiles = {name: node.devices[name].profile for name in engine.placement}
            devices = {name: hardware.devices[profile] for name, profile in profiles.items()}
            if isinstance(engine.batching, TokenBatching):
                devices = {name: engine_device(whole, engine.placement[name]) for name, whole in devices.items()}
            return Placed(engine, model, devices, draft, _draft_device(hardware, engine))
    return Placed(engine, model, {}, draft)


def _draft_device(hardware: Hardware, engine: Engine) -> Device | None:
    """What drafts for the engine, if devices of their own do; None where no node has them."""
    on = engine.speculative.on if engine.speculative is not None else None
    if on is None:
        return None
    for node in hardware.cluster.nodes:
        if on.node in (None, node.name) and on.device in node.devices:
            return hardware.devices[node.devices[on.device].profile]
    return None
