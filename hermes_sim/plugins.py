"""Policies of a user's own: registered under a name that files can use, by a module that is loaded on request only."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import uuid
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from pydantic import create_model

from hermes_sim.batching import TOKEN_POLICIES, TokenBatching
from hermes_sim.batching.python_batching import PythonBatching, RegisteredBatching
from hermes_sim.core.errors import ConfigError, HermesError, Problem
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.routing import ROUTERS
from hermes_sim.routing.python_routing import PythonRouting
from hermes_sim.routing.router import Router

ENTRY_POINTS = "hermes_sim.plugins"
"""Group in which an installed package may name its plug-in module."""

_SHIPPED = frozenset([*TOKEN_POLICIES, *ROUTERS])

_loaded: Final[dict[str, ModuleType]] = {}
"""By the name that load_plugin was given."""


def register_batching(name: str, policy: type[PythonBatching] | type[TokenBatching]) -> None:
    """Makes `batching: {kind: NAME}` known: a policy in Python, or a description with switches of the compiled loop.

    The arguments of a Python policy's class are the keys of `options`. Registering a name again replaces what a plug-in
    has put there. Raises HermesError for a name of the program's own, or for anything that is no policy.
    """
    _check_name(name, policy, (PythonBatching, TokenBatching), "PythonBatching or TokenBatching")
    if issubclass(policy, TokenBatching):
        TOKEN_POLICIES[name] = policy
        return
    kind: Any = Literal[name]
    description = create_model(policy.__name__, __base__=RegisteredBatching, __doc__=_doc(policy), kind=(kind, name))
    description.policy = policy
    TOKEN_POLICIES[name] = description


def register_routing(name: str, policy: type[PythonRouting] | Router) -> None:
    """Makes `routing: {kind: NAME}` known: a policy in Python, or a compiled router.

    As register_batching.
    """
    if isinstance(policy, Router):
        _check_name(name, PythonRouting, (PythonRouting,), "PythonRouting")
    else:
        _check_name(name, policy, (PythonRouting,), "PythonRouting")
    ROUTERS[name] = policy


def load_plugin(name: str) -> None:
    """Imports a module, `my_package.my_module`, or the module that an installed package names as its plug-in.

    Raises ConfigError where there is none, or where importing it fails.
    """
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    module = installed.get(name, name)
    try:
        _loaded[name] = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module != missing and not module.startswith(f"{missing}."):
            raise _broken(name, f"needs the module {missing!r}, which is not installed") from error
        among = f"; installed plug-ins: {listed(installed)}" if installed else ""
        near = did_you_mean(name, installed)
        raise _broken(name, f"there is no such module here{among}.{near}") from error
    except HermesError as error:
        raise _broken(name, str(error)) from error
    except Exception as error:
        raise _broken(name, f"importing it failed: {type(error).__name__}: {error}") from error


def loaded_plugins() -> dict[str, ModuleType]:
    """What load_plugin has loaded, by name."""
    return dict(_loaded)


def plugins_hash() -> str:
    """Of the sources of all that plug-ins have added, empty without any: under another hash runs may differ.

    A module of a package stands for all files of that package; modules that a plug-in imports from elsewhere are not
    looked at. A policy without a source has a hash of its own in every process.
    """
    policies = [table[name] for table in (TOKEN_POLICIES, ROUTERS) for name in table if name not in _SHIPPED]
    sources = [*map(source_of, policies), *map(module_source, _loaded.values())]
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.encode() + b"\0")
    return digest.hexdigest()[:16] if sources else ""


def module_source(module: ModuleType) -> str:
    """The text of a module, or of the package that it is part of."""
    return "\0".join(path.read_text(encoding="utf-8", errors="replace") for path in _files_of(module))


def source_of(policy: object) -> str:
    """What decides how a policy's class, or function, acts: its module's text; its own where it has no file."""
    made_by = getattr(policy, "policy", policy)  # the description of a registered policy names its class
    if isinstance(made_by, Router):
        made_by = made_by.choose
    module = inspect.getmodule(getattr(made_by, "py_func", made_by))
    if module is not None and getattr(module, "__file__", None):
        return module_source(module)
    try:
        return inspect.getsource(made_by)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return _no_source(id(made_by))


@cache
def _no_source(_: int) -> str:
    return uuid.uuid4().hex


def _files_of(module: ModuleType) -> Iterator[Path]:
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    folders = getattr(top, "__path__", None)
    if folders:
        yield from sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    elif file := getattr(module, "__file__", None):
        yield Path(file)


def _broken(name: str, message: str) -> ConfigError:
    return ConfigError([Problem("--plugin", None, name, message)])


def _check_name(name: str, policy: object, bases: tuple[type, ...], words: str) -> None:
    if name in _SHIPPED or name == "python":
        raise HermesError(f"{name!r} is a policy of hermes-sim itself: register yours under another name")
    if not name.isidentifier():
        raise HermesError(f"{name!r} is not a name: letters, digits and _")
    if not (isinstance(policy, type) and issubclass(policy, bases)):
        raise HermesError(f"the policy {name!r} needs a class derived from {words}, got {policy!r}")


def _doc(policy: type) -> str:
    return inspect.getdoc(policy) or f"A policy in Python: {policy.__module__}.{policy.__qualname__}."
