"""The JSON report of a validation as a file: written so that a person can read it, and read again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hermes_sim.core.errors import ConfigError, Problem

FORMAT: Final = 1
"""Version of the report: raised when a key changes its meaning or goes."""
_NUMBERS: Final = re.compile(r"\[\n\s+([^\[\]{}\"]*?)\n\s+\]")


def report_text(report: Mapping[str, Any]) -> str:
    """Indented, lists of numbers on one line."""
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def read_report(path: Path) -> dict[str, Any]:
    """A report that `hermes-sim validate --json` wrote. Raises ConfigError for a file that is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Problem(str(path), None, "", f"cannot be read: {error.strerror}")]) from error
    except ValueError as error:
        raise ConfigError([Problem(str(path), None, "", f"is no JSON: {error}")]) from error
    if not isinstance(report, dict) or report.get("format") != FORMAT or "bars" not in report:
        message = f"is no report of format {FORMAT}; `hermes-sim validate --json FILE` writes one"
        raise ConfigError([Problem(str(path), None, "", message)])
    return report
