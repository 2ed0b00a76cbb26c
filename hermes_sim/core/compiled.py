"""The one compile decorator: Numba with a cache that notices every edit.

Numba's own cache watches only the file of the function it stores: a caller keeps the machine code of a callee that has
since been edited in another file. So the folder of the cache is named by a hash of all sources that hold compiled code,
of Numba's version and of the processor; old folders are removed. `HERMES_CACHE` names another place,
`NUMBA_DISABLE_JIT=1` runs everything as plain Python.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., object])

COMPILED_FOLDERS = ("batching", "core", "perf", "routing", "sim", "state")
"""Folders of the package that hold compiled functions or the constants they freeze."""

NUM_KEPT_FOLDERS = 4
"""Cache folders kept: one per checkout or version in turn use, without thrashing between them."""


def compiled(function: Function) -> Function:
    """Compile for the processor on first call: numpy error model (x / 0 is inf), never fastmath, cached on disk.

    Numba is imported by the first decorated module, not by this one.
    """
    import numba

    config: Any = numba.config
    folder = cache_folder()
    if folder is None or config.DISABLE_JIT or not Path(function.__code__.co_filename).is_file():
        return cast(Function, numba.njit(error_model="numpy")(function))
    previous = config.CACHE_DIR
    config.CACHE_DIR = str(folder)  # read once, while the function is wrapped
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy")(function))
    finally:
        config.CACHE_DIR = previous


def jit_enabled() -> bool:
    """Whether compiled functions are machine code (False under NUMBA_DISABLE_JIT=1)."""
    import numba

    config: Any = numba.config
    return not config.DISABLE_JIT


@functools.cache
def cache_folder() -> Path | None:
    """The folder of this version's machine code, created; None where nothing can be written."""
    root = _cache_root()
    folder = root / _cache_key(Path(__file__).resolve().parent.parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.utime(folder)  # the order in which folders are given up
    except OSError:
        return None
    _prune(root, folder)
    return folder


def _cache_root() -> Path:
    if override := os.environ.get("HERMES_CACHE"):
        return Path(override) / "compiled"
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:  # no home directory: a temporary folder of this user's own
        home = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return home / "hermes-sim" / "compiled"


def _cache_key(package: Path) -> str:
    """Hash of everything that can change the machine code: sources, Numba, processor."""
    import numba

    llvm = importlib.import_module("llvmlite.binding")
    digest = hashlib.sha256()
    for source in sorted(path for name in COMPILED_FOLDERS for path in (package / name).rglob("*.py")):
        digest.update(str(source.relative_to(package)).encode() + b"\0")
        digest.update(source.read_bytes() + b"\0")
    digest.update(f"{numba.__version__} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}".encode())
    return digest.hexdigest()[:20]


def _prune(root: Path, current: Path) -> None:
    """Remove all but the most recently used folders; another process may be doing the same."""
    with contextlib.suppress(OSError):
        others = sorted((path for path in root.iterdir() if path != current), key=lambda path: -path.stat().st_mtime)
        for path in others[NUM_KEPT_FOLDERS - 1 :]:
            shutil.rmtree(path, ignore_errors=True)
