"""Seconds that a device takes for kernels, by its cost model: any shapes, measured or not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hermes_sim.calibration.calibrate import row_problem
from hermes_sim.core.errors import ConfigError, HermesError
from hermes_sim.measured import read_frame
from hermes_sim.measured.columns import SOURCE_ROW
from hermes_sim.scenario.own_devices import DeviceLike
from hermes_sim.scenario.own_devices import device as described
from hermes_sim.validation.kernel_predictors import predict


def kernel_times(device: DeviceLike, kernels: pd.DataFrame) -> pd.Series:
    """Predicted seconds of each row of a table in the public format; `device` and `measured_s` may be left out.

    A row with `timing: graph` is timed as a benchmark sees it that repeats one call, any other as a server does.
    Raises ConfigError for rows that are not what their columns hold, HermesError for kernels without a model.
    """
    own = described(device)
    asked = kernels.drop(columns=["device", "measured_s"], errors="ignore").reset_index(drop=True)
    shapes = asked.drop_duplicates(ignore_index=True)
    tables = read_frame(shapes.assign(device=own.name, measured_s=1.0), "kernels")
    if tables.problems:
        raise ConfigError([row_problem(one) for one in tables.problems])
    seconds = np.full(len(shapes), np.nan)
    for operator, table in tables.items():
        found = predict(operator, own, table.assign(measured_s=np.nan))
        if any(found.reason):
            raise HermesError(f"{operator} on {own.name}: {next(filter(None, found.reason))}")
        seconds[table[SOURCE_ROW]] = found.seconds
    shape_of_row = asked.groupby(list(asked.columns), sort=False, dropna=False).ngroup()
    return pd.Series(seconds[shape_of_row], kernels.index, name="predicted_s")
