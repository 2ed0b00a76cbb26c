"""What requests got, took and were: throughput, classes, passes, images, searches."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hermes_sim.analysis import human
from hermes_sim.analysis.blocks.layout import Summary, labelled, table

CLASS_HEADS = ("requests", "finished", "rejected", "left", "TTFT p50", "TTFT p99", "goodput", "in SLO")
CLASS_WIDTHS = (9, 9, 9, 6, 9, 9, 9, 7)


def written_block(summary: Summary) -> Iterator[str]:
    """Where requests take several passes, think, or are answered by one of several models."""
    requests = summary["requests"]
    finished = max(requests["num_finished"], 1)
    parts = []
    if requests["num_passes"] > finished:
        parts.append(f"{human.digits(requests['num_passes'] / finished)} passes")
    for kind in ("thought", "note"):
        if requests[f"num_{kind}_tokens"]:
            parts.append(f"{human.digits(requests[f'num_{kind}_tokens'] / finished)} {kind} tokens")
    if requests["mean_quality"] is not None:
        parts.append(f"answer quality {human.digits(requests['mean_quality'])}")
    if parts:
        yield from labelled("a request takes", parts)


def throughput_block(summary: Summary) -> Iterator[str]:
    rates, slo = summary["throughput"], summary["slo"]
    if rates["requests_per_s"] is None:
        return
    parts = [
        f"{_rate(rates['requests_per_s'])} requests/s",
        f"{_rate(rates['output_tokens_per_s'])} output tokens/s",
    ]
    if rates["drawn_images_per_s"]:
        parts.append(f"{_rate(rates['drawn_images_per_s'])} images/s")
    if rates["goodput_per_s"] is not None:
        met = human.percent(slo["met_frac"])
        parts.append(f"goodput {_rate(rates['goodput_per_s'])} requests/s ({met} met the SLO)")
    yield from labelled("throughput", parts)


def classes_block(summary: Summary) -> Iterator[str]:
    """One row a class: what became of its requests, how fast they were."""
    if not summary["classes"]:
        return
    rows = []
    for record in summary["classes"]:
        times_s = [record["ttft"]["p50_s"], record["ttft"]["p99_s"]]
        texts = (
            human.count(record["num"]),
            human.count(record["num_finished"]),
            human.count(record["num_rejected"]),
            human.count(record["num_left"]),
            *(human.in_unit(time_s, human.time_unit([time_s])) for time_s in times_s),
            f"{_rate(record['goodput_per_s'])} /s",
            human.percent(record["slo_met_frac"]),
        )
        rows.append((str(record["service_class"]), texts))
    yield from table("classes", CLASS_HEADS, rows, CLASS_WIDTHS)


def images_block(summary: Summary) -> Iterator[str]:
    """What encoders and diffusion models have done, and what guards have refused."""
    requests, parts = summary["requests"], []
    if requests["num_images"]:
        found = human.percent(requests["num_cached_images"] / requests["num_images"])
        parts.append(f"{requests['num_images']:,} encoded, {found} found in a cache")
    if requests["num_drawn_images"]:
        steps = requests["num_denoising_steps"] / requests["num_drawn_images"]
        parts.append(f"{requests['num_drawn_images']:,} drawn in {human.digits(steps)} steps on average")
    if parts:
        yield from labelled("images", parts)
    if requests["num_refused"]:
        refused = human.percent(requests["num_refused"] / requests["num"])
        yield from labelled("guards", [f"{requests['num_refused']:,} requests refused ({refused})"])


def shortened_block(summary: Summary) -> Iterator[str]:
    """Reasoning that was not written, and what looking for its end has cost."""
    requests = summary["requests"]
    if requests["num_saved_tokens"] == 0 and requests["num_probe_tokens"] == 0:
        return
    written, saved = requests["num_output_tokens"], requests["num_saved_tokens"]
    shares = (saved / max(written + saved, 1), requests["num_probe_tokens"] / max(written, 1))
    of_all, of_written = (human.percent(share) for share in shares)
    yield from labelled("cut short", [f"{of_all} of the output saved", f"{of_written} of the rest trial answers"])


def searches_block(summary: Summary) -> Iterator[str]:
    """What verifiers have scored, and how much of what was written no path has kept."""
    requests = summary["requests"]
    if requests["num_candidates"] == 0:
        return
    each = human.digits(requests["num_candidates"] / requests["num"])
    lost = human.percent(requests["num_discarded_tokens"] / max(requests["num_output_tokens"], 1))
    yield from labelled("search", [f"{each} candidates a request scored", f"{lost} of the output discarded"])


def _rate(value: float | None) -> str:
    return human.digits(math.nan if value is None else value)
