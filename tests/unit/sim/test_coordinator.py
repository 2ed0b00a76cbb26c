"""The walk of a request through its pipeline: what is passed over, what joins, and who comes next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.workload.requests import request_table
from tests import scenarios as s

LOOP = {
    "closed_loop": {"concurrency": 2},
    "num_requests": 30,
    "lengths": {"kind": "fixed", "num_prompt_tokens": 30, "num_output_tokens": 4},
}
SOMETIMES = [{**s.PREFILL, "probability": 0.5}, s.DECODE]


def visits(tables: RunTables, stage: str) -> dict[str, Any]:
    return {name: values[tables.visits["stage"] == stage] for name, values in tables.visits.items()}


class TestPassedOver:
    def test_the_next_request_of_a_loop_follows_one_whose_stages_were_all_passed_over(self) -> None:
        tables = simulate_scenario(load_scenario(s.cluster(s.llm()), s.workload(*SOMETIMES, traffic=LOOP)))
        assert set(tables.requests["status"]) == {"finished"}
        ran = np.isfinite(visits(tables, "prefill")["start_s"])
        assert 0 < ran.sum() < 30
        np.testing.assert_array_equal(ran, np.isfinite(visits(tables, "decode")["start_s"]))
        np.testing.assert_array_equal(ran, tables.requests["num_output_tokens"] == 4)

    @pytest.mark.parametrize("apart", [False, True])
    def test_what_follows_a_language_model_that_was_passed_over_still_runs(self, apart: bool) -> None:
        engines = [s.llm("prefiller", serves=["prefill"]), s.llm("decoder", serves=["decode"])] if apart else [s.llm()]
        after = {**s.EMBED, "after": ["decode"]}
        tables = simulate_scenario(
            load_scenario(s.cluster(*engines, s.workers(["embed"])), s.workload(*SOMETIMES, after)),
            requests=request_table(np.arange(20.0), [100] * 20, [5] * 20),
        )
        prefill, decode, embed = (visits(tables, stage) for stage in ("prefill", "decode", "embed"))
        ran = np.isfinite(prefill["finish_s"])
        assert 0 < ran.sum() < 20
        assert np.isfinite(embed["finish_s"]).all()
        np.testing.assert_array_equal(embed["arrival_s"][~ran], np.arange(20.0)[~ran])
        np.testing.assert_array_equal(embed["arrival_s"][ran], decode["finish_s"][ran])


class TestJoin:
    def test_a_stage_begins_when_the_last_before_it_has_ended(self) -> None:
        # two branches, an embedding and a retrieval without it, and a prefill that needs both
        stages = [
            s.EMBED, {**s.RETRIEVE, "after": []}, {**s.PREFILL, "after": ["embed", "retrieve"]}, s.DECODE,
        ]  # fmt: skip
        cluster = s.cluster(s.llm(), s.workers(["embed"], "embedder"), s.workers(["retrieve"], "retriever"))
        tables = simulate_scenario(
            load_scenario(cluster, s.workload(*stages)), requests=request_table([0.0, 9.0], [100, 100], [5, 5])
        )
        embed, retrieve, prefill = (visits(tables, stage) for stage in ("embed", "retrieve", "prefill"))
        assert embed["arrival_s"].tolist() == retrieve["arrival_s"].tolist() == [0.0, 9.0]
        last_s = np.maximum(embed["finish_s"], retrieve["finish_s"])
        assert prefill["arrival_s"].tolist() == last_s.tolist()
        assert (embed["finish_s"] != retrieve["finish_s"]).all()

    def test_a_request_ends_with_the_last_of_its_branches(self) -> None:
        # nothing follows the embedding; a user who waits for the whole request sends the next one then
        stages = [s.PREFILL, s.DECODE, {**s.EMBED, "num_tokens": 512, "after": []}]
        loop = {**LOOP, "closed_loop": {"concurrency": 1}, "num_requests": 4}
        tables = simulate_scenario(
            load_scenario(s.cluster(s.llm(), s.workers(["embed"], cores=1)), s.workload(*stages, traffic=loop))
        )
        ends_s = np.fmax(visits(tables, "decode")["finish_s"], visits(tables, "embed")["finish_s"])
        np.testing.assert_array_equal(tables.requests["finish_s"], ends_s)
        np.testing.assert_array_equal(tables.requests["arrival_s"][1:], ends_s[:-1])


class TestNext:
    def test_turns_follow_the_end_of_the_turn_before(self) -> None:
        requests = request_table(
            [0.0, np.nan, np.nan], [100, 150, 200], [5, 5, 5], session=[0, 0, 0], previous=[-1, 0, 1],
            think_s=[0.0, 0.25, 0.5],
        )  # fmt: skip
        tables = simulate_scenario(load_scenario(s.cluster(s.llm()), s.workload()), requests=requests)
        arrival_s, finish_s = tables.requests["arrival_s"], tables.requests["finish_s"]
        assert arrival_s.tolist() == [0.0, finish_s[0] + 0.25, finish_s[1] + 0.5]
        # 104 tokens of the first turn are 6 full blocks of 16; the second shares them, the third shares 154 // 16 = 9
        assert tables.requests["num_cached_tokens"].tolist() == [0, 96, 144]

    def test_a_rejected_turn_is_followed_too(self) -> None:
        requests = request_table(
            [0.0, np.nan], [500, 50], [5, 5], session=[0, 0], previous=[-1, 0], think_s=[0.0, 0.25]
        )
        small = s.cluster(s.llm(kv_cache={"num_gpu_blocks": 10}))
        tables = simulate_scenario(load_scenario(small, s.workload()), requests=requests)
        assert tables.requests["status"].tolist() == ["rejected", "finished"]
        assert tables.requests["arrival_s"].tolist() == [0.0, 0.25]
