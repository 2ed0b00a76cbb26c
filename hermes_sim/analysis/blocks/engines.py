"""What engines did: how busy, with which batches, over time, with drafts, adapters and waiting KV."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from hermes_sim.analysis import human
from hermes_sim.analysis.blocks.layout import (
    LABEL_WIDTH,
    Engine,
    Summary,
    engine_groups,
    hanging,
    labelled,
    table,
    total,
)

HEADS: Final = ("busy", "limited by", "batch", "KV used", "MFU", "MBU", "prefix hits")
WIDTHS: Final = (7, 14, 7, 9, 7, 7, 12)
SERIES_WIDTH: Final = 8
LEAST_SHOWN: Final = {"mean_batch": 0.005, "num_waiting": 0.5, "mean_kv_used_frac": 0.005}
"""What stays below it is left to timeline.parquet."""
LONG_NUMBER: Final = 10_000
BARS: Final = "▁▂▃▄▅▆▇█"
NO_BAR: Final = "·"


def engines_block(summary: Summary) -> Iterator[str]:
    engines = summary["engines"]
    if engines:
        rows = [(name, _cells(group)) for name, group in engine_groups(engines)]
        yield from table("engines", HEADS, rows, WIDTHS)


def _cells(group: Sequence[Engine]) -> list[str]:
    def mean(key: str) -> float:
        values = [engine[key] for engine in group if engine[key] is not None]
        return sum(values) / len(values) if values else math.nan

    busy_s = sum(engine["busy_s"] for engine in group)
    batch_s = sum(engine["busy_s"] * engine["mean_batch"] for engine in group if engine["busy_s"])

    limits = Counter(engine["limited_by"] for engine in group if engine["limited_frac"] is not None)
    limited = f"{limits.most_common(1)[0][0]} {human.percent(mean('limited_frac'))}" if limits else human.NOTHING
    has_kv = any(engine["num_blocks"] for engine in group)
    num_cached = sum(engine["num_cached_tokens"] for engine in group)
    num_prompt = sum(engine["num_prompt_tokens"] for engine in group) + num_cached
    return [
        human.percent(mean("utilization_frac")),
        limited,
        human.digits(batch_s / busy_s) if busy_s else human.NOTHING,
        human.percent(mean("mean_kv_used_frac")) if has_kv else human.NOTHING,
        human.percent(mean("mfu_frac")),
        human.percent(mean("mbu_frac")),
        human.percent(num_cached / num_prompt) if has_kv and num_prompt else human.NOTHING,
    ]


def availability_block(summary: Summary) -> Iterator[str]:
    """Where replicas come and go."""
    duration_s, parts = summary["run"]["duration_s"], []
    for name, engines in groupby(summary["engines"], lambda engine: str(engine["engine"]).split("[")[0]):
        group = list(engines)
        on_s = total(group, "on_s")
        if duration_s > 0 and on_s < len(group) * duration_s:
            parts.append(f"{name} {human.digits(on_s / duration_s)} of {len(group)} on average")
    if parts:
        yield from labelled("replicas on", parts)


def over_time_block(summary: Summary) -> Iterator[str]:
    """Lines of bars for the busiest engine: batch, line, KV use, and replicas that take requests where some do not."""
    found = summary["over_time"]
    if found is None:
        return
    lines = []
    for name, column in (("batch", "mean_batch"), ("waiting", "num_waiting"), ("KV used", "mean_kv_used_frac")):
        values = found[column]
        highest = max(values)
        if highest >= LEAST_SHOWN[column]:
            words = human.percent(highest) if column.endswith("_frac") else _number(highest)
            lines.append(f"{name:<{SERIES_WIDTH}}{bars(values)} up to {words}")
    up = found["num_up"]
    if min(up) < max(up):
        lines.append(f"{'up':<{SERIES_WIDTH}}{bars(up)} {human.digits(min(up), 2)} to {human.digits(max(up), 2)}")
    title = f"{found['engine']} over time"
    if lines and len(title) >= LABEL_WIDTH:
        yield from hanging(title, 2)
        title = ""
    for line in lines:
        yield f"{title:<{LABEL_WIDTH}}{line}"
        title = ""


def _number(value: float) -> str:
    return human.digits(value) if value < LONG_NUMBER else human.with_prefix(value, "")


def bars(values: Sequence[float]) -> str:
    """One character a value, as high as its share of the largest; nothing at all is a dot."""
    highest = max(values)
    return "".join(
        BARS[min(int(value / highest * len(BARS)), len(BARS) - 1)] if value > 0 else NO_BAR for value in values
    )


def waits_block(summary: Summary) -> Iterator[str]:
    """What became of the KV of requests that were away between two passes."""
    ways = ("kept", "dropped", "offloaded")
    label = "KV while away"
    for name, group in engine_groups(summary["engines"]):
        counts = {way: total(group, f"num_{way}_waits") for way in ways}
        if not any(counts.values()):
            continue
        parts = [f"{human.count(number)} times {way}" for way, number in counts.items() if number]
        if counts["kept"]:
            block_s = sum(engine["num_blocks"] * engine["duration_s"] for engine in group)
            parts.append(f"{human.percent(total(group, 'kept_block_s') / block_s)} of its memory held")
        yield from labelled(label, [f"{name}: {parts[0]}", *parts[1:]])
        label = ""


def speculation_block(summary: Summary) -> Iterator[str]:
    groups = [group for group in engine_groups(summary["engines"]) if total(group[1], "num_drafted_tokens")]
    for index, (name, group) in enumerate(groups):
        accepted = total(group, "num_accepted_tokens") / total(group, "num_drafted_tokens")
        per_step = [engine["tokens_per_decode"] for engine in group if engine["tokens_per_decode"] is not None]
        parts = [
            f"{name}: {human.percent(accepted)} of the drafts accepted",
            f"{human.digits(sum(per_step) / len(per_step))} tokens per sequence and step",
        ]
        num_rounds = total(group, "num_draft_rounds")
        if num_rounds:
            boards = " + ".join(sorted({engine["draft_devices"] for engine in group}))
            wait_s = sum(engine["draft_round_s"] * engine["num_draft_rounds"] for engine in group) / num_rounds
            parts.append(f"drafts of {boards} after {human.duration(wait_s)}")
            ahead = total(group, "num_pre_drafts")
            if ahead:
                share = human.percent(total(group, "num_pre_drafts_right") / ahead)
                parts.append(f"{share} of what they drafted ahead was of use")
        yield from labelled("" if index else "speculation", parts)


def adapters_block(summary: Summary) -> Iterator[str]:
    """Where low-rank adapters are loaded."""
    groups = [group for group in engine_groups(summary["engines"]) if total(group[1], "num_adapter_loads")]
    for index, (name, group) in enumerate(groups):
        loads, hits = total(group, "num_adapter_loads"), total(group, "num_adapter_hits")
        found = human.percent(hits / (hits + loads))
        yield from labelled("" if index else "adapters", [f"{name}: {found} found in a slot, {loads:,.0f} loaded"])
