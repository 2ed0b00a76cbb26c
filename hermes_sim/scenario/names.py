"""What the names in a cluster and a workload stand for: devices, links, models, pipelines, trace files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import Description
from hermes_sim.core.words import did_you_mean, listed, shown
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.link import Link
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.document import Document, KeyPath, shown_path
from hermes_sim.scenario.files import find_once, own_document, read_description, read_document, validated
from hermes_sim.scenario.library import FileKind, NotFound
from hermes_sim.scenario.problems import Problems
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.variants import BASE, changed_document
from hermes_sim.scenario.workload import WorkloadFile
from hermes_sim.stages import STAGES

D = TypeVar("D", bound=Description)
Named = tuple[str, KeyPath]
"""A name and where it stands."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """A cluster with everything it names, by the names that it uses."""

    cluster: ClusterFile
    devices: dict[str, Device]
    links: dict[str, Link]
    models: dict[str, ModelArchitecture]


def resolve_cluster(
    cluster: ClusterFile, document: Document, problems: Problems, own: Mapping[str, Device] | None = None
) -> Hardware:
    """Devices, links and models of a cluster; what is not found goes to `problems`.

    own: devices that stand for names of the cluster file, whatever the library has.
    """
    given = dict(own or {})
    if given and cluster.devices:
        given = _changed_ones("device", Device, given, cluster.devices, document, problems)
    others = [named for named in _device_names(cluster) if named[0] not in given]
    devices = {**given, **_resolve_all("device", Device, others, document, problems, cluster.devices)}
    links = _resolve_all("link", Link, _link_names(cluster), document, problems, cluster.links)
    problems.add(_unused(cluster, document))
    return Hardware(
        cluster.model_copy(update={"devices": {}, "links": {}}),
        devices,
        links,
        _resolve_all("model", ModelArchitecture, _engine_models(cluster), document, problems),
    )


def _unused(cluster: ClusterFile, document: Document) -> list[Problem]:
    """Changes to what the cluster does not have: most likely another name was meant."""
    found = []
    kinds = (
        ("device", cluster.devices, _device_names(cluster)),
        ("link", cluster.links, _link_names(cluster)),
    )
    for kind, variants, names in kinds:
        used = list(dict.fromkeys(name for name, _ in names))
        for name, keys in variants.items():
            if name not in used and BASE not in keys:
                message = f"the cluster has no {kind} of profile {name!r} ({listed(used)}).{did_you_mean(name, used)}"
                found.append(document.problem((f"{kind}s", name), message))
    return found


def device_profiles(cluster: ClusterFile) -> list[str]:
    """Names of the devices that a cluster is made of, each once."""
    return list(dict.fromkeys(name for name, _ in _device_names(cluster)))


def resolve_stage_models(
    workload: WorkloadFile, document: Document, problems: Problems
) -> dict[str, ModelArchitecture]:
    """Models that the stages of a workload name; what is not found goes to `problems`."""
    return _resolve_all("model", ModelArchitecture, _stage_models(workload), document, problems)


def expand_pipelines(document: Document) -> None:
    """Puts the stages of pipelines that a workload only names in their place, and what the stages name (see
    expand_networks). Raises ConfigError.
    """
    pipelines = document.data.get("pipelines")
    problems = Problems()
    for index, entry in enumerate(pipelines if isinstance(pipelines, list) else []):
        name = entry.get("name") if isinstance(entry, dict) and "stages" not in entry else entry
        if isinstance(name, str) and isinstance(pipelines, list):
            shipped = problems.of(_library_file, "pipeline", name, document, ("pipelines", index))
            if shipped is not None:
                own = entry if isinstance(entry, dict) else {}
                pipelines[index] = shipped.data | own
                for path, origin in shipped.origins.items():
                    if path and path[0] not in own:
                        document.origins["pipelines", index, *path] = origin
    problems.stop()
    for index, entry in enumerate(pipelines if isinstance(pipelines, list) else []):
        if isinstance(entry, dict):
            expand_networks(document, entry, ("pipelines", index))


def expand_networks(document: Document, pipeline: dict[str, Any], path: KeyPath = ()) -> None:
    """Puts encoders and diffusion models that the stages of a pipeline only name in their place. Raises ConfigError."""
    problems = Problems()
    stages = pipeline.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if not isinstance(stage, dict):
            continue
        place = (*path, "stages", index)
        kind = STAGES.get(str(stage.get("kind")))
        for key, file_kind in (kind.NETWORKS if kind is not None else {}).items():
            name = stage.get(key)
            if isinstance(name, str):
                network = problems.of(_library_file, file_kind, name, document, (*place, key))
                if network is not None:
                    stage[key] = network.data
                    for inner, origin in network.origins.items():
                        document.origins[(*place, key, *inner)] = origin
        problems.of(expand_networks, document, stage, place)
    problems.stop()


def resolve_paths(document: Document) -> None:
    """Makes the paths of a workload's traffic absolute: from the working directory, else beside the workload file.

    Raises ConfigError for files that are in neither.
    """
    problems = Problems()
    for holder, path in _paths(document.data.get("traffic"), ("traffic",)):
        written = Path(holder["path"])
        folders = [Path(), *([document.path.parent] if document.path is not None else [])]
        found = next((folder / written for folder in folders if _exists(folder / written)), None)
        if found is not None:
            holder["path"] = str(found.resolve())
        else:
            beside = f" or beside {shown_path(document.path)}" if document.path is not None else ""
            where = "" if written.is_absolute() else f" in the working directory{beside}"
            problems.add([document.problem((*path, "path"), f"there is no file {shown(str(written))}{where}")])
    problems.stop()


def resolve_new_names(scenario: Scenario, cluster: Document, workload: Document, problems: Problems) -> Scenario:
    """The scenario with what its cluster and workload name by now: its own descriptions, the library's for new names.

    What is not found goes to `problems`.
    """

    def of_kind(
        kind: FileKind,
        schema: type[D],
        own: dict[str, D],
        names: Sequence[Named],
        document: Document,
        variants: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> dict[str, D]:
        new = [(name, path) for name, path in names if name not in own]
        known = own | _resolve_all(kind, schema, new, document, problems, variants)
        return {name: known[name] for name, _ in names if name in known}

    held, models = scenario.cluster, scenario.models
    problems.add(_unused(held, cluster))
    hosted = of_kind("model", ModelArchitecture, models, _engine_models(held), cluster)
    staged = of_kind("model", ModelArchitecture, models, _stage_models(scenario.workload), workload)
    devices = _changed_ones("device", Device, scenario.devices, held.devices, cluster, problems)
    links = _changed_ones("link", Link, scenario.links, held.links, cluster, problems)
    resolved = {
        "cluster": held.model_copy(update={"devices": {}, "links": {}}),
        "devices": of_kind("device", Device, devices, _device_names(held), cluster, held.devices),
        "links": of_kind("link", Link, links, _link_names(held), cluster, held.links),
        "models": hosted | staged,
    }
    return scenario.model_copy(update=resolved)


def _changed_ones(
    kind: FileKind,
    schema: type[D],
    own: dict[str, D],
    variants: Mapping[str, Mapping[str, Any]],
    cluster: Document,
    problems: Problems,
) -> dict[str, D]:
    """Those of a resolved scenario, with what its cluster states anew in place of their numbers."""
    found = {name: value for name, value in own.items() if BASE not in variants.get(name, {})}
    for name in variants.keys() & found.keys():
        changed = problems.of(_changed_one, kind, schema, name, found[name], cluster)
        if changed is not None:
            found[name] = changed
    return found


def _changed_one(kind: FileKind, schema: type[D], name: str, known: D, cluster: Document) -> D:
    assert kind in ("device", "link")
    data = known.model_dump(mode="json", by_alias=True, exclude={"residuals"})
    if isinstance(known, Device):
        data["residuals"] = known.residuals
    base = Document(cluster.file, None, data, {})
    return validated(schema, changed_document(kind, name, base, cluster.inside((f"{kind}s", name))))


def _library_file(kind: FileKind, name: str, document: Document, path: KeyPath) -> Document:
    """The file that a name at `path` of the document stands for."""
    try:
        return own_document(find_once(kind, name, document.path))
    except NotFound as missing:
        raise ConfigError([document.problem(path, str(missing))]) from None


def _paths(value: Any, path: KeyPath) -> Iterator[tuple[dict[str, Any], KeyPath]]:
    """Mappings with a key `path` that holds text."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):
            yield value, path
        for key, item in value.items():
            yield from _paths(item, (*path, key))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have: too long, a NUL in it
        return False


