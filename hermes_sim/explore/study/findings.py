"""The findings of a study as sentences: names and numbers are those of its runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis.human import digits
from hermes_sim.explore.study.points import Points, points_of
from hermes_sim.explore.words import counted, factor_words, joined, metric_named, point_words, value_words
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_finding import Best, Crossover, Finding, Rank, Ratio, Trend
from hermes_sim.scenario.sweep import TIER

NOTHING_FOUND: Final = "no points to compare"
SAME_FRAC: Final = 0.005
"""Values nearer than that are called equal: the third digit is not shown."""


def study_findings(study: StudyFile, runs: pd.DataFrame) -> list[str]:
    """A paragraph for each finding of the study, in its order."""
    return [
        " ".join([sentence, *([finding.note.strip()] if finding.note else [])])
        for finding in study.findings
        for sentence in [finding_sentence(study, finding, runs)]
    ]


def finding_sentence(study: StudyFile, finding: Finding, runs: pd.DataFrame) -> str:
    """One finding in words; says so where there is nothing to compare."""
    points = points_of(study, runs, finding.table, tiers=_names_tier(finding)).at(finding.where)
    by = getattr(finding, "by", "")
    if by in points.frame:
        points = Points(points.frame[points.frame[by].notna()], points.axes)
    if by not in points.frame or (points.frame.empty and not isinstance(finding, Rank)):
        return _sentence(finding, NOTHING_FOUND)
    return _FORMS[type(finding)](study, finding, points)


def _names_tier(finding: Finding) -> bool:
    axes: list[str] = [*finding.where, *getattr(finding, "per", ())]
    if isinstance(finding, Best | Rank):
        axes.append(finding.of)
    if isinstance(finding, Rank):
        axes.append(finding.per)
    if isinstance(finding, Ratio | Crossover):
        axes += [*finding.of, *finding.to]
    if isinstance(finding, Crossover | Trend):
        axes.append(finding.x)
    return TIER in axes


def _sentence(finding: Any, text: str) -> str:
    """With the part of the grid that it is about, and a full stop."""
    where = "; ".join(f"{axis.replace('_', ' ')} {joined(names)}" for axis, names in finding.where.items())
    among = f" ({where})" if where else ""
    return f"{metric_named(finding.by).label}{among}: {text}."


def _best(study: StudyFile, finding: Best, points: Points) -> str:
    parts = [f"{_at(group)}{_best_words(finding, members)}" for group, members in _groups(points, finding.per)]
    return _sentence(finding, "; ".join(parts))


def _best_words(finding: Best, points: Points) -> str:
    """Of one point per value: the best and the next. Of several cases: how often each is best."""
    of, by = finding.of, finding.by
    cases = [
        frame.sort_values(by, ascending=metric_named(by).better == "lower", kind="stable")
        for frame in _cases(points, of)
    ]
    extreme = "lowest" if metric_named(by).better == "lower" else "highest"
    if not cases:
        return NOTHING_FOUND
    if len(cases) == 1:
        (frame,) = cases
        first = frame.iloc[0]
        text = f"{extreme} with {point_words({of: first[of]})} ({value_words(by, first[by])})"
        if len(frame) > 1:
            second = frame.iloc[1]
            lead = _lead(by, first[by], second[by])
            text += f", {lead} {second[of]} ({value_words(by, second[by])})"
        if len(frame) > 2:
            last = frame.iloc[-1]
            text += f" and {factor_words(_factor(by, first[by], last[by]))} ahead of the last, {last[of]}"
        return text
    wins = Counter(str(frame.iloc[0][of]) for frame in cases)
    leads = [_factor(by, frame.iloc[0][by], frame.iloc[1][by]) for frame in cases if len(frame) > 1]
    counts = ", ".join(f"{name} in {number}" for name, number in wins.most_common())
    text = f"{extreme} of {counted(len(cases), 'case')} by {of.replace('_', ' ')}: {counts}"
    return text + (f"; ahead of the next by {factor_words(float(np.median(leads)))} in the median" if leads else "")


def _lead(by: str, first: float, second: float) -> str:
    factor = _factor(by, first, second)
    if not math.isfinite(factor) or factor < 1 + SAME_FRAC:
        return "level with"
    return f"{factor_words(factor)} ahead of"


def _factor(by: str, better: float, worse: float) -> float:
    """By how much the better value is better; at least 1."""
    low, high = sorted((float(better), float(worse)))
    return high / low if low > 0 else math.inf if high > 0 else 1.0


def _ratio(study: StudyFile, finding: Ratio, points: Points) -> str:
    rest = [axis for axis in points.axes if axis not in finding.of]
    ours, theirs = (
        _one_by_rest(points, {axis: (value,) for axis, value in point.items()}, rest, finding.by)
        for point in (finding.of, finding.to)
    )
    ratios = (ours / theirs).replace([math.inf, -math.inf], math.nan).dropna()
    if ratios.empty:
        return _sentence(finding, NOTHING_FOUND)
    median = factor_words(float(ratios.median()))
    text = f"with {point_words(finding.of)} {median} that with {point_words(finding.to)}"
    if len(ratios) > 1:
        text += f" (median of {len(ratios)} pairs, {digits(ratios.min())} to {factor_words(float(ratios.max()))})"
    else:
        (key,) = ratios.index
        text += f" ({value_words(finding.by, ours[key])} and {value_words(finding.by, theirs[key])})"
    return _sentence(finding, text)


def _one_by_rest(points: Points, at: dict[str, tuple[str, ...]], rest: list[str], by: str) -> pd.Series:
    frame = points.at(at).frame
    keys = [frame[axis].astype("str") for axis in rest] or [pd.Series("", index=frame.index)]
    return frame[by].groupby(keys).mean()


def _crossover(study: StudyFile, finding: Crossover, points: Points) -> str:
    numbers = _numbers(study, finding.x)
    of, to = point_words(finding.of), point_words(finding.to)
    parts = []
    for group, members in _groups(points, finding.per):
        ours, theirs = (
            _along(members.at({axis: (value,) for axis, value in point.items()}), finding.x, finding.by)
            for point in (finding.of, finding.to)
        )
        shared = [name for name in ours.index if name in theirs.index]
        xs = np.array([numbers[name] for name in shared])
        order = np.argsort(xs, kind="stable")
        gains = np.array([_gain(finding.by, ours[name], theirs[name]) for name in shared])[order]
        parts.append(f"{_at(group)}{_crossing_words(finding.x, of, to, xs[order], gains)}")
    return _sentence(finding, "; ".join(parts))


def _gain(by: str, ours: float, theirs: float) -> float:
    """Logarithm of how much better ours is; below 0 where it is worse."""
    if not (ours > 0 and theirs > 0):
        return math.nan
    return math.log(theirs / ours if metric_named(by).better == "lower" else ours / theirs)


def _crossing_words(x: str, of: str, to: str, xs: Any, gains: Any) -> str:
    known = np.isfinite(gains)
    xs, gains = xs[known], gains[known]
    axis = x.replace("_", " ")
    if len(xs) < 2:
        return NOTHING_FOUND
    span = f"from {digits(xs[0])} to {digits(xs[-1])} {axis}"
    crossings = [
        (f"{of} overtakes {to} at {axis} {digits(crossing(x0, x1, g0, g1))}" if g1 > g0 else
         f"{of} falls behind {to} at {axis} {digits(crossing(x0, x1, g0, g1))}")
        for (x0, g0), (x1, g1) in pairwise(zip(xs, gains, strict=True))
        if (g0 > 0) != (g1 > 0)
    ]  # fmt: skip
    if crossings:
        return f"{', then '.join(crossings)} (looked at {span})"
    best = int(np.argmax(np.abs(gains)))
    factor = factor_words(math.exp(abs(gains[best])))
    ahead, behind = (of, to) if gains[best] > 0 else (to, of)
    return f"{ahead} is ahead of {behind} {span}, by up to {factor} at {digits(xs[best])}"


def crossing(x0: float, x1: float, gain0: float, gain1: float) -> float:
    """Where a gain that is linear in x (in its logarithm, where both are positive) passes 0 between two points."""
    share = gain0 / (gain0 - gain1)
    if x0 > 0 and x1 > 0:
        return float(x0 * (x1 / x0) ** share)
    return float(x0 + share * (x1 - x0))


def _trend(study: StudyFile, finding: Trend, points: Points) -> str:
    numbers = _numbers(study, finding.x)
    parts = []
    for group, members in _groups(points, finding.per):
        values = _along(members, finding.x, finding.by)
        parts.append(f"{_at(group)}{_trend_words(finding, values, numbers)}")
    return _sentence(finding, "; ".join(parts))


def _trend_words(finding: Trend, values: pd.Series, numbers: dict[str, float]) -> str:
    values = values.dropna()
    if len(values) < 2:
        return NOTHING_FOUND
    by, axis = finding.by, finding.x.replace("_", " ")
    first, last = float(values.iloc[0]), float(values.iloc[-1])
    text = f"{value_words(by, first)} at {axis} {values.index[0]}, {value_words(by, last)} at {values.index[-1]}"
    if first > 0 and last > 0:
        text += f" ({factor_words(last / first)}"
        xs = [numbers.get(str(name), math.nan) for name in values.index]
        if all(number > 0 for number in xs) and (values > 0).all() and len(xs) > 2:
            power = np.polyfit(np.log(xs), np.log(values.to_numpy(dtype="float64")), 1)[0]
            text += f"; as {axis} to the power {power:.2f}"
        text += ")"
    differences = np.diff(values.to_numpy(dtype="float64"))
    if len(values) > 2 and (differences > 0).any() and (differences < 0).any():
        low, high = str(values.idxmin()), str(values.idxmax())
        text += f", not steadily: least at {low} ({value_words(by, values.min())}), "
        text += f"most at {high} ({value_words(by, values.max())})"
    return text


def _rank(study: StudyFile, finding: Rank, points: Points) -> str:
    parts: list[str] = []
    firsts: dict[str, str] = {}
    orders: set[tuple[str, ...]] = set()
    everything = [name for name in _axis_names(study, finding.of) if name in finding.where.get(finding.of, (name,))]
    for value in _axis_names(study, finding.per):
        if value not in finding.where.get(finding.per, (value,)):
            continue
        members = points.at({finding.per: (value,)})
        frame = pd.DataFrame({"value": _along(members, finding.of, finding.by)}).dropna()
        frame = frame.sort_values("value", ascending=metric_named(finding.by).better == "lower", kind="stable")
        names = [str(name) for name in frame.index]
        missing = [name for name in everything if name not in names]
        words = _ordered(finding.by, [(str(name), float(number)) for name, number in frame["value"].items()])
        if not names:
            words = "none keeps it" if finding.per == TIER else NOTHING_FOUND
        elif missing:
            words += f"; {'never kept by' if finding.per == TIER else 'no value for'} {', '.join(missing)}"
        parts.append(f"at {point_words({finding.per: value})} {words}")
        orders.add(tuple(names))
        if names:
            firsts[value] = names[0]
    closing = "the order is the same everywhere" if len(orders) == 1 else _first_words(finding.per, firsts)
    return _sentence(finding, "; ".join([*parts, closing] if len(parts) > 1 else parts))


def _ordered(by: str, values: Sequence[tuple[str, float]]) -> str:
    """`a (3.0) > b (2.0) = c (2.0)`."""
    words = ""
    for index, (name, value) in enumerate(values):
        if index:
            words += " = " if _factor(by, values[index - 1][1], value) < 1 + SAME_FRAC else " > "
        words += f"{name} ({value_words(by, value)})"
    return words


def _first_words(per: str, firsts: dict[str, str]) -> str:
    if len(set(firsts.values())) == 1:
        return f"the order changes with {per.replace('_', ' ')}, the first is always {next(iter(firsts.values()))}"
    return f"the first changes with {per.replace('_', ' ')}"


def _axis_names(study: StudyFile, axis: str) -> list[str]:
    """All values, also those that no point has."""
    if axis == TIER:
        return [tier.name for tier in study.tiers]
    return list(next(one.names for one in study.axes if one.name == axis))


def _at(group: dict[str, str]) -> str:
    return f"with {point_words(group)} " if group else ""


def _groups(points: Points, per: Sequence[str]) -> Iterator[tuple[dict[str, str], Points]]:
    """The points of each combination of the named axes."""
    if not per:
        yield {}, points
        return
    first, *rest = per
    for value in points.values(first):
        for group, members in _groups(points.at({first: (value,)}), rest):
            yield {first: value, **group}, members


def _cases(points: Points, of: str) -> Iterator[pd.DataFrame]:
    """For each combination of the other axes, the points with different values of this one."""
    others = [axis for axis in points.axes if axis != of]
    if not others:
        yield points.frame
        return
    for _, frame in points.frame.groupby(others, observed=True, sort=True):
        yield frame


def _along(points: Points, axis: str, metric: str) -> pd.Series:
    """Mean over all other axes for each value of one, in its order."""
    means: pd.Series = points.frame.groupby(axis, observed=True, sort=True)[metric].mean()
    means.index = means.index.astype("str")
    return means


def _numbers(study: StudyFile, name: str) -> dict[str, float]:
    axis = next((axis for axis in study.axes if axis.name == name), None)
    if axis is None or axis.numbers is None:
        return {}
    return dict(zip(axis.names, axis.numbers, strict=True))


_FORMS: Final[dict[type[Finding], Callable[[StudyFile, Any, Points], str]]] = {
    Best: _best,
    Ratio: _ratio,
    Crossover: _crossover,
    Trend: _trend,
    Rank: _rank,
}
