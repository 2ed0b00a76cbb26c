"""From the names of a cluster and a workload to one frozen, checked Scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import listed
from hermes_sim.scenario.checks import check_scenario
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.dump import dump_scenario
from hermes_sim.scenario.files import FileOrMapping, find_document, mapping_document
from hermes_sim.scenario.names import (
    device_profiles,
    expand_pipelines,
    resolve_cluster,
    resolve_new_names,
    resolve_paths,
    resolve_stage_models,
)
from hermes_sim.scenario.overrides import Override, apply_overrides, override_of, parse_override
from hermes_sim.scenario.own_devices import DeviceLike, own_devices
from hermes_sim.scenario.problems import Problems
from hermes_sim.scenario.python_policies import set_aside
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.validate import validate, validate_known
from hermes_sim.scenario.workload import WorkloadFile
from hermes_sim.scenario.yaml_reader import read_yaml

__all__ = ["change_scenario", "dump_scenario", "load_scenario", "read_scenario"]

SCENARIO_FILE = "scenario.yaml"
"""In the folder of a run."""

Overrides = Mapping[str, Any] | Sequence[str | Override]


def load_scenario(
    cluster: FileOrMapping,
    workload: FileOrMapping,
    *,
    overrides: Overrides = (),
    seed: int | None = None,
    exact_steps: bool = False,
    devices: Mapping[str, DeviceLike] | None = None,
) -> Scenario:
    """Everything a run needs, resolved and checked.

    cluster, workload: a name or path of a file, or a mapping with what such a file would hold.
    overrides: {"cluster.KEY": value, "workload.KEY": value}; or a list of 'cluster.KEY=VALUE' as on the command line,
    or of such that are read already (scenario/overrides.py). seed: instead of the workload's own. devices: profile that
    the cluster names -> device that stands for it.
    Raises ConfigError with every problem that the files have together.
    """
    problems = Problems()
    parsed = _parsed(overrides, problems)
    cluster_document = problems.of(find_document, "cluster", cluster)
    workload_document = problems.of(find_document, "workload", workload)
    if cluster_document is None or workload_document is None:
        raise problems.error()
    _override(cluster_document, workload_document, [override for override in parsed if override], problems)
    cluster_file, cluster_problems = validate_known(ClusterFile, cluster_document)
    workload_file, workload_problems = validate_known(WorkloadFile, workload_document)
    problems.add([*cluster_problems, *workload_problems])
    num_found = len(problems.found)
    problems.add(_seed_problems(seed))
    hardware = None
    if cluster_file is not None:
        own = problems.of(own_devices, devices or {}, device_profiles(cluster_file))
        hardware = resolve_cluster(cluster_file, cluster_document, problems, own)
    stage_models = {} if workload_file is None else resolve_stage_models(workload_file, workload_document, problems)
    if len(problems.found) > num_found or hardware is None or workload_file is None:
        raise problems.error()
    scenario = Scenario(
        cluster=hardware.cluster,
        workload=workload_file,
        devices=hardware.devices,
        links=hardware.links,
        models=hardware.models | stage_models,
        seed=workload_file.seed if seed is None else seed,
        exact_steps=exact_steps,
    )
    found, notes = check_scenario(scenario, cluster_document, workload_document)
    problems.add(found)
    problems.stop()
    return scenario.model_copy(update={"notes": notes})


def read_scenario(
    path: str | Path, *, overrides: Sequence[str] = (), seed: int | None = None, exact_steps: bool | None = None
) -> Scenario:
    """The scenario a run was saved with, checked again: its scenario.yaml, or the folder that holds it.

    overrides, seed: as for load_scenario; a new name in them is looked up in the library. exact_steps: as saved if
    not given. Raises ConfigError.
    """
    file = Path(path) / SCENARIO_FILE if Path(path).is_dir() else Path(path)
    document = read_yaml(file)
    _require_scenario(document)
    problems = Problems()
    parsed = _change(document, overrides, problems)
    problems.add(_seed_problems(seed))
    problems.stop()
    scenario = validate(Scenario, document)
    return _checked_again(scenario, document, parsed, seed, exact_steps, problems)


def change_scenario(scenario: Scenario, overrides: Overrides, *, seed: int | None = None) -> Scenario:
    """A resolved scenario with other values of some keys, checked again; see Scenario.with_. Raises ConfigError."""
    problems = Problems()
    if not overrides:
        problems.add(_seed_problems(seed))
        problems.stop()
        return scenario if seed is None else scenario.model_copy(update={"seed": seed})
    parts = {"cluster": scenario.cluster, "workload": scenario.workload}
    document = mapping_document(parts, "scenario")
    parsed = _change(document, overrides, problems)
    problems.add(_seed_problems(seed))
    problems.stop()
    policies = set_aside(scenario, document.data["cluster"])
    cluster, found = validate_known(ClusterFile, document.part("cluster"))
    problems.add(found)
    workload, found = validate_known(WorkloadFile, document.part("workload"))
    problems.add(found)
    problems.stop()
    changed = scenario.model_copy(update={"cluster": cluster, "workload": workload})
    return policies.put_back(_checked_again(changed, document, parsed, seed, None, problems))


def _change(document: Document, overrides: Overrides, problems: Problems) -> list[Override]:
    """Sets values in a document with the parts `cluster` and `workload`."""
    parsed = [override for override in _parsed(overrides, problems) if override is not None]
    inside = [replace(override, path=(override.target, *override.path)) for override in parsed]
    if inside:  # what was saved needs no more: it names no pipeline, and its trace may be gone
        problems.of(apply_overrides, document, inside)
        problems.of(expand_pipelines, document.part("workload"))
        problems.of(resolve_paths, document.part("workload"))
    problems.add([_late_preset(override) for override in inside if override.path[-1] == "engine_preset"])
    return parsed


def _checked_again(
    scenario: Scenario,
    document: Document,
    overrides: Sequence[Override],
    seed: int | None,
    exact_steps: bool | None,
    problems: Problems,
) -> Scenario:
    """With new names resolved, and the notes of what it is by now."""
    if seed is None and any((override.target, override.path) == ("workload", ("seed",)) for override in overrides):
        seed = scenario.workload.seed
    given = {"seed": seed, "exact_steps": exact_steps}
    scenario = scenario.model_copy(update={key: value for key, value in given.items() if value is not None})
    cluster, workload = document.part("cluster"), document.part("workload")
    scenario = resolve_new_names(scenario, cluster, workload, problems)
    problems.stop()
    found, notes = check_scenario(scenario, cluster, workload)
    problems.add(found)
    problems.stop()
    return scenario.model_copy(update={"notes": notes})


def _require_scenario(document: Document) -> None:
    """A file of another kind is told at once instead of key by key."""
    parts = ("cluster", "workload", "devices", "links", "models")
    if not all(isinstance(document.data.get(part), dict) for part in parts):
        message = f"is no saved scenario: the {SCENARIO_FILE} of a run has the parts {listed(parts)}"
        raise ConfigError([Problem(document.file, None, "", message)])


def _parsed(overrides: Overrides, problems: Problems) -> list[Override | None]:
    """None for one that is none."""
    if isinstance(overrides, Mapping):
        data = mapping_document(overrides, "overrides").data
        return [problems.of(override_of, key, value, f"overrides {key}") for key, value in data.items()]
    return [one if isinstance(one, Override) else problems.of(parse_override, one) for one in overrides]


def _override(cluster: Document, workload: Document, overrides: Sequence[Override], problems: Problems) -> None:
    """Sets values; before it, so that they can be reached, and after it, pipelines that are only named are put in."""
    problems.of(expand_pipelines, workload)
    for target, document in {"cluster": cluster, "workload": workload}.items():
        problems.of(apply_overrides, document, [override for override in overrides if override.target == target])
    problems.of(expand_pipelines, workload)
    problems.of(resolve_paths, workload)


def _late_preset(override: Override) -> Problem:
    """A saved scenario has every key, so that there is nothing left for a preset to fill in."""
    message = "a saved run states every key of its engines, a preset would change none: set the keys themselves"
    return Problem(override.shown, None, "", message)


def _seed_problems(seed: int | None) -> list[Problem]:
    return [Problem("--seed", None, "", f"must be >= 0, got {seed}")] if seed is not None and seed < 0 else []
