"""Named engines run, and differ where their sources say that they do."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim import Results, simulate
from hermes_sim.scenario.engine_presets import ENGINE_PRESETS
from tests import scenarios as s


def run(preset: str, **keys: Any) -> Results:
    """A hundred requests of a few hundred tokens, more than the engine can serve at once."""
    workload = s.workload(traffic=s.traffic(rate="30 /s", num_requests=100, prompt=300, output=100))
    return simulate(s.cluster(s.llm(engine_preset=preset, **keys)), workload)


@pytest.mark.parametrize("preset", ENGINE_PRESETS)
def test_every_request_ends(preset: str) -> None:
    results = run(preset)
    assert set(results.requests["status"]) == {"finished"}
    assert results.engines["num_output_tokens"].sum() == results.requests["num_output_tokens"].sum()


@pytest.mark.parametrize(
    ("preset", "preempts"), [("vllm_v1", True), ("vllm_v0", True), ("trtllm", False), ("orca", False)]
)
def test_who_keeps_blocks_for_outputs_never_preempts(preset: str, preempts: bool) -> None:
    """The same 4,800 tokens of KV for all: TensorRT-LLM and Orca admit what they can finish, vLLM what fits now."""
    block_tokens = ENGINE_PRESETS[preset].values["kv_cache.block_tokens"].value
    results = run(preset, kv_cache={"num_gpu_blocks": 4800 // block_tokens})
    assert (results.engines["num_preemptions"].sum() > 0) == preempts
    assert set(results.requests["status"]) == {"finished"}


def test_prompts_first_make_the_first_token_early_and_the_others_late() -> None:
    """vLLM V0 against V1 (Sarathi-Serve, arXiv 2403.02310, section 3): stalls between tokens bought by a short TTFT."""
    first, chunked = run("vllm_v0").summary["latency"], run("vllm_v1").summary["latency"]
    assert first["ttft"]["p50_s"] < chunked["ttft"]["p50_s"]
    assert first["itl"]["p99_s"] > chunked["itl"]["p99_s"]


def test_overlap_hides_the_host() -> None:
    """vLLM V1 schedules the next step while the last one runs: without that every step is longer by the host's time."""
    host = {"per_step": "5 ms"}
    overlapped = run("vllm_v1", host=host)
    waiting = run("vllm_v1", host=host, batching={"async_scheduling": False})
    saved_s = waiting.engines["duration_s"].iloc[0] - overlapped.engines["duration_s"].iloc[0]
    assert saved_s > 0.5 * 5e-3 * overlapped.engines["num_steps"].iloc[0]
