"""Measured sensitivities as a person reads them: a table of at most 80 columns, what helps most first."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator

from hermes_sim.analysis.human import percent
from hermes_sim.explore.explain.knobs import LeftOut
from hermes_sim.explore.explain.sensitivity import THROUGHPUT, Effect, Sensitivities, Sensitivity

WIDTH = 80
NAME = 34
LEAST_FRAC = 5e-4
"""Smaller changes are shown as none."""
TITLES = {"e2e": "E2E", "ttft": "TTFT", "tpot": "TPOT", THROUGHPUT: "req/s"}


def sensitivities_text(found: Sensitivities) -> str:
    """The table, what helps most, what was not tried."""
    lines = [
        f"run again with 10% more of one thing, the same requests; of mean {TITLES[found.target]}:",
        *_table(found),
        "",
        *textwrap.wrap(_verdict(found), WIDTH, subsequent_indent=" " * 17),
        *_others("not tried", found.left_out),
        *_others("failed", found.failed),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _table(found: Sensitivities) -> Iterator[str]:
    others = [name for name in TITLES if name != found.target and any(name in one.effects for one in found.tried)]
    titles = "".join(f"{TITLES[name]:>9}" for name in others)
    yield f"{'':<{NAME}} {TITLES[found.target]:>15}{titles}"
    for one in found.tried:
        cells = "".join(f"{_change(one.effects.get(name)):>9}" for name in others)
        name = one.name if len(one.name) <= NAME else one.name[: NAME - 1] + "…"
        yield f"{name:<{NAME}} {_with_interval(one.effects.get(found.target)):>15}{cells}"


def _with_interval(effect: Effect | None) -> str:
    """`-5.9% ± 0.2%`, and whether chance may have made it."""
    text = _change(effect)
    if effect is None or text == "0" or math.isnan(effect.half_width_95):
        return text
    width = f"{text} ±{100.0 * effect.half_width_frac:.2g}%"
    return width if effect.significant else f"({width})"


def _change(effect: Effect | None) -> str:
    if effect is None or math.isnan(effect.frac):
        return "-"
    if abs(effect.frac) < LEAST_FRAC:
        return "0"
    change = 100.0 * effect.frac
    return f"{change:+.2g}%" if abs(change) < 99.5 else f"{change:+,.0f}%"


def _verdict(found: Sensitivities) -> str:
    top = found.top
    if top is None:
        return f"helps most       nothing that was tried makes {TITLES[found.target]} better"
    return (
        f"helps most       {top.name}: {TITLES[found.target]} {_with_interval(top.effects[found.target])}, elasticity "
        f"{top.elasticity(found.target):.2f}{_of_objective(found, top)}"
    )


def _of_objective(found: Sensitivities, top: Sensitivity) -> str:
    before, after = percent(found.slo_met_frac), percent(top.slo_met_frac)
    return "" if before == after else f"; {after} of the requests within the SLO, not {before}"


def _others(label: str, left_out: tuple[LeftOut, ...]) -> Iterator[str]:
    if left_out:
        by_reason: dict[str, list[str]] = {}
        for one in left_out:
            by_reason.setdefault(one.why, []).append(one.name)
        words = " · ".join(f"{', '.join(names)} ({why})" for why, names in by_reason.items())
        yield from textwrap.wrap(words, WIDTH, initial_indent=f"{label:<17}", subsequent_indent=" " * 17)
