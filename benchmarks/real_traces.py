"""The public traces as published, on shipped clusters: `python -m benchmarks.real_traces FOLDER`.

FOLDER holds AzureLLMInferenceTrace_{conv,code}.csv (github.com/Azure/AzurePublicDataset) and
{conversation,synthetic}_trace.jsonl (github.com/kvcache-ai/Mooncake), plain or gzip. Prints the table of
docs/traces.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hermes_sim import HermesError, Results, simulate

SMALL_MODEL = (
    "cluster.engines.llm.model=llama_3_1_8b",
    "cluster.engines.llm.replicas=8",
    "cluster.engines.llm.placement={gpu: 1}",
    "cluster.engines.llm.parallel.tp=1",
)
"""Eight replicas of a model that takes Mooncake's prompts of up to 126,195 tokens, one on each device."""


@dataclass(frozen=True, slots=True)
class TraceRun:
    """One line of the table."""

    trace: str
    file: str
    """Without `.gz`."""
    workload: str
    cluster: str
    routing: str
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.trace}-{self.routing}"

    def run(self, folder: Path) -> Results:
        """Raises HermesError if the trace is not in the folder."""
        path = next((path for path in (folder / self.file, folder / f"{self.file}.gz") if path.is_file()), None)
        if path is None:
            raise HermesError(f"{folder} holds no {self.file}, plain or gzip")
        overrides = (f"workload.traffic.trace.path={path}", f"cluster.routing.kind={self.routing}", *self.overrides)
        return simulate(self.cluster, self.workload, overrides=overrides)


RUNS = (
    TraceRun(
        "azure2023_conv", "AzureLLMInferenceTrace_conv.csv", "azure2023_conv", "a100x8", "least_outstanding_tokens"
    ),
    TraceRun(
        "azure2023_code", "AzureLLMInferenceTrace_code.csv", "azure2023_code", "h200x8", "least_outstanding_tokens"
    ),
    *(
        TraceRun(f"mooncake_{name}", f"{name}_trace.jsonl", "mooncake_conversation", "h200x8", routing, SMALL_MODEL)
        for name in ("conversation", "synthetic")
        for routing in ("least_outstanding_tokens", "prefix_aware")
    ),
)


@dataclass(frozen=True, slots=True)
class TraceFigures:
    """What one run came to."""

    num_requests: int
    num_finished: int
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    cached_frac: float
    """Share of the prompt tokens found in prefix caches."""
    wall_time_s: float


def figures_of(results: Results) -> TraceFigures:
    """Figures of a run that finished at least one request."""
    summary = results.summary
    latency, requests = summary["latency"], summary["requests"]
    return TraceFigures(
        num_requests=requests["num"],
        num_finished=requests["num_finished"],
        ttft_p50_s=latency["ttft"]["p50_s"],
        ttft_p99_s=latency["ttft"]["p99_s"],
        tpot_p50_s=latency["tpot"]["p50_s"],
        cached_frac=requests["prefix_hit_frac"],
        wall_time_s=results.wall_time_s or 0.0,
    )


HEAD = (
    "| trace | cluster | routing | requests | finished | TTFT p50 | TTFT p99 | TPOT p50 | cached | run takes |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def markdown_row(run: TraceRun, figures: TraceFigures) -> str:
    """Line of the table in docs/traces.md."""
    cells = (
        run.trace,
        run.cluster,
        run.routing,
        f"{figures.num_requests:,}",
        f"{figures.num_finished:,}",
        f"{figures.ttft_p50_s:.3g} s",
        f"{figures.ttft_p99_s:.3g} s",
        f"{1e3 * figures.tpot_p50_s:.3g} ms",
        f"{figures.cached_frac:.1%}",
        f"{figures.wall_time_s:.1f} s",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description="The public traces as published, on shipped clusters.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    sys.stdout.write("\n".join(HEAD) + "\n")
    for run in RUNS:
        sys.stdout.write(markdown_row(run, figures_of(run.run(folder))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