def _resolve_all(
    kind: FileKind,
    schema: type[D],
    names: Sequence[Named],
    document: Document,
    problems: Problems,
    variants: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, D]:
    """Name -> description, each once, in the order of first use. variants: those that the cluster changes."""
    first_use: dict[str, KeyPath] = {}
    for name, path in names:
        first_use.setdefault(name, path)
    found = {
        name: problems.of(_resolve_variant, kind, schema, name, document)
        if name in variants
        else problems.of(_resolve, kind, schema, name, path, document)
        for name, path in first_use.items()
    }
    return {name: description for name, description in found.items() if description is not None}


def _resolve(kind: FileKind, schema: type[D], name: str, path: KeyPath, document: Document) -> D:
    try:
        return read_description(schema, find_once(kind, name, document.path))
    except NotFound as missing:
        raise ConfigError([document.problem(path, str(missing))]) from None


def _resolve_variant(kind: FileKind, schema: type[D], name: str, document: Document) -> D:
    """A device or link of the library, with what the cluster states in its place."""
    assert kind in ("device", "link")
    path = (f"{kind}s", name)
    keys = document.inside(path)
    base = keys.data.get(BASE, name)
    if not isinstance(base, str):
        raise ConfigError([keys.problem((BASE,), f"needs the name of a {kind}, got {shown(base)}")])
    try:
        file = read_document(find_once(kind, base, document.path))
    except NotFound as missing:
        at = (*path, BASE) if BASE in keys.data else path
        raise ConfigError([document.problem(at, str(missing))]) from None
    return validated(schema, changed_document(kind, name, file, keys))


