"""The run in slices: means that keep their weights, and nothing where there is nothing to see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.blocks.engines import bars
from hermes_sim.analysis.over_time import LEAST_SLICES, MOST_SLICES, over_time


def timeline(num: int, engines: tuple[str, ...] = ("llm[0]",), length_s: float = 0.5) -> pd.DataFrame:
    """Engine e is busy (e + 1) / 10 of interval i with a batch of i, KV share i / num, i visits in line."""
    rows = [
        {
            "engine": name, "start_s": length_s * i, "end_s": length_s * (i + 1), "busy_s": length_s * (e + 1) / 10,
            "mean_batch": float(i), "mean_kv_used_frac": i / num, "num_waiting": float(i),
            "up_frac": 1.0 if i < 4 else 0.5,
        }
        for e, name in enumerate(engines)
        for i in range(num)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"engine": "category"})


@pytest.mark.parametrize("num", [LEAST_SLICES, 40, 41, 133, 200])
def test_slices_keep_the_weighted_means(num: int) -> None:
    found = over_time(timeline(num))
    assert found is not None
    lengths_s = np.diff(found["edges_s"])
    assert LEAST_SLICES <= len(lengths_s) <= MOST_SLICES
    assert found["edges_s"][0] == 0.0
    assert found["edges_s"][-1] == pytest.approx(0.5 * num)
    mean = (num - 1) / 2
    for name, expected in (("mean_batch", mean), ("num_waiting", mean), ("mean_kv_used_frac", mean / num)):
        assert np.average(found[name], weights=lengths_s) == pytest.approx(expected)


def test_replicas_of_the_busiest_engine_are_taken_together() -> None:
    found = over_time(timeline(10, ("jobs[0]", "llm[0]", "llm[1]")))
    assert found is not None
    assert found["engine"] == "llm"
    assert found["num_waiting"][3] == 6.0  # of both
    assert found["mean_batch"][3] == 3.0
    assert found["num_up"][3:5] == [2.0, 1.0]


def test_an_idle_slice_has_no_batch() -> None:
    idle = timeline(10)
    idle.loc[4, ["busy_s", "mean_batch"]] = 0.0
    found = over_time(idle)
    assert found is not None
    assert found["mean_batch"][4] == 0.0


def test_a_short_run_is_not_cut_up() -> None:
    assert over_time(timeline(LEAST_SLICES - 1)) is None
    assert over_time(timeline(8).iloc[:0]) is None


def test_bars_by_hand() -> None:
    assert bars([0.0, 0.1, 1.0, 4.0, 8.0]) == "·▁▂▅█"
