"""Small studies and tables of runs made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from hermes_sim.explore.run_table import DONE, run_table
from hermes_sim.scenario.study import StudyFile

RATE = "workload.traffic.arrivals.rate"


def axes() -> list[dict[str, Any]]:
    """Two batchings by three rates."""
    kinds = [
        {"name": name, "set": {"cluster.engines.llm.batching": {"kind": kind}}}
        for name, kind in (("chunked", "chunked_prefill"), ("whole", "continuous"))
    ]
    return [{"name": "batching", "values": kinds}, {"name": "rate", "key": RATE, "values": ["1 /s", "2 /s", "8 /s"]}]


def study(**keys: Any) -> StudyFile:
    """A study of two axes, with these keys in place of its own."""
    document = {
        "name": "small",
        "title": "Small",
        "question": "Which?",
        "base": {"cluster": "box", "workload": "traffic"},
        "axes": axes(),
        **keys,
    }
    return StudyFile.model_validate(document)


def table(of: StudyFile, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of finished runs; what a row leaves out is the same for all."""
    common = {"seed": 1, "status": DONE, "error": "", "scenario": "", "wall_time_s": 0.1}
    return run_table({axis.name: axis.names for axis in of.axes}, [{**common, **row} for row in rows])


def grid_table(of: StudyFile, metric: str, values: Mapping[str, Iterable[float]]) -> pd.DataFrame:
    """A metric over the rates for each batching."""
    rates = of.axes[1].names
    rows = [
        {"batching": batching, "rate": rate, metric: value}
        for batching, along in values.items()
        for rate, value in zip(rates, along, strict=True)
    ]
    return table(of, rows)