def _device_names(cluster: ClusterFile) -> list[Named]:
    return [
        (group.profile, ("nodes", index, "devices", name, "profile"))
        for index, node in enumerate(cluster.nodes)
        for name, group in node.devices.items()
    ]


def _link_names(cluster: ClusterFile) -> list[Named]:
    names: list[tuple[str | None, KeyPath]] = [(cluster.network, ("network",))]
    for index, node in enumerate(cluster.nodes):
        names += [(link.profile, ("nodes", index, "links", i, "profile")) for i, link in enumerate(node.links)]
        names.append((node.uplink, ("nodes", index, "uplink")))
    return [(name, path) for name, path in names if name is not None]


def _engine_models(cluster: ClusterFile) -> list[Named]:
    names: list[Named] = []
    for index, engine in enumerate(cluster.engines):
        if engine.model is not None:
            names.append((engine.model, ("engines", index, "model")))
        if engine.speculative is not None:
            path = ("engines", index, "speculative", "draft", "model")
            names += [(name, path) for name in engine.speculative.draft.model_names()]
    return names


def _stage_models(workload: WorkloadFile) -> list[Named]:
    return [
        (name, ("pipelines", index, *path, "model"))
        for index, pipeline in enumerate(workload.pipelines)
        for path, stage in pipeline.leaves()
        for name in stage.model_names()
    ]
