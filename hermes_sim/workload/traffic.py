"""The `traffic` block of a workload file: a recorded trace, drawn arrivals and lengths, or a closed loop of users."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from hermes_sim.core.schema import (
    Description,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seconds,
    one_of,
)
from hermes_sim.workload.adapters import Adapters
from hermes_sim.workload.arrivals import PROCESSES, Arrivals
from hermes_sim.workload.clients import Clients
from hermes_sim.workload.images import Images
from hermes_sim.workload.lengths import LENGTHS, Lengths
from hermes_sim.workload.readers import TRACE_FORMATS, Trace
from hermes_sim.workload.replay import Replay
from hermes_sim.workload.sessions import Sessions
from hermes_sim.workload.sound import Sound

ARRIVALS: dict[str, type[Arrivals]] = {**PROCESSES, "replay": Replay}


class ClosedLoopUsers(Description):
    """A fixed number of users; each waits for its answer, thinks, and sends the next request."""

    concurrency: PositiveInt
    """Users: the most requests in flight."""
    think_time_s: Annotated[Seconds, Field(ge=0.0)] = Field(default=0.0, alias="think_time")
    """Mean pause between an answer and the same user's next request."""
    think_time_cv: Annotated[NonNegativeFloat, Field(le=10.0)] = 0.0
    """Standard deviation / mean of the pauses (gamma): 0 all alike, 1 exponential."""
    ramp_up_s: Annotated[Seconds, Field(ge=0.0)] = Field(default=0.0, alias="ramp_up")
    """The users' first requests are spread evenly over this time; 0: all at once."""


class SharedPrefix(Description):
    """System prompts that requests share: so many tokens in front of what `lengths` says."""

    share: Fraction = 1.0
    """Of the requests that have one."""
    groups: PositiveInt = 1
    """Different system prompts, equally likely."""
    tokens: PositiveInt


class Traffic(Description):
    """What arrives. Either `trace`, or `lengths` with `arrivals` or with `closed_loop`."""

    trace: Annotated[Trace, one_of(TRACE_FORMATS, "trace format", key="format")] | None = None
    arrivals: Annotated[Arrivals, one_of(ARRIVALS, "law of arrivals")] | None = None
    closed_loop: ClosedLoopUsers | None = None
    lengths: Annotated[Lengths, one_of(LENGTHS, "law of lengths")] | None = None
    num_requests: NonNegativeInt | None = None
    duration_s: Annotated[Seconds, Field(ge=0.0)] | None = Field(default=None, alias="duration")
    """No request (no session) arrives later. With num_requests too: whichever ends first."""
    sessions: Sessions | None = None
    """Each arrival starts a session of several turns; num_requests counts turns."""
    prefix: SharedPrefix | None = None
    images: Images | None = None
    sound: Sound | None = None
    clients: Clients | None = None
    """Who sends the requests, for queue_order: fair_share; takes the place of the clients that a trace names."""
    adapters: Adapters | None = None
    """Low-rank adapters that the requests name, for engines with `lora`; in place of those that a trace names."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        drawn = [name for name in _DRAWN if getattr(self, name) is not None]
        if self.trace is not None:
            if drawn:
                raise ValueError(f"trace holds arrivals and lengths already: remove {' and '.join(drawn)}, or trace")
            return self
        if (self.arrivals is None) == (self.closed_loop is None):
            raise ValueError("needs one of trace, arrivals and closed_loop")
        if self.lengths is None:
            raise ValueError(f"{'arrivals' if self.arrivals is not None else 'closed_loop'} needs lengths")
        if self.closed_loop is not None:
            self._check_closed_loop()
        elif self.num_requests is None and self.duration_s is None and not isinstance(self.arrivals, Replay):
            raise ValueError("arrivals needs num_requests or duration, or the run would never end")
        return self

    def _check_closed_loop(self) -> None:
        if self.num_requests is None:
            raise ValueError("closed_loop needs num_requests, or the run would never end")
        for name in ("duration", "sessions"):
            if getattr(self, "duration_s" if name == "duration" else name) is not None:
                raise ValueError(f"closed_loop has no {name}: its requests follow one another")

    def describe(self) -> str:
        """'2,000 requests, Poisson 4/s, lengths of azure2023_conv', for people."""
        if self.trace is not None:
            return self.trace.describe()
        parts = []
        if self.num_requests is not None:
            parts.append(f"{self.num_requests:,} request{'' if self.num_requests == 1 else 's'}")
        if self.duration_s is not None:
            parts.append(f"{self.duration_s:g} s")
        if self.closed_loop is not None:
            parts.append(f"closed loop of {self.closed_loop.concurrency:,} users")
        if self.arrivals is not None:
            parts.append(self.arrivals.describe())
        if self.lengths is not None:
            parts.append(self.lengths.describe())
        return ", ".join(parts)


_DRAWN = ("arrivals", "closed_loop", "lengths", "num_requests", "duration_s", "sessions", "prefix", "images", "sound")
