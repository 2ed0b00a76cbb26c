"""A comparison as a person reads it: 80 columns, arrows and words instead of colour."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from hermes_sim.analysis import human
from hermes_sim.analysis.scenario_diff import Change

if TYPE_CHECKING:
    from hermes_sim.analysis.comparison import ComparedMetric, ComparedRun

WIDTH: Final = 80
NAME_WIDTH: Final = 15
VALUE_WIDTH: Final = 9
LEAST_FACTOR: Final = 2.0
"""From here on a change is told as a factor, not in percent."""
LATENCY_NAMES: Final = {"ttft": "TTFT", "ttfat": "TTFAT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
NAMES: Final = {
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "out. tokens/s",
    "goodput_per_s": "goodput /s",
    "slo_met_frac": "within the SLO",
    "energy_per_output_token_j": "J/output token",
    "cost_per_million_output_tokens_usd": "$/M tokens",
}
MARKS: Final = {"same": "= same", "within chance": "~ chance", "unknown": ""}
PAIRED: Final = {
    "requests": "paired by request",
    "seeds": "paired by seed",
    "unpaired seeds": "means over seeds, unpaired",
    "unpaired": "unpaired",
}
RUNS_IN_TABLE: Final = 2
LEGEND: Final = (
    "▲ more, ▼ less: beyond chance, 5% for the whole table (Holm); ? by itself only",
    "~ within chance; * a guess: the run is short for how slowly this swings",
    "no mark: one run cannot tell, runs with --replications can",
)


def comparison_text(runs: Sequence[ComparedRun]) -> str:
    """Runs, what was changed, the metrics, and what may be said of them."""
    base, *others = runs
    lines = [*_runs(runs), ""]
    for run in others:
        lines += [*_changed(base, run), ""]
    if len(others) == 1:
        lines += _wide(others[0])
    else:
        for start in range(0, len(others), RUNS_IN_TABLE):
            lines += [*_side_by_side(others[start : start + RUNS_IN_TABLE]), ""]
        lines.pop()
    lines += ["", *_verdict(runs)]
    return "\n".join(line.rstrip() for line in lines)


def _runs(runs: Sequence[ComparedRun]) -> Iterator[str]:
    for index, run in enumerate(runs):
        seeds = f"seed {run.seeds[0]}" if len(run.seeds) == 1 else f"seeds {run.seeds[0]} to {run.seeds[-1]}"
        words = f"{run.setting['cluster']} · {run.setting['workload']} · {seeds}"
        yield from _wrapped(f"{run.letter}  {run.name}: {words}{' (base)' if index == 0 else ''}", 3)


def _changed(base: ComparedRun, run: ComparedRun) -> Iterator[str]:
    if not run.changes:
        yield f"{run.letter} is the scenario of {base.letter}" + (
            "" if run.seeds == base.seeds else ", with another seed"
        )
        return
    yield f"changed in {run.letter}"
    for change in run.changes:
        yield from _change(change)


def _change(change: Change) -> Iterator[str]:
    """`key  old -> new`, the values below a key that is too long."""
    values = f"{change.old} -> {change.new}" if change.new else change.old
    if len(change.key) + len(values) + 4 <= WIDTH:
        yield f"  {change.key}  {values}"
        return
    yield from _wrapped(f"  {change.key}", 4)
    yield from textwrap.wrap(values, WIDTH, initial_indent="      ", subsequent_indent="      ")


def _wide(run: ComparedRun) -> Iterator[str]:
    """One run beside the base: values, change, and its interval."""
    yield f"{'':<{NAME_WIDTH}}{'A':>{VALUE_WIDTH}}{run.letter:>{VALUE_WIDTH + 2}}{'change':>10}{'95% interval':>22}"
    for one, name in _labelled(run.metrics):
        change, interval = _changes(one)
        yield (
            f"{name:<{NAME_WIDTH}}{_value(one, one.found.first):>{VALUE_WIDTH}}"
            f"{_value(one, one.found.second):>{VALUE_WIDTH + 2}}{change:>10}{interval:>22}  {_mark(one)}"
        )


def _side_by_side(runs: Sequence[ComparedRun]) -> Iterator[str]:
    """Two runs beside the base, without intervals."""
    shown = [list(_labelled(run.metrics)) for run in runs]
    titles = "".join(f"{run.letter:>{VALUE_WIDTH}}{'change':>9}{'':>10}" for run in runs)
    yield f"{'':<{NAME_WIDTH}}{'A':>{VALUE_WIDTH}}{titles}"
    names = {one.found.name: (one, label) for metrics in reversed(shown) for one, label in metrics}
    of_run = [{one.found.name: one for one, _ in metrics} for metrics in shown]
    for name, (any_one, label) in names.items():
        cells = "".join(_cell(metrics.get(name)) for metrics in of_run)
        yield f"{label:<{NAME_WIDTH}}{_value(any_one, any_one.found.first):>{VALUE_WIDTH}}{cells}"


def _cell(one: ComparedMetric | None) -> str:
    if one is None:
        return f"{human.NOTHING:>{VALUE_WIDTH}}{'':>19}"
    return f"{_value(one, one.found.second):>{VALUE_WIDTH}}{_changes(one)[0]:>9} {_mark(one):<9}"


def _labelled(metrics: Sequence[ComparedMetric]) -> Iterator[tuple[ComparedMetric, str]]:
    """`TTFT mean`, then `     p50` below it."""
    former = ""
    for one in metrics:
        latency, _, statistic = one.found.name.removesuffix("_s").partition("_")
        if latency not in LATENCY_NAMES:
            yield one, NAMES[one.found.name]
            continue
        yield one, f"{LATENCY_NAMES[latency] if latency != former else '':<6}{statistic}"
        former = latency


def _value(one: ComparedMetric, value: float) -> str:
    name = one.found.name
    if name.endswith("_s") and not name.endswith("per_s"):
        return human.in_unit(value, human.time_unit([value]))
    return human.percent(value) if name.endswith("_frac") else human.digits(value)


def _changes(one: ComparedMetric) -> tuple[str, str]:
    """(change, its interval): shares of the base; of a share, points of a hundred; where large, factors."""
    difference = one.found.difference
    values = [difference.mean]
    if math.isfinite(difference.half_width_95) and one.verdict != "same":
        values += [difference.mean - difference.half_width_95, difference.mean + difference.half_width_95]
    if one.found.name.endswith("_frac"):
        shown, unit = [_signed(value) for value in values], " pp"
    elif not one.found.base or math.isnan(difference.mean):
        return human.NOTHING, ""
    else:
        factors = [1.0 + value / abs(one.found.base) for value in values]
        are_large = factors[0] >= LEAST_FACTOR and min(factors) > 0.0
        shown = [f"x{human.digits(factor)}" if are_large else _signed(factor - 1.0) for factor in factors]
        unit = "" if are_large else "%"
    change = f"{shown[0]}{unit}"
    return change, f"{shown[1]} to {shown[2]}{unit}" if len(shown) > 1 else ""


def _signed(share: float) -> str:
    """In hundredths: +0.35, +3.5, +35, +3,500."""
    if share == 0.0:
        return "0"
    size = abs(share)
    return f"{share * 100:+,.{2 if size < 0.01 else 1 if size < 0.1 else 0}f}"


def _mark(one: ComparedMetric) -> str:
    if one.verdict in MARKS:
        mark = MARKS[one.verdict]
    else:
        arrow = "▲" if one.found.difference.mean > 0.0 else "▼"
        mark = f"{arrow} {one.verdict.removeprefix('perhaps ')}{'?' if one.verdict.startswith('perhaps') else ''}"
    return f"{mark}*" if mark and one.found.difference.is_correlated else mark


def _verdict(runs: Sequence[ComparedRun]) -> Iterator[str]:
    """How the runs were held against each other, and what stands against it."""
    base, *others = runs
    if others and all(one.verdict == "same" for run in others for one in run.metrics):
        yield f"{' and '.join(run.letter for run in runs)} are the same"
        return
    for run in others:
        verdicts = [one.verdict for one in run.metrics]
        if verdicts and set(verdicts) == {"same"}:
            yield f"{run.letter} is the same as {base.letter}"
            continue
        paired = _paired(base, run)
        tested = [one for one in verdicts if one != "unknown"]
        counts = " and ".join(f"{tested.count(word)} {word}" for word in ("better", "worse") if word in tested)
        yield from _wrapped(
            f"{run.letter} against {base.letter}, {paired}: {counts or 'nothing better or worse'} "
            f"of {len(tested)} metrics that can be judged",
            2,
        )
    for run in runs:
        for doubt in run.doubts:
            yield from _wrapped(f"warning    {run.letter}: {doubt}", 11)
    yield from LEGEND


def _paired(base: ComparedRun, run: ComparedRun) -> str:
    paired = PAIRED[run.pairing or "unpaired"]
    if run.pairing == "seeds":
        return f"{paired} ({run.num_pairs} in both)"
    if run.pairing == "requests":
        pairs, measured = human.count(run.num_pairs), human.count(run.num_measured)
        finished = f"all {pairs}" if run.num_pairs == run.num_measured else f"{pairs} of {measured}, finished in both"
        return f"{paired} ({finished})"
    if run.pairing == "unpaired":
        return f"{paired}, other {'seeds' if run.setting['seed'] != base.setting['seed'] else 'traffic'}"
    return paired


def _wrapped(text: str, hanging: int) -> list[str]:
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(text.strip(), WIDTH, initial_indent=indent, subsequent_indent=" " * hanging)
