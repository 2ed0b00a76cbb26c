"""Errors of predictions against measurements, for any grouping of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]

SIDES = ("fitted", "held_out", "unseen_device")
"""Rows that fits may use; rows of measured devices kept out of every fit; rows of devices that no fit has seen."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute percentage errors |predicted - measured| / measured of one group of rows, as fractions."""

    num_rows: int
    mean_frac: float
    median_frac: float
    p90_frac: float
    bias_frac: float
    """Mean of predicted / measured - 1: below zero the prediction is too fast."""
    num_in_bands: int
    """Rows whose prediction has a 90% band ..."""
    in_band_frac: float | None
    """... and the share of their measurements that the band holds."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, five digits."""
        return {key: round(value, 5) if isinstance(value, float) else value for key, value in asdict(self).items()}


def errors_of(rows: pd.DataFrame) -> Errors:
    """Of rows with the columns predicted, measured, low, high; at least one."""
    predicted, measured = rows["predicted"].to_numpy(np.float64), rows["measured"].to_numpy(np.float64)
    signed = predicted / measured - 1.0
    absolute = np.abs(signed)
    low, high = rows["low"].to_numpy(np.float64), rows["high"].to_numpy(np.float64)
    banded = np.isfinite(low) & np.isfinite(high)
    inside = (measured >= low) & (measured <= high)
    return Errors(
        num_rows=len(rows),
        mean_frac=float(absolute.mean()),
        median_frac=float(np.median(absolute)),
        p90_frac=float(np.quantile(absolute, 0.9)),
        bias_frac=float(signed.mean()),
        num_in_bands=int(banded.sum()),
        in_band_frac=float(inside[banded].mean()) if banded.any() else None,
    )


def rounded(value: float) -> float | None:
    """Five digits of a measured or predicted number; None where there is none, which JSON has no number for."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def grouped(rows: pd.DataFrame, keys: Sequence[str]) -> list[dict[str, Any]]:
    """One record a group: the keys, then its errors; groups in the order of their keys."""
    if rows.empty:
        return []
    records = []
    for values, group in rows.groupby(list(keys), observed=True, sort=True):
        records.append({**dict(zip(keys, map(str, values), strict=True)), **errors_of(group).as_dict()})
    return records
