"""Where time goes: parts of TTFT, a visit of each stage, the one thing that takes most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hermes_sim.analysis import human
from hermes_sim.analysis.blocks.layout import RESOURCE_NAMES, Summary, labelled, table

HELD_WORDS: Final = {"kv": "too few free KV blocks", "batch": "a full batch", "budget": "prompts ahead"}
"""What holds the line of a token engine."""
PARTS: Final = ("queue", "compute", "memory", "network", "host", "transfer")
DRAFT_PART: Final = "draft_wait"
"""Shown where devices of their own draft, in place of a part that no stage has."""
LEAST_SHOWN_S: Final = 1e-9
"""Rounding leaves shorter queues than this behind."""
LEAST_SHOWN_FRAC: Final = 0.0005
VISITS_WIDTH: Final = 8
TIME_WIDTH: Final = 9
NARROW_WIDTH: Final = 8
"""Of seven parts, so that their title has room."""


def ttft_block(summary: Summary) -> Iterator[str]:
    parts = [
        f"{name.replace('_', ' ')} {human.percent(part['frac'])}"
        for name, part in summary["ttft_parts"].items()
        if part["frac"] is not None and part["frac"] >= LEAST_SHOWN_FRAC
    ]
    if parts:
        yield from labelled("where TTFT goes", parts)


def stages_block(summary: Summary) -> Iterator[str]:
    """Mean times of a visit, by stage."""
    stages = summary["stages"]
    if not stages:
        return
    shown = {
        part: [stage[f"{part}_s"] if _is_shown(stage[f"{part}_s"]) else None for stage in stages]
        for part in (*PARTS, DRAFT_PART)
    }
    if not any(shown[DRAFT_PART]):
        del shown[DRAFT_PART]
    else:
        shown = {part: times_s for part, times_s in shown.items() if any(times_s)}
    width = TIME_WIDTH if len(shown) <= len(PARTS) else NARROW_WIDTH
    rows = []
    for index, stage in enumerate(stages):
        times_s = [times_s[index] for times_s in shown.values()]
        unit = human.time_unit([max((time_s for time_s in times_s if time_s is not None), default=None)])
        texts = [_cell(time_s, unit, width) for time_s in times_s]
        rows.append((str(stage["stage"]), [human.count(stage["num_visits"]), *texts]))
    heads = ["visits", *(part.removesuffix("_wait") for part in shown)]
    yield from table("time per visit", heads, rows, [VISITS_WIDTH, *(width for _ in shown)])


def _is_shown(time_s: float | None) -> bool:
    return time_s is not None and time_s >= LEAST_SHOWN_S


def _cell(time_s: float | None, unit: str, width: int) -> str:
    """In the unit of its row, or in its own where that would be mostly zeros."""
    text = human.in_unit(time_s, unit)
    return text if len(text) < width else human.in_unit(time_s, human.time_unit([time_s]))


def bottleneck_block(summary: Summary) -> Iterator[str]:
    found = summary["bottleneck"]
    if found is None:
        return
    share = human.percent(found["share_frac"])
    busy = f"{found['engine']} is busy {human.percent(found['utilization_frac'])}"
    held = []
    if found["part"] == "queue":
        what = f"waiting for {found['stage']}"
        if found["resource_frac"] is not None:
            resource = RESOURCE_NAMES[found["resource"]]
            busy += f", limited by {resource} for {human.percent(found['resource_frac'])} of that"
        if found.get("held_by") is not None:
            held.append(f"{HELD_WORDS[found['held_by']]} for {human.percent(found['held_frac'])} of the wait")
    elif found["part"] == "transfer":
        what = f"moving the input of {found['stage']}"
    elif found["part"] == DRAFT_PART:
        what = f"{found['stage']}, waiting for drafts of other devices"
    else:
        what = f"{found['stage']}, limited by {RESOURCE_NAMES[found['part']]}"
    yield from labelled("most time goes to", [f"{what}: {share} of all request time", *held, busy])
