"""The run in forty slices: how the batch, the line and the KV cache of the busiest engine went."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats

MOST_SLICES = 40
LEAST_SLICES = 8
"""Fewer intervals tell nothing that the means do not."""


def over_time(timeline: pd.DataFrame) -> dict[str, Any] | None:
    """Means over up to MOST_SLICES slices of the run, all replicas of the busiest engine together.

    num_waiting: visits before their first step, of all replicas; mean_batch and mean_kv_used_frac: means over their
    busy time, 0 where idle; num_up: replicas (ranks) that took requests. None for a run too short to be cut up.
    """
    if len(timeline) == 0:
        return None
    names = timeline["engine"].astype("str").str.split("[").str[0]
    busiest = str(timeline.groupby(names)["busy_s"].sum().idxmax())
    summed = timeline[names == busiest].assign(
        batch_s=timeline["mean_batch"] * timeline["busy_s"],
        kv_s=timeline["mean_kv_used_frac"] * timeline["busy_s"],
        waiting_s=timeline["num_waiting"] * (timeline["end_s"] - timeline["start_s"]),
        up_s=timeline["up_frac"] * (timeline["end_s"] - timeline["start_s"]),
    )
    grouped = summed.groupby("start_s")
    sums = grouped[["busy_s", "batch_s", "kv_s", "waiting_s", "up_s"]].sum()
    if len(sums) < LEAST_SLICES:
        return None
    starts_s = sums.index.to_numpy(dtype=np.float64)
    places = np.arange(0, len(sums), -(-len(sums) // MOST_SLICES))
    edges_s = np.append(starts_s[places], float(grouped["end_s"].max().iloc[-1]))
    busy_s, batch_s, kv_s, waiting_s, up_s = (np.add.reduceat(floats(sums, name), places) for name in sums.columns)
    return {
        "engine": busiest,
        "edges_s": edges_s.tolist(),
        "mean_batch": _mean(batch_s, busy_s).tolist(),
        "num_waiting": (waiting_s / np.diff(edges_s)).tolist(),
        "mean_kv_used_frac": _mean(kv_s, busy_s).tolist(),
        "num_up": (up_s / np.diff(edges_s)).tolist(),
    }


def _mean(sums: FloatArray, weights: FloatArray) -> FloatArray:
    return np.divide(sums, weights, out=np.zeros(len(sums)), where=weights > 0)
