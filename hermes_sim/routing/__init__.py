"""Where a request runs. One file a policy; this table is the list."""

from __future__ import annotations

from hermes_sim.routing.config import RoutingConfig

__all__ = ["RoutingConfig"]
