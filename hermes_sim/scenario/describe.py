"""What can be named in the input files: lists, one thing in full, and the schema of each kind of file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from hermes_sim.batching import JOB_POLICIES, TOKEN_POLICIES
from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import Description
from hermes_sim.core.words import did_you_mean, listed, with_article
from hermes_sim.routing import ROUTERS, RoutingConfig
from hermes_sim.routing.router import Router
from hermes_sim.scenario.check import evidence_of, serving_evidence, weakest_source
from hermes_sim.scenario.document import shown_path
from hermes_sim.scenario.dump import dump_yaml
from hermes_sim.scenario.engine_presets import ENGINE_PRESETS
from hermes_sim.scenario.files import SCHEMAS, read_description
from hermes_sim.scenario.json_schema import attribute_docs, schema_of
from hermes_sim.scenario.library import Entry, FileKind, NotFound, entries, find, plural
from hermes_sim.scenario.names import expand_pipelines
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.sources import Evidence
from hermes_sim.scenario.validate import validate
from hermes_sim.scenario.yaml_reader import read_yaml
from hermes_sim.stages import STAGES

FILE_KINDS: Final[dict[str, FileKind]] = {plural(kind): kind for kind in SCHEMAS}
KINDS: Final = (*FILE_KINDS, "policies", "stages", "presets")
"""What `list` and `show` take; the singular as well."""

Row = tuple[str, str, Evidence]
"""Name, title, and the kinds of source behind what sets the speed of a device, a link or a cluster."""


def list_names(kind: str) -> list[Row]:
    """Everything of one kind; files that are wrong say so in place of the title. Raises ConfigError."""
    kind = _kind(kind)
    if kind == "policies":
        return [(name, title, {}) for name, title in _policies()]
    if kind == "stages":
        return [(name, _first_line(stage.__doc__), {}) for name, stage in STAGES.items()]
    if kind == "presets":
        return [(name, preset.title, {}) for name, preset in ENGINE_PRESETS.items()]
    return [_file_row(FILE_KINDS[kind], entry) for entry in entries(FILE_KINDS[kind])]


def show(kind: str, name: str, *, coefficients: bool = True) -> str:
    """One thing as YAML: a file with its defaults filled in, or a policy or stage with its keys.

    coefficients: also the thousands of numbers that are fitted to the kernels of a device.
    Raises ConfigError, with the near match where nothing has this name.
    """
    kind = _kind(kind)
    if kind == "stages":
        return _show_class(kind, name, STAGES)
    if kind == "policies":
        return _show_policy(name)
    if kind == "presets":
        return _show_preset(name)
    try:
        path = find(FILE_KINDS[kind], name)
    except NotFound as missing:
        raise ConfigError([Problem("", None, "", str(missing))]) from None
    schema = SCHEMAS[FILE_KINDS[kind]]
    header = "\n".join(f"# {line}" for line in (shown_path(path), *source_words(path)))
    if path.suffix == ".json":
        return f"{header}\n{dump_yaml(_dumped(read_description(schema, path)))}"
    document = read_yaml(path)
    expand_pipelines(document)
    data = _as_written(_dumped(validate(schema, document)), document.data)
    if kind != "devices" or coefficients or data["cost_model"]["source"]["kind"] != "fitted":
        return f"{header}\n{dump_yaml(data)}"
    fitted = [part for part, value in data["cost_model"].items() if isinstance(value, dict) and part != "source"]
    data["cost_model"] = {part: value for part, value in data["cost_model"].items() if part not in fitted}
    header += f"\n# left out: the coefficients of {listed(fitted)} (--coefficients)"
    return f"{header}\n{dump_yaml(data)}"


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema of the files of one kind: cluster, workload, device, link, model, pipeline, scenario, or of a stage
    kind or batching policy by its name. Raises ConfigError."""
    schemas: dict[str, type[Description]] = {str(name): schema for name, schema in SCHEMAS.items()}
    schemas |= {"scenario": Scenario, "routing": RoutingConfig, **STAGES, **_batching_policies()}
    singular = FILE_KINDS.get(kind, kind)
    if singular not in schemas:
        message = f"there is no schema {kind!r} ({listed(schemas)}).{did_you_mean(kind, schemas)}"
        raise ConfigError([Problem("", None, "", message)])
    return schema_of(schemas[singular])


def source_words(file: str | Path) -> list[str]:
    """Which kinds of source stand behind a file, a line each: what sets the speed, and the weakest of all numbers."""
    parts = [f"{part} {kind}" for part, kind in evidence_of(file).items()]
    weakest = weakest_source(file)
    lines = [f"sources: {', '.join(parts)}"] if parts else []
    return [*lines, f"weakest source of any number: {weakest}"] if weakest is not None else lines


def _kind(kind: str) -> str:
    singular: dict[str, str] = {known: name for name, known in FILE_KINDS.items()}
    singular |= {"policy": "policies", "stage": "stages", "preset": "presets"}
    if kind in KINDS:
        return kind
    if kind in singular:
        return singular[kind]
    raise ConfigError([Problem("", None, "", f"{kind!r} is not one of: {listed(KINDS)}.{did_you_mean(kind, KINDS)}")])


