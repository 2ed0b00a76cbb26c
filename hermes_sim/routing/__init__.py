"""Where a request runs. One file a policy; the table is the list."""

from __future__ import annotations

from hermes_sim.routing.config import RoutingConfig
from hermes_sim.routing.table import ROUTERS

__all__ = ["ROUTERS", "RoutingConfig"]
