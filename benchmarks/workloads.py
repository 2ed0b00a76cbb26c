"""What is measured: seven workloads at fixed rates on frozen hardware, and the bars they are held to.

Rates are fixed at about 75% of what each system can serve (W4: at the busiest hour 62%; W5: a full batch). Device,
links, number of KV blocks and host times are stated in the files beside this one, so that better cost models and
calibrations do not change the load; `busy_frac` says what it is, and a run that strays from it fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hermes_sim import Scenario, load_scenario

FOLDER = Path(__file__).resolve().parent

REFERENCE_TIMEOUTS_PER_S = 720_000
"""SimPy timeouts per second of the machine that the bars were set on, and the peers were measured on."""

SLACK = 1.4
"""How much slower than its bar a run may be: machines differ in more than SimPy's speed, and from hour to hour."""

BUSY_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One line of the table; its files stand beside this one."""

    name: str
    title: str
    files: str
    bar_requests_per_s: float
    """On the reference machine."""
    moonshot_requests_per_s: float
    busy_frac: float
    """Mean over the engines of the time they are busy."""
    overrides: tuple[str, ...] = ()
    num_exact: int | None = None
    """Requests run with one event per step, and through the SimPy loop, where all take too long."""
    num_reference: int = 40
    """Requests run through the reference engine."""
    reference_overrides: tuple[str, ...] = ()
    max_memory_bytes: float | None = None
    workload: str | None = None
    """Its file, where it is not named as the cluster's."""
    least_of: tuple[str, float] | None = None
    """Another benchmark, and how much of its requests per second this one has to reach on the same machine."""
    has_twins: bool = True
    """The slow ways know one engine, or equal ones, that do prefill and decode."""

    def scenario(self, *, exact_steps: bool = False, limit: int | None = None, more: tuple[str, ...] = ()) -> Scenario:
        """limit: only so many requests. more: overrides beside the benchmark's own."""
        overrides = [*self.overrides, *more]
        if limit is not None:
            overrides.append(f"workload.traffic.num_requests={limit}")
        cluster = FOLDER / f"{self.files}_cluster.yaml"
        workload = FOLDER / f"{self.workload or self.files}_workload.yaml"
        return load_scenario(cluster, workload, overrides=overrides, exact_steps=exact_steps)

    @property
    def bar_per_kilotick(self) -> float:
        return per_kilotick(self.bar_requests_per_s, REFERENCE_TIMEOUTS_PER_S)


def per_kilotick(requests_per_s: float, timeouts_per_s: float) -> float:
    """Requests simulated in the time of 1,000 timeouts of a plain SimPy process on the same machine."""
    return 1e3 * requests_per_s / timeouts_per_s


BENCHMARKS = (
    Benchmark(
        "W1", "Llama-2-70B TP4, 2,000 requests, Azure conversation lengths", "w1",
        bar_requests_per_s=25_000, moonshot_requests_per_s=100_000, busy_frac=1.0,
    ),
    Benchmark(
        "W2 rr", "8 replicas, 20,000 requests, round robin", "w2",
        bar_requests_per_s=20_000, moonshot_requests_per_s=100_000, busy_frac=0.99,
        overrides=("cluster.routing.kind=round_robin",), num_exact=4_000,
    ),
    Benchmark(
        "W2 lot", "8 replicas, 20,000 requests, least outstanding tokens", "w2",
        bar_requests_per_s=15_000, moonshot_requests_per_s=50_000, busy_frac=0.99,
        overrides=("cluster.routing.kind=least_outstanding_tokens",), num_exact=4_000,
    ),
    Benchmark(
        "W3", "Llama-2-7B, 5,000 requests of 512 in, 128 out", "w3",
        bar_requests_per_s=50_000, moonshot_requests_per_s=150_000, busy_frac=1.0,
    ),
    Benchmark(
        "W4", "16 replicas, a day of 1,000,000 requests, Azure conversation lengths", "w4",
        bar_requests_per_s=1e6 / 60.0, moonshot_requests_per_s=1e6 / 15.0, busy_frac=0.918,
        num_exact=4_000, max_memory_bytes=2e9,
    ),
    Benchmark(
        "W5", "Llama-3.1-8B TP8, 2,000 requests of 1,024 in, 16,384 out, batch 256", "w5",
        bar_requests_per_s=2_000 / 2.0, moonshot_requests_per_s=2_000 / 0.3, busy_frac=1.0,
        num_exact=500, num_reference=8, reference_overrides=("workload.traffic.lengths.num_output_tokens=512",),
    ),
    Benchmark(
        "W6 llm", "W6 without its retrieval, as many tokens", "w6", workload="w6_alone",
        bar_requests_per_s=16_000, moonshot_requests_per_s=50_000, busy_frac=0.8, has_twins=False,
    ),
    Benchmark(
        "W6 rag", "RAG: embed and retrieve on cores that share memory, 8 replicas, 20,000 requests", "w6",
        bar_requests_per_s=14_000, moonshot_requests_per_s=50_000, busy_frac=0.81, has_twins=False,
        least_of=("W6 llm", 0.5),
    ),
    Benchmark(
        "W7", "Prefill and decode apart, collectives and transfers over the same links, 5,000 requests", "w7",
        bar_requests_per_s=3_000, moonshot_requests_per_s=15_000, busy_frac=0.66, has_twins=False,
    ),
)  # fmt: skip
