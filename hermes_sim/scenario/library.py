"""Where files live and how a bare name finds one: working directory, beside the naming file, shipped library.

The shipped library is `hardware_profiles/` and `workloads/` of the source tree if the package runs from one, else the
copy inside the wheel. A name is a file's name with or without `.yaml`, its `name`, an alias or a Hugging Face id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, get_args

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.shipped import shipped_root
from hermes_sim.core.words import near_match, with_article
from hermes_sim.scenario.document import Document, shown_path
from hermes_sim.scenario.yaml_reader import read_yaml

FileKind = Literal[
    "device",
    "link",
    "cluster",
    "model",
    "encoder",
    "diffusion_model",
    "workload",
    "pipeline",
    "sweep",
    "study",
    "search",
    "class",
    "residuals",
]

FOLDERS: Final[dict[FileKind, str]] = {
    "device": "hardware_profiles/devices",
    "link": "hardware_profiles/links",
    "cluster": "hardware_profiles/clusters",
    "model": "workloads/models",
    "encoder": "workloads/encoders",
    "diffusion_model": "workloads/diffusion_models",
    "workload": "workloads",
    "pipeline": "workloads/pipelines",
    "sweep": "workloads/sweeps",
    "study": "workloads/studies",
    "search": "workloads/searches",
    "class": "hardware_profiles/classes",
    "residuals": "hardware_profiles/residuals",
}
_SUFFIXES: Final = (".yaml", ".yml")
_EXPLORED_KEYS: Final = frozenset({"base", "axes", "zipped", "constraints", "skip", "sampling", "by"})
_TELLING_KEYS: Final[dict[FileKind, frozenset[str]]] = {
    "cluster": frozenset({"nodes", "engines"}),
    "workload": frozenset({"traffic", "pipelines", "slo", "measure"}),
    "device": frozenset({"peak", "power", "cost_model", "memory"}),
    "model": frozenset({"hidden_size", "num_layers", "vocab_size"}),
    "encoder": frozenset({"front_end", "transformer", "projector"}),
    "diffusion_model": frozenset({"denoiser", "text_encoders", "decoder"}),
    "sweep": _EXPLORED_KEYS,
    "study": _EXPLORED_KEYS | {"question", "best", "findings", "figures", "quick"},
    "search": _EXPLORED_KEYS | {"objectives", "within", "trials", "sampler", "rungs"},
    "pipeline": frozenset({"stages"}),
    "link": frozenset({"bandwidth", "latency"}),
    "class": frozenset({"reference", "cost_model"}),
    "residuals": frozenset({"tables"}),
}
"""Top-level keys of this kind of file; of two kinds with as many of them the first is meant."""


class NotFound(LookupError):
    """No file of this kind has this name; the text says so, with the near match."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the library."""

    path: Path
    name: str
    title: str
    names: tuple[str, ...]
    """All it answers to: file name, `name`, aliases, Hugging Face ids."""


def plural(kind: FileKind) -> str:
    """As commands and messages name all files of a kind."""
    own = {"study": "studies", "search": "searches", "class": "classes", "residuals": "residuals"}
    return own.get(kind, f"{kind}s")


def library_root() -> Path:
    """Folder that holds `hardware_profiles/` and `workloads/`."""
    return shipped_root(Path(__file__).resolve().parents[1])


def find(kind: FileKind, name: str, beside: Path | None = None) -> Path:
    """File a name or path stands for. Raises NotFound.

    beside: the file that names it; relative paths are tried in the working directory first, then in its folder.
    A file found in either folder under a bare name is passed over when it plainly is of another kind.
    """
    other: tuple[Path, FileKind] | None = None
    for candidate in _nearby(name, beside):
        found_kind = None if _is_path(name) or candidate.suffix == ".json" else guess_kind_of(candidate)
        if found_kind in (None, kind):
            return candidate
        other = other or (candidate, found_kind)
    shipped = _shipped(kind, name)
    if shipped is not None:
        return shipped
    if other is not None:
        raise NotFound(f"{shown_path(other[0])!r} is {with_article(other[1])} file, not {with_article(kind)} file")
    raise NotFound(_not_found(kind, name))


