"""A plotly figure as plain data. Python writes numbers; colours of the theme are filled in by the page's script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hermes_sim.analysis.picture import PALETTE, PART_COLORS, PART_PATTERNS

COLORS: Final = PALETTE
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SIGNIFICANT_DIGITS: Final = 5
"""Of what is drawn; the tables have all of them."""

Trace = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture of the page."""

    name: str
    title: str
    caption: str
    """What is drawn and how to read it, in a sentence."""
    traces: Sequence[Trace]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 260
    """In pixels."""

    def html(self) -> str:
        """Its place on the page; the script draws it when it comes into view."""
        content = json.dumps({"data": list(self.traces), "layout": dict(self.layout)}, separators=(",", ":"))
        content = content.replace("</", "<\\/")  # nothing in it may end the script
        return (
            f'<figure class="chart" id="{self.name}"><figcaption><b>{escape(self.title)}</b> {escape(self.caption)}'
            f'</figcaption><div class="plot" style="height:{self.height}px" role="img" '
            f'aria-label="{escape(self.title)}"></div>'
            f'<script type="application/json">{content}</script></figure>'
        )


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its name and unit."""
    return {"title": {"text": title}, **more}


def numbers(values: npt.ArrayLike) -> list[float | None]:
    """Rounded to what can be seen; nothing where there is no number."""
    found = np.asarray(values, dtype=np.float64)
    return [float(f"{value:.{SIGNIFICANT_DIGITS}g}") if np.isfinite(value) else None for value in found]


def bar(name: str, values: npt.ArrayLike, rows: Sequence[str], **more: Any) -> Trace:
    """One part of a horizontal, stacked bar per row, coloured and hatched by what the part is."""
    marker = hatched(PART_COLORS.get(name, COLORS[-1]), PART_PATTERNS.get(name, ""))
    x = numbers(values)
    return {"type": "bar", "orientation": "h", "name": name, "x": x, "y": list(rows), "marker": marker, **more}


def hatched(color: str, pattern: str) -> Trace:
    """Fill of a bar: a colour, and lines over it that tell it from others without colour."""
    shape = {"shape": pattern, "fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.75)", "solidity": 0.2, "size": 7}
    return {"color": color, "pattern": shape}


def styles() -> Iterator[tuple[str, str]]:
    """Colours and dashes in turn, for lines."""
    place = 0
    while True:
        yield COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]
        place += 1
