"""The highest rung that passes: galloping from a guess until it is enclosed, then regula falsi and bisection.

That a higher load is never easier holds in expectation, not of every pair of finite runs; where runs contradict it they
are reported. Source of the interpolation: M. Dowell, P. Jarratt, "A modified regula falsi method for computing the root
of an equation", BIT 11 (1971), the Illinois algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

HOPELESS_AFTER = 2
"""Rungs that fail, after which the lowest load is tried: if that fails too there is nothing to look for."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a load."""

    passed: bool
    excess: float = math.nan
    """Logarithm of the worst observed value over its bound; NaN where there is none."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The highest rung that passes and the lowest above it that fails."""

    low: int | None
    """None: not even the lowest passes."""
    high: int | None
    """None: the highest that may be tried passes."""
    tried: dict[int, Tried]

    @property
    def contradictions(self) -> list[tuple[int, int]]:
        """(rung that failed, higher rung that passed)."""
        failed = [rung for rung, one in self.tried.items() if not one.passed]
        passed = [rung for rung, one in self.tried.items() if one.passed]
        return sorted((low, high) for low in failed for high in passed if low < high)


def find_limit(attempt: Callable[[int], Tried], *, start: int, step: int, least: int, most: int | None) -> Limit:
    """attempt(rung): asked once of each rung. start: the guess; step: how far from it the first other one is, which
    doubles. least, most: lowest and highest rung that may be tried."""
    tried: dict[int, Tried] = {}

    def at(rung: int) -> bool:
        if rung not in tried:
            tried[rung] = attempt(rung)
        return tried[rung].passed

    start = max(least, start if most is None else min(start, most))
    low, high = _up(at, start, step, most) if at(start) else _down(at, start, step, least)
    if low is not None and high is not None:
        low, high = _between(at, tried, low, high)
    return Limit(low, high, tried)


def _up(at: Callable[[int], bool], low: int, step: int, most: int | None) -> tuple[int, int | None]:
    while most is None or low < most:
        rung = low + step if most is None else min(low + step, most)
        if not at(rung):
            return low, rung
        low, step = rung, 2 * step
    return low, None


def _down(at: Callable[[int], bool], high: int, step: int, least: int) -> tuple[int | None, int]:
    num_failed = 1
    while high > least:
        if num_failed == HOPELESS_AFTER and not at(least):
            return None, least
        rung = max(high - step, least)
        if at(rung):
            return rung, high
        high, step, num_failed = rung, 2 * step, num_failed + 1
    return None, high


def _between(at: Callable[[int], bool], tried: dict[int, Tried], low: int, high: int) -> tuple[int, int]:
    """The passing and the failing rung beside each other. A step that does not halve what is enclosed is followed by
    one that does."""
    low_excess, high_excess = tried[low].excess, tried[high].excess
    kept_low = kept_high = 0  # how often in a row each end has stayed
    halve = False
    while high - low > 1:
        width = high - low
        rung = (low + high) // 2 if halve else _chosen(low, high, low_excess, high_excess)
        if at(rung):
            low, low_excess, kept_low, kept_high = rung, tried[rung].excess, 0, kept_high + 1
            high_excess /= 2 if kept_high > 1 else 1
        else:
            high, high_excess, kept_low, kept_high = rung, tried[rung].excess, kept_low + 1, 0
            low_excess /= 2 if kept_low > 1 else 1
        halve = not halve and 2 * (high - low) > width + 1
    return low, high


def _chosen(low: int, high: int, low_excess: float, high_excess: float) -> int:
    """Where a straight line of the excess over the rungs passes 0; the middle where an end has no finite excess."""
    if not (math.isfinite(low_excess) and math.isfinite(high_excess) and low_excess < high_excess):
        return (low + high) // 2
    share = -low_excess / (high_excess - low_excess)
    return min(max(round(low + share * (high - low)), low + 1), high - 1)
