"""Where requests spend most of their time, and the engine and resource behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hermes_sim.analysis.critical_path import HOLDS
from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.metrics import RESOURCES, limiting_resource

PARTS = ("queue", "transfer", "draft_wait", *RESOURCES)


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The largest part of all request time."""

    stage: str
    part: str
    """queue, transfer, draft_wait, or the resource that limits the stage's service."""
    share_frac: float
    """Of the time of all visits together."""
    engine: str
    """The busiest of those that serve the stage; of a KV retrieval, those that get the KV."""
    utilization_frac: float
    resource: str
    """What limits that engine for most of its busy time: where the part is queue, what the queue waits for."""
    resource_frac: float
    held_by: str | None
    """Where the part is queue: what held the line for the longest time, kv, batch or budget (glossary: held line)."""
    held_frac: float
    """Of that queue."""


def find_bottleneck(visits: pd.DataFrame, engines: pd.DataFrame) -> Bottleneck | None:
    """The stage and part in which the visits spend most time; None if they take none.

    Preempted time counts as queueing. visits: those of the measured requests. A part can be large without the engine
    being overloaded (a decode is limited by memory even when alone): the queue's share tells the two apart.
    """
    placed = visits[visits["engine"] != ""]
    times = placed.assign(queue_s=placed["queue_s"] + placed["preempted_s"]).groupby("stage", observed=True)
    totals = times[[f"{part}_s" for part in PARTS]].sum()
    seconds = totals.to_numpy(dtype=np.float64)
    if seconds.size == 0 or seconds.sum() <= 0:
        return None
    place, part = divmod(int(seconds.argmax()), len(PARTS))
    stage = str(totals.index[place])
    serving = engines[engines["engine"].isin(placed.loc[placed["stage"] == stage, "engine"].unique())]
    if serving.empty:  # a KV retrieval: it waits for blocks of the engines that it is for, and for links
        serving = engines[engines["kind"] == "llm"]
    busiest = serving.iloc[int(floats(serving, "utilization_frac").argmax())]
    resource, resource_frac = limiting_resource(busiest)
    held_by, held_frac = _held(placed[placed["stage"] == stage]) if PARTS[part] == "queue" else (None, 0.0)
    return Bottleneck(
        stage=stage,
        part=PARTS[part],
        share_frac=float(seconds.max() / seconds.sum()),
        engine=str(busiest["engine"]),
        utilization_frac=float(busiest["utilization_frac"]),
        resource=resource,
        resource_frac=resource_frac,
        held_by=held_by,
        held_frac=held_frac,
    )


def _held(visits: pd.DataFrame) -> tuple[str | None, float]:
    """What these visits waited for in line, and its share of their queue; None where nothing held them."""
    queue_s = float(visits["queue_s"].sum() + visits["preempted_s"].sum())
    held_s = {part: float(visits[f"{part}_s"].sum()) if f"{part}_s" in visits else 0.0 for part in HOLDS}
    longest = max(HOLDS, key=lambda part: held_s[part])
    if held_s[longest] <= 0.0:
        return None, 0.0
    return longest.removesuffix("_wait"), min(held_s[longest] / queue_s, 1.0) if queue_s > 0.0 else 0.0
