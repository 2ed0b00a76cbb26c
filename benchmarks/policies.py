"""Batching policies side by side, as papers compare them: `python -m benchmarks.policies`, about a minute.

Prints the tables of docs/policies.md. Everything is simulated: shipped files and overrides that the command line takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from benchmarks.page import table
from hermes_sim import Results, simulate

POLICIES = (
    "static", "continuous", "prefill_first", "mixed_pool", "chunked_prefill", "decode_first", "layered_prefill",
    "padded", "prepacked",
)  # fmt: skip
CHUNK_TOKENS = 512
"""Budget of the policies that split prompts, and of a group of layers."""
WHOLE_PROMPT_TOKENS = 16_384
"""Budget of those that do not: any prompt of the tables fits."""
CHUNKED = ("chunked_prefill", "decode_first")

LARGEST_QUEUE_S = 2.0
"""A rate is sustained if half of the requests wait no longer than this (Sarathi-Serve, section 5)."""
BISECTIONS = 8
FEWEST_REQUESTS = 300

Rows = list[list[str]]


@dataclass(frozen=True, slots=True)
class System:
    """One replica of a model on GPUs of a shipped node."""

    title: str
    model: str
    num_devices: int
    cluster: str = "a100x8"

    def overrides(self) -> list[str]:
        llm = "cluster.engines.llm"
        return [
            f"{llm}.model={self.model}",
            f"{llm}.replicas=1",
            f"{llm}.placement.gpu={self.num_devices}",
            f"{llm}.parallel.tp={self.num_devices}",
        ]


MISTRAL = System("Mistral-7B, one A100", "mistral_7b", 1)
YI = System("Yi-34B, two A100", "yi_34b", 2)
QWEN = System("Qwen3-30B-A3B, one H100", "qwen3_30b_a3b", 1, "h100x8")
LLAMA = System("Llama-3-70B, four A100", "llama_3_70b", 4)


def run(system: System, policy: str, num_tokens: int, rate_per_s: float, lengths: str, num: int, *more: str) -> Results:
    """Poisson traffic of a shipped table of lengths."""
    return simulate(
        system.cluster,
        "chat",
        overrides=[
            *system.overrides(),
            f"cluster.engines.llm.batching.kind={policy}",
            f"cluster.engines.llm.batching.max_num_batched_tokens={num_tokens}",
            f"workload.traffic.lengths.table={lengths}",
            f"workload.traffic.num_requests={num}",
            f"workload.traffic.arrivals.rate={rate_per_s} /s",
            *more,
        ],
    )


def budget(policy: str) -> int:
    """A static batch is bounded by sequences, not by tokens."""
    return CHUNK_TOKENS if policy in CHUNKED else 8 * WHOLE_PROMPT_TOKENS if policy == "static" else WHOLE_PROMPT_TOKENS


def itl_p99_s(results: Results) -> float:
    return float(results.summary["latency"]["itl"]["p99_s"])


def side_by_side(num: int = 1000, rate_per_s: float = 0.9) -> Rows:
    """All policies under one load: long prompts, answers of some two hundred tokens."""
    rows = []
    for policy in POLICIES:
        more = ("cluster.engines.llm.batching.max_num_seqs=32",) if policy == "static" else ()
        results = run(YI, policy, budget(policy), rate_per_s, "arxiv_summarization", num, *more)
        latency = results.summary["latency"]
        engine = results.engines.iloc[0]
        rows.append([
            f"`{policy}`",
            seconds(latency["ttft"]["p50_s"]),
            seconds(latency["ttft"]["p99_s"]),
            milliseconds(latency["tpot"]["p50_s"]),
            milliseconds(latency["itl"]["p99_s"]),
            seconds(latency["e2e"]["mean_s"]),
            f"{engine['mean_batch']:.1f}",
        ])  # fmt: skip
    return rows


def sustained_rate(
    system: System, policy: str, num_tokens: int, lengths: str, longest_itl_s: float, minutes: float
) -> float:
    """Highest Poisson rate [1/s] with the 99th percentile of token gaps within the limit and a short queue."""

    def holds(rate_per_s: float) -> bool:
        num = ceil(max(60.0 * minutes * rate_per_s, FEWEST_REQUESTS))
        results = run(system, policy, num_tokens, rate_per_s, lengths, num)
        queue_s = float(results.visits.query("kind == 'prefill'")["queue_s"].median())
        return itl_p99_s(results) <= longest_itl_s and queue_s <= LARGEST_QUEUE_S

    low_per_s, high_per_s = 0.2, 40.0
    for _ in range(BISECTIONS):
        middle_per_s = sqrt(low_per_s * high_per_s)
        if holds(middle_per_s):
            low_per_s = middle_per_s
        else:
            high_per_s = middle_per_s
    return low_per_s


LIMITS_S = {MISTRAL: {"strict": 0.1, "relaxed": 0.5}, YI: {"strict": 0.2, "relaxed": 1.0}}
SARATHI_TOKENS = {"strict": 512, "relaxed": 2048}


def capacity(minutes: float = 10.0) -> Rows:
    """What each policy serves within a limit on token gaps, as Sarathi-Serve's evaluation asks."""
    rows = []
    for system, limits in LIMITS_S.items():
        for lengths in ("sharegpt", "arxiv_summarization"):
            for word, longest_itl_s in limits.items():
                rates_per_s = [
                    sustained_rate(system, policy, num_tokens, lengths, longest_itl_s, minutes)
                    for policy, num_tokens in (
                        ("continuous", WHOLE_PROMPT_TOKENS),
                        ("prefill_first", WHOLE_PROMPT_TOKENS),
                        ("decode_first", SARATHI_TOKENS[word]),
                    )
                ]
                rows.append([
                    system.title, lengths, f"{word}, {longest_itl_s:g} s",
                    *(f"{rate:.2f}" for rate in rates_per_s), f"{rates_per_s[2] / rates_per_s[1]:.1f}x",
                ])  # fmt: skip
    return rows


