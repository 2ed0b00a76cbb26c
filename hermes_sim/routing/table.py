"""The list of routing policies: kind -> router. Importing it loads compiled code; schemas do without."""

from __future__ import annotations

from hermes_sim.routing import heavy_light, least, power_of_two, prefix_aware, random_choice, round_robin
from hermes_sim.routing import session_affinity as affinity
from hermes_sim.routing.router import Router

ROUTERS: dict[str, Router] = {
    "round_robin": round_robin.ROUTER,
    "random": random_choice.ROUTER,
    "least_outstanding_requests": least.LEAST_REQUESTS,
    "least_outstanding_tokens": least.LEAST_TOKENS,
    "least_kv": least.LEAST_KV,
    "least_tokens_left": least.LEAST_TOKENS_LEFT,
    "heavy_light": heavy_light.ROUTER,
    "power_of_two_choices": power_of_two.ROUTER,
    "session_affinity": affinity.ROUTER,
    "prefix_aware": prefix_aware.ROUTER,
}
