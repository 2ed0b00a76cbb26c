"""How each class of requests fared."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hermes_sim.analysis import metrics
from hermes_sim.analysis.frames import floats, is_finished
from hermes_sim.scenario.window import MeasuredWindow

ENDINGS = ("finished", "rejected", "failed", "left", "unfinished")


def class_records(measured: pd.DataFrame, requests: pd.DataFrame, window: MeasuredWindow) -> list[dict[str, Any]]:
    """One record a class, in the order in which the first request of each came; none where there are no classes.

    Endings, shares and latencies are those of the measured requests, rates those of the measured window.
    """
    records = []
    for name in [str(name) for name in requests["service_class"].cat.categories if name]:
        own, of_all = (frame[frame["service_class"] == name] for frame in (measured, requests))
        finished = own[is_finished(own)]
        endings = own["status"].value_counts()
        records.append({
            "service_class": name,
            "num": len(own),
            **{f"num_{ending}": int(endings.get(ending, 0)) for ending in ENDINGS},
            "slo_met_frac": float(own["slo_met"].mean()) if len(own) else float("nan"),
            "goodput_per_s": metrics.goodput_per_s(of_all, window),
            "requests_per_s": metrics.requests_per_s(of_all, window),
            "ttft": metrics.latency_percentiles(floats(finished, "ttft_s")),
            "tpot": metrics.latency_percentiles(floats(finished, "tpot_s")),
            "e2e": metrics.latency_percentiles(floats(finished, "e2e_s")),
        })  # fmt: skip
    return records
