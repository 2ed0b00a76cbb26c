"""Several answers to one prompt: rows of their own, shared blocks, a request that ends with the last of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import SimulationError
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.sim.status import FINISHED
from hermes_sim.workload.requests import ClosedLoop, RequestTable, request_table
from tests import scenarios as s

BEST_OF_3 = [s.PREFILL, {**s.DECODE, "num_samples": 3}]
APART = [s.llm("prefiller", serves=["prefill"]), s.llm("decoder", serves=["decode"])]


def lowered(requests: RequestTable, *engines: s.Document, exact: bool = False, stages: Any = None) -> Lowered:
    cluster = s.cluster(*(engines or (s.llm(),)))
    return lower(load_scenario(cluster, s.workload(*(stages or BEST_OF_3)), exact_steps=exact), requests)


def run(requests: RequestTable, *engines: s.Document, exact: bool = False) -> Coordinator:
    coordinator = Coordinator(lowered(requests, *engines, exact=exact))
    coordinator.run()
    return coordinator


def random_requests(number: int, seed: int = 2) -> RequestTable:
    rng = np.random.default_rng(seed)
    return request_table(
        np.cumsum(rng.exponential(0.05, number)), rng.integers(1, 600, number), rng.integers(0, 80, number)
    )


class TestRows:
    def test_samples_stand_behind_all_visits(self) -> None:
        run = lowered(request_table([0.0, 1.0], [100, 50], [7, 7]))
        state = run.state
        # prefill and decode of two requests, then two further samples of each decode
        assert run.num_visits == 4
        assert state.row_parent.tolist() == [-1, -1, -1, -1, 1, 1, 3, 3]
        assert run.row_parent.tolist() == [1, 1, 3, 3]
        assert state.row_request[4:].tolist() == [0, 0, 1, 1]
        assert state.row_prompt[4:].tolist() == [100, 100, 50, 50]
        assert state.row_first_sample[[1, 3]].tolist() == [4, 6]
        assert state.row_num_samples.tolist() == [1, 3, 1, 3, 1, 1, 1, 1]
        assert state.row_open_samples[[1, 3]].tolist() == [3, 3]

    def test_equal_requests_have_equal_samples(self) -> None:
        state = lowered(request_table([0.0] * 3, [100] * 3, [7] * 3)).state
        assert state.row_output.tolist() == [1, 7] * 3 + [7] * 6  # a prefill ends with the first token

    def test_the_longest_is_the_visits_own(self) -> None:
        requests = random_requests(200)
        state = lowered(requests).state
        others = state.row_output[400:].reshape(-1, 2)
        answered = np.flatnonzero(requests.num_output_tokens > 0)
        own = state.row_output[1:400:2][answered]
        assert (own >= others[:, 0]).all()
        assert (others[:, 0] >= others[:, 1]).all()
        # a request's own length is one of its samples'
        all_three = np.column_stack((own, others))
        assert (all_three == requests.num_output_tokens[answered, None]).any(axis=1).all()
        np.testing.assert_array_equal(state.row_output[0:400:2], np.minimum(requests.num_output_tokens, 1))

    def test_other_lengths_are_those_of_other_requests(self) -> None:
        # the mean of what is drawn is the mean of what there is, within five standard errors
        requests = random_requests(2000)
        run = lowered(requests)
        drawn = run.state.row_output[run.num_visits :].sum() + run.state.row_output[1 : run.num_visits : 2].sum()
        answered = requests.num_output_tokens[requests.num_output_tokens > 0]
        others = (drawn - answered.sum()) / (2 * len(answered))
        assert abs(others - answered.mean()) < 5 * answered.std() / np.sqrt(2 * len(answered))

    def test_a_request_without_output_has_no_samples(self) -> None:
        state = lowered(request_table([0.0, 1.0], [100, 50], [0, 4])).state
        assert state.row_num_samples.tolist() == [1, 1, 1, 3, 1, 1]

    def test_samples_are_cut_at_the_context_limit(self) -> None:
        # Llama 3 8B holds 8,192 tokens: a prompt of 8,000 leaves 192 to each of its samples
        state = lowered(request_table([0.0, 1.0], [8000, 10], [100, 3000])).state
        assert (state.row_output[state.row_prompt == 8000] <= 192).all()

    def test_seats_for_samples_that_wait(self) -> None:
        assert lowered(request_table([0.0], [9], [9]), s.llm(batching={"max_num_seqs": 5})).state.free_slots.shape == (
            1,
            15,
        )

    def test_samples_need_a_prefill_that_they_follow(self) -> None:
        stages = [s.PREFILL, {**s.DECODE, "num_samples": 3, "probability": 0.5}]
        with pytest.raises(SimulationError, match=r"'decode' has 3 samples, so it must come after one prefill"):
            lowered(request_table([0.0], [9], [9]), stages=stages)


class TestRun:
    @pytest.mark.parametrize("engines", [(s.llm(),), APART], ids=["together", "apart"])
    def test_every_sample_gets_its_tokens_and_every_block_comes_back(self, engines: tuple[s.Document, ...]) -> None:
        coordinator = run(random_requests(60), *engines)
        state = coordinator.state
        assert (coordinator.status == FINISHED).all()
        decodes = np.concatenate((np.arange(1, 120, 2), np.arange(120, len(state.row_output))))
        wanted = state.row_output[decodes]
        np.testing.assert_array_equal(state.row_generated[decodes][wanted > 0], wanted[wanted > 0])
        np.testing.assert_array_equal(state.num_free_blocks, state.num_blocks)
        assert (state.row_open_samples[state.row_num_samples > 1] == 0).all()
        assert (state.load_requests == 0).all()
        assert (state.load_tokens == 0).all()

    def test_the_prompt_is_computed_once(self) -> None:
        requests = request_table([0.0], [1000], [40])
        plain = lowered(requests, stages=[s.PREFILL, s.DECODE])
        Coordinator(plain).run()
        sampled = run(requests)
        assert sampled.state.total_prefill_tokens.tolist() == plain.state.total_prefill_tokens.tolist() == [1000]
        # 1,000 tokens are 62 full blocks of 16, which all share; the rest of the 1,039 are 3 blocks of each
        assert plain.state.peak_used_blocks.tolist() == [65]
        assert sampled.state.peak_used_blocks.tolist() == [62 + 3 * 3]
        # the block that is part full is copied for the two further samples
        assert sampled.state.total_copied_blocks.tolist() == [2]

    def test_a_user_waits_for_the_last_sample(self) -> None:
        loop = ClosedLoop(concurrency=1, think_time_s=np.zeros(8))
        rng = np.random.default_rng(4)
        requests = request_table([np.nan] * 8, [100] * 8, rng.integers(1, 50, 8), closed_loop=loop)
        coordinator = run(requests)
        finish_s = coordinator.state.row_finish_s
        decodes = np.arange(1, 16, 2)
        last_s = finish_s[decodes].copy()
        np.maximum.at(last_s, coordinator.state.row_request[16:], finish_s[16:])
        np.testing.assert_array_equal(coordinator.arrival_s[1:], last_s[:-1])

    def test_kv_is_sent_once(self) -> None:
        requests = request_table([0.0], [1000], [20])
        plain = lowered(requests, *APART, stages=[s.PREFILL, s.DECODE])
        one = Coordinator(plain)
        one.run()
        three = run(requests, *APART)
        sent = [[use.num_bytes for use in each.flows.uses if use.num_transfers] for each in (one, three)]
        assert sent[0] == sent[1] != []

    def test_samples_of_one_token_end_with_the_prefill(self) -> None:
        for engines in ((s.llm(),), APART):
            coordinator = run(request_table([0.0], [100], [1]), *engines)
            assert coordinator.state.row_generated[1:].tolist() == [1, 1, 1]
            assert len(set(coordinator.state.row_finish_s.tolist())) == 1

    @pytest.mark.parametrize("engines", [(s.llm(replicas=2),), APART], ids=["together", "apart"])
    def test_one_event_a_step_gives_the_same_times(self, engines: tuple[s.Document, ...]) -> None:
        tight = [{**engine, "kv_cache": {"num_gpu_blocks": 120}} for engine in engines]
        fast, exact = (run(random_requests(60), *tight, exact=exact) for exact in (False, True))
        assert (fast.status == FINISHED).all()
        np.testing.assert_array_equal(fast.state.row_finish_s, exact.state.row_finish_s)
        np.testing.assert_array_equal(fast.state.row_shares, exact.state.row_shares)
        assert fast.state.total_preemptions.sum() == exact.state.total_preemptions.sum()
