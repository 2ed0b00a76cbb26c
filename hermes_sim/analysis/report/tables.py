"""The tables of the page: objectives, engines, links, energy and money, trust."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from hermes_sim.analysis.human import NOTHING, as_written, count, digits, duration, percent, usd, with_prefix

MOST_LINKS: Final = 12

Summary = Mapping[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], num_texts: int = 1) -> str:
    """Cells are HTML already. num_texts: columns of text before those of numbers."""
    kinds = ["" if place < num_texts else ' class="number"' for place in range(len(heads))]
    head = "".join(f"<th scope=col{kind}>{escape(name)}</th>" for name, kind in zip(heads, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def meter(share: float | None, limit: float | None = None) -> str:
    """A share as a length, with a tick where it should end."""
    if share is None:
        return ""
    width = f"{100.0 * min(max(share, 0.0), 1.0):.1f}%"
    tick = "" if limit is None else f'<b style="left:{100.0 * min(limit, 1.0):.1f}%"></b>'
    return f'<div class="meter"><i style="width:{width}"></i>{tick}</div>'


def objectives(summary: Summary) -> str:
    """What was asked of the latencies, and what came of it."""
    slo = summary["slo"]
    if not slo["objectives"]:
        return '<p class="soft">The workload states no SLO.</p>'
    rows = []
    for line in slo["objectives"]:
        multiple = line["limit_s"] is None
        limit = f"{line['limit_multiple']:g} x unloaded" if multiple else as_written(line["limit_s"])
        observed = f"{digits(line['observed_multiple'])} x" if multiple and line["observed_multiple"] else NOTHING
        if not multiple:
            observed = duration(line["observed_s"])
        mark, word = ("✓", "met") if line["met"] else ("✗", "missed")
        if line["met"] is None:
            mark, word = "–", "not judged"
        verdict = f'<span class="{word.replace(" ", "-")}"><span aria-hidden="true">{mark}</span> {word}</span>'
        asked = f"{line['latency'].upper()} {line['statistic']} ≤ {limit}"
        attained = line["attained_frac"]
        rows.append((escape(asked), verdict, observed, percent(attained), meter(attained)))
    return table(("asked", "", "observed", "requests within", ""), rows, num_texts=2)


def engines(summary: Summary) -> str:
    """One row an engine instance."""
    rows = [
        (
            escape(one["engine"]),
            escape(one["devices"]),
            percent(one["utilization_frac"]),
            f"{one['limited_by']} {percent(one['limited_frac'])}" if one["limited_by"] else NOTHING,
            digits(one["mean_batch"]) if one["mean_batch"] is not None else NOTHING,
            percent(one["mean_kv_used_frac"]) if one["num_blocks"] else NOTHING,
            percent(one["mfu_frac"]),
            percent(one["mbu_frac"]),
            with_prefix(one["energy_j"], "J"),
            usd(one["cost_usd"]),
        )
        for one in summary["engines"]
    ]
    heads = ("engine", "devices", "busy", "limited by", "batch", "KV used", "MFU", "MBU", "energy", "cost")
    return table(heads, rows, num_texts=2)


def links(summary: Summary) -> str:
    """The busiest directions of links."""
    if not summary["links"]:
        return '<p class="soft">No data moved between engines or stores. Collectives are part of the steps.</p>'
    busiest = sorted(summary["links"], key=lambda one: -(one["utilization_frac"] or 0.0))[:MOST_LINKS]
    rows = [
        (
            escape(one["link"]),
            with_prefix(one["bytes"], "B"),
            count(one["num_transfers"]),
            percent(one["utilization_frac"]),
            meter(one["utilization_frac"]),
        )
        for one in busiest
    ]
    shown = table(("link", "moved", "transfers", "in use", ""), rows)
    more = len(summary["links"]) - len(busiest)
    return shown + (f'<p class="soft">and {more} less busy ones</p>' if more else "")


def bills(summary: Summary) -> str:
    """Energy, money, carbon."""
    found = summary["energy_and_cost"]
    rows = [
        ("energy of devices", with_prefix(found["device_energy_j"], "J")),
        ("energy of links", with_prefix(found["link_energy_j"], "J")),
        (f"energy of the facility (PUE {found['pue']:g})", with_prefix(found["facility_energy_j"], "J")),
        ("energy per output token", with_prefix(found["energy_per_output_token_j"], "J")),
        ("carbon per request", _grams(found["carbon_per_request_g"])),
        ("cost of the run", usd(found["cost_usd"])),
        ("cost per request", usd(found["cost_per_request_usd"])),
        ("cost per million output tokens", usd(found["cost_per_million_output_tokens_usd"])),
    ]
    return table(("", ""), rows)


def trust(summary: Summary) -> str:
    """What the times rest on, and how far off means of such runs were."""
    found = summary["trust"]
    words = {
        "measured": "measured", "interpolated": "interpolated from measurement", "analytic": "by equations fitted to "
        "measurements", "estimate": "estimated", "unstated": "stated by the workload",
    }  # fmt: skip
    rows = [
        (escape(words.get(kind, kind)), percent(share), meter(share))
        for kind, share in found["provenance_frac"].items()
        if share
    ]
    text = table(("service time is", "", ""), rows)
    for latency, band in (found.get("bands") or {}).items():
        text += (
            f"<p>Mean {latency.upper()}: {duration(band['low_s'])} to {duration(band['high_s'])}, where nine in ten "
            "measured means of such runs lie.</p>"
        )
    weak = [name for name, kind in found["weakest_source"].items() if kind == "estimate"]
    if weak:
        text += f"<p>Some numbers are estimates, neither published nor measured: {escape(', '.join(weak))}.</p>"
    return text


def _grams(value: float | None) -> str:
    return NOTHING if value is None else f"{digits(value)} gCO₂e"
