"""Links, device groups and stores; energy and money; how far to trust it all; warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hermes_sim.analysis import human
from hermes_sim.analysis.blocks.layout import Summary, labelled, paragraph

MAX_LINKS_SHOWN: Final = 3
LEAST_SHOWN_FRAC: Final = 0.01
"""Links less used than this are left to links.parquet."""
LEAST_SHARE: Final = 0.0005
PROVENANCE_NAMES: Final = {
    "measured": "measured",
    "interpolated": "interpolated from measurement",
    "analytic": "analytic",
    "estimate": "estimated",
    "unstated": "not itemised",
}


def links_block(summary: Summary) -> Iterator[str]:
    busy = sorted(summary["links"], key=lambda link: float(link["utilization_frac"]), reverse=True)
    parts = [
        f"{link['link']} {human.percent(link['utilization_frac'])}, {human.with_prefix(link['bytes'], 'B')}"
        for link in busy[:MAX_LINKS_SHOWN]
        if link["utilization_frac"] >= LEAST_SHOWN_FRAC
    ]
    if parts:
        yield from labelled("links", parts)


def device_groups_block(summary: Summary) -> Iterator[str]:
    """Of engines that span several, or compute in arrays: how busy each was, and what it drew."""
    parts = [
        f"{one['engine']} {one['group']} ({one['operators']}) {human.percent(one['utilization_frac'])} busy, "
        f"{human.digits(one['energy_j'])} J"
        for one in summary["device_groups"]
    ]
    if parts:
        yield from labelled("device groups", parts)


def kv_stores_block(summary: Summary) -> Iterator[str]:
    """What of the prompts each store had, and what it sent."""
    parts = [
        f"{store['store']} {human.percent(store['hit_frac'])} of {human.count(store['num_asked_tokens'])} tokens, "
        f"{human.with_prefix(store['read_bytes'], 'B')} read, {human.with_prefix(store['written_bytes'], 'B')} written"
        for store in summary["kv_stores"]
        if store["hit_frac"] is not None
    ]
    if parts:
        yield from labelled("KV stores", parts)


def energy_block(summary: Summary) -> Iterator[str]:
    numbers, pue = summary["energy_and_cost"], f"(PUE {summary['energy_and_cost']['pue']:g})"
    if numbers["carbon_per_request_g"] is None:
        return
    if numbers["energy_per_output_token_j"] is None:  # no output tokens: prefill or retrieval only
        energy_j = numbers["facility_energy_j"] / summary["requests"]["num_finished"]
        energy = f"{human.digits(energy_j)} J/request {pue}"
        cost = f"{human.usd(numbers['cost_per_request_usd'])} per request"
    else:
        energy = f"{human.digits(numbers['energy_per_output_token_j'])} J/output token {pue}"
        cost = f"{human.usd(numbers['cost_per_million_output_tokens_usd'])} per million output tokens"
    if numbers["electricity_usd"] > 0.0:
        cost += f" ({human.percent(numbers['electricity_usd'] / numbers['cost_usd'])} of it electricity)"
    carbon = f"{human.digits(numbers['carbon_per_request_g'])} gCO2e per request"
    yield from labelled("energy and cost", [energy, cost, carbon])


def trust_block(summary: Summary) -> Iterator[str]:
    trust = summary["trust"]
    known = {name: share for name, share in trust["provenance_frac"].items() if share >= LEAST_SHARE}
    shares = [f"{human.percent(share)} {PROVENANCE_NAMES[name]}" for name, share in known.items()]
    label = "trust"
    if shares:
        yield from labelled(label, [f"service time {shares[0]}", *shares[1:]])
        label = ""
    bands = {
        latency: band for latency, band in trust.get("bands", {}).items() if None not in (band["low_s"], band["high_s"])
    }
    if bands:
        spans = [
            f"{latency.upper()} {human.duration(band['low_s'])} to {human.duration(band['high_s'])}"
            for latency, band in bands.items()
        ]
        yield from labelled(label, [f"mean {spans[0]}", *spans[1:-1], f"{spans[-1]} (90% band)"][-len(spans) :])
        label = ""
    guessed = [
        f"{name} ({', '.join(part for part, kind in parts.items() if kind == 'estimate')})"
        for name, parts in trust["speed_sources"].items()
        if "estimate" in parts.values()
    ]
    if guessed:
        yield from paragraph(label, f"estimates, not published or measured: {', '.join(guessed)}")


def warnings_block(summary: Summary) -> Iterator[str]:
    for warning in summary["warnings"]:
        yield from paragraph("note" if warning["kind"] == "note" else "warning", warning["text"])
