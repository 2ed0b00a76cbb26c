"""The metrics that a study tables of every run: what they are called, their unit in figures, which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class StudyMetric:
    """One column of a study's table."""

    label: str
    unit: str
    """As drawn; empty for a plain number."""
    better: Better
    per_unit: float = 1.0
    """Base units in one unit as drawn."""

    @property
    def title(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


LATENCIES: Final = {"ttft": "TTFT", "ttfat": "TTFAT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
STATISTICS: Final = ("mean", "p50", "p90", "p99")

METRICS: Final[dict[str, StudyMetric]] = {
    **{
        f"{latency}_{statistic}_s": StudyMetric(
            f"{label} {statistic}", *(("ms", "lower", 1e-3) if latency in ("tpot", "itl") else ("s", "lower"))
        )
        for latency, label in LATENCIES.items()
        for statistic in STATISTICS
    },
    "requests_per_s": StudyMetric("throughput", "requests/s", "higher"),
    "output_tokens_per_s": StudyMetric("output", "tokens/s", "higher"),
    "goodput_per_s": StudyMetric("goodput", "requests/s", "higher"),
    "slo_met_frac": StudyMetric("requests within the SLO", "%", "higher", 0.01),
    "output_tokens_per_usd": StudyMetric("output per dollar", "million tokens/USD", "higher", 1e6),
    "requests_per_usd": StudyMetric("throughput per dollar", "requests/USD", "higher"),
    "rent_usd_per_h": StudyMetric("rent", "USD/h", "lower"),
    "cost_per_million_output_tokens_usd": StudyMetric("cost", "USD/million output tokens", "lower"),
    "energy_per_output_token_j": StudyMetric("energy", "J/output token", "lower"),
    "carbon_per_request_g": StudyMetric("carbon", "gCO2e/request", "lower"),
    "prefix_hit_frac": StudyMetric("prompt tokens found in prefix caches", "%", "higher", 0.01),
    "mean_quality": StudyMetric("answer quality", "", "higher"),
    "num_preemptions": StudyMetric("preemptions", "", "lower"),
    "finished_frac": StudyMetric("requests finished", "%", "higher", 0.01),
}
"""Column -> metric. `output_tokens_per_usd`, `requests_per_usd`: throughput of the measured window over the rent of all
engines' devices, so that filling up and draining do not count."""

TTFT_PART: Final = "ttft_part_"
STAGE_TIME: Final = "stage_"
UTILIZATION: Final = "utilization_"

_PATTERNS: Final = {
    TTFT_PART: StudyMetric("of TTFT:", "s", "lower"),
    STAGE_TIME: StudyMetric("time of a visit,", "s", "lower"),
    UTILIZATION: StudyMetric("busy:", "%", "higher", 0.01),
}
"""Columns that are there for each part of TTFT (`ttft_part_queue_s`), each stage (`stage_recall_s`: queueing, transfer
and service), each engine (`utilization_llm_frac`: the mean of its replicas)."""


def metric_of(name: str) -> StudyMetric | None:
    """The metric of a column; None where there can be none of this name."""
    if name in METRICS:
        return METRICS[name]
    for prefix, pattern in _PATTERNS.items():
        suffix = "_frac" if prefix == UTILIZATION else "_s"
        if name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix):
            own = name.removeprefix(prefix).removesuffix(suffix).replace("_", " ")
            return StudyMetric(f"{pattern.label} {own}", pattern.unit, pattern.better, pattern.per_unit)
    return None
