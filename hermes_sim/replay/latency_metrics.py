"""Measured latencies beside simulated ones, as comparisons: means and percentiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.replay.experiment import Comparison, Side
from hermes_sim.replay.simulated_requests import Latencies

FloatArray = npt.NDArray[np.float64]

QUANTILES: Final[dict[str, float]] = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Compared:
    """What all comparisons of one run share."""

    table: str
    row: str
    labels: Mapping[str, str]
    side: Side
    left_out: str | None = None

    def number(self, metric: str, measured: float, predicted: float) -> Comparison:
        """One measured number beside the simulator's."""
        return Comparison(
            self.table, self.row, metric, measured, predicted, self.labels, self.side, left_out=self.left_out
        )

    def latencies(self, measured: Latencies, predicted: Latencies) -> Iterator[Comparison]:
        """Means and percentiles of three latencies; each side over the requests that have a value."""
        for name in ("ttft", "tpot", "e2e"):
            real, simulated = getattr(measured, f"{name}_s"), getattr(predicted, f"{name}_s")
            for statistic in ("mean", *QUANTILES):
                yield self.number(
                    f"{name}_{statistic}_s", statistic_of(real, statistic), statistic_of(simulated, statistic)
                )


def statistic_of(values: FloatArray, statistic: str) -> float:
    """`mean`, `p50` ... of the values that are there; NaN of none."""
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return float("nan")
    return float(present.mean() if statistic == "mean" else np.quantile(present, QUANTILES[statistic]))
