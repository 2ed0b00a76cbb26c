"""Policies of a user's own: registered under a name that files can use, by a module that is loaded on request only."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import Any, Literal

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
        importlib.import_module(module)
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
