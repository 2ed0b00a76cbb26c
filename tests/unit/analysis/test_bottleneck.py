"""Where most of the time goes."""

from __future__ import annotations

import pandas as pd
import pytest

from hermes_sim.analysis.bottleneck import find_bottleneck

Frames = dict[str, pd.DataFrame]


def test_the_largest_part_by_hand(frames: Frames) -> None:
    # Of 12 s of visits 3.2 s are queueing (3.1 s of it for prefill) and 3.8 s decode limited by memory.
    found = find_bottleneck(frames["visits"], frames["engines"])
    assert found is not None
    assert (found.stage, found.part, found.engine) == ("decode", "memory", "llm[0]")
    assert found.share_frac == pytest.approx(3.8 / 12)


def test_preempted_time_is_queueing(frames: Frames) -> None:
    preempted = frames["visits"]["preempted_s"].where(frames["visits"]["kind"] != "prefill", 1.0)
    found = find_bottleneck(frames["visits"].assign(preempted_s=preempted), frames["engines"])
    assert found is not None
    assert (found.stage, found.part) == ("prefill", "queue")
    assert found.share_frac == pytest.approx(7.1 / 16)
    assert (found.resource, found.utilization_frac) == ("memory", 0.64)
    assert (found.held_by, found.held_frac) == (None, 0.0)


def test_what_held_the_line(frames: Frames) -> None:
    """Two of the three requests that wait for prefill wait for KV blocks all the time."""
    visits = frames["visits"]
    waits = visits["queue_s"].where((visits["kind"] == "prefill") & visits["request"].isin([1, 2]), 0.0)
    service = {f"{part}_s": 0.0 for part in ("compute", "memory", "network", "host", "transfer")}
    found = find_bottleneck(visits.assign(kv_wait_s=waits, **service), frames["engines"])
    assert found is not None
    assert (found.stage, found.part, found.held_by) == ("prefill", "queue", "kv")
    assert found.held_frac == pytest.approx(2.0 / 3.1)


def test_no_time_no_bottleneck(frames: Frames) -> None:
    assert find_bottleneck(frames["visits"].iloc[:0], frames["engines"]) is None
    assert find_bottleneck(frames["visits"].iloc[[5]], frames["engines"]) is None  # a decode visit of no time
