"""The one compile decorator: Numba with a cache that notices every edit.

Numba's own cache watches only the file of the function it stores: a caller keeps the machine code of a callee that has
since been edited in another file. So the folder of the cache is named by a hash of all sources that hold compiled code
and of what they import (constants are frozen into it), of Numba's version and of the processor; old folders are
removed. `HERMES_CACHE` names another place, `NUMBA_DISABLE_JIT=1` runs everything as plain Python.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., object])

IMPORTED = re.compile(r"^from hermes_sim\.([\w.]+) import|^import hermes_sim\.([\w.]+)", re.MULTILINE)

NUM_KEPT_FOLDERS = 4
"""Cache folders kept: one per checkout or version in turn use, without thrashing between them."""


def compiled(function: Function) -> Function:
    """Compile for the processor on first call: numpy error model (x / 0 is inf), never fastmath, cached on disk.

    Machine code is made, and cached, for the functions that Python calls; what they call is linked into them
    (core/parts.py). Numba is imported by the first decorated module, not by this one.
    """
    numba = _numba()
    if numba.config.DISABLE_JIT:
        return cast(Function, numba.njit(error_model="numpy")(function))
    from hermes_sim.core.parts import Part

    return cast(Function, Part(function, functools.partial(_entry, function)))


def compiled_entry(function: Function) -> Function:
    """The same for what Python calls often, always with arguments of the types of the first call."""
    numba = _numba()
    if numba.config.DISABLE_JIT:
        return cast(Function, numba.njit(error_model="numpy")(function))
    from hermes_sim.core.parts import Entry

    return cast(Function, Entry(function, functools.partial(_entry, function)))


def _entry(function: Callable[..., object]) -> Callable[..., object]:
    """The function with machine code of its own, from the cache if it was made before."""
    numba = _numba()
    folder = cache_folder()
    if folder is None or not Path(function.__code__.co_filename).is_file():
        return cast(Callable[..., object], numba.njit(error_model="numpy")(function))
    config: Any = numba.config
    previous = config.CACHE_DIR
    config.CACHE_DIR = str(folder)  # read once, while the function is wrapped
    try:
        return cast(Callable[..., object], numba.njit(cache=True, error_model="numpy")(function))
    finally:
        config.CACHE_DIR = previous


@functools.cache
def _numba() -> Any:
    """Numba, without its probe for a BLAS.

    The probe imports SciPy's linear algebra, a quarter of a second, only to see whether it is there; SciPy is one of
    our dependencies. Code that uses it is compiled as ever.
    """
    import numba

    config: Any = numba.config
    linalg: Any = importlib.import_module("numba.np.linalg")
    probe = getattr(linalg, "ensure_blas", None)
    if config.DISABLE_JIT or probe is None:
        return numba
    linalg.ensure_blas = lambda: None
    try:
        importlib.import_module("numba.np.arraymath")  # probes while it is imported
    finally:
        linalg.ensure_blas = probe
    return numba


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
    for name, text in sorted(compiled_sources(package).items()):
        digest.update(f"{name}\0{text}\0".encode())
    digest.update(f"{numba.__version__} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}".encode())
    return digest.hexdigest()[:20]


def compiled_sources(package: Path) -> dict[str, str]:
    """Path -> text of every file with compiled functions, and of the package's files that those import."""
    texts = {path: path.read_text() for path in package.rglob("*.py")}
    found: dict[str, str] = {}
    pending = [path for path, text in texts.items() if "@compiled" in text]
    while pending:
        path = pending.pop()
        name = path.relative_to(package).as_posix()
        if name in found:
            continue
        found[name] = texts[path]
        modules = (first or second for first, second in IMPORTED.findall(texts[path]))
        stems = (package.joinpath(*module.split(".")) for module in modules)
        candidates = (place for stem in stems for place in (stem.with_suffix(".py"), stem / "__init__.py"))
        pending += [place for place in candidates if place in texts]
    return found


def is_warm() -> bool:
    """Whether machine code of this version is on disk already."""
    folder = cache_folder()
    return folder is not None and any(folder.rglob("*.nbi"))


def _prune(root: Path, current: Path) -> None:
    """Remove all but the most recently used folders; another process may be doing the same."""
    with contextlib.suppress(OSError):
        others = sorted((path for path in root.iterdir() if path != current), key=lambda path: -path.stat().st_mtime)
        for path in others[NUM_KEPT_FOLDERS - 1 :]:
            shutil.rmtree(path, ignore_errors=True)
