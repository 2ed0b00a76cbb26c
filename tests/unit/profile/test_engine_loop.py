"""Laws of the reference loop: it schedules no more than it may, and batching changes no token."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.profile.engine_loop import EngineLoop, Run
from hermes_sim.profile.engine_model import CapturedDecode, Transformer
from hermes_sim.profile.engine_run import capture_sizes, request_row
from hermes_sim.profile.engine_shape import MODELS
from hermes_sim.profile.numpy_backend import NumpyBackend
from hermes_sim.profile.request_trace import Request, poisson_trace

NEVER = float("inf")
MAX_BLOCKS = 8
NUM_BLOCKS = 40
REQUESTS = [Request(0.0, prompt, output) for prompt, output in [(30, 5), (7, 12), (64, 3), (1, 9), (16, 1), (33, 8)]]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return Transformer(NumpyBackend(), MODELS["tiny"], NUM_BLOCKS, 16)


def loop_of(model: Transformer, *, seqs: int = 4, tokens: int = 48, captured: bool = False) -> EngineLoop:
    graphs = CapturedDecode(model, capture_sizes(seqs), MAX_BLOCKS) if captured else None
    return EngineLoop(
        model,
        num_blocks=NUM_BLOCKS,
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        max_blocks_per_seq=MAX_BLOCKS,
        captured=graphs,
    )


def last_tokens(run: Run) -> dict[int, int]:
    return {sequence.number: sequence.last_token for sequence in run.sequences}


def test_every_token_is_generated_once_and_within_the_limits(model: Transformer) -> None:
    run = loop_of(model).replay(REQUESTS, NEVER)
    assert len(run.sequences) == len(REQUESTS)
    assert all(sequence.num_generated == sequence.request.num_output_tokens for sequence in run.sequences)
    assert sum(step.num_prefill_tokens for step in run.steps) == sum(one.num_prompt_tokens for one in REQUESTS)
    assert sum(step.num_decode_seqs for step in run.steps) == sum(one.num_output_tokens - 1 for one in REQUESTS)
    for step in run.steps:
        assert 0 < step.num_prefill_tokens + step.num_decode_seqs <= 48
        assert step.num_prefill_seqs + step.num_decode_seqs <= 4
        assert 0.0 <= step.schedule_s <= step.duration_s


def test_steps_follow_one_another(model: Transformer) -> None:
    run = loop_of(model).replay(REQUESTS, NEVER)
    for before, after in zip(run.steps, run.steps[1:], strict=False):
        assert before.start_s + before.duration_s <= after.start_s
    for sequence in run.sequences:
        row = request_row(sequence)
        assert 0.0 < row["ttft_s"] <= row["e2e_s"]  # type: ignore[operator]


def test_tokens_do_not_depend_on_chunks_batches_or_graphs(model: Transformer) -> None:
    alone: dict[int, int] = {}
    for number, request in enumerate(REQUESTS):
        run = loop_of(model, seqs=1, tokens=128).replay([Request(0.0, 1, 1)] * number + [request], NEVER)
        alone[number] = last_tokens(run)[number]
    for settings in ({"tokens": 48}, {"tokens": 9}, {"tokens": 128, "seqs": 6}):
        assert last_tokens(loop_of(model, **settings).replay(REQUESTS, NEVER)) == alone  # type: ignore[arg-type]
    run = loop_of(model, captured=True).replay(REQUESTS, NEVER)
    assert last_tokens(run) == alone
    for step in run.steps:
        assert (
            (step.graph_batch_size >= step.num_decode_seqs > 0)
            if step.num_prefill_seqs == 0
            else step.graph_batch_size == 0
        )


def test_a_full_cache_holds_requests_back(model: Transformer) -> None:
    requests = [Request(0.0, 100, 10)] * 8
    run = loop_of(model, seqs=8, tokens=128).replay(requests, NEVER)
    most = max(step.num_prefill_seqs + step.num_decode_seqs for step in run.steps)
    assert most == NUM_BLOCKS // 7
    assert len(run.sequences) == 8


def test_no_new_requests_after_the_end(model: Transformer) -> None:
    run = loop_of(model).replay([Request(0.0, 4, 2), Request(60.0, 4, 2)], 0.0001)
    assert all(sequence.finish_s is not None for sequence in run.sequences)
    assert len(run.sequences) <= 1


def test_sizes_captured_are_those_of_vllm() -> None:
    assert capture_sizes(32) == (1, 2, 4, 8, 16, 24, 32)
    assert capture_sizes(3) == (1, 2, 3)
    assert capture_sizes(1) == (1,)


def test_the_built_in_trace_is_poisson() -> None:
    trace = poisson_trace(8.0, 4000, (64, 2048), (16, 256))
    gaps_s = np.diff([request.arrival_s for request in trace])
    assert trace[0].arrival_s == 0.0
    assert gaps_s.mean() == pytest.approx(1 / 8.0, rel=0.05)
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)
    assert {64, 2048} >= {
        min(one.num_prompt_tokens for one in trace),
        max(one.num_prompt_tokens for one in trace),
    } - set(range(65, 2048))
