"""What a request table amounts to: counts, rates, quantiles of tokens, prefix reuse."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hermes_sim.workload.lengths.quantile_table import QuantileTable
from hermes_sim.workload.requests import IntArray, RequestTable

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class TrafficStatistics:
    """Summary of requests with recorded arrivals."""

    num_requests: int
    duration_s: float
    """First to last arrival."""
    arrival_cv: float
    """Standard deviation / mean of the gaps: 1 for Poisson."""
    mean_prompt_tokens: float
    prompt_quantiles: tuple[float, ...]
    """At QUANTILES."""
    mean_output_tokens: float
    output_quantiles: tuple[float, ...]
    prefix_hit_frac: float
    """Share of prompt tokens an unlimited prefix cache would have; 0 without hash ids."""


def traffic_statistics(table: RequestTable) -> TrafficStatistics:
    """Needs two requests or more, all with an arrival of their own."""
    gaps_s = np.diff(table.arrival_s)
    return TrafficStatistics(
        num_requests=table.num_requests,
        duration_s=float(table.arrival_s[-1] - table.arrival_s[0]),
        arrival_cv=float(gaps_s.std() / gaps_s.mean()),
        mean_prompt_tokens=float(table.num_prompt_tokens.mean()),
        prompt_quantiles=tuple(np.quantile(table.num_prompt_tokens, QUANTILES).tolist()),
        mean_output_tokens=float(table.num_output_tokens.mean()),
        output_quantiles=tuple(np.quantile(table.num_output_tokens, QUANTILES).tolist()),
        prefix_hit_frac=float(prefix_hit_tokens(table).sum() / table.num_prompt_tokens.sum()),
    )


def prefix_hit_tokens(table: RequestTable) -> IntArray:
    """[num_requests] leading prompt tokens whose blocks some earlier request had: hits of an unlimited cache."""
    seen: set[int] = set()
    hit_blocks = np.zeros(table.num_requests, np.int64)
    ids, bounds = table.hash_ids.tolist(), table.hash_offsets.tolist()
    for request, (start, end) in enumerate(pairwise(bounds)):
        blocks = ids[start:end]
        hit_blocks[request] = next((i for i, block in enumerate(blocks) if block not in seen), len(blocks))
        seen.update(blocks)
    return np.minimum(hit_blocks * table.hash_block_tokens, table.num_prompt_tokens)


def markdown_row(name: str, statistics: TrafficStatistics) -> str:
    """Row of the table in docs/traces.md."""
    cells = [
        name,
        f"{statistics.num_requests:,}",
        f"{statistics.duration_s:,.0f} s",
        f"{statistics.num_requests / statistics.duration_s:.2f}/s",
        f"{statistics.arrival_cv:.2f}",
        f"{statistics.mean_prompt_tokens:,.0f}",
        " / ".join(f"{tokens:,.0f}" for tokens in statistics.prompt_quantiles),
        f"{statistics.mean_output_tokens:,.0f}",
        " / ".join(f"{tokens:,.0f}" for tokens in statistics.output_quantiles),
        f"{statistics.prefix_hit_frac:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def length_table_row(name: str, table: QuantileTable) -> str:
    """Row of the table of length tables in docs/traces.md: errors on the held-out half, beside those of the split."""
    about = table.about
    cells = [name, about["title"], about["licence"], about["num_rows"].partition(":")[0]]
    if "held_out_ks_prompt" in about:
        for quantity in ("ks_prompt", "ks_output", "mean_error_prompt", "mean_error_output"):
            cells.append(f"{about[f'held_out_{quantity}']} ({about[f'split_{quantity}']})")
        cells.append(f"{about['held_out_rank_correlation']} ({about['held_out_rank_correlation_error']})")
    else:
        cells += [about[key] for key in ("ks_prompt", "ks_output", "mean_error_prompt", "mean_error_output")]
        cells.append("unknown")
    return f"| {' | '.join(cells)} |"
