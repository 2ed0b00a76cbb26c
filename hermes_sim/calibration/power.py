"""Power while memory limits a step, fitted to the mean watts of a lone engine's batches, its times frozen.

Simulated batches say which share of the time each resource limits. Of the four powers, compute-bound is TDP (the peaks
that were measured are), network- and host-bound are stated: a device with its clocks up and little to do. They were
chosen with the watts of both sides in sight. What is left
is one number, the median over the fitted batches of what would give each its measured mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.calibration.fit import ErrorSummary, summarize
from hermes_sim.hardware.device import Power
from hermes_sim.replay.served_engine import library_device
from hermes_sim.replay.splitwise_steps import (
    CAPPED,
    READER,
    LoneEngine,
    lone_engines,
    members_of,
    simulate_batches,
    step_engine,
)

FloatArray = npt.NDArray[np.float64]

LIMITS: Final = ("compute_s", "memory_s", "network_s", "host_s")
MEMORY: Final = LIMITS.index("memory_s")


@dataclass(frozen=True, slots=True)
class PowerFit:
    """Share of TDP while memory limits, and the errors of mean power on both sides."""

    device: str
    memory_bound_frac: float
    errors: dict[str, ErrorSummary]


def fit_power(data_folder: Path) -> list[PowerFit]:
    """One fit a device of which the watts of fitted batches are known; none without such a table."""
    rows: dict[str, list[tuple[str, FloatArray, FloatArray]]] = {}
    for table in READER.tables(data_folder):
        groups, _ = lone_engines(table, table.name)
        for group in groups:
            if group.hardware.endswith(CAPPED) or not any(batch.power_frac for batch in group.batches):
                continue
            device = step_engine(group.hardware, group.tp, group.model).device
            rows.setdefault(device, []).append((group.side, *_shares(group)))
    fits = []
    for device, sides in rows.items():
        if any(side == "fitted" for side, _, _ in sides):
            fits.append(_fit(device, library_device(device).power, sides))
    return fits


def _shares(group: LoneEngine) -> tuple[FloatArray, FloatArray]:
    """[batches, 4] share of the time of a batch that each resource limited, and [batches] measured power over TDP."""
    measured = [batch for batch in group.batches if batch.power_frac is not None]
    simulated = simulate_batches(step_engine(group.hardware, group.tp, group.model), measured)
    visits = simulated.tables.visits
    shares = []
    for batch, members in members_of(measured):
        of_batch = (visits["request"] >= members.start) & (visits["request"] < members.stop)
        length_s = batch.batch_size * float(simulated.latencies.e2e_s[members].max())
        shares.append([float(np.sum(visits[limit][of_batch])) / length_s for limit in LIMITS])
    return np.array(shares), np.array([float(batch.power_frac or 0.0) for batch in measured])


def _fit(device: str, power: Power, sides: list[tuple[str, FloatArray, FloatArray]]) -> PowerFit:
    powers = np.array(
        [power.compute_bound_frac, power.memory_bound_frac, power.network_bound_frac, power.host_bound_frac]
    )
    idle_frac = power.idle_w / power.tdp_w

    def predicted(shares: FloatArray) -> FloatArray:
        return np.asarray(shares @ powers + (1.0 - shares.sum(axis=1)) * idle_frac)

    shares = np.concatenate([shares for side, shares, _ in sides if side == "fitted"])
    measured = np.concatenate([measured for side, _, measured in sides if side == "fitted"])
    without = predicted(shares) - shares[:, MEMORY] * powers[MEMORY]
    powers[MEMORY] = round(float(np.clip(np.median((measured - without) / shares[:, MEMORY]), idle_frac, 1.0)), 2)
    errors = {}
    for name in ("fitted", "held_out"):
        of_side = [(predicted(shares), measured) for side, shares, measured in sides if side == name]
        if of_side:
            errors[name] = summarize(*(np.concatenate(column) for column in zip(*of_side, strict=True)))
    return PowerFit(device, float(powers[MEMORY]), errors)
