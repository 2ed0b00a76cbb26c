"""What a trace format is: a file, how to read it, and what may be done to the rows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.errors import TraceError
from hermes_sim.core.rng import stream
from hermes_sim.core.schema import Description, NonNegativeFloat, NonNegativeInt, PositiveFloat, Seconds
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.readers.rows import OnBadRow
from hermes_sim.workload.requests import RequestTable
from hermes_sim.workload.scaling import cut_window, first_requests, scale_rate, scale_time

Window = tuple[Annotated[Seconds, Field(ge=0.0)], Annotated[Seconds, Field(ge=0.0)]]


class Trace(Description):
    """A recorded trace. Applied in this order: window, rate_scale, time_scale, limit."""

    published: ClassVar[str]
    """Where files of this format come from, for the message that asks for one."""

    path: str | None = None
    """File of the trace, gzip or plain. May be left out of a file that others complete."""
    window_s: Window | None = Field(default=None, alias="window")
    """[from, to) in the trace's own time, which starts with its first request; becomes time 0."""
    rate_scale: NonNegativeFloat = 1.0
    """Multiplies the rate over the same span of time: requests are left out or copied at random."""
    time_scale: PositiveFloat = 1.0
    """Stretches time: 2 takes twice as long, at half the rate, with the same requests."""
    limit: NonNegativeInt | None = None
    """At most this many requests."""
    on_bad_row: OnBadRow = "error"
    """Malformed rows: stop at the first, or leave them out and count them."""
    pipeline: str | None = None
    """Pipeline all of these requests take; drawn by the pipelines' weights if not given."""

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window_s is not None and self.window_s[0] >= self.window_s[1]:
            raise ValueError("window must be [from, to] with from < to")
        return self

    @abstractmethod
    def read(self, path: Path, seed: int, num_rows: int | None) -> RequestTable:
        """All requests of the file, in order of arrival, times from the first one; or those of its first num_rows rows.

        Raises TraceError with file, line and reason. The seed is for what the file leaves to chance.
        """

    def requests(self, seed: int, resolve_path: ResolvePath) -> RequestTable:
        """The requests of the trace after window, rate_scale, time_scale and limit."""
        in_file_order = self.window_s is None and self.rate_scale == 1.0
        table = self.read(self.file(resolve_path), seed, self.limit if in_file_order else None)
        return self._scaled(table, seed, self.window_s, self.rate_scale)

    def file(self, resolve_path: ResolvePath) -> Path:
        """The file named by `path`. Raises TraceError where it names none."""
        if self.path is None:
            raise TraceError(
                f"traffic.trace.path is not set: name the trace with --set workload.traffic.trace.path=FILE. "
                f"{self.published}"
            )
        path = resolve_path(self.path)
        if not path.exists():
            raise TraceError(f"no trace file {str(path)!r} (traffic.trace.path). {self.published}")
        return path

    def scaled(self, factor: float) -> Self:
        """The same requests in less time, their pauses between turns too: so many times the rate."""
        return self.model_copy(update={"time_scale": self.time_scale / factor})

    def describe(self) -> str:
        """'azure trace AzureLLMInferenceTrace_conv.csv', for people."""
        name = Path(self.path).name if self.path is not None else "(no path)"
        return f"{getattr(self, 'format', '')} trace {name}"

    def _scaled(
        self, table: RequestTable, seed: int, window_s: tuple[float, float] | None, rate_scale: float
    ) -> RequestTable:
        if window_s is not None:
            table = cut_window(table, *window_s)
        table = scale_rate(table, rate_scale, stream(seed, "trace"))
        if self.time_scale != 1.0:
            table = scale_time(table, self.time_scale)
        if self.limit is not None and self.limit < table.num_requests:
            table = first_requests(table, self.limit)
        if table.num_bad_rows:
            left_out = f"{Path(self.path or '').name}: {table.num_bad_rows:,} malformed rows left out"
            table = replace(table, notes=(*table.notes, left_out))
        if self.pipeline is not None:
            table = replace(table, pipeline=np.zeros(table.num_requests, np.int64), pipeline_names=(self.pipeline,))
        return table
