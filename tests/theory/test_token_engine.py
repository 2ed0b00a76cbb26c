"""A token engine against queueing theory: with one seat it is a single server, and its own books obey Little's law."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from tests.theory.queueing import assert_mean, mean_wait_mg1_s, waits_of_path_s

NUM_REPLICATIONS = 12
NUM_REQUESTS = 4000
NUM_WARM_UP = 300

FIXED = {"kind": "fixed", "num_prompt_tokens": 512, "num_output_tokens": 8}
SPREAD = {"kind": "uniform", "num_prompt_tokens": 900, "num_output_tokens": 40, "range_ratio": 0.1}


def run_engine(
    *,
    lengths: dict[str, Any],
    rate_per_s: float,
    num_requests: int = NUM_REQUESTS,
    seed: int = 1,
    max_num_seqs: int = 1,
    kind: str = "chunked_prefill",
) -> Results:
    """Llama-3-8B on one A100; prompts of at most 1,024 tokens run in one step."""
    engine = {
        "name": "llm",
        "serves": ["prefill", "decode"],
        "model": "llama_3_8b",
        "placement": {"gpu": 1},
        "batching": {"kind": kind, "max_num_seqs": max_num_seqs, "max_num_batched_tokens": 1024},
    }
    nodes = [{"name": "host", "devices": {"gpu": {"profile": "a100_sxm_80gb", "count": 1}}}]
    traffic = {
        "arrivals": {"kind": "poisson", "rate": f"{rate_per_s!r} /s"}, "num_requests": num_requests, "lengths": lengths,
    }  # fmt: skip
    return simulate(
        cluster={"name": "one", "nodes": nodes, "engines": [engine]},
        workload={"name": "chat", "traffic": traffic},
        seed=seed,
    )


def visit_times(results: Results) -> tuple[Any, Any, Any]:
    """[num_requests] arrival, start of prefill, end of decode."""
    visits = results.visits.sort_values("request")
    prefill = visits[visits["kind"] == "prefill"]
    decode = visits[visits["kind"] == "decode"]
    return prefill["arrival_s"].to_numpy(), prefill["start_s"].to_numpy(), decode["finish_s"].to_numpy()


def test_one_seat_serves_in_order_of_arrival() -> None:
    """Lindley's recursion holds for every request, whatever the lengths."""
    alone = visit_times(run_engine(lengths=SPREAD, rate_per_s=0.01, num_requests=200))
    rate_per_s = 0.8 / float((alone[2] - alone[1]).mean())
    arrival_s, start_s, finish_s = visit_times(run_engine(lengths=SPREAD, rate_per_s=rate_per_s, num_requests=2000))
    expected_s = waits_of_path_s(arrival_s, finish_s - start_s, 1)
    assert (expected_s > 0).mean() > 0.5
    np.testing.assert_allclose(start_s - arrival_s, expected_s, rtol=0, atol=1e-9)


def test_one_seat_with_equal_requests_is_m_d_1() -> None:
    arrival_s, start_s, finish_s = visit_times(run_engine(lengths=FIXED, rate_per_s=0.01, num_requests=20))
    np.testing.assert_array_equal(start_s, arrival_s)
    service_s = float((finish_s - start_s).mean())
    np.testing.assert_allclose(finish_s - start_s, service_s, rtol=1e-6)
    rate_per_s = 0.7 / service_s
    means_s = []
    for seed in range(1, NUM_REPLICATIONS + 1):
        arrival_s, start_s, _ = visit_times(run_engine(lengths=FIXED, rate_per_s=rate_per_s, seed=seed))
        means_s.append(float((start_s - arrival_s)[NUM_WARM_UP:].mean()))
    assert_mean(mean_wait_mg1_s(rate_per_s, service_s, 0.0), means_s)


@pytest.mark.parametrize("kind", ["chunked_prefill", "continuous"])
def test_littles_law_between_requests_and_engine(kind: str) -> None:
    """Mean number in a step x time in steps = sum over visits of their time in steps.

    The left side is what the engine counts step by step, the right side what the requests' rows add up to.
    """
    results = run_engine(lengths=SPREAD, rate_per_s=14.0, num_requests=1500, max_num_seqs=32, kind=kind)
    engine = results.engines.iloc[0]
    assert engine["mean_batch"] > 4.0
    assert engine["mean_batch"] * engine["busy_s"] == pytest.approx(float(results.visits["service_s"].sum()), rel=1e-9)


def test_without_preemption_all_queueing_is_before_the_first_step() -> None:
    """Once it runs, a sequence is in every step to its end: running sequences come first and their tokens fit."""
    results = run_engine(lengths=SPREAD, rate_per_s=14.0, num_requests=1500, max_num_seqs=8)
    visits = results.visits
    decode = visits[visits["kind"] == "decode"]
    prefill = visits[visits["kind"] == "prefill"]
    np.testing.assert_allclose(decode["service_s"], decode["finish_s"] - decode["arrival_s"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(prefill["service_s"], prefill["finish_s"] - prefill["start_s"], rtol=0, atol=1e-9)
    assert (prefill["queue_s"] > 0.0).mean() > 0.5
    resources_s = visits["compute_s"] + visits["memory_s"] + visits["network_s"] + visits["host_s"]
    np.testing.assert_allclose(visits["service_s"], resources_s, rtol=0, atol=1e-9)
