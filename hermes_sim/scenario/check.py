"""What is wrong with one input file, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import Description, SourceKind
from hermes_sim.core.words import listed
from hermes_sim.scenario.checks import check_cluster, check_pipelines, placed_engines
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.document import Document, shown_path
from hermes_sim.scenario.files import SCHEMAS, read_description
from hermes_sim.scenario.library import FileKind, NotFound, find, guess_kind, kind_of_folder
from hermes_sim.scenario.load import read_scenario
from hermes_sim.scenario.names import (
    Hardware,
    expand_networks,
    expand_pipelines,
    resolve_cluster,
    resolve_paths,
    resolve_stage_models,
)
from hermes_sim.scenario.pipeline_checks import check_pipeline
from hermes_sim.scenario.placement_checks import Layout
from hermes_sim.scenario.problems import Problems
from hermes_sim.scenario.search import SearchFile
from hermes_sim.scenario.search_checks import check_search
from hermes_sim.scenario.sources import KERNELS, Evidence, evidence, missing_sources, weakest, weakest_kind
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_checks import check_study
from hermes_sim.scenario.sweep import SweepFile
from hermes_sim.scenario.sweep_checks import check_sweep
from hermes_sim.scenario.validate import validate, validate_known
from hermes_sim.scenario.workload import Pipeline, WorkloadFile
from hermes_sim.scenario.yaml_reader import read_yaml


def check_file(file: str | Path) -> list[Problem]:
    """Every problem of one file: a path, or the name of a file in the library. Never raises ConfigError.

    Names inside it are resolved and checked as well; what takes a cluster and a workload together is left to load.
    """
    problems = Problems()
    problems.of(_check, Path(file), problems)
    return problems.found


def weakest_source(file: str | Path) -> SourceKind | None:
    """Weakest kind of source behind the numbers of a file and of all it names; None without any.

    Raises ConfigError if the file is wrong.
    """
    path = _located(Path(file))
    document = None if path.suffix == ".json" else read_yaml(path)
    kind = _kind(path, document)
    problems = Problems()
    named: list[Description] = []
    if kind == "cluster" and document is not None:
        hardware = resolve_cluster(validate(ClusterFile, document), document, problems)
        named = [*hardware.devices.values(), *hardware.links.values(), *hardware.models.values()]
    elif kind == "workload" and document is not None:
        expand_pipelines(document)
        named = list(resolve_stage_models(validate(WorkloadFile, document), document, problems).values())
    problems.stop()
    own = read_description(SCHEMAS[kind], path) if kind not in ("cluster", "workload") else None
    return weakest(weakest_kind(description) for description in [*named, *([own] if own is not None else [])])


def evidence_of(file: str | Path) -> Evidence:
    """Kinds of source behind what sets the speed of a device or a link; for a cluster, behind each device's kernels.

    Empty for other files. Raises ConfigError if the file is wrong.
    """
    path = _located(Path(file))
    document = None if path.suffix == ".json" else read_yaml(path)
    kind = _kind(path, document)
    if kind == "cluster" and document is not None:
        devices = _hardware(document).devices
        return {f"{KERNELS} of {name}": evidence(device)[KERNELS] for name, device in devices.items()}
    return evidence(read_description(SCHEMAS[kind], path)) if kind in ("device", "link") else {}


def serving_evidence(cluster: str | Path) -> Evidence:
    """Weakest kind of source behind the kernels of the devices that a cluster's language models run on.

    Raises ConfigError if the file is wrong.
    """
    engines = placed_engines(_hardware(read_yaml(_located(Path(cluster)))))
    serving = [placed for placed in engines if placed.model is not None]
    kind = weakest(evidence(device)[KERNELS] for placed in serving for device in placed.devices.values())
    return {} if kind is None else {f"LLM {KERNELS}": kind}


def _hardware(document: Document) -> Hardware:
    problems = Problems()
    hardware = resolve_cluster(validate(ClusterFile, document), document, problems)
    problems.stop()
    return hardware


def _check(path: Path, problems: Problems) -> None:
    path = _located(path)
    if path.suffix == ".json" and path.name != "scenario.json":
        read_description(SCHEMAS["model"], path)
        return
    document = read_yaml(path)
    if {"cluster", "workload", "devices"} <= document.data.keys():
        read_scenario(path)
        return
    kind = _kind(path, document)
    check = _CHECKS.get(kind)
    if check is not None:
        check(document, problems)
    else:
        _check_description(document, kind)


def _check_description(document: Document, kind: FileKind) -> None:
    """A device, a class of them, a link or a model."""
    description = validate(SCHEMAS[kind], document)
    if kind in ("device", "link"):
        message = "no source covers this number (sources)"
        problems = [document.problem(path, message) for path in missing_sources(description)]
        if problems:
            raise ConfigError(problems)


def _check_cluster(document: Document, problems: Problems) -> None:
    cluster, found = validate_known(ClusterFile, document)
    problems.add(found)
    if cluster is None:
        return
    hardware = resolve_cluster(cluster, document, problems)
    if len(problems.found) == len(found):
        problems.add(check_cluster(placed_engines(hardware), Layout(hardware), document))


def _check_workload(document: Document, problems: Problems) -> None:
    problems.of(expand_pipelines, document)
    problems.of(resolve_paths, document)
    workload, found = validate_known(WorkloadFile, document)
    problems.add(found)
    if workload is None:
        return
    problems.add(check_pipelines(workload, document))
    resolve_stage_models(workload, document, problems)


def _check_pipeline(document: Document, problems: Problems) -> None:
    problems.of(expand_networks, document, document.data)
    pipeline, found = validate_known(Pipeline, document)
    problems.add(found)
    if pipeline is None:
        return
    problems.add([document.problem(path, message) for path, message in check_pipeline(pipeline)])


def _check_sweep(document: Document, problems: Problems) -> None:
    sweep, found = validate_known(SweepFile, document)
    problems.add(found)
    if sweep is not None:
        problems.add(check_sweep(sweep, document))


def _check_study(document: Document, problems: Problems) -> None:
    study, found = validate_known(StudyFile, document)
    problems.add(found)
    if study is not None:
        problems.add(check_study(study, document))


def _check_search(document: Document, problems: Problems) -> None:
    search, found = validate_known(SearchFile, document)
    problems.add(found)
    if search is not None:
        problems.add(check_search(search, document))


_CHECKS: Final[dict[FileKind, Callable[[Document, Problems], None]]] = {
    "cluster": _check_cluster,
    "workload": _check_workload,
    "pipeline": _check_pipeline,
    "sweep": _check_sweep,
    "study": _check_study,
    "search": _check_search,
}


def _located(path: Path) -> Path:
    """The path itself if there is a file, else the library's file of that name."""
    if path.is_file():
        return path
    for kind in get_args(FileKind):
        try:
            return find(kind, str(path))
        except NotFound:
            continue
    raise ConfigError([Problem(str(path), None, "", "there is no such file, here or in the library")])


def _kind(path: Path, document: Document | None) -> FileKind:
    """By the folder in the library, else by the keys."""
    kind: FileKind | None = "model" if document is None else kind_of_folder(path) or guess_kind(document.data)
    if kind is None or kind not in SCHEMAS:
        file = document.file if document is not None else shown_path(path)
        raise ConfigError([Problem(file, None, "", f"is no {listed(SCHEMAS)} file: no key tells which kind it is")])
    return kind
