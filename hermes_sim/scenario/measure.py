"""Which requests are measured: those that arrive after the warm-up and before the cool-down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, InstanceOf, PlainSerializer, WithJsonSchema

from hermes_sim.core.schema import Description
from hermes_sim.core.units import parse_quantity
from hermes_sim.core.words import shown

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Margin:
    """A part of the run's beginning or end: a time span of arrivals, or a share of all requests by arrival."""

    time_s: float | None = None
    requests_frac: float | None = None
    is_automatic: bool = False
    """Found in the results when the run is over."""

    def __str__(self) -> str:
        if self.is_automatic:
            return AUTO
        return repr(self.requests_frac) if self.time_s is None else f"{self.time_s!r} s"

    @classmethod
    def parse(cls, value: object) -> Margin:
        """From '30 s', '5 %' or a share such as 0.05. Raises ValueError for anything else and for shares >= 1."""
        if isinstance(value, Margin):
            return value
        if isinstance(value, str) and not value.strip().endswith("%"):
            share = _number(value)
            return cls(time_s=parse_quantity(value, "time")) if share is None else cls(requests_frac=_share(share))
        if isinstance(value, str):
            percent = _number(value.strip()[:-1])
            return cls(requests_frac=_share(percent / 100 if percent is not None else None, value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return cls(requests_frac=_share(float(value)))
        raise ValueError(f"needs a time ('30 s') or a share of the requests ('5 %', 0.05), got {shown(value)}")


def _parse_warm_up(value: object) -> Margin:
    if isinstance(value, str) and value.strip() == AUTO:
        return Margin(is_automatic=True)
    try:
        return Margin.parse(value)
    except ValueError as error:
        raise ValueError(f"{error}; or {AUTO}") from None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _share(share: float | None, value: object = None) -> float:
    if share is None or not 0.0 <= share < 1.0:
        raise ValueError(f"{shown(share if value is None else value)} is not a share of the requests in [0, 1)")
    return share


MarginField = Annotated[
    InstanceOf[Margin],
    BeforeValidator(Margin.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({
        "type": ["string", "number"],
        "description": "a time, or a share of the requests",
        "examples": ["30 s", "5 %", 0.05],
    }),
]  # fmt: skip


WarmUpField = Annotated[
    InstanceOf[Margin],
    BeforeValidator(_parse_warm_up),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({
        "type": ["string", "number"],
        "description": "a time, a share of the requests, or auto",
        "examples": ["30 s", "5 %", 0.05, AUTO],
    }),
]  # fmt: skip


class Measure(Description):
    """What is left out of the statistics, so that filling up and draining do not count as load."""

    warm_up: WarmUpField = Margin(requests_frac=0.0)
    """First requests, by time or share; `auto`: until the run has settled, by MSER-5 (docs/statistics.md)."""
    cool_down: MarginField = Margin(requests_frac=0.0)
    """Last requests, by time or share."""
