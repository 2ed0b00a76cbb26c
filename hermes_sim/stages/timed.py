"""Work whose time is measured elsewhere: guards, tools, pre- and post-processing."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from hermes_sim.core.rng import stream
from hermes_sim.core.schema import NonNegativeInt, one_of
from hermes_sim.stages.service_time import SERVICE_TIMES, ServiceTime
from hermes_sim.stages.stage import FloatArray, Stage


class Timed(Stage):
    """Occupies a worker of its engine for a time drawn for each request; no work is counted.

    A batch lasts as long as its longest job (`max_batch_size: 1` keeps jobs apart).
    """

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "jobs"

    kind: Literal["timed"] = "timed"
    service_time: Annotated[ServiceTime, one_of(SERVICE_TIMES, "service time kind")]
    num_result_tokens: NonNegativeInt = 0
    """What it adds to the context of later passes: the result of a tool."""

    def added_prompt_tokens(self) -> int:
        return self.num_result_tokens

    def service_times_s(self, num_requests: int, seed: int, round: int = 0) -> FloatArray:
        """One draw a request and round: row i of a seed is the same whatever the number of requests."""
        uniforms = stream(seed, f"stage/{self.name}", round).random(num_requests)
        return self.service_time.quantiles_s(uniforms)
