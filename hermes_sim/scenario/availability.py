"""A cluster that lives: outages, failures at random, slow parts, maintenance, and what becomes of the requests."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from hermes_sim.core.schema import Description, Fraction, Name, NonNegativeInt, Seconds
from hermes_sim.scenario.targets import parts_of

Resource = Literal["compute", "memory", "network", "host"]
RESOURCES: tuple[Resource, ...] = ("compute", "memory", "network", "host")
"""In the order of a step's seconds."""


class Incident(Description):
    """What befalls one of: the replicas of an engine, nodes, devices, links."""

    engine: Name | None = None
    replica: NonNegativeInt | None = None
    """Number of the engine's replica; all of them if not given."""
    node: str | None = None
    """`dgx` (every node of that group) or `dgx[0]`: all engines with a device there, and what KV stores keep in its
    memory."""
    device: str | None = None
    """`dgx[0].gpu[3]`, or `dgx.gpu` for every one of them: all engines on it."""
    link: str | None = None
    """Both directions of a cable: `dgx[0].nic[1]`, `dgx[0].gpu[3]->nvswitch`, or `dgx.nic` for all of them."""
    speed_frac: Fraction | None = Field(default=None, alias="speed", gt=0.0, lt=1.0)
    """kind: slow: what is left of the speed."""
    slows: tuple[Resource, ...] = RESOURCES
    """kind: slow, of engines, nodes and devices: the times in a step that grow by 1 / speed. `[compute]`: clocks that
    heat holds down."""

    @field_validator("node", "device", "link")
    @classmethod
    def _is_place(cls, value: str | None) -> str | None:
        if value is not None:
            for end in value.split("->"):
                parts_of(end)
        return value

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        given = [key for key in ("engine", "node", "device", "link") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"needs one of engine, node, device and link, got {' and '.join(given) or 'none'}")
        if self.replica is not None and self.engine is None:
            raise ValueError("replica goes with engine")
        kind = getattr(self, "kind", "failure")
        if (kind == "slow") != (self.speed_frac is not None):
            raise ValueError("speed goes with kind: slow, and that with it")
        if self.slows != RESOURCES and (kind != "slow" or self.link is not None):
            raise ValueError("slows goes with kind: slow of an engine, a node or a device")
        if kind == "maintenance" and self.link is not None:
            raise ValueError("a link has nothing to end: maintenance is of an engine, a node or a device")
        return self


class Outage(Incident):
    """Something is away, or slow, for a while."""

    kind: Literal["failure", "maintenance", "slow"] = "failure"
    """failure: at once, with all that is there; maintenance: engines finish what they have, and take nothing new; slow:
    steps that begin take longer, transfers go on at the speed that is left."""
    at_s: Seconds = Field(alias="at")
    lasts_s: Seconds = Field(alias="lasts", gt=0.0)
    """Until requests are taken again, or the speed is back: repair, restart and loading included."""


class RandomFailures(Incident):
    """Every one of them fails, or slows down, on its own, after exponential times."""

    kind: Literal["failure", "slow"] = "failure"
    mtbf_s: Seconds = Field(alias="mtbf", gt=0.0)
    """Mean time between the end of a repair and the next failure, of one of them."""
    repair_s: Seconds = Field(alias="repair", gt=0.0)
    """Mean time until requests are taken again, or the speed is back (exponential)."""


class Availability(Description):
    """What goes wrong, and what becomes of the requests that were there."""

    outages: tuple[Outage, ...] = ()
    failures: tuple[RandomFailures, ...] = ()
    detection_s: Seconds = Field(default=1.0, alias="detection")
    """From a failure until the requests that were lost are sent again, from their prompt."""
    max_retries: NonNegativeInt = 3
    """Of one pass of a request; then it has failed."""
