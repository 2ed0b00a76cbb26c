"""The bars as they were reached last, and what has become worse since."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.validation.bars import Bar

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


def baseline_text(bars: Iterable[Bar]) -> str:
    """Content of a baseline file: the bars that have a value."""
    kept = [
        {"name": bar.name, "value": round(bar.value, 5), "rows": bar.num_rows, "status": bar.status}
        for bar in bars
        if bar.value is not None
    ]
    return json.dumps({"bars": kept}, indent=1) + "\n"


def regressions(bars: Iterable[Bar], baseline: dict[str, dict[str, Any]]) -> list[str]:
    """Bars that are worse than their baseline, in words; bars without data here are not judged."""
    found = []
    for bar in bars:
        before = baseline.get(bar.name)
        if before is None or bar.value is None:
            continue
        is_share = bar.statistic == "share inside"
        worse = before["value"] - bar.value if is_share else bar.value - before["value"]
        if is_share and bar.status == "met":
            continue
        if worse > TOLERANCE + TOLERANCE_FRAC * abs(before["value"]):
            found.append(f"{bar.name}: {bar.value:.2%}, was {before['value']:.2%} ({bar.what})")
    return found
