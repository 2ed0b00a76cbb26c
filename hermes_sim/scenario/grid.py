"""Carbon intensity of a cluster's electricity over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hermes_sim.core.schema import Description, GramsPerKwh

FloatArray = npt.NDArray[np.float64]

HOUR_S: Final = 3600.0
HOURS_PER_DAY: Final = 24
DAY_S: Final = HOUR_S * HOURS_PER_DAY


class CarbonByHour(Description):
    """Carbon intensity of each hour of a day; days are alike."""

    hours: tuple[GramsPerKwh, ...] = Field(min_length=HOURS_PER_DAY, max_length=HOURS_PER_DAY)
    """From midnight."""
    start_hour: float = Field(default=0.0, ge=0.0, lt=HOURS_PER_DAY)
    """Time of day at which the run begins."""


@dataclass(frozen=True, slots=True)
class GridIntensity:
    """Grams of CO2 equivalent per kWh, as a function of the run's time."""

    constant_g_per_kwh: float
    by_hour: CarbonByHour | None = None

    @property
    def is_constant(self) -> bool:
        return self.by_hour is None

    def mean_g_per_kwh(self, start_s: FloatArray, end_s: FloatArray) -> FloatArray:
        """Mean over each span of time; the value at that moment where a span is empty. Arrays of one shape."""
        start_s, end_s = np.asarray(start_s, np.float64), np.asarray(end_s, np.float64)
        if self.by_hour is None:
            return np.full(start_s.shape, self.constant_g_per_kwh)
        hours = np.array(self.by_hour.hours)
        sums = np.concatenate(([0.0], np.cumsum(hours))) * HOUR_S  # g s / kWh from midnight
        offset_s = self.by_hour.start_hour * HOUR_S

        def integral(time_s: FloatArray) -> FloatArray:
            days, of_day_s = np.divmod(time_s + offset_s, DAY_S)
            return np.asarray(days * sums[-1] + np.interp(of_day_s, np.arange(HOURS_PER_DAY + 1) * HOUR_S, sums))

        span_s = end_s - start_s
        now = hours[(((start_s + offset_s) % DAY_S) // HOUR_S).astype(np.int64)]
        spread = np.divide(integral(end_s) - integral(start_s), span_s, out=now.copy(), where=span_s > 0.0)
        return np.asarray(spread)