def layered(num: int = 600) -> Rows:
    """Experts are loaded once a prompt instead of once a chunk."""
    rows = []
    for rate_per_s in (1.0, 3.0, 4.0):
        for policy in ("decode_first", "layered_prefill"):
            num_tokens = CHUNK_TOKENS if policy in CHUNKED else WHOLE_PROMPT_TOKENS
            results = run(QWEN, policy, num_tokens, rate_per_s, "arxiv_summarization", num)
            latency, engine = results.summary["latency"], results.engines.iloc[0]
            rows.append([
                f"{rate_per_s:g} /s", f"`{policy}`",
                milliseconds(latency["ttft"]["mean_s"]), milliseconds(latency["tpot"]["mean_s"]),
                milliseconds(latency["itl"]["p99_s"]), seconds(latency["e2e"]["mean_s"]),
                f"{engine['energy_j'] / engine['num_output_tokens']:.2f}",
            ])  # fmt: skip
    return rows


def padding(num: int = 1000) -> Rows:
    """Prompts alone, all there at once: the time to compute them."""
    rows = []
    for policy in ("padded", "prepacked", "prefill_first"):
        results = run(
            MISTRAL, policy, WHOLE_PROMPT_TOKENS, 1.0, "sharegpt", num,
            "workload.traffic.arrivals={kind: replay, times: [" + ", ".join(["0 s"] * num) + "]}",
            "workload.pipelines=[{name: prompts, stages: [{name: prefill, kind: prefill}]}]",
        )  # fmt: skip
        engine = results.engines.iloc[0]
        rows.append([
            f"`{policy}`", seconds(results.duration_s),
            f"{engine['num_prompt_tokens'] / results.duration_s:,.0f}", f"{100 * engine['mfu_frac']:.0f}%",
        ])  # fmt: skip
    return rows


DRAFTS = (
    "cluster.engines.llm.speculative={num_draft_tokens: 4, acceptance: {kind: constant, rate: 0.7}, "
    "draft: {kind: heads}}"
)
POOR_DRAFTS = (
    "cluster.engines.llm.speculative={num_draft_tokens: 4, acceptance: {kind: constant, rate: 0.3}, "
    "draft: {kind: ngram}}"
)


def speculation(num: int = 500) -> Rows:
    """Drafts by load: mean time per token, and what the engine says they bring."""
    rows = []
    for rate_per_s in (0.3, 2.0, 6.0, 12.0):
        cells = [f"{rate_per_s:g} /s"]
        for drafts in ((), (DRAFTS,), (POOR_DRAFTS,)):
            results = run(LLAMA, "chunked_prefill", 2048, rate_per_s, "sharegpt", num, *drafts)
            engine = results.engines.iloc[0]
            gain = f", {engine['speculation_speedup']:.2f}x" if drafts else f", batch {engine['mean_batch']:.0f}"
            cells.append(milliseconds(results.summary["latency"]["tpot"]["mean_s"]) + gain)
        rows.append(cells)
    return rows


TABLES: dict[str, tuple[Sequence[str], Callable[[], Rows]]] = {
    "side by side": (
        ("policy", "TTFT p50", "TTFT p99", "TPOT p50", "ITL p99", "mean E2E", "mean batch"), side_by_side,
    ),
    "capacity": (
        ("system", "lengths", "limit on p99 ITL", "`continuous`", "`prefill_first`", "`decode_first`", "last / middle"),
        capacity,
    ),
    "layered": (
        ("rate", "policy", "mean TTFT", "mean TPOT", "ITL p99", "mean E2E", "J per output token"), layered,
    ),
    "padding": (("policy", "time", "prompt tokens/s", "MFU"), padding),
    "speculation": (("rate", "no drafts", "heads, 4 drafts, 0.7", "n-grams, 4 drafts, 0.3"), speculation),
}  # fmt: skip


def seconds(value_s: float) -> str:
    return f"{value_s:.3g} s" if value_s < 1000 else f"{value_s:,.0f} s"


def milliseconds(value_s: float) -> str:
    return f"{1e3 * value_s:.3g} ms" if value_s < 1 else f"{1e3 * value_s:,.0f} ms"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TABLES, help="one table")
    only = parser.parse_args(arguments).only
    for name, (head, rows) in TABLES.items():
        if only in (None, name):
            sys.stdout.write(f"{name}\n\n{table(head, rows())}\n\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
