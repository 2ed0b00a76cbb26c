"""One input file: found by name, read, checked against the schema of its kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import Description
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.device_class import ClassCoefficients
from hermes_sim.hardware.link import Link
from hermes_sim.hardware.residual import Residuals
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.diffusion_model import DiffusionModel
from hermes_sim.models.media_encoder import MediaEncoder
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.document import Document, shown_path
from hermes_sim.scenario.library import FileKind, NotFound, find
from hermes_sim.scenario.residual_files import attach_residuals
from hermes_sim.scenario.search import SearchFile
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.sweep import SweepFile
from hermes_sim.scenario.validate import validate
from hermes_sim.scenario.workload import Pipeline, WorkloadFile
from hermes_sim.scenario.yaml_reader import read_yaml

SCHEMAS: Final[dict[FileKind, type[Description]]] = {
    "device": Device,
    "link": Link,
    "cluster": ClusterFile,
    "model": ModelArchitecture,
    "encoder": MediaEncoder,
    "diffusion_model": DiffusionModel,
    "workload": WorkloadFile,
    "pipeline": Pipeline,
    "class": ClassCoefficients,
    "residuals": Residuals,
    "sweep": SweepFile,
    "study": StudyFile,
    "search": SearchFile,
}

D = TypeVar("D", bound=Description)
FileOrMapping = str | Path | Mapping[str, Any]
"""A file's name in the library, its path, or what it would hold."""


_read_once: ContextVar[dict[tuple[Any, ...], Any] | None] = ContextVar("_read_once", default=None)


@contextmanager
def files_read_once() -> Iterator[None]:
    """Inside, each file that scenarios name is read once, however many of them there are and whatever becomes of it."""
    token = _read_once.set({})
    try:
        yield
    finally:
        _read_once.reset(token)


def read_description(schema: type[D], path: Path) -> D:
    """What the file at `path` describes; a model may also be a Hugging Face config.json. Raises ConfigError."""
    known = _read_once.get()
    if known is None:
        return _read(schema, path)
    key = (schema, path.absolute())
    if key not in known:
        known[key] = _read(schema, path)
    return cast(D, known[key])


def find_once(kind: FileKind, name: str, beside: Path | None = None) -> Path:
    """As `find`; what was found stays found inside `files_read_once`. Raises NotFound."""
    known = _read_once.get()
    if known is None:
        return find(kind, name, beside)
    key = (kind, name, beside)
    if key not in known:
        known[key] = find(kind, name, beside)
    return cast(Path, known[key])


def read_document(path: Path) -> Document:
    """What the file at `path` says, unchecked and not to be changed. Raises ConfigError."""
    known = _read_once.get()
    if known is None:
        return read_yaml(path)
    key = (Document, path.absolute())
    if key not in known:
        known[key] = read_yaml(path)
    return cast(Document, known[key])


def own_document(path: Path) -> Document:
    """The same, to be changed."""
    read = read_document(path)
    return Document(read.file, read.path, cast(dict[str, Any], _copied(read.data)), dict(read.origins))


def _copied(value: Any) -> Any:
    """Mappings and lists anew, what is in them as it is."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def validated(schema: type[D], document: Document) -> D:
    """What a document describes; a device with the residual tables of its file. Raises ConfigError."""
    if schema is Device:
        attach_residuals(document)
    return validate(schema, document)


def _read(schema: type[D], path: Path) -> D:
    if schema is ModelArchitecture and path.suffix == ".json":
        return cast(D, _read_hugging_face_config(path))
    return validated(schema, read_yaml(path))


def mapping_document(data: Mapping[str, Any], called: str) -> Document:
    """Document of a mapping made in Python: plain data, no lines."""
    return Document(called, None, cast(dict[str, Any], _plain(data)), {})


def find_document(kind: FileKind, given: FileOrMapping) -> Document:
    """Of a file by its name or path, or of what such a file would hold. Raises ConfigError."""
    if isinstance(given, Mapping):
        return mapping_document(given, kind)
    try:
        return own_document(find_once(kind, str(given)))
    except NotFound as missing:
        raise ConfigError([Problem("", None, "", str(missing))]) from None


def _plain(value: Any) -> Any:
    """Own copy with text keys; descriptions become what their file would hold."""
    if isinstance(value, Description):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _read_hugging_face_config(path: Path) -> ModelArchitecture:
    from hermes_sim.models.hugging_face import from_config

    file = shown_path(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("needs a mapping of keys")
        name = path.resolve().parent.name if path.name == "config.json" else path.stem
        return from_config(config, name=name)
    except OSError as error:
        raise ConfigError([Problem(file, None, "", f"cannot be read: {error.strerror or error}")]) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError([Problem(file, None, "", f"is not a usable Hugging Face config: {error}")]) from None
