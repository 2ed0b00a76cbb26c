"""Bands of served latencies: `python -m hermes_sim.validation.served_bands REPORT.json`.

The report is one of `hermes-sim validate --json`. Runs kept out of every fit are halved by a checksum of what was
served how, whatever the load: one half makes hermes_sim/analysis/served_bands.json, `hermes-sim validate` counts how
many of the other lie inside.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis import served_bands
from hermes_sim.analysis.served_bands import Band, engine_key
from hermes_sim.core.errors import HermesError
from hermes_sim.core.shipped import shipped_root
from hermes_sim.core.whole_file import write_whole
from hermes_sim.validation.report import read_report

METRICS: Final = {"ttft_mean_s": "ttft", "tpot_mean_s": "tpot", "itl_mean_s": "tpot", "e2e_mean_s": "e2e"}
FEWEST_RUNS: Final = 10
QUANTILES: Final = (0.05, 0.95)
SOURCE: Final = (
    "measured over simulated, 5% and 95% quantiles of runs kept out of every fit, of one half of their set-ups "
    "(docs/accuracy.md)"
)

LOADS: Final = frozenset({"concurrency", "rate"})
"""Labels of a run that are no part of its set-up: points of one curve stay together."""

Bands = dict[str, dict[str, Band]]
"""Key of the engine -> latency -> band."""


def makes_bands(labels: Mapping[str, str]) -> bool:
    """Whether kept-out runs of this set-up make the bands; the other half judges them."""
    setup = ",".join(f"{name}={value}" for name, value in sorted(labels.items()) if name not in LOADS)
    return zlib.crc32(setup.encode()) % 2 == 0


def judges_bands(scored: pd.DataFrame) -> pd.DataFrame:
    """The rows that made no band."""
    return scored[[not makes_bands(labels) for labels in scored["labels"]]]


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


def ratios(report: Mapping[str, Any]) -> pd.DataFrame:
    """One row a latency of a kept-out run: key, latency, makes (bands), ratio (measured over predicted)."""
    if "runs" not in report.get("serving", {}):
        raise HermesError("the report has no served runs: `hermes-sim validate --only serving --json FILE` writes one")
    return pd.DataFrame(_ratios(report["serving"]["runs"]), columns=["key", "latency", "makes", "ratio"])


def _ratios(runs: list[dict[str, Any]]) -> Iterator[tuple[str, str, bool, float]]:
    for run in runs:
        if run["side"] != "held_out" or "left_out" in run:
            continue
        labels = run["labels"]
        for metric, (measured, predicted, *_) in run["metrics"].items():
            if metric in METRICS and predicted:
                key = key_of(labels.get("engine", ""), labels.get("mode", ""))
                yield key, METRICS[metric], makes_bands(labels), measured / predicted


def fit_bands(kept_out: pd.DataFrame) -> Bands:
    """From the rows of `ratios` that make bands."""
    found: Bands = {}
    for (key, latency), group in kept_out[kept_out["makes"]].groupby(["key", "latency"]):
        if len(group) >= FEWEST_RUNS:
            low, high = (float(f"{value:.4g}") for value in np.quantile(group["ratio"], QUANTILES))
            found.setdefault(str(key), {})[str(latency)] = Band(min(low, 1.0), max(high, 1.0), len(group))
    return found


def render(bands: Bands) -> str:
    """The file."""
    engines: dict[str, Any] = {
        key: {
            latency: {"low_frac": band.low_frac, "high_frac": band.high_frac, "num_runs": band.num_runs}
            for latency, band in sorted(entries.items())
        }
        for key, entries in sorted(bands.items())
    }
    return json.dumps({"source": SOURCE, "engines": engines}, indent=2) + "\n"


def coverage(kept_out: pd.DataFrame, bands: Bands) -> list[str]:
    """For each band: of how many runs it was made, and which share of the other half's lies inside."""
    judges = kept_out[~kept_out["makes"]]
    lines = []
    for key, entries in sorted(bands.items()):
        for latency, band in sorted(entries.items()):
            found = judges.loc[(judges["key"] == key) & (judges["latency"] == latency), "ratio"]
            inside = f"{found.between(band.low_frac, band.high_frac).mean():.0%} of" if len(found) else "judged by"
            lines.append(
                f"{key} {latency}: {band.low_frac:g} to {band.high_frac:g} of {band.num_runs} runs, "
                f"{inside} {len(found)} others{' inside' if len(found) else ''}"
            )
    return lines


def main(report: Path) -> None:
    """Write the bands that the report gives, and say what the other half makes of them."""
    kept_out = ratios(read_report(report))
    bands = fit_bands(kept_out)
    write_whole(shipped_root() / "hermes_sim" / "analysis" / served_bands.NAME, render(bands))
    sys.stdout.write("\n".join(coverage(kept_out, bands)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
