"""The sidecar of measured tables: machine, versions, date, method; no names of hosts, users or folders."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from hermes_sim import __version__
from hermes_sim.core.whole_file import write_whole
from hermes_sim.profile.session import Session

METHOD = (
    "Each row: operands of random normal values; weights, keys and values rotate through buffers that together are "
    "four times the last-level cache, activations stay; warm-up; up to 15 repeats of a sample that lasts at least half "
    "a millisecond (GPU, events around a graph's replay) or two milliseconds (CPU, the host's clock)."
)


def write_provenance(folder: Path, kind: str, session: Session, budget_s: float, method: str = METHOD) -> None:
    """`provenance_KIND.json` beside the tables; a resumed run replaces it and keeps the first run's date."""
    path = folder / f"provenance_{kind}.json"
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    former = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    page = {
        "measured_by": f"hermes-sim {__version__} profile {kind}",
        "first_date": former.get("first_date", now),
        "last_date": now,
        "device": session.device,
        "measured_s": session.statistic,
        "method": method,
        "budget_s": budget_s,
        "machine": session.backend.machine(),
        "library": session.backend.name,
        "versions": {"python": platform.python_version(), **session.backend.versions()},
        "rows": {**former.get("rows", {}), **session.num_rows()},
        "not_reached_in_budget": session.num_unreached,
        "not_measured": [asdict(left) for left in session.not_measured],
    }
    write_whole(path, json.dumps(page, indent=2) + "\n")
