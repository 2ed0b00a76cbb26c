"""The list of routing policies: kind -> router. A shipped one is loaded, and compiled code with it, when it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module

from hermes_sim.routing.python_routing import PythonRouting
from hermes_sim.routing.router import Router

Routing = Router | type[PythonRouting]


class RouterTable(MutableMapping[str, Routing]):
    """Routers by kind; those of the constructor are named `module:attribute` below hermes_sim.routing."""

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._routers: dict[str, str | Routing] = dict(homes)

    def __getitem__(self, kind: str) -> Routing:
        found = self._routers[kind]
        if not isinstance(found, str):
            return found
        module, attribute = found.split(":")
        router: Router = getattr(import_module(f"hermes_sim.routing.{module}"), attribute)
        self._routers[kind] = router
        return router

    def in_python(self, kind: str) -> type[PythonRouting] | None:
        """Class of a policy in Python; None for compiled ones, which stay unloaded."""
        found = self._routers[kind]
        return found if isinstance(found, type) else None

    def __setitem__(self, kind: str, routing: Routing) -> None:
        self._routers[kind] = routing

    def __delitem__(self, kind: str) -> None:
        del self._routers[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._routers)

    def __len__(self) -> int:
        return len(self._routers)


ROUTERS = RouterTable({
    "round_robin": "round_robin:ROUTER",
    "random": "random_choice:ROUTER",
    "least_outstanding_requests": "least:LEAST_REQUESTS",
    "least_outstanding_tokens": "least:LEAST_TOKENS",
    "least_kv": "least:LEAST_KV",
    "least_tokens_left": "least:LEAST_TOKENS_LEFT",
    "heavy_light": "heavy_light:ROUTER",
    "power_of_two_choices": "power_of_two:ROUTER",
    "session_affinity": "session_affinity:ROUTER",
    "prefix_aware": "prefix_aware:ROUTER",
})  # fmt: skip
