"""Power of a whole server while it serves a known workload: energy above idle, measured and simulated.

Fans, host and power supply are in the measured watts and not in the simulator's, so only what lies above the idle
server is compared. A table of watts states no engine: the device stands in the file's name, its model and degree of
parallelism in another table of the folder with the same device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.replay.experiment import Comparison, Progress, Unexpressed
from hermes_sim.replay.known_names import UnknownName, device_name
from hermes_sim.replay.latency_metrics import Compared
from hermes_sim.replay.request_workloads import read_workload, workloads_near
from hermes_sim.replay.rows import NUMBER, POSITIVE, columns_of, read_rows, tables_with
from hermes_sim.replay.served_engine import library_device
from hermes_sim.replay.simulated_requests import simulate_requests
from hermes_sim.replay.time_series_setup import SETUP, engine_of, labels_of, requests_of

WATTS: Final = {"time_s": NUMBER, "power_w": POSITIVE}

IDLE_QUANTILE: Final = 0.02
"""The server before the first request and long after the last one."""


class PowerReader:
    """Replays series of watts."""

    name = "power"

    def tables(self, folder: Path) -> Sequence[Path]:
        """Tables with one row per second and nothing else."""
        return [path for path in tables_with(folder, WATTS) if len(columns_of(path)) == len(WATTS)]

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterator[Comparison | Unexpressed | Problem]:
        """One simulation per table."""
        rows, problems = read_rows(table, name, WATTS)
        yield from problems
        try:
            yield replay_power(table, name, rows)
        except HermesError as error:
            yield Unexpressed(name, "all", str(error))
        if progress is not None:
            progress(name, 1, 1)


READER: Final = PowerReader()


def replay_power(table: Path, name: str, rows: pd.DataFrame) -> Comparison | Unexpressed:
    """Joules above idle over the whole series."""
    setup = setup_of(table)
    if setup is None:
        return Unexpressed(name, "all", "neither the table nor its name says on which device the watts were measured")
    times_s, watts = rows["time_s"].to_numpy(float), rows["power_w"].to_numpy(float)
    workload = workload_within(table, float(times_s.max()))
    if workload is None:
        return Unexpressed(name, "all", "no workload in the requests of this folder ends within the series")
    engine = engine_of(setup)
    simulated = simulate_requests(engine, requests_of(workload))
    engines = simulated.tables.engines
    idle_w = library_device(engine.device).power.idle_w * engine.tp
    above_j = float(np.sum(engines["energy_j"])) - idle_w * float(np.sum(engines["duration_s"]))
    interval_s = float(np.median(np.diff(times_s)))
    measured_j = float((watts - np.quantile(watts, IDLE_QUANTILE)).sum() * interval_s)
    return Compared(name, "all", labels_of(engine, setup), "held_out").number(
        "energy_above_idle_j", measured_j, above_j
    )


def setup_of(table: Path) -> dict[str, object] | None:
    """Hardware, model and degree of parallelism: the device of the file's name, the rest from its neighbours."""
    stem = table.name.split(".")[0]
    degree = re.search(r"tp(\d+)", stem)
    for word in stem.split("_"):
        try:
            device = device_name(word)
        except UnknownName:
            continue
        for neighbour in tables_with(table.parent, SETUP):
            others, _ = read_rows(neighbour, neighbour.name, SETUP)
            for _, row in others.iterrows():
                if _is(device, str(row["hardware"])):
                    tp = int(degree.group(1)) if degree else int(row["tp_per_instance"])
                    return {"hardware": device, "model": row["model"], "tp_per_instance": tp, "scenario": "power"}
    return None


def _is(device: str, text: str) -> bool:
    try:
        return device_name(text) == device
    except UnknownName:
        return False


def workload_within(table: Path, length_s: float) -> pd.DataFrame | None:
    """The workload whose last request comes nearest to the end of the series, and before it."""
    best = None
    for path in workloads_near(table):
        workload = read_workload(path)
        last_s = float(workload["arrival_s"].max())
        if last_s < length_s and (best is None or last_s > float(best["arrival_s"].max())):
            best = workload
    return best
