"""What is left of measured over analytic time of layers of experts: one curve over tokens for each measured layer."""

from __future__ import annotations

import itertools
import re
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat, model_validator

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt
from hermes_sim.hardware.fit_error import FitError

FloatArray = npt.NDArray[np.float64]

PER_MILLE: Final = 1e-3
WHOLE_NUMBERS: Final = re.compile(r"(?:\s*[+-]?\d+(?=\s|$))*\s*")


class ExpertLayer(NamedTuple):
    """Shape of the share of a layer of experts that one device holds."""

    num_local_experts: float
    width: float
    """Of one expert, its tensor-parallel share."""
    hidden: float
    num_experts_per_token: float
    num_shares: float
    """Expert-parallel devices."""


class ExpertResidual(Description):
    """ln(measured / analytic) of one format's measured layers, at knots of the tokens, for other layers to lean on.

    The correction of a layer is a weighted mean of those of the layers most like it, and falls to none away from all of
    them: simple kriging with mean zero (perf/expert_residual.py).
    """

    tokens: tuple[PositiveFloat, ...] = Field(min_length=2)
    """Knots, ascending: tokens before they are routed."""
    layers: str
    """Five whole numbers a layer: experts on the device, width of its share, hidden size, experts a token, devices."""
    uneven: str
    """Thousandths of ln(measured / analytic) where rows fall on experts by chance or by preference: knots of a layer
    side by side."""
    even: str = ""
    """The same where every expert has as many rows; empty where that was not measured."""
    reach: PositiveFloat
    """How far one layer tells of another, in multiples of the usual distance."""
    noise: PositiveFloat
    """Variance of what is one layer's own, as a share of what layers that are alike have in common."""
    num_points: NonNegativeInt = 0
    """Measurements fitted."""
    before_frac: Fraction | None = None
    """Mean |ln(measured / predicted)| on layers kept out in turn (cross-validation): analytic time ..."""
    after_frac: Fraction | None = None
    """... and with these curves."""
    in_sample: FitError | None = None
    """Error of corrected times on the layers that were fitted; its band is that of layers kept out in turn."""
    held_out: FitError | None = None
    """Error of corrected times on layers that were not fitted."""

    @model_validator(mode="after")
    def _check(self) -> ExpertResidual:
        if any(second <= first for first, second in itertools.pairwise(self.tokens)):
            raise ValueError("tokens: knots must ascend")
        texts = {"layers": self.layers, "uneven": self.uneven, "even": self.even}
        for name, text in texts.items():
            if not WHOLE_NUMBERS.fullmatch(text):
                wrong = next(word for word in text.split() if not WHOLE_NUMBERS.fullmatch(word))
                raise ValueError(f"{name}: whole numbers, got '{wrong}'")
        num_layers, rest = divmod(len(self.layers.split()), len(ExpertLayer._fields))
        if rest or not num_layers:
            raise ValueError(f"layers: {len(ExpertLayer._fields)} numbers each, got {len(self.layers.split())} in all")
        if min(map(int, self.layers.split())) < 1:
            raise ValueError("layers: numbers of at least 1")
        for name in ("uneven", "even"):
            count, size = len(texts[name].split()), num_layers * len(self.tokens)
            if count != size and (count or name == "uneven"):
                raise ValueError(f"{name}: {size} numbers by layers and knots, got {count}")
        return self

    @property
    def shapes(self) -> FloatArray:
        """[num_layers, 5] as `ExpertLayer`."""
        return np.array(self.layers.split(), np.float64).reshape(-1, len(ExpertLayer._fields))

    def curves(self, *, is_even: bool) -> FloatArray:
        """[num_layers, num_knots] ln(measured / analytic); those of uneven rows stand in where no even ones are."""
        text = self.even if is_even and self.even else self.uneven
        return (np.array(text.split(), np.float64) * PER_MILLE).reshape(-1, len(self.tokens))


def whole_thousandths(curves: FloatArray) -> str:
    """The text of curves."""
    return " ".join(str(value) for value in np.round(curves / PER_MILLE).astype(int).ravel().tolist())
