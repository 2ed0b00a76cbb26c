"""What the measurements of one device say: a cost model in the making, its residual tables, the errors of each fit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from hermes_sim.calibration.fit import ErrorSummary, fit_error
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.expert_residual import ExpertResidual
from hermes_sim.hardware.residual import ResidualTable

Family = Literal["gemm", "attention", "small_kernels", "experts"]
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)
"""Kinds of kernels that are fitted one after the other; experts build on what was found before them."""


@dataclass(slots=True)
class Calibration:
    """What the measurements of one device say, in the making."""

    cost_model: CostModel
    families: Collection[Family] = FAMILIES
    """What is fitted anew; residual tables of the others stay."""
    residuals: dict[str, ResidualTable] = field(default_factory=dict)
    expert_residuals: dict[str, ExpertResidual] = field(default_factory=dict)
    reports: list[FitReport] = field(default_factory=list)

    def update(self, values: Mapping[str, Any], reports: Iterable[FitReport] = ()) -> None:
        """Put fields of the cost model in their place."""
        self.cost_model = self.cost_model.model_copy(update=dict(values))
        self.reports.extend(reports)


@dataclass(frozen=True, slots=True)
class FitReport:
    """Errors of one fit on the shapes it saw and on those it did not."""

    device: str
    kernel: str
    fitted: ErrorSummary
    held_out: ErrorSummary
    values: str = ""
    """Coefficients that no device file holds."""


def with_errors(efficiency: Any, fitted: ErrorSummary, held: ErrorSummary) -> Any:
    """A block of coefficients, or a residual table, with the errors of its fit."""
    return efficiency.model_copy(update={"in_sample": fit_error(fitted), "held_out": fit_error(held)})
