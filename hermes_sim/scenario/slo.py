"""Service-level objectives: upper bounds on latencies, at a percentile or the mean of all requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NoReturn, get_args

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer, WithJsonSchema

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import Description
from hermes_sim.core.units import parse_quantity
from hermes_sim.core.words import did_you_mean, listed, shown

Statistic = Literal["mean", "p50", "p90", "p95", "p99"]
LatencyName = Literal["ttft", "ttfat", "tpot", "itl", "e2e"]


@dataclass(frozen=True, slots=True)
class LatencyLimit:
    """Upper bound on one latency: either a time, or a multiple of the same request's latency on an idle cluster."""

    time_s: float | None = None
    unloaded_multiple: float | None = None

    def __str__(self) -> str:
        return f"{self.unloaded_multiple!r} x" if self.time_s is None else f"{self.time_s!r} s"

    @classmethod
    def parse(cls, value: object) -> LatencyLimit:
        """From '50 ms' or '6 x'. Raises ValueError for anything else, and for a limit of 0."""
        if isinstance(value, LatencyLimit):
            return value
        text = value.strip() if isinstance(value, str) else ""
        if not text.endswith(("x", "X")):
            return cls(time_s=_positive(parse_quantity(value, "time"), value))
        try:
            # As a rate: an exact, finite, non-negative number with a unit behind it.
            multiple = parse_quantity(f"{text[:-1].strip()} /s", "rate")
        except ValueError:
            raise ValueError(f"{shown(value)} is not a multiple of the unloaded latency, such as '6 x'") from None
        return cls(unloaded_multiple=_positive(multiple, value))


def _positive(limit: float, value: object) -> float:
    if limit <= 0:
        raise ValueError(f"a limit must be > 0, got {shown(value)}")
    return limit


Limit = Annotated[
    InstanceOf[LatencyLimit],
    BeforeValidator(LatencyLimit.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({
        "type": "string",
        "description": "a time, or a multiple of the unloaded latency",
        "examples": ["50 ms", "6 x"],
    }),
]  # fmt: skip


class Slo(Description):
    """What every latency must keep to. A request is good when it keeps every limit; a limit at a percentile is met
    when that percentile of all requests keeps it."""

    ttft: dict[Statistic, Limit] = Field(default_factory=dict)
    """Time to first token, e.g. {p99: 2 s}."""
    ttfat: dict[Statistic, Limit] = Field(default_factory=dict)
    """Time to first token of the answer, behind the thoughts."""
    tpot: dict[Statistic, Limit] = Field(default_factory=dict)
    """Time per output token after the first."""
    itl: dict[Statistic, Limit] = Field(default_factory=dict)
    """Gaps between output tokens."""
    e2e: dict[Statistic, Limit] = Field(default_factory=dict)
    """Arrival to last token."""

    def limits(self) -> list[tuple[LatencyName, Statistic, LatencyLimit]]:
        """All of them, in the order of the file."""
        by_latency: dict[LatencyName, dict[Statistic, LatencyLimit]] = {
            "ttft": self.ttft, "ttfat": self.ttfat, "tpot": self.tpot, "itl": self.itl, "e2e": self.e2e,
        }  # fmt: skip
        return [
            (latency, statistic, limit) for latency, limits in by_latency.items() for statistic, limit in limits.items()
        ]


def slo_of(texts: Sequence[str]) -> Slo:
    """Of objectives in words: 'ttft p99 2 s', 'tpot mean 50 ms', 'e2e p90 6 x'. Raises ConfigError."""
    limits: dict[str, dict[str, LatencyLimit]] = {}
    for text in texts:
        words = text.replace("<=", " ").split(maxsplit=2)
        if len(words) < 3:
            _refuse_words(text, "needs a latency, a statistic and a limit, such as 'ttft p99 2 s'")
        latency, statistic, limit = words
        _require_word(text, latency, get_args(LatencyName), "latency")
        _require_word(text, statistic, get_args(Statistic), "statistic")
        if statistic in limits.get(latency, {}):
            _refuse_words(text, f"{latency} {statistic} is limited twice")
        try:
            limits.setdefault(latency, {})[statistic] = LatencyLimit.parse(limit)
        except ValueError as error:
            _refuse_words(text, str(error))
    return Slo.model_validate(limits)


def _require_word(text: str, word: str, known: Sequence[str], kind: str) -> None:
    if word not in known:
        _refuse_words(text, f"{shown(word)} is not a {kind} ({listed(known)}).{did_you_mean(word, known)}")


def _refuse_words(text: str, message: str) -> NoReturn:
    raise ConfigError([Problem(f"--slo {shown(text)}", None, "", message)])
