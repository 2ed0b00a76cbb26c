"""The roofline of an engine's devices with the operators of a mean step under it.

Source: Williams, Waterman and Patterson, Roofline: An Insightful Visual Performance Model for Multicore Architectures,
CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.analysis.trust import engine_name

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results
    from hermes_sim.hardware.device import Device

MOST_ROOFS = 2
MARGIN = 3.0
"""Factor of intensity beyond the operators that is drawn."""


@dataclass(frozen=True, eq=False, slots=True)
class Roofline:
    """Of all devices of one engine together."""

    engine: str
    num_devices: int
    device: str
    bandwidth_bytes_per_s: float
    peaks_flops_per_s: dict[str, float]
    """By dtype, ascending: the lowest that no operator has passed, and the next higher one."""
    operators: pd.DataFrame
    """Those with FLOPs, bytes and time: columns of the operators table, and intensity (FLOP/byte), flops_per_s,
    share_frac (of the time of its stage's step)."""

    @property
    def name(self) -> str:
        """Of the engine, without the replica's number."""
        return engine_name(self.engine)

    @property
    def ridge(self) -> float:
        """Intensity from which on the highest peak is within reach."""
        return max(self.peaks_flops_per_s.values()) / self.bandwidth_bytes_per_s

    @property
    def limits(self) -> tuple[float, float]:
        """Intensities from which to which it is drawn."""
        intensity = self.intensity
        return float(intensity.min()) / MARGIN, max(float(intensity.max()) * MARGIN, 2.0 * self.ridge)

    @property
    def intensity(self) -> FloatArray:
        return floats(self.operators, "intensity")

    @property
    def flops_per_s(self) -> FloatArray:
        return floats(self.operators, "flops_per_s")


def rooflines(results: Results) -> Iterator[Roofline]:
    """One for each engine of another name that computes, of its first replica."""
    seen: set[str] = set()
    for _, engine in results.engines.iterrows():
        name = engine_name(engine["engine"])
        rows = results.operators[results.operators["engine"] == engine["engine"]]
        rows = rows[(rows["flops"] > 0) & (rows["bytes"] > 0) & (rows["time_s"] > 0)]
        num_devices, _, profile = str(engine["devices"]).partition(" x ")
        device = next((one for one in results.scenario.devices.values() if one.name == profile), None)
        if name in seen or rows.empty or device is None:
            continue
        seen.add(name)
        rows = rows.assign(
            intensity=rows["flops"] / rows["bytes"],
            flops_per_s=rows["flops"] / rows["time_s"],
            share_frac=rows["time_s"] / rows.groupby("stage", observed=True)["time_s"].transform("sum"),
        )
        number = int(num_devices)
        peaks = _peaks(device, float(rows["flops_per_s"].max()) / number)
        yield Roofline(
            engine=str(engine["engine"]),
            num_devices=number,
            device=device.title,
            bandwidth_bytes_per_s=device.memory.bandwidth_bytes_per_s * number,
            peaks_flops_per_s={dtype: peak * number for dtype, peak in peaks.items()},
            operators=rows,
        )


def _peaks(device: Device, reached: float) -> dict[str, float]:
    """Dense peaks of one device: the lowest that nothing has passed, and the next higher ones of other height."""
    peaks: dict[str, float] = {}
    for dtype, peak in sorted(device.peak_flops_per_s.items(), key=lambda one: one[1]):
        if peak >= reached and peak not in peaks.values():
            peaks[str(dtype)] = peak
    chosen = dict(list(peaks.items())[:MOST_ROOFS])
    return chosen or {str(max(device.peak_flops_per_s, key=lambda one: device.peak_flops_per_s[one])): reached}


def longest_apart(roofline: Roofline, most: int, nearest: tuple[float, float]) -> list[int]:
    """Places of the operators to name: those that take longest, none within so many decades of a longer one.

    nearest: decades along intensity and along rate.
    """
    x, y = np.log10(roofline.intensity), np.log10(roofline.flops_per_s)
    named: list[int] = []
    for place in np.argsort(-floats(roofline.operators, "time_s"), kind="stable").tolist():
        near = any(abs(x[place] - x[one]) < nearest[0] and abs(y[place] - y[one]) < nearest[1] for one in named)
        if not near and len(named) < most:
            named.append(place)
    return named
