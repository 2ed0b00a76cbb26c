"""Sound in requests: a clip of some seconds, which an encoder (`kind: encode`) turns into tokens of the prompt."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Fraction, NonNegativeFloat, Seconds
from hermes_sim.workload.requests import FloatArray, RequestTable


class Sound(Description):
    """One clip a request, of lognormal length."""

    share: Fraction = 1.0
    """Of the requests that bring one."""
    mean_s: Seconds = Field(alias="mean", gt=0.0)
    """Length, without the cut."""
    cv: NonNegativeFloat = 1.0
    """Standard deviation over mean; 0: all alike."""
    max_s: Seconds | None = Field(default=None, alias="max", gt=0.0)

    @model_validator(mode="after")
    def _mean_is_possible(self) -> Self:
        if self.max_s is not None and self.max_s < self.mean_s:
            raise ValueError("max is less than mean")
        return self

    def seconds(self, rng: np.random.Generator, num_requests: int) -> FloatArray:
        """[num_requests], 0 without a clip; two draws a request, by inversion."""
        from scipy.special import ndtri

        for_share, for_length = rng.random((num_requests, 2)).T
        variance = log(1.0 + self.cv * self.cv)
        seconds = np.exp(log(self.mean_s) - variance / 2.0 + sqrt(variance) * ndtri(for_length))
        seconds = np.minimum(seconds, np.inf if self.max_s is None else self.max_s)
        return np.where(for_share < self.share, seconds, 0.0)


def with_sound(table: RequestTable, sound: Sound, rng: np.random.Generator) -> RequestTable:
    """What is said becomes tokens where a stage encodes it."""
    return replace(table, sound_s=sound.seconds(rng, table.num_requests))
