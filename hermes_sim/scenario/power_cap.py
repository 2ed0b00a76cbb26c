"""Caps on what devices draw together, and the clocks that keep to them."""

from __future__ import annotations

from pydantic import Field, field_validator

from hermes_sim.core.schema import Description, Seconds, Watts
from hermes_sim.scenario.targets import parts_of


class PowerCap(Description):
    """Clocks are held so low that all devices of engines there could be limited by compute at once and keep to it."""

    cap_w: Watts = Field(alias="cap", gt=0.0)
    """Of the devices alone: fans, NICs and power supplies not counted."""
    node: str | None = None
    """`dgx`: each node of that group has this cap; `dgx[0]`: that one; the whole cluster has it if not given."""
    at_s: Seconds = Field(default=0.0, alias="at")
    lasts_s: Seconds | None = Field(default=None, alias="lasts", gt=0.0)
    """To the end of the run if not given."""

    @field_validator("node")
    @classmethod
    def _is_node(cls, value: str | None) -> str | None:
        if value is not None and len(parts_of(value)) != 1:
            raise ValueError(f"{value!r} is no node such as 'dgx' or 'dgx[0]'")
        return value


def clock_frac(cap_w: float, idle_w: float, dynamic_w: float, exponent: float) -> float:
    """Clock over the full one at which devices that draw idle + dynamic power keep to a cap: dynamic power goes with
    the clock to this exponent. 0 where even idle devices draw more."""
    if idle_w + dynamic_w <= cap_w:
        return 1.0
    return float(max((cap_w - idle_w) / dynamic_w, 0.0) ** (1.0 / exponent))
