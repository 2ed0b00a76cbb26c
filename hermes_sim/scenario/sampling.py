"""Which points of the axes are run: all combinations, or so many drawn ones."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Name, NonNegativeInt, PositiveInt

MOST_POINTS: Final = 1_000_000


class Sampling(Description):
    """grid: every combination. zip: first values together, second values together, and so on. random, sobol: `num`
    points drawn over the ranges, spread evenly by sobol, at every combination of the axes that are not drawn."""

    kind: Literal["grid", "random", "sobol", "zip"] = "grid"
    num: PositiveInt | None = Field(default=None, le=MOST_POINTS)
    """Points that are drawn; for random and sobol. Sobol points are spread best for powers of two."""
    seed: NonNegativeInt = 1
    """Of the draws, not of the runs: equal seeds give equal points."""
    axes: tuple[Name, ...] = ()
    """Axes that are drawn; those with a range if not given, or all where none has one. Of listed values each is as
    likely."""

    @property
    def draws(self) -> bool:
        """Whether any axis is drawn."""
        return self.kind in ("random", "sobol")

    @model_validator(mode="after")
    def _own_keys(self) -> Sampling:
        if self.draws and self.num is None:
            raise ValueError(f"{self.kind} sampling needs num, how many points are drawn")
        if not self.draws and (self.num is not None or self.axes):
            raise ValueError(f"num and axes are for random and sobol sampling, not for {self.kind}")
        return self
