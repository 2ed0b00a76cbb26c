"""What a Dask worker does: checks that it runs the same program, loads plug-ins, compiles once a host, then runs."""

from __future__ import annotations

import fcntl
import importlib
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from hermes_sim import __version__
from hermes_sim.core.compiled import cache_folder
from hermes_sim.core.errors import HermesError
from hermes_sim.explore.run_key import program_hash
from hermes_sim.plugins import load_plugin, plugins_hash
from hermes_sim.processes import Garbage
from hermes_sim.run import warm_up

WARMED = "warmed"
"""File in the folder of machine code: a worker of this host has compiled what runs need."""


class WorkerRefused(HermesError):
    """A worker cannot run what it is given, whatever the run: another program, a plug-in that it does not have."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plug-in, as the client has it."""

    name: str
    module: str
    source: str | None
    """Text of a module that is one file, for workers that do not have it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs before its first task."""

    program: str
    """program_hash() of the client."""
    version: str
    plugins: tuple[Plugin, ...]
    plugins_hash: str


_prepared: set[Setup] = set()
_one_at_a_time: Final = threading.Lock()
_garbage: Final = Garbage()


def run_task(
    setup: Setup,
    warm: str | None,
    function: Callable[[Any], Any],
    item: bytes,
    hashes: tuple[str, ...],
    *parts: Any,
) -> Any:
    """`function(item)`, one at a time in a process, whatever its threads.

    warm: which part is a pickled scenario to compile for, before the first. item: pickled without its parts
    (dask_workers.Parts), which `hashes` names. Raises WorkerRefused.
    """
    known = dict(zip(hashes, parts, strict=True))
    with _one_at_a_time:
        if setup not in _prepared:
            _prepare(setup, None if warm is None else known[warm])
            _prepared.add(setup)
        try:
            return function(unparted(item, known))
        finally:
            _garbage.collect()


def load_part(part: bytes) -> Any:
    """A part of many items; Dask keeps it where it is needed, and makes it again where it is lost."""
    return pickle.loads(part)


def unparted(item: bytes, parts: dict[str, Any]) -> Any:
    """The item with its parts in their places."""
    unpickler = pickle.Unpickler(BytesIO(item))
    unpickler.persistent_load = parts.__getitem__  # type: ignore[method-assign]
    return unpickler.load()


def program_here(setup: Setup) -> None:
    """Raises WorkerRefused where another program is installed than the client's."""
    if program_hash() != setup.program:
        raise WorkerRefused(
            f"has another hermes-sim ({__version__}, {program_hash()[:8]}) or other versions of NumPy, SciPy or Numba "
            f"than this process ({setup.version}, {setup.program[:8]}): results would not be comparable. Install the "
            f"same on both sides"
        )


def _prepare(setup: Setup, scenario: bytes | None) -> None:
    program_here(setup)
    for plugin in setup.plugins:
        _load(plugin)
    if plugins_hash() != setup.plugins_hash:
        names = ", ".join(plugin.name for plugin in setup.plugins)
        raise WorkerRefused(f"has another version of the plug-ins ({names}), or of the policies in them")
    if scenario is not None:
        with _first_of_host() as is_first:
            if is_first:
                warm_up(pickle.loads(scenario))
    _garbage.set_apart()


def _load(plugin: Plugin) -> None:
    """The worker's own module, or the text that the client sent."""
    if plugin.source is not None and importlib.util.find_spec(plugin.module) is None:
        folder = Path(tempfile.mkdtemp(prefix="hermes-plugin-"))
        (folder / f"{plugin.module}.py").write_text(plugin.source, encoding="utf-8")
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    try:
        load_plugin(plugin.name)
    except HermesError as error:
        raise WorkerRefused(str(error)) from error


@contextmanager
def _first_of_host() -> Iterator[bool]:
    """Whether this worker has to compile: others of its host wait until one has done it."""
    folder = cache_folder()
    if folder is None:  # nothing can be kept: each compiles for itself, with its first run
        yield False
        return
    if (folder / WARMED).exists():
        yield False
        return
    with (folder / "warming").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        first = not (folder / WARMED).exists()
        yield first
        if first:
            (folder / WARMED).touch()
