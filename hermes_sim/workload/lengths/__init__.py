"""How many tokens requests have. One law a class; this table is the list."""

from __future__ import annotations

from hermes_sim.workload.lengths.empirical import Empirical
from hermes_sim.workload.lengths.law import Lengths
from hermes_sim.workload.lengths.parametric import Fixed, Gamma, Lognormal, Uniform

LENGTHS: dict[str, type[Lengths]] = {
    "fixed": Fixed,
    "uniform": Uniform,
    "lognormal": Lognormal,
    "gamma": Gamma,
    "empirical": Empirical,
}

__all__ = ["LENGTHS", "Lengths"]
