"""The bars as they were reached last, and what has become worse since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.validation.bars import SHARE_INSIDE

BASELINE: Final = Path(__file__).with_name("baseline.json")
TOLERANCE_FRAC: Final = 0.02
"""A figure may be this much above its baseline, relatively: orders of summation differ between machines."""
TOLERANCE: Final = 0.0005
"""And this much absolutely."""


def read_baseline(path: Path = BASELINE) -> dict[str, dict[str, Any]]:
    """Name of a bar -> its record. Raises ConfigError for a file that is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(bar["name"]): dict(bar) for bar in content["bars"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([Problem(str(path), None, "bars", f"no baseline of bars: {error}")]) from error


def baseline_of(report: Mapping[str, Any]) -> str:
    """Content of a baseline file: the bars of a report that have a value."""
    keys = ("name", "value", "rows", "status")
    bars = [{key: bar[key] for key in keys} for bar in report["bars"] if bar["value"] is not None]
    return json.dumps({"bars": bars}, indent=1) + "\n"


def regressions(bars: Iterable[Mapping[str, Any]], baseline: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Bars of a report that are worse than their baseline, in words; bars without data here are not judged."""
    found = []
    for bar in bars:
        before, value = baseline.get(bar["name"]), bar["value"]
        if before is None or value is None:
            continue
        is_share = bar["statistic"] == SHARE_INSIDE
        if is_share and bar["status"] == "met":
            continue
        worse = before["value"] - value if is_share else value - before["value"]
        if worse > TOLERANCE + TOLERANCE_FRAC * abs(before["value"]):
            found.append(f"{bar['name']}: {value:.2%}, was {before['value']:.2%} ({bar['what']})")
    return found
