"""What a configuration does at its limit: throughput, what it costs and draws, the engine that is the narrowest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hermes_sim.analysis import metrics
from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.results import Results

SECONDS_PER_HOUR = 3600.0


def limit_metrics(results: Results) -> dict[str, Any]:
    """Of the measured window; rent and power of the whole run."""
    requests, window, engines = results.requests, results.window, results.engines
    output_tokens_per_s = metrics.output_tokens_per_s(requests, window)
    duration_s = results.duration_s
    rent_usd_per_h = float(engines["cost_usd"].sum()) / duration_s * SECONDS_PER_HOUR
    energy_j = metrics.facility_energy_j(engines, results.links, results.scenario.cluster.pue)
    narrowest = narrowest_engine(results.measured_visits, engines)
    resource, resource_frac = metrics.limiting_resource(narrowest)
    return {
        "output_tokens_per_s": output_tokens_per_s,
        "rent_usd_per_h": rent_usd_per_h,
        "usd_per_million_output_tokens": _per(rent_usd_per_h / SECONDS_PER_HOUR * 1e6, output_tokens_per_s),
        "power_w": energy_j / duration_s,
        "num_devices": num_devices(results),
        "engine": str(narrowest["engine"]),
        "resource": resource,
        "resource_frac": resource_frac,
        "utilization_frac": float(narrowest["utilization_frac"]),
        **{f"{name}_p99_s": float(requests[f"{name}_s"][window.measured].quantile(0.99)) for name in ("ttft", "e2e")},
        "tpot_mean_s": float(requests["tpot_s"][window.measured].mean()),
    }


def narrowest_engine(visits: pd.DataFrame, engines: pd.DataFrame) -> pd.Series:
    """The engine that visits wait for longest in all; the busiest where none waits a thousandth of its time."""
    waited_s = (floats(visits, "queue_s") + floats(visits, "preempted_s")).sum()
    placed = visits[visits["engine"] != ""]
    total_s = (placed["queue_s"] + placed["preempted_s"]).groupby(placed["engine"].astype("str")).sum()
    total_s = total_s[total_s.index.isin(engines["engine"].astype("str"))]
    service_s = float(floats(visits, "service_s").sum())
    if len(total_s) and waited_s > 1e-3 * service_s:
        stages = engines["serves"].astype("str")
        name = str(total_s.idxmax())
        same = engines[stages == stages[engines["engine"].astype("str") == name].iloc[0]]
        return same.iloc[int(floats(same, "utilization_frac").argmax())]
    return engines.iloc[int(floats(engines, "utilization_frac").argmax())]


def num_devices(results: Results) -> int:
    """Devices that the engines have; without those of engines on processors, where others have accelerators."""
    kinds = {name: device.kind for name, device in results.scenario.devices.items()}
    counted = [(str(row["devices"]), int(row["num_devices"])) for _, row in results.engines.iterrows()]
    accelerated = [number for text, number in counted if not _only(text, kinds, "cpu")]
    return sum(accelerated) if accelerated else sum(number for _, number in counted)


def _only(text: str, kinds: Mapping[str, str], kind: str) -> bool:
    """'1 x epyc_7742' names devices of one kind alone."""
    named = [kinds[name] for name in kinds if name in text]
    return bool(named) and all(one == kind for one in named)


def _per(amount: float, number: float) -> float:
    return amount / number if number else math.nan
