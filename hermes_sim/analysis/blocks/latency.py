"""Latencies with their objectives, how well they are known, and what was measured."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hermes_sim.analysis import human
from hermes_sim.analysis.blocks.layout import LATENCY_NAMES, WIDTH, Summary, labelled, table

COLUMNS: Final = ("mean", "p50", "p90", "p99")
NAME_WIDTH: Final = 9
COLUMN_WIDTH: Final = 10
SLO_GAP: Final = 2
INTERVAL_WIDTH: Final = 17
HALF_WIDTH_DIGITS: Final = 2
"""Significant digits: a half-width of few runs is not known better."""
CONFIDENT: Final = ("ttft", "ttfat", "tpot", "e2e")
CONFIDENCE: Final = "confidence (95%)"
UNSETTLED: Final = ("saturated", "no_steady_state")
"""Warnings behind which one run says nothing of another."""
REPLICATED: Final = {
    "requests_per_s": "{} requests/s",
    "output_tokens_per_s": "{} output tokens/s",
    "goodput_per_s": "goodput {} requests/s",
    "slo_met_frac": "share within the SLO {}",
    "energy_per_output_token_j": "{} J/output token",
    "cost_per_million_output_tokens_usd": "{} $/million output tokens",
}


def latency_rows(summary: Summary) -> list[list[str]]:
    """Header row, then one row per latency: name, mean, p50, p90, p99, its objectives; more of these below it."""
    rows = [["latency", *COLUMNS, "SLO"]]
    for values, objectives in _rows(summary):
        first, *others = [" ".join(objective) for objective in objectives] or [""]
        rows.append([*values, first])
        rows += [["", *("" for _ in COLUMNS), objective] for objective in others]
    return rows


def _rows(summary: Summary) -> Iterator[tuple[list[str], list[tuple[str, str]]]]:
    """(name and values, objectives) of each latency."""
    for name, shown in LATENCY_NAMES.items():
        if name not in summary["latency"]:
            continue
        values = [summary["latency"][name][f"{column}_s"] for column in COLUMNS]
        unit = human.time_unit(values)
        objectives = [_objective(line) for line in summary["slo"]["objectives"] if line["latency"] == name]
        yield [shown, *(human.in_unit(value, unit) for value in values)], objectives


def _objective(line: Mapping[str, Any]) -> tuple[str, str]:
    """(`p99 <= 2 s`, `missed by 16%`)."""
    multiple = line["limit_multiple"]
    limit = human.as_written(line["limit_s"]) if multiple is None else f"{multiple:g} x unloaded"
    asked = f"{line['statistic']} <= {limit}"
    if line["service_class"] is not None:
        asked = f"{line['service_class']}: {asked}"
    if line["met"] is None:
        return asked, "no such request"
    if multiple is not None and line["observed_multiple"] is not None:
        return asked, f"{'met' if line['met'] else 'missed'}: {line['observed_multiple']:.3g} x"
    if line["met"]:
        return asked, "met"
    if line["excess_frac"] is None:
        return asked, "missed by failed requests"
    if line["excess_frac"] >= 1:
        return asked, f"missed {human.digits(1 + line['excess_frac'])}-fold"
    return asked, f"missed by {human.percent(line['excess_frac'])}"


def latency_block(summary: Summary) -> Iterator[str]:
    """The table; objectives that are too long for its last column go on below themselves."""
    left_width = NAME_WIDTH + len(COLUMNS) * COLUMN_WIDTH + SLO_GAP
    head = "".join(f"{column:>{COLUMN_WIDTH}}" for column in COLUMNS)
    yield f"{'latency':<{NAME_WIDTH}}{head}{'':<{SLO_GAP}}SLO"
    for (name, *values), objectives in _rows(summary):
        left = f"{f'  {name}':<{NAME_WIDTH}}" + "".join(f"{value:>{COLUMN_WIDTH}}" for value in values)
        lines = [line for objective in objectives for line in _objective_lines(objective, WIDTH - left_width)]
        for index, line in enumerate(lines or [""]):
            yield f"{left if index == 0 else '':<{left_width}}{line}"


def _objective_lines(objective: tuple[str, str], width: int) -> list[str]:
    """On one line, or the verdict below what was asked."""
    whole = " ".join(objective)
    if len(whole) <= width:
        return [whole]
    asked, verdict = objective
    indented = textwrap.wrap(verdict, width, initial_indent="  ", subsequent_indent="  ")
    return [*textwrap.wrap(asked, width, subsequent_indent="  "), *indented]


def confidence_block(summary: Summary) -> Iterator[str]:
    """95% intervals from this run alone, as shares of what they are around; replications say more."""
    known = {name: one for name, one in summary["confidence"].items() if one["half_width_95"] is not None}
    if summary["replications"] is not None or not known:
        return
    if any(warning["kind"] in UNSETTLED for warning in summary["warnings"]):
        yield from labelled(CONFIDENCE, ["none: intervals from one run need a steady state"])
        return
    label, doubtful = CONFIDENCE, []
    for statistic in ("mean", "p99"):
        spans = []
        for latency in CONFIDENT:
            one, value = known.get(f"{latency}_{statistic}_s"), _latency_value(summary, latency, statistic)
            if one is None or not value:
                continue
            if one["is_correlated"]:
                doubtful.append(f"{LATENCY_NAMES[latency]} {statistic}")
            else:
                spans.append(f"{LATENCY_NAMES[latency]} {_span(one, value)}")
        rate, value = known.get("requests_per_s"), summary["throughput"]["requests_per_s"]
        if spans and statistic == "mean" and rate is not None and value and not rate["is_correlated"]:
            spans.append(f"requests/s {_span(rate, value)}")
        if spans:
            yield from labelled(label, [f"{statistic} {spans[0]}", *spans[1:]])
            label = ""
    if doubtful:
        yield from labelled(label, [f"not known of {', '.join(doubtful)}: they swing too slowly for so short a run"])


def _span(one: Mapping[str, Any], value: float) -> str:
    return f"±{human.digits(one['half_width_95'] / value * 100.0, HALF_WIDTH_DIGITS)}%"


def _latency_value(summary: Summary, latency: str, statistic: str) -> float | None:
    found: float | None = summary["latency"].get(latency, {}).get(f"{statistic}_s")
    return found


def measured_block(summary: Summary) -> Iterator[str]:
    """What `warm_up: auto` has cut, and why."""
    found = summary["run"]["warm_up"]
    if found is None or not found["is_steady"]:
        return
    num = human.count(summary["requests"]["num_measured"])
    if found["num_requests"] == 0:
        yield from labelled("measured", [f"{num} requests", "settled from the start: no warm-up to cut"])
        return
    cut = f"{human.count(found['num_requests'])} in {human.duration(found['time_s'])} ({found['decided_by']})"
    yield from labelled("measured", [f"{num} requests", f"warm-up cut: {cut}"])


def replications_block(summary: Summary) -> Iterator[str]:
    """Means over the seeds with their intervals."""
    replications = summary["replications"]
    if replications is None:
        return
    metrics = replications["metrics"]
    yield f"over {len(replications['seeds'])} seeds"
    rows = [
        (shown, [_interval_s(metrics[f"{latency}_{name}_s"]) for name in COLUMNS])
        for latency, shown in LATENCY_NAMES.items()
        if latency in summary["latency"]
    ]
    yield from table("", COLUMNS, rows, [INTERVAL_WIDTH] * len(COLUMNS))
    known = {name: words for name, words in REPLICATED.items() if metrics[name]["mean"] is not None}
    rates = [words.format(_interval(metrics[name], name.endswith("_frac"))) for name, words in known.items()]
    yield from labelled("  rates", rates)
    yield from labelled("", ["mean over the seeds ± half-width of its 95% interval"])


def _interval_s(interval: Mapping[str, float | None]) -> str:
    unit = human.time_unit([interval["mean"]])
    mean = human.in_unit(interval["mean"], unit).split(" ", maxsplit=1)[0]
    half_width = human.in_unit(interval["half_width_95"], unit, HALF_WIDTH_DIGITS)
    return f"{mean} ± {half_width}"


def _interval(interval: Mapping[str, float | None], is_share: bool) -> str:
    mean, half_width = interval["mean"], interval["half_width_95"]
    if is_share:
        return f"{human.percent(mean)} ± {human.percent(half_width)}"
    words = human.NOTHING if half_width is None else human.digits(half_width, HALF_WIDTH_DIGITS)
    return f"{human.digits(math.nan if mean is None else mean)} ± {words}"
