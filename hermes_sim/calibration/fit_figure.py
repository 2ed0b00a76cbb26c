"""Predicted against measured times of fitted kernels, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hermes_sim.analysis.picture import PALETTE, legend_below, picture, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hermes_sim.calibration.own_device import OwnFit

COLUMN_INCHES: Final = 3.3
BAND_FRAC: Final = 0.2


@styled
def draw_fits(fits: Sequence[OwnFit]) -> Figure:
    """One panel a kernel, both axes logarithmic, with the errors of 20% to both sides."""
    figure = picture(COLUMN_INCHES * len(fits), COLUMN_INCHES)
    for number, fit in enumerate(fits):
        axes = figure.add_subplot(1, len(fits), number + 1)
        measured_us = fit.measured_s * 1e6
        ends = [measured_us.min() / 1.5, measured_us.max() * 1.5]
        axes.plot(ends, ends, color="0.4", linewidth=0.8)
        axes.fill_between(
            ends, [end * (1.0 - BAND_FRAC) for end in ends], [end * (1.0 + BAND_FRAC) for end in ends], color="0.9"
        )
        axes.plot(measured_us, fit.before_s * 1e6, "o", fillstyle="none", color=PALETTE[1], label="before")
        axes.plot(measured_us, fit.predicted_s * 1e6, "x", color=PALETTE[0], label="fitted")
        axes.set(xscale="log", yscale="log", title=fit.kernel, xlabel="measured (us)", ylabel="predicted (us)")
    legend_below(figure, columns=2)
    return figure
