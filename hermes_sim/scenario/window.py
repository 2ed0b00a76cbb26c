"""The measured part of a run: what is left after warm-up and cool-down are cut off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.scenario.measure import Margin, Measure

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MeasuredWindow:
    """Requests that arrived in [start_s, end_s) are measured; rates count what happened in it."""

    start_s: float
    end_s: float
    measured: BoolArray
    """[num_requests] in order of the requests table."""
    whole_run: bool
    """Nothing was cut."""

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def measured_window(
    arrival_s: FloatArray, duration_s: float, measure: Measure, num_warming_up: int = 0
) -> MeasuredWindow:
    """Warm-up: the first share of requests, or those arriving in its time from 0. Cool-down: likewise at the end.

    Without a cut the window is the whole run, [0, duration_s], draining included (as serving benchmarks count); a
    warm-up moves its start to the first measured arrival, a cool-down its end to the first arrival left out.
    The time of a cool-down is counted back from the last arrival. num_warming_up: what `warm_up: auto` has found, as
    long as that is not known nothing.
    """
    is_automatic = measure.warm_up.is_automatic
    cuts_start = num_warming_up > 0 if is_automatic else _cuts(measure.warm_up)
    order = np.argsort(arrival_s, kind="stable")
    ordered_s = arrival_s[order]
    num_arrived = int(np.isfinite(ordered_s).sum())
    first = num_warming_up if is_automatic else _num_warming_up(ordered_s[:num_arrived], measure.warm_up)
    last = max(first, num_arrived - _num_cooling_down(ordered_s[:num_arrived], measure.cool_down))
    measured = np.zeros(len(arrival_s), dtype=np.bool_)
    measured[order[first:last]] = True
    start_s = float(ordered_s[first]) if cuts_start and first < num_arrived else 0.0
    end_s = float(ordered_s[last]) if _cuts(measure.cool_down) and last < num_arrived else duration_s
    return MeasuredWindow(start_s, end_s, measured, whole_run=not (cuts_start or _cuts(measure.cool_down)))


def _cuts(margin: Margin) -> bool:
    return bool(margin.time_s or margin.requests_frac)


def _num_warming_up(ordered_s: FloatArray, margin: Margin) -> int:
    if margin.time_s is None:
        return int((margin.requests_frac or 0.0) * len(ordered_s))
    return int(np.searchsorted(ordered_s, margin.time_s, side="left"))


def _num_cooling_down(ordered_s: FloatArray, margin: Margin) -> int:
    if margin.time_s is None:
        return int((margin.requests_frac or 0.0) * len(ordered_s))
    if not margin.time_s or len(ordered_s) == 0:
        return 0
    return len(ordered_s) - int(np.searchsorted(ordered_s, ordered_s[-1] - margin.time_s, side="right"))
