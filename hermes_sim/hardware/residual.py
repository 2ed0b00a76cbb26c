"""Residual tables: what is left of measured over analytic time, on a small grid, for one device."""

from __future__ import annotations

import itertools
import math
import re
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt, Source
from hermes_sim.hardware.expert_residual import ExpertResidual
from hermes_sim.hardware.fit_error import FitError

FloatArray = npt.NDArray[np.float64]

MAX_AXES: Final = 5
LARGEST_LOG_RATIO: Final = math.log(2.0)
"""A residual corrects a time by no more than a factor of two."""

NO_DATA: Final = "."
WHOLE_NUMBERS: Final = re.compile(r"(?:\s*(?:[+-]?\d+|\.)(?=\s|$))*\s*")
PER_MILLE: Final = 1e-3

Knots = Annotated[tuple[float, ...], Field(min_length=1)]


class ResidualTable(Description):
    """ln(measured / analytic) of one kernel at the nodes of a grid, to be interpolated linearly in log2 of each axis.

    Nodes without measurements nearby hold nothing and count as zero: there the analytic time stands.
    """

    axes: dict[str, Knots] = Field(min_length=1, max_length=MAX_AXES)
    """Name of each axis -> its knots, ascending; log2 is taken of max(knot, 1)."""
    values: str
    """Thousandths of ln(measured / analytic), the last axis running fastest; `.` where nothing was measured."""
    num_points: NonNegativeInt = 0
    """Measurements fitted."""
    before_frac: Fraction | None = None
    """Mean |ln(measured / predicted)| on shapes kept out in turn (cross-validation): analytic time ..."""
    after_frac: Fraction | None = None
    """... and with this table."""
    left_out: FitError | None = None
    """Error of corrected times on fitted shapes that were left out in turn, with the band that this gives."""
    in_sample: FitError | None = None
    """Error of corrected times on the shapes that were fitted."""
    held_out: FitError | None = None
    """Error of corrected times on shapes that were not fitted."""

    @property
    def band(self) -> FitError | None:
        """The error whose band holds for shapes that were not fitted."""
        return self.left_out or self.in_sample

    @model_validator(mode="after")
    def _check(self) -> ResidualTable:
        for name, knots in self.axes.items():
            ends = [max(knot, 1.0) for knot in knots]
            if any(second <= first for first, second in itertools.pairwise(ends)):
                raise ValueError(f"axis '{name}': knots of at least 1 must ascend")
        words, size = self.values.split(), math.prod(self.shape)
        if len(words) != size:
            raise ValueError(f"values: {size} nodes by the axes, got {len(words)} numbers")
        if not WHOLE_NUMBERS.fullmatch(self.values):
            wrong = next(word for word in words if not WHOLE_NUMBERS.fullmatch(word))
            raise ValueError(f"values: whole thousandths or '{NO_DATA}', got '{wrong}'")
        largest = np.abs(self.log_ratios).max()
        if largest > LARGEST_LOG_RATIO + PER_MILLE:
            raise ValueError(
                f"values: at most {LARGEST_LOG_RATIO / PER_MILLE:.0f} thousandths, got {largest * 1e3:.0f}"
            )
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of knots of each axis."""
        return tuple(len(knots) for knots in self.axes.values())

    @property
    def log_ratios(self) -> FloatArray:
        """ln(measured / analytic) at the nodes, zero where nothing was measured."""
        return np.nan_to_num(self._numbers * PER_MILLE).reshape(self.shape)

    @property
    def has_data(self) -> FloatArray:
        """1.0 at nodes with measurements nearby, else 0.0."""
        return np.where(np.isnan(self._numbers), 0.0, 1.0).reshape(self.shape)

    @property
    def _numbers(self) -> FloatArray:
        """Thousandths as written, NaN without data."""
        return _read_numbers(self.values)


@lru_cache(maxsize=64)
def _read_numbers(values: str) -> FloatArray:
    """Thousands of them, so no loop over words; read once for all runs on a device. Not to be written to."""
    numbers = np.array(values.replace(NO_DATA, "nan").split(), np.float64)
    numbers.setflags(write=False)
    return numbers


class Residuals(Description):
    """The residual tables of one device, in a file beside the device's own."""

    device: str
    """Name of the device that was measured."""
    tables: dict[str, ResidualTable]
    """Kernel and dtype -> table: `gemm_bf16`, `attention_decode_bf16` ..."""
    experts: dict[str, ExpertResidual] = Field(default_factory=dict)
    """Format of the experts -> what is left of its measured layers: `bf16`, `trtllm_fp8` ..."""
    source: Source


def encode(log_ratios: FloatArray, has_data: npt.NDArray[np.bool_]) -> str:
    """The `values` of a table: whole thousandths within the bound."""
    bounded = np.clip(log_ratios, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    whole = np.round(bounded / PER_MILLE).astype(int).ravel().tolist()
    return " ".join(str(value) if there else NO_DATA for value, there in zip(whole, has_data.ravel(), strict=True))
