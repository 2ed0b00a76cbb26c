"""A device of one's own and one's own measurements in, a better device out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hermes_sim.calibration.own_device import OwnCalibration, calibrate_own
from hermes_sim.core.errors import ConfigError, HermesError, Problem
from hermes_sim.measured import TableProblem, read_frame, read_tables
from hermes_sim.scenario.own_devices import DeviceLike
from hermes_sim.scenario.own_devices import device as described

Measured = pd.DataFrame | str | Path | Sequence[str | Path]
"""A table in the public format (docs/measured-tables.md), or files that hold some."""


def calibrate(device: DeviceLike, measured: Measured) -> OwnCalibration:
    """Fits the cost model of a device to those of the measured kernels that are its own.

    Raises ConfigError with every row that is not what its column holds, HermesError where no row is of the device.
    """
    own = described(device)
    if isinstance(measured, pd.DataFrame):
        tables, names = read_frame(measured), "a table"
    else:
        files = [Path(file) for file in ([measured] if isinstance(measured, str | Path) else measured)]
        tables, names = read_tables(files), ", ".join(file.name for file in files)
    if tables.problems:
        raise ConfigError([row_problem(one) for one in tables.problems])
    chosen = {operator: table[table["device"] == own.name] for operator, table in tables.items()}
    chosen = {operator: table for operator, table in chosen.items() if len(table)}
    if not chosen:
        others = sorted({str(name) for table in tables.values() for name in table["device"]})
        raise HermesError(f"no row is of device '{own.name}'; the tables are of {', '.join(others) or 'none'}")
    return calibrate_own(own, chosen, names)


def row_problem(one: TableProblem) -> Problem:
    """What is wrong with a row of a table, as an error of the input."""
    row = "" if one.row is None else f"row {one.row} "
    return Problem(one.file, None, f"{row}{one.column}".strip(), one.reason)
