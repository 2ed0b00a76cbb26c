"""Bands of served latencies from a report: `python -m hermes_sim.validation.served_bands ../shared/data`.

Writes hermes_sim/analysis/served_bands.json from one half of the runs kept out of every fit; `hermes-sim validate`
counts how many of the other half lie inside.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis import served_bands
from hermes_sim.analysis.served_bands import Band, engine_key
from hermes_sim.core.shipped import shipped_root

METRICS: Final = {"ttft_mean_s": "ttft", "tpot_mean_s": "tpot", "itl_mean_s": "tpot", "e2e_mean_s": "e2e"}
FEWEST_RUNS: Final = 10
QUANTILES: Final = (0.05, 0.95)
SOURCE: Final = (
    "measured over simulated, 5% and 95% quantiles of one half of the runs kept out of every fit (docs/accuracy.md)"
)


def makes_bands(row: str) -> bool:
    """Whether a kept-out run makes the bands; the other half judges them."""
    return zlib.crc32(row.encode()) % 2 == 0


def judges_bands(scored: pd.DataFrame) -> pd.DataFrame:
    """The rows that made no band."""
    return scored[[not makes_bands(row) for row in scored["row"]]]


def key_of(engine: str, mode: str) -> str:
    """As runs look bands up."""
    return engine_key(engine.split("_", maxsplit=1)[0], disaggregated=mode == "disaggregated")


def fill_bands(scored: pd.DataFrame) -> pd.DataFrame:
    """The rows with the ends of their band where the engine has one and the replay gave none."""
    known = served_bands.served_bands()
    found = scored.copy()
    for place, row in scored.iterrows():
        band = known.get(key_of(row["engine"], row["mode"]), {}).get(METRICS.get(row["metric"], ""))
        if band is not None and np.isnan(row["low"]):
            found.loc[place, ["low", "high"]] = row["predicted"] * band.low_frac, row["predicted"] * band.high_frac
    return found


def fit_bands(scored: pd.DataFrame) -> dict[str, dict[str, Band]]:
    """Key of the engine -> latency -> band, from the half of the kept-out rows that makes them."""
    rows = scored[(scored["side"] == "held_out") & scored["metric"].isin(list(METRICS))]
    rows = rows[[makes_bands(row) for row in rows["row"]]]
    ratios = rows["measured"].to_numpy(float) / rows["predicted"].to_numpy(float)
    keys = [key_of(engine, mode) for engine, mode in zip(rows["engine"], rows["mode"], strict=True)]
    table = pd.DataFrame({"key": keys, "latency": rows["metric"].map(METRICS).to_numpy(), "ratio": ratios})
    found: dict[str, dict[str, Band]] = {}
    for (key, latency), group in table.groupby(["key", "latency"]):
        if len(group) >= FEWEST_RUNS:
            low, high = (float(f"{value:.4g}") for value in np.quantile(group["ratio"], QUANTILES))
            found.setdefault(str(key), {})[str(latency)] = Band(min(low, 1.0), max(high, 1.0), len(group))
    return found


def render(bands: dict[str, dict[str, Band]]) -> str:
    """The file."""
    engines: dict[str, Any] = {
        key: {
            latency: {"low_frac": band.low_frac, "high_frac": band.high_frac, "num_runs": band.num_runs}
            for latency, band in sorted(entries.items())
        }
        for key, entries in sorted(bands.items())
    }
    return json.dumps({"source": SOURCE, "engines": engines}, indent=2) + "\n"


def main(folder: Path) -> None:
    """Replay the serving tables of the folder and write the bands."""
    from hermes_sim.validation.serving import validate_serving

    text = render(fit_bands(validate_serving(folder).scored))
    (shipped_root() / "hermes_sim" / "analysis" / served_bands.NAME).write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