def _file_row(kind: FileKind, entry: Entry) -> Row:
    try:
        return entry.name, entry.title, _listed_evidence(kind, entry.path)
    except ConfigError:
        return entry.name, f"is wrong: hermes-sim check {shown_path(entry.path)}", {}


def _listed_evidence(kind: FileKind, path: Path) -> Evidence:
    """Few enough parts for a table: of a cluster, the kernels of what its language models run on."""
    if kind == "cluster":
        return serving_evidence(path)
    if kind == "model":
        weakest = weakest_source(path)
        return {} if weakest is None else {"architecture": weakest}
    weakest_source(path)  # a wrong file says so
    return evidence_of(path)


def definition(name: str) -> str | None:
    """What a policy or an engine preset is, in a line; None for other words."""
    if name in ENGINE_PRESETS:
        return f"engine preset: {ENGINE_PRESETS[name].title} (hermes-sim show preset/{name})"
    title = dict(_policies()).get(name)
    return f"{title} (hermes-sim show policy/{name})" if title is not None else None


def _batching_policies() -> dict[str, type[Description]]:
    return {**TOKEN_POLICIES, **JOB_POLICIES}


def _policies() -> Iterator[tuple[str, str]]:
    for name, policy in _batching_policies().items():
        yield name, f"batching: {_first_line(policy.__doc__)}"
    for name, routing in ROUTERS.items():
        yield name, f"routing: {_first_line(_routing_doc(routing))}"


def _routing_doc(routing: Any) -> str | None:
    if not isinstance(routing, Router):
        return inspect.getdoc(routing)
    is_alone = routing.choose.__name__ == "choose"  # in its file, whose first line then says what it does
    return sys.modules[routing.choose.__module__].__doc__ if is_alone else routing.choose.__doc__


def _show_policy(name: str) -> str:
    if name not in ROUTERS:
        return _show_class("policies", name, _batching_policies(), tuple(ROUTERS))
    options = [line for line in _keys(RoutingConfig).splitlines() if f"# {name}: " in line]
    words = dict(_policies())[name]
    title = f"# {words}\n# policy of a cluster: `routing`, or `routing_per_stage`"
    return "\n".join([title, f"kind: {name}", *options, ""])


def _show_preset(name: str) -> str:
    """The keys of an engine that it fills in, each with where the value is stated."""
    if name not in ENGINE_PRESETS:
        message = f"{name!r} is not an engine preset ({listed(ENGINE_PRESETS)}).{did_you_mean(name, ENGINE_PRESETS)}"
        raise ConfigError([Problem("", None, "", message)])
    preset = ENGINE_PRESETS[name]
    lines = [f"# {preset.title}", f"# keys of an engine with `engine_preset: {name}`; what the file states wins"]
    section = ""
    for path, default in preset.values.items():
        own, key = path.split(".")
        if own != section:
            section = own
            lines.append(f"{section}:")
        typical = "" if default.is_sure else "typical: "
        lines.append(f"  {_preset_line(key, default.value)}  # {typical}{default.where}")
    return "\n".join([*lines, ""])


def _preset_line(key: str, value: Any) -> str:
    """On one line, also where the value is a mapping."""
    if isinstance(value, Mapping):
        return f"{key}: {{{', '.join(dump_yaml({part: inner}).strip() for part, inner in value.items())}}}"
    return dump_yaml({key: value}).strip()


def _show_class(kind: str, name: str, table: Mapping[str, type[Description]], more: tuple[str, ...] = ()) -> str:
    if name not in table:
        names = [*table, *more]
        singular = "stage kind" if kind == "stages" else "policy"
        message = f"{name!r} is not {with_article(singular)} ({listed(names)}).{did_you_mean(name, names)}"
        raise ConfigError([Problem("", None, "", message)])
    description = table[name]
    text = "\n".join(f"# {line}".rstrip() for line in inspect.cleandoc(description.__doc__ or "").splitlines())
    return f"{text}\n{_keys(description)}"


def _keys(description: type[BaseModel]) -> str:
    """One line a key: its default, or nothing where it is required, and what it means."""
    docs = attribute_docs(description)
    defaults = description.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
    lines = []
    for name, field in description.model_fields.items():
        key = field.alias or name
        value = dump_yaml({key: defaults[key]}).strip() if not field.is_required() else f"{key}:"
        comment = " ".join([*(["required"] if field.is_required() else []), *docs.get(name, "").split()])
        lines.append(f"{value}  # {comment}" if comment and "\n" not in value else value)
    return "\n".join(lines) + "\n"


def _dumped(description: Description) -> dict[str, Any]:
    return description.model_dump(mode="json", by_alias=True, exclude_none=True)


def _as_written(resolved: Any, written: Any) -> Any:
    """The resolved values, in the file's own words where it has some ('80 GiB' for '85899345920.0 B')."""
    if isinstance(resolved, dict) and isinstance(written, dict):
        return {key: _as_written(value, written.get(key)) for key, value in resolved.items()}
    if isinstance(resolved, list) and isinstance(written, list) and len(resolved) == len(written):
        return [_as_written(value, own) for value, own in zip(resolved, written, strict=True)]
    return written if isinstance(resolved, str) and isinstance(written, str) else resolved


def _first_line(doc: str | None) -> str:
    return inspect.cleandoc(doc or "").splitlines()[0]
