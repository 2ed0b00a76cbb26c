"""The report of one run as a single HTML file: works from disk, without a network, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any, Final

from hermes_sim.analysis.glossary import define
from hermes_sim.analysis.human import NOTHING, count, digits, duration, percent, usd, with_prefix
from hermes_sim.analysis.metrics import RESOURCES
from hermes_sim.analysis.report import tables
from hermes_sim.analysis.report.chart import Chart
from hermes_sim.analysis.report.cluster_graph import cluster_svg
from hermes_sim.analysis.report.latency import latency_charts, stage_chart
from hermes_sim.analysis.report.over_time import busy_chart, timeline_charts
from hermes_sim.analysis.report.roofline import roofline_charts
from hermes_sim.analysis.report.slowest import slowest_chart
from hermes_sim.analysis.report.whole_page import whole_page

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

SECTIONS: Final = {
    "slo": "SLO",
    "latency": "Latency",
    "where": "Where time goes",
    "over-time": "Over time",
    "engines": "Engines",
    "cluster": "Cluster and links",
    "roofline": "Roofline",
    "slowest": "Slowest requests",
    "bills": "Energy, cost, carbon",
    "trust": "How far to trust it",
    "scenario": "Scenario",
}


def report_html(results: Results) -> str:
    """The whole page as text."""
    summary = results.summary
    setting = summary["scenario"]
    title = f"{setting['cluster']} · {setting['workload']}"
    links = "".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in SECTIONS.items())
    sections = "".join(
        f'<section id="{name}"><h2>{escape(SECTIONS[name])}</h2>{content}</section>'
        for name, content in _sections(results)
    )
    body = (
        f"<header><h1>{escape(title)}</h1><p>{escape(setting['hardware'])}</p>"
        f"<p>{escape(setting['traffic'])}, seed {setting['seed']} · {duration(summary['run']['duration_s'])} "
        f"simulated · hermes-sim {escape(summary['run']['version'])}</p></header>"
        f"{_headlines(summary)}{_findings(summary)}<nav>{links}</nav><main>{sections}</main>"
    )
    return whole_page(title, body)


def _sections(results: Results) -> Iterator[tuple[str, str]]:
    summary = results.summary
    yield "slo", tables.objectives(summary)
    yield "latency", _grid(latency_charts(results))
    yield "where", _ttft_parts(summary) + _one(stage_chart(results))
    yield "over-time", _grid(timeline_charts(results), "two")
    yield "engines", _one(busy_chart(results)) + tables.engines(summary)
    yield "cluster", cluster_svg(results) + tables.links(summary)
    yield "roofline", _grid(roofline_charts(results))
    yield "slowest", _one(slowest_chart(results))
    yield "bills", tables.bills(summary)
    yield "trust", tables.trust(summary)
    words = "Everything needed to run it again"
    yield "scenario", f"<details><summary>{words}</summary><pre>{escape(results.scenario_yaml)}</pre></details>"


def _headlines(summary: dict[str, Any]) -> str:
    """The numbers that people ask for first, each with its definition."""
    latency, throughput, bills = summary["latency"], summary["throughput"], summary["energy_and_cost"]
    tiles = [
        (name, duration(latency[name]["p50_s"]), f"p99 {duration(latency[name]['p99_s'])}", name.upper())
        for name in ("ttft", "tpot", "e2e")
    ]
    rate = throughput["requests_per_s"]
    tokens = throughput["output_tokens_per_s"]
    tiles.append(("throughput", f"{_number(rate)}/s", f"{_number(tokens)} output tokens/s", "Requests"))
    if summary["slo"]["objectives"]:
        goodput = throughput["goodput_per_s"]
        met = summary["slo"]["met_frac"]
        tiles.append(("goodput", f"{_number(goodput)}/s", f"{percent(met)} met the SLO", "Goodput"))
    cost = bills["cost_per_million_output_tokens_usd"]
    energy = with_prefix(bills["energy_per_output_token_j"], "J")
    tiles.append(("cost_usd", usd(cost), f"per million output tokens, {energy} each", "Cost"))
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile" title="{escape(_definition(word), quote=True)}"><span>{label}</span><b>{value}</b>'
            f"<small>{small}</small></div>"
            for word, value, small, label in tiles
        )
        + f'</div><details class="words"><summary>What these words mean</summary><dl>{_words(tiles)}</dl></details>'
    )


def _words(tiles: list[tuple[str, str, str, str]]) -> str:
    return "".join(f"<dt>{label}</dt><dd>{escape(_definition(word))}</dd>" for word, _, _, label in tiles)


def _definition(word: str) -> str:
    return define(word).definition


def _number(value: float | None) -> str:
    return NOTHING if value is None else digits(value)


def _findings(summary: dict[str, Any]) -> str:
    """Where most time goes, and what the reader would be surprised by."""
    lines = []
    bottleneck = summary["bottleneck"]
    if bottleneck is not None:
        part = bottleneck["part"]
        what = _part_words(part, bottleneck["resource"])
        lines.append(
            f'<li class="bottleneck"><b>Most time goes to</b> {escape(bottleneck["stage"])}, {escape(what)}: '
            f"{percent(bottleneck['share_frac'])} of all request time. {escape(bottleneck['engine'])} is busy "
            f"{percent(bottleneck['utilization_frac'])}.</li>"
        )
    lines += [
        f'<li class="warning"><b>{"note" if one["kind"] == "note" else "warning"}</b> {escape(str(one["text"]))}</li>'
        for one in summary["warnings"]
    ]
    requests = summary["requests"]
    lost = {name: requests[f"num_{name}"] for name in ("rejected", "unfinished", "failed") if requests[f"num_{name}"]}
    if lost:
        words = ", ".join(f"{count(number)} {name}" for name, number in lost.items())
        lines.append(f'<li class="warning"><b>requests</b> {words} of {count(requests["num"])}</li>')
    return f'<ul class="findings">{"".join(lines)}</ul>' if lines else ""


def _part_words(part: str, resource: str) -> str:
    if part == "queue":
        return f"in line for an engine that is limited by {resource}"
    return f"limited by {part}" if part in RESOURCES else part.replace("_", " ")


def _ttft_parts(summary: dict[str, Any]) -> str:
    """Mean TTFT by the parts of its critical path."""
    parts = {name: part for name, part in summary["ttft_parts"].items() if part["frac"]}
    if not parts:
        return ""
    rows = [
        (escape(name), duration(part["mean_s"]), percent(part["frac"]), tables.meter(part["frac"]))
        for name, part in parts.items()
    ]
    return "<h3>Where TTFT goes</h3>" + tables.table(("on the way to the first token", "mean", "share", ""), rows)


def _grid(charts: Iterator[Chart], kind: str = "") -> str:
    return f'<div class="charts {kind}">{"".join(chart.html() for chart in charts)}</div>'


def _one(chart: Chart | None) -> str:
    return "" if chart is None else f'<div class="charts wide">{chart.html()}</div>'