def guess_kind(data: dict[str, Any]) -> FileKind | None:
    """Kind of a file by its top-level keys; None where they do not tell."""
    scores = {kind: len(keys & data.keys()) for kind, keys in _TELLING_KEYS.items()}
    best = max(scores, key=lambda kind: scores[kind])
    return best if scores[best] else None


def guess_kind_of(path: Path) -> FileKind | None:
    """Kind of the file at `path`; None where it cannot be read or does not tell."""
    try:
        return guess_kind(read_yaml(path).data)
    except ConfigError:
        return None


def kind_of_folder(path: Path) -> FileKind | None:
    """Kind of a file that lies in the shipped library."""
    folder = path.resolve().parent
    return next((kind for kind, name in FOLDERS.items() if folder == library_root() / name), None)


def entries(kind: FileKind) -> tuple[Entry, ...]:
    """The shipped files of one kind, by name."""
    folder = library_root() / FOLDERS[kind]
    files = sorted(path for path in folder.glob("*") if path.suffix in _SUFFIXES and path.is_file())
    stamps = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return _index(stamps)


@lru_cache(maxsize=32)
def _index(stamps: tuple[tuple[Path, int, int], ...]) -> tuple[Entry, ...]:
    """Cached until a file of the folder changes."""
    found = (_entry(path) for path, _, _ in stamps)
    return tuple(sorted((entry for entry in found if entry is not None), key=lambda entry: entry.name))


def _entry(path: Path) -> Entry | None:
    try:
        document = read_yaml(path)
    except ConfigError:
        return None  # `hermes-sim check` says why
    name = document.data.get("name")
    title = document.data.get("title")
    device = document.data.get("device")
    if title is None and isinstance(device, str):
        title = f"Residual tables of {device}"
    return Entry(
        path,
        name if isinstance(name, str) else path.stem,
        title if isinstance(title, str) else "",
        tuple(dict.fromkeys([path.stem, *_names(document)])),
    )


def _names(document: Document) -> Iterator[str]:
    for key in ("name", "aliases", "hugging_face_ids"):
        value = document.data.get(key)
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str):
                yield name


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name


def _nearby(name: str, beside: Path | None) -> Iterator[Path]:
    """Files of that name in the working directory, then beside the naming file."""
    has_suffix = name.endswith((*_SUFFIXES, ".json"))
    spellings = [name] if has_suffix else [name + suffix for suffix in _SUFFIXES]
    if _is_path(name) and not has_suffix:
        spellings.append(name)
    folders = [Path(), *([beside.parent] if beside is not None else [])]
    for folder in folders:
        for spelling in spellings:
            candidate = folder / spelling
            if _is_file(candidate):
                yield candidate


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have: too long, a NUL in it
        return False


def _shipped(kind: FileKind, name: str) -> Path | None:
    """By file name first: an index of the folder is read only for other names."""
    if not _is_path(name):
        spellings = [name] if name.endswith(_SUFFIXES) else [name + suffix for suffix in _SUFFIXES]
        for spelling in spellings:
            path = library_root() / FOLDERS[kind] / spelling
            if _is_file(path):
                return path
    wanted = name.casefold()
    for entry in entries(kind):
        if wanted in (known.casefold() for known in entry.names):
            return entry.path
    return None


def _not_found(kind: FileKind, name: str) -> str:
    names = [known for entry in entries(kind) for known in entry.names]
    with_suffix = name.endswith((*_SUFFIXES, ".json"))
    near = near_match(Path(name).stem if with_suffix else name, names)
    suggestion = f" Did you mean {near + '.yaml' if with_suffix else near!r}?" if near else ""
    where = "" if near else _other_kind(kind, name)
    return f"no {kind} {name!r} here or in the library{where}.{suggestion} (hermes-sim list {plural(kind)})"


def _other_kind(kind: FileKind, name: str) -> str:
    for other in get_args(FileKind):
        if other != kind and _shipped(other, name) is not None:
            return f", but there is {with_article(other)} of that name"
    return ""
