"""The summary as a person reads it: one screen of aligned plain text, at most 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from hermes_sim.analysis import human
from hermes_sim.analysis.blocks import bills, engines, latency, requests, time
from hermes_sim.analysis.blocks.latency import latency_rows
from hermes_sim.analysis.blocks.layout import LABEL_WIDTH, WIDTH, Summary, hanging

__all__ = ["WIDTH", "header", "latency_rows", "render", "run_line"]

BLOCKS: Final[tuple[Callable[[Summary], Iterator[str]], ...]] = (
    latency.latency_block,
    latency.confidence_block,
    latency.measured_block,
    time.ttft_block,
    requests.written_block,
    time.stages_block,
    requests.throughput_block,
    requests.classes_block,
    requests.images_block,
    engines.engines_block,
    engines.availability_block,
    engines.over_time_block,
    requests.shortened_block,
    requests.searches_block,
    engines.waits_block,
    engines.speculation_block,
    engines.adapters_block,
    bills.links_block,
    bills.device_groups_block,
    bills.kv_stores_block,
    bills.energy_block,
    bills.trust_block,
    time.bottleneck_block,
    latency.replications_block,
    bills.warnings_block,
)
"""In the order in which they are printed; each yields nothing where it has nothing to say."""


def render(summary: Summary) -> str:
    """The whole summary, without the header line."""
    return "\n".join(line.rstrip() for block in BLOCKS for line in block(summary))


def header(setting: Mapping[str, Any]) -> str:
    """`cluster · hardware        workload · traffic`, on two lines where one is too short."""
    left = f"{setting['cluster']} · {setting['hardware']}"
    right = f"{setting['workload']} · {setting['traffic']}, seed {setting['seed']}"
    gap = min(max(4, WIDTH // 2 - len(left)), WIDTH - len(left) - len(right))
    if gap >= 4:
        return f"{left}{' ' * gap}{right}"
    return "\n".join(line for text in (left, right) for line in hanging(text, 2))


def run_line(summary: Summary, wall_time_s: float | None) -> str:
    """How many requests got through, the simulated time, and what it took."""
    num = summary["requests"]["num"]
    finished = summary["requests"]["num_finished"]
    done = human.count(num) if finished == num else f"{human.count(finished)} of {human.count(num)}"
    noun = "request" if num == 1 else "requests"
    took = "" if wall_time_s is None else f" in {human.duration(wall_time_s)}"
    return f"{'simulated':<{LABEL_WIDTH}}{done} {noun} · {human.duration(summary['run']['duration_s'])}{took}"
