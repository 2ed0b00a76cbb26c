"""Which routing policy picks the engine of a visit, and its options."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, PositiveInt

RoutingKind = Literal[
    "round_robin",
    "random",
    "least_outstanding_requests",
    "least_outstanding_tokens",
    "least_kv",
    "least_tokens_left",
    "heavy_light",
    "power_of_two_choices",
    "session_affinity",
    "prefix_aware",
]


class RoutingConfig(Description):
    """Choice among the engines that serve a stage."""

    kind: RoutingKind = "least_outstanding_tokens"
    heavy_threshold_tokens: PositiveInt = 2048
    """heavy_light: requests with at least so many prompt tokens are heavy."""
    light_share_frac: Fraction = 0.5
    """heavy_light: share of the engines kept for light requests (at least one each way, where there are two)."""
    choices: int = Field(default=2, ge=1)
    """power_of_two_choices: engines drawn at random, of which the least loaded is taken (Mitzenmacher, 2001)."""
