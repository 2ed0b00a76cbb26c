"""What decides the numbers of a run, as one hash: scenario, files that it reads, objectives, policies, program."""

from __future__ import annotations

import hashlib
import pickle
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hermes_sim.batching.python_batching import GivenBatching
from hermes_sim.core.schema import Description
from hermes_sim.core.shipped import shipped_root
from hermes_sim.plugins import plugins_hash, source_of
from hermes_sim.routing.config import GivenRouting
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.workload.paths import shipped_traces

NUMERICAL = ("numba", "numpy", "scipy")
"""Packages whose versions may change the last digit of a result."""


def run_key(scenario: Scenario, reference: Scenario | None, objectives: Sequence[Description]) -> str:
    """16 hexadecimal digits: runs of the same key have the same row, wherever and by whom they are run."""
    digest = hashlib.sha256(f"{program_hash()} {plugins_hash()}".encode())
    for description in (scenario, reference, *objectives):
        digest.update(b"\0" if description is None else description.model_dump_json(by_alias=True).encode())
    for one in (scenario, reference):
        for path in [] if one is None else read_files(one):
            digest.update(_content_hash(path).encode())
        for policy in [] if one is None else _given_policies(one):
            digest.update(_policy_hash(policy).encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def program_hash() -> str:
    """Of the package's sources, of the shipped data that runs read, and of the versions of numerical packages."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    data = [
        *(shipped_root() / "hardware_profiles" / "classes").glob("*.yaml"),
        *(shipped_traces() / "lengths").glob("*.csv"),
    ]
    for path in [*sorted(package.rglob("*.py")), *sorted(data)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(" ".join(version(name) for name in NUMERICAL).encode())
    return digest.hexdigest()


def read_files(scenario: Scenario) -> list[Path]:
    """Traces and tables that the scenario names but does not hold; folders stand for their files."""
    named = [Path(path) for path in _paths(scenario.workload.traffic.model_dump(mode="json"))]
    return [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "path" and isinstance(inner, str):
                yield inner
            else:
                yield from _paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner)


def _content_hash(path: Path) -> str:
    try:
        status = path.stat()
        return _hash_of(path, status.st_size, status.st_mtime_ns) if path.is_file() else ""
    except OSError as error:  # the run will say so
        return type(error).__name__


@lru_cache(maxsize=256)
def _hash_of(path: Path, _size: int, _mtime_ns: int) -> str:
    """Read again only after a change."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _given_policies(scenario: Scenario) -> Iterator[object]:
    """Policy objects passed from Python, which no description holds."""
    cluster = scenario.cluster
    for options in [
        *(engine.batching for engine in cluster.engines),
        cluster.routing,
        *cluster.routing_per_stage.values(),
    ]:
        if isinstance(options, GivenBatching | GivenRouting):
            yield options.given


def _policy_hash(policy: object) -> str:
    """Of its class's source and of what it holds; one of its own for an object that cannot be pickled."""
    try:
        held = hashlib.sha256(pickle.dumps(policy)).hexdigest()
    except Exception:
        held = uuid.uuid4().hex
    return f"{source_of(type(policy))} {held}"
