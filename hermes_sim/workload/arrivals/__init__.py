"""When requests arrive. One law a class; this table is the list (workload/traffic.py adds replay)."""

from __future__ import annotations

from hermes_sim.workload.arrivals.diurnal import Diurnal
from hermes_sim.workload.arrivals.modulated import Mmpp, OnOff
from hermes_sim.workload.arrivals.process import Arrivals
from hermes_sim.workload.arrivals.renewal import Constant, Gamma, Normal, Poisson, Uniform

PROCESSES: dict[str, type[Arrivals]] = {
    "constant": Constant,
    "uniform": Uniform,
    "normal": Normal,
    "poisson": Poisson,
    "gamma": Gamma,
    "mmpp": Mmpp,
    "on_off": OnOff,
    "diurnal": Diurnal,
}

__all__ = ["PROCESSES", "Arrivals"]
