"""Runs held against the first of them: what was changed, what that has changed, what of it may be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from hermes_sim.analysis.comparison_text import comparison_text
from hermes_sim.analysis.metric_differences import (
    MetricDifference,
    Pairing,
    metric_differences,
    num_pairs,
    pairing_of,
)
from hermes_sim.analysis.results import Results
from hermes_sim.analysis.scenario_diff import Change, scenario_changes
from hermes_sim.analysis.setting import scenario_words
from hermes_sim.analysis.statistics import LEVEL, holm
from hermes_sim.core.errors import HermesError
from hermes_sim.scenario.study_metrics import METRICS

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DOUBTFUL: Final = ("saturated", "no_steady_state", "empty", "empty_window", "rejected", "left", "failed", "unfinished")
"""Warnings of a run that make a comparison with it mean something else."""

Verdict = Literal["better", "worse", "perhaps better", "perhaps worse", "same", "within chance", "unknown"]
"""`perhaps`: beyond chance by itself, not as one of so many metrics."""


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """One metric of a run beside that of the first."""

    found: MetricDifference
    p_value_holm: float
    """Raised for all metrics of all runs that are compared together."""

    @property
    def verdict(self) -> Verdict:
        """Better or worse only where chance alone would hardly do it."""
        difference = self.found.difference
        if math.isnan(self.p_value_holm):
            return "unknown"
        if not difference.significant:
            return "same" if difference.mean == 0.0 and difference.half_width_95 == 0.0 else "within chance"
        is_better = (difference.mean < 0.0) == (METRICS[self.found.name].better == "lower")
        if self.p_value_holm < LEVEL:
            return "better" if is_better else "worse"
        return "perhaps better" if is_better else "perhaps worse"


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run beside the first."""

    letter: str
    name: str
    setting: dict[str, Any]
    """As of setting.scenario_words."""
    seeds: tuple[int, ...]
    doubts: tuple[str, ...]
    """What the run itself warns of."""
    changes: tuple[Change, ...] = ()
    """None of the first run."""
    pairing: Pairing | None = None
    num_pairs: int = 0
    num_measured: int = 0
    """The most pairs that there could be."""
    metrics: tuple[ComparedMetric, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """All runs, the first being what the others are held against."""

    runs: tuple[ComparedRun, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row a run and metric, base units: `difference` and its `half_width_95` are over what was paired,
        `p_value_holm` is raised for the number of rows."""
        return pd.DataFrame(
            [
                {
                    "run": run.name,
                    "metric": one.found.name,
                    "base": one.found.first,
                    "value": one.found.second,
                    "difference": one.found.difference.mean,
                    "half_width_95": one.found.difference.half_width_95,
                    "change_frac": one.found.change_frac,
                    "p_value": one.found.difference.p_value,
                    "p_value_holm": one.p_value_holm,
                    "verdict": one.verdict,
                    "pairing": run.pairing,
                    "num": one.found.difference.num,
                    "is_correlated": one.found.difference.is_correlated,
                }
                for run in self.runs[1:]
                for one in run.metrics
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; None for what has no value."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {
            "base": self.runs[0].name,
            "runs": [
                {
                    "name": run.name,
                    "scenario": run.setting,
                    "seeds": list(run.seeds),
                    "doubts": list(run.doubts),
                    "changes": [asdict(change) for change in run.changes],
                    "pairing": run.pairing,
                    "num_pairs": run.num_pairs,
                }
                for run in self.runs
            ],
            "metrics": [{key: _plain(value) for key, value in row.items()} for row in rows],
        }

    def __repr__(self) -> str:
        return comparison_text(self.runs)

    def _repr_html_(self) -> str:
        """The same in a notebook, in letters of equal width."""
        return f"<pre>{escape(repr(self))}</pre>"


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def compare(*runs: Results | str | Path, names: Sequence[str] | None = None) -> Comparison:
    """Holds runs (results, or folders of saved ones) against the first of them.

    Metrics are paired by request where two runs have the same requests (seed and traffic), by seed where both have
    replications, and else not paired at all; the printed table says which. names: of the runs; folders have one.
    Raises HermesError of fewer than two runs, and of a folder that holds none.
    """
    if not 2 <= len(runs) <= len(LETTERS):
        raise HermesError(f"compare needs two runs or more (at most {len(LETTERS)}), got {len(runs)}")
    results = [one if isinstance(one, Results) else Results.load(one) for one in runs]
    if names is None:
        names = [
            one.scenario.cluster.name if isinstance(run, Results) else str(run)
            for run, one in zip(runs, results, strict=True)
        ]
    if len(names) != len(runs):
        raise HermesError(f"compare has {len(runs)} runs and {len(names)} names")
    first = results[0]
    pairings = [pairing_of(first, one) for one in results[1:]]
    found = [metric_differences(first, one, pairing) for one, pairing in zip(results[1:], pairings, strict=True)]
    raised = iter(holm([one.difference.p_value for metrics in found for one in metrics]))
    compared = [_described(LETTERS[0], names[0], first)]
    for index, (one, pairing, metrics) in enumerate(zip(results[1:], pairings, found, strict=True), start=1):
        pairs, measured = _pairs(first, one, pairing)
        compared.append(
            _described(
                LETTERS[index],
                names[index],
                one,
                changes=tuple(scenario_changes(first.scenario, one.scenario)),
                pairing=pairing,
                num_pairs=pairs,
                num_measured=measured,
                metrics=tuple(ComparedMetric(metric, next(raised)) for metric in metrics),
            )
        )
    return Comparison(tuple(compared))


def _described(letter: str, name: str, results: Results, **compared: Any) -> ComparedRun:
    doubts = [one["text"] for one in results.summary["warnings"] if one["kind"] in DOUBTFUL]
    return ComparedRun(letter, name, scenario_words(results.scenario), _seeds(results), tuple(doubts), **compared)


def _seeds(results: Results) -> tuple[int, ...]:
    if results.replications is None:
        return (results.seed,)
    return tuple(int(seed) for seed in results.replications["seed"])


def _pairs(first: Results, second: Results, pairing: Pairing) -> tuple[int, int]:
    if pairing == "requests":
        return num_pairs(first, second)
    if pairing == "seeds":
        ours, theirs = set(_seeds(first)), set(_seeds(second))
        return len(ours & theirs), len(ours | theirs)
    return 0, 0
