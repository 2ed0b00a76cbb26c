"""Requests that take several passes of a language model: thoughts and answers, rounds, routes, samples that are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hermes_sim import Results, simulate
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.workload.requests import RequestTable, request_table
from tests import scenarios as s

THINK = {"name": "think", "kind": "decode", "after": ["prefill"], "writes": "thought"}
SAY = {"name": "say", "kind": "decode", "after": ["think"]}
JOBS = s.workers(["embed", "retrieve", "timed"])
HOP = [
    {**s.RETRIEVE, "after": []},
    {**s.PREFILL, "after": ["retrieve"]},
    {**s.DECODE, "name": "write", "num_output_tokens": 20},
]
DOCUMENTS = 4 * 128
FIXED = {
    **s.traffic(rate="20 /s", num_requests=80),
    "lengths": {"kind": "fixed", "num_prompt_tokens": 300, "num_output_tokens": 50},
}
SOME_ROUNDS = {"kind": "geometric", "mean": 2, "max": 4}
SMALL = [
    {**s.PREFILL, "name": "small", "after": ["route"], "when": "route.small"},
    {**s.DECODE, "name": "say_small", "after": ["small"], "quality": 0.6},
]
LARGE = [
    {**s.PREFILL, "name": "large", "after": ["route"], "when": "route.large"},
    {**s.DECODE, "name": "say_large", "after": ["large"], "quality": 0.9},
]


def lowered(workload: s.Document, requests: RequestTable, cluster: s.Document | None = None) -> Lowered:
    return lower(load_scenario(cluster or s.cluster(s.llm(), JOBS), workload), requests)


def run(workload: s.Document, cluster: s.Document | None = None) -> Results:
    return simulate(cluster or s.cluster(s.llm(), JOBS), workload)


def hops(rounds: Any, **keys: Any) -> s.Document:
    return {"name": "hop", "kind": "repeat", "rounds": rounds, "stages": HOP, **keys}


def of_stage(results: Results, stage: str, round: int = 0) -> pd.DataFrame:
    visits = results.visits
    return visits[(visits["stage"] == stage) & (visits["round"] == round)].set_index("request")


class TestThoughts:
    def both(self, cluster: s.Document) -> tuple[Results, Results]:
        """50 tokens in one decode; 20 of thought and 30 of answer."""
        think = {**THINK, "num_output_tokens": {"kind": "output_share", "share_frac": 0.4}}
        whole = run(s.workload(s.PREFILL, s.DECODE, traffic=FIXED), cluster)
        return whole, run(s.workload(s.PREFILL, think, SAY, traffic=FIXED), cluster)

    @pytest.mark.parametrize(
        "keys", [{}, {"batching": {"async_scheduling": True}}, {"kv_cache": {"num_gpu_blocks": 200}}]
    )
    def test_one_sequence_in_two_visits_is_the_same_sequence(self, keys: s.Document) -> None:
        whole, parted = self.both(s.cluster(s.llm(**keys)))
        for column in ("first_token_s", "finish_s", "num_output_tokens", "energy_j", "num_preemptions"):
            np.testing.assert_allclose(whole.requests[column], parted.requests[column], rtol=1e-12, err_msg=column)
        assert (parted.requests["num_thought_tokens"] == 20).all()
        assert (whole.requests["num_thought_tokens"] == 0).all()

    def test_also_where_decode_runs_elsewhere(self) -> None:
        apart = s.cluster(s.llm("p", serves=["prefill"]), s.llm("d", serves=["decode"]))
        whole, parted = self.both(apart)
        np.testing.assert_array_equal(whole.requests["finish_s"], parted.requests["finish_s"])

    def test_the_first_token_of_the_answer_is_where_the_thoughts_end(self) -> None:
        _, parted = self.both(s.cluster(s.llm()))
        requests = parted.requests
        np.testing.assert_array_equal(requests["first_answer_token_s"], of_stage(parted, "think")["finish_s"])
        assert (requests["ttfat_s"] > requests["ttft_s"]).all()
        # 20 thoughts lie between the first token and the answer's, at the pace of all
        share = (requests["first_answer_token_s"] - requests["first_token_s"]) / (
            requests["finish_s"] - requests["first_token_s"]
        )
        assert abs(share.mean() - 20 / 49) < 0.05

    def test_without_thoughts_both_are_the_same(self) -> None:
        results = run(s.workload())
        np.testing.assert_array_equal(results.requests["ttfat_s"], results.requests["ttft_s"])


class TestCutShort:
    """Of 50 tokens 20 are thought; what is saved of them is nobody's."""

    def thought(self, **keys: Any) -> pd.DataFrame:
        think = {**THINK, "num_output_tokens": {"kind": "output_share", "share_frac": 0.4}, **keys}
        return run(s.workload(s.PREFILL, think, SAY, traffic=FIXED)).requests

    def test_a_reduction(self) -> None:
        requests = self.thought(reduction={"kept_frac": 0.5, "max_num_tokens": 8})
        assert (requests["num_thought_tokens"] == 8).all()
        assert (requests["num_saved_tokens"] == 12).all()
        assert (requests["num_output_tokens"] == 8 + 30).all()

    def test_checkpoints_cost_steps_and_save_some(self) -> None:
        whole = self.thought()
        exits = self.thought(early_exit={"every_num_tokens": 5, "exit_probability": 0.5, "num_probe_tokens": 2})
        # checkpoints at 5, 10 and 15 of 20 tokens
        kept, probe = 20 - exits["num_saved_tokens"], exits["num_probe_tokens"]
        assert set(kept) == {5, 10, 15, 20}
        assert (probe == np.minimum(kept // 5, 3) * 2).all()
        assert (exits["num_thought_tokens"] == kept + probe).all()
        assert (exits["num_output_tokens"] == kept + probe + 30).all()
        # the answer comes as many steps after the first token as there are thoughts
        longer = exits["num_thought_tokens"] > 20
        assert longer.any()
        earlier_s = (whole["ttfat_s"] - whole["ttft_s"]) - (exits["ttfat_s"] - exits["ttft_s"])
        assert (earlier_s[kept == 5] > 0).all()

    def test_checkpoints_that_never_end_only_cost(self) -> None:
        requests = self.thought(early_exit={"every_num_tokens": 5, "exit_probability": 0, "num_probe_tokens": 4})
        assert (requests["num_saved_tokens"] == 0).all()
        assert (requests["num_thought_tokens"] == 20 + 3 * 4).all()


class TestContexts:
    def test_a_later_pass_reads_what_earlier_ones_have_read_and_written(self) -> None:
        stages = [s.PREFILL, {**s.DECODE, "num_output_tokens": 30}, hops(2, after=["decode"])]
        state = lowered(s.workload(*stages), request_table([0.0], [100], [50])).state
        # prefill, decode, then retrieve, prefill, decode of both rounds
        assert state.row_prompt[[0, 1]].tolist() == [100, 100]
        assert state.row_prompt[[3, 4]].tolist() == [100 + 30 + DOCUMENTS] * 2
        assert state.row_prompt[[6, 7]].tolist() == [100 + 30 + 2 * DOCUMENTS + 20] * 2
        assert state.row_output[[1, 4, 7]].tolist() == [30, 20, 20]
        assert (state.row_text == -1).all()  # one text, which only grows

    def test_notes_and_instructions_are_read_by_no_other_pass(self) -> None:
        rewrite = [
            {**s.PREFILL, "name": "ask", "num_instruction_tokens": 64},
            {**s.DECODE, "name": "rewrite", "after": ["ask"], "num_output_tokens": 16, "writes": "note"},
        ]
        stages = [*rewrite, {**s.PREFILL, "after": ["rewrite"]}, s.DECODE]
        state = lowered(s.workload(*stages), request_table([0.0], [100], [50])).state
        assert state.row_prompt.tolist() == [164, 164, 100, 100]
        assert state.row_text.tolist() == [0, 0, -1, -1]
        assert state.row_common[:2].tolist() == [100, 100]
        requests = run(s.workload(*stages)).requests
        assert (requests["num_note_tokens"] == 16).all()
        assert (requests["num_passes"] == 1).all()

    def test_a_prompt_only_pass_shares_only_the_prompt(self) -> None:
        again = {**s.PREFILL, "name": "again", "after": ["decode"], "context": "prompt"}
        stages = [s.PREFILL, s.DECODE, again, {**s.DECODE, "name": "redo", "after": ["again"]}]
        state = lowered(s.workload(*stages), request_table([0.0], [100], [50])).state
        assert state.row_prompt.tolist() == [100] * 4
        assert state.row_text.tolist() == [-1, -1, 2, 2]

    def test_rounds_find_the_blocks_of_the_rounds_before(self) -> None:
        stages = [s.PREFILL, {**s.DECODE, "num_output_tokens": 30}, hops(3, after=["decode"])]
        results = run(s.workload(*stages, traffic={**FIXED, "num_requests": 1}))
        # a pass finds all that the one before it has computed: every token but the last it wrote, in whole blocks of 16
        computed = [300 + 30 - 1, 300 + 30 + DOCUMENTS + 20 - 1, 300 + 30 + 2 * DOCUMENTS + 2 * 20 - 1]
        assert results.requests["num_cached_tokens"].tolist() == [sum(tokens // 16 * 16 for tokens in computed)]
        assert results.requests["num_prompt_tokens"].tolist() == [300 + 30 + 3 * DOCUMENTS + 2 * 20]


class TestRounds:
    def test_each_request_has_its_own_number(self) -> None:
        traffic = s.traffic(num_requests=400, rate="2 /s")
        results = run(s.workload(s.PREFILL, s.DECODE, hops(SOME_ROUNDS, after=["decode"]), traffic=traffic))
        visits = results.visits[results.visits["stage"] == "hop.write"]
        taken = visits[visits["finish_s"].notna()].groupby("request").size()
        # a geometric law cut at 4: P(1) = 1/2, 1/4, 1/8, 1/8
        assert set(taken) == {1, 2, 3, 4}
        assert abs(taken.mean() - 1.875) < 5 * 1.05 / 20
        assert (results.requests["num_passes"] == 1 + taken.to_numpy()).all()

    def test_rounds_follow_each_other(self) -> None:
        results = run(s.workload(s.PREFILL, s.DECODE, hops(3, after=["decode"])))
        ends = [of_stage(results, "hop.write", number)["finish_s"] for number in range(3)]
        starts = [of_stage(results, "hop.retrieve", number)["arrival_s"] for number in range(3)]
        np.testing.assert_array_equal(of_stage(results, "decode")["finish_s"], starts[0])
        np.testing.assert_array_equal(ends[0], starts[1])
        np.testing.assert_array_equal(ends[1], starts[2])
        np.testing.assert_array_equal(results.requests["finish_s"], ends[2])

    def test_a_repeat_left_out_takes_no_time(self) -> None:
        with_none = run(s.workload(s.PREFILL, s.DECODE, hops(2, after=["decode"], probability=0.0)))
        np.testing.assert_array_equal(with_none.requests["finish_s"], run(s.workload()).requests["finish_s"])


class TestRoutes:
    def stages(self, **route: Any) -> list[s.Document]:
        outcomes = {"small": 3, "large": 1}
        return [{"name": "route", "kind": "route", "outcomes": outcomes, **route}, *SMALL, *LARGE]

    def test_by_chance(self) -> None:
        traffic = s.traffic(num_requests=400)
        run_ = lowered(s.workload(*self.stages()), request_table([0.0] * 400, [100] * 400, [10] * 400))
        route, small, say_small, large, say_large = run_.skipped.reshape(-1, 5).T
        assert not route.any()
        np.testing.assert_array_equal(small, ~large)
        np.testing.assert_array_equal(small, say_small)
        np.testing.assert_array_equal(large, say_large)
        assert abs(large.mean() - 0.75) < 5 * 0.0217
        requests = run(s.workload(*self.stages(), traffic=traffic)).requests
        assert set(requests["quality"]) == {0.6, 0.9}
        assert (requests["num_passes"] == 1).all()

    def test_by_the_length_of_the_prompt(self) -> None:
        stages = self.stages(by="prompt_tokens", outcomes={"small": 1000, "large": 10_000})
        run_ = lowered(s.workload(*stages), request_table([0.0] * 3, [1000, 1001, 8000], [5] * 3))
        assert run_.skipped.reshape(-1, 5)[:, 1].tolist() == [False, True, True]

    def test_by_load(self) -> None:
        """Two models: a request goes where less waits."""
        cluster = s.cluster(s.llm("a"), s.llm("b", model="qwen-2-7b"))
        stages = self.stages(by="load", outcomes={"small": 1, "large": 1})
        small, large = ([{**stage, "model": model} for stage in chain]
                        for chain, model in ((SMALL, "llama_3_8b"), (LARGE, "qwen-2-7b")))  # fmt: skip
        results = run(s.workload(stages[0], *small, *large, traffic=s.traffic(rate="30 /s")), cluster)
        served = results.visits[results.visits["kind"] == "prefill"].dropna(subset="finish_s")
        assert served.groupby("request").size().eq(1).all()
        counts = served["engine"].value_counts()
        assert counts["a[0]"] > 15
        assert counts["b[0]"] > 15

    def test_cascade_runs_the_large_model_only_where_the_small_one_is_not_sure(self) -> None:
        escalate = {"name": "sure", "kind": "route", "after": ["decode"], "outcomes": {"yes": 0.7, "no": 0.3}}
        again = [{**s.PREFILL, "name": "again", "after": ["sure"], "when": "sure.no", "context": "prompt"},
                 {**s.DECODE, "name": "redo", "after": ["again"]}]  # fmt: skip
        results = run(s.workload(s.PREFILL, s.DECODE, escalate, *again, traffic=s.traffic(num_requests=200)))
        passes = results.requests["num_passes"]
        assert set(passes) == {1, 2}
        assert abs((passes == 2).mean() - 0.3) < 5 * 0.033


class TestJoins:
    @pytest.mark.parametrize(("join", "kept"), [("all", 4), ("majority", 3), ("first", 1)])
    def test_samples_are_cut_where_the_visit_ends(self, join: str, kept: int) -> None:
        rng = np.random.default_rng(1)
        requests = request_table([0.0] * 50, [100] * 50, rng.integers(2, 90, 50))
        decode = {**s.DECODE, "num_samples": 4}
        whole = lowered(s.workload(s.PREFILL, decode), requests).state
        cut = lowered(s.workload(s.PREFILL, {**decode, "join": join}), requests).state
        of_all, of_cut = (
            np.sort(np.column_stack((state.row_output[1:100:2], state.row_output[100:].reshape(50, 3))))
            for state in (whole, cut)
        )
        np.testing.assert_array_equal(of_cut, np.minimum(of_all, of_all[:, kept - 1, None]))
