"""KV of a request between two passes: left to the cache, kept, dropped, offloaded, or as wastes least."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.workload.requests import request_table
from tests import scenarios as s

PROMPT, CALL, RESULT, ANSWER = 600, 30, 100, 20
TOOLS = s.workers(["timed"], num_workers=64, max_batch_size=1)
WAYS = ("lru", "keep", "drop", "offload", "auto")


def turns(wait: str = "1 s", rounds: int = 2) -> list[s.Document]:
    """Calls of a tool, then the answer."""
    call = {**s.DECODE, "name": "call", "num_output_tokens": CALL, "writes": "thought"}
    tool = {
        "name": "tool", "kind": "timed", "after": ["call"], "num_result_tokens": RESULT,
        "service_time": {"kind": "exponential", "mean": wait},
    }  # fmt: skip
    turn = {"name": "turn", "kind": "repeat", "rounds": rounds, "stages": [s.PREFILL, call, tool]}
    return [turn, {**s.PREFILL, "after": ["turn"]}, s.DECODE]


def cluster(way: str, *, blocks: int | None = None, replicas: int = 1, **keys: Any) -> s.Document:
    kv_cache = {"while_waiting": way, **({} if blocks is None else {"num_gpu_blocks": blocks})}
    return s.cluster(s.llm(replicas=replicas, kv_cache={**kv_cache, **keys.pop("kv_cache", {})}, **keys), TOOLS)


def lone(way: str, *stages: s.Document, **keys: Any) -> Results:
    """One request whose tool takes a second."""
    traffic = {
        **s.traffic(num_requests=1),
        "lengths": {"kind": "fixed", "num_prompt_tokens": PROMPT, "num_output_tokens": ANSWER},
    }
    return simulate(cluster(way, **keys), s.workload(*(stages or turns()), traffic=traffic))


def busy(way: str, wait: str, rate: str = "8 /s", **keys: Any) -> Results:
    """Agents that together have more KV than blocks."""
    return simulate(cluster(way, **keys), s.workload(*turns(wait), traffic=s.traffic(rate=rate, num_requests=60)))


class TestAlone:
    """Passes read 600, then 600 + 30 + 100, then 600 + 2 x 130 tokens; all but the last token written has KV."""

    READ = (PROMPT, PROMPT + CALL + RESULT, PROMPT + 2 * (CALL + RESULT))
    DONE = (PROMPT + CALL - 1, PROMPT + CALL + RESULT + CALL - 1)

    def test_the_cache_has_whole_blocks(self) -> None:
        engine = lone("lru").engines.iloc[0]
        assert engine["num_cached_tokens"] == sum(tokens // 16 * 16 for tokens in self.DONE)

    def test_kept_kv_is_all_there(self) -> None:
        results = lone("keep")
        engine, visits = results.engines.iloc[0], results.visits
        assert engine["num_kept_waits"] == 2
        assert engine["num_cached_tokens"] == sum(self.DONE)
        assert engine["num_prompt_tokens"] == sum(self.READ) - sum(self.DONE)
        # the blocks of both waits, for as long as the tool took
        tools = visits[visits["kind"] == "timed"]
        waits_s = (tools["finish_s"] - tools["arrival_s"]).to_numpy()
        blocks = [-(-tokens // 16) for tokens in self.DONE]
        assert engine["kept_block_s"] == pytest.approx(float(np.dot(blocks, waits_s)), rel=1e-9)

    def test_dropped_kv_is_computed_again(self) -> None:
        engine = lone("drop").engines.iloc[0]
        assert engine["num_dropped_waits"] == 2
        assert engine["num_cached_tokens"] == 0
        assert engine["num_prompt_tokens"] == sum(self.READ)

    def test_offloaded_kv_crosses_the_link_twice(self) -> None:
        kept, results = lone("keep"), lone("offload")
        engine, request = results.engines.iloc[0], results.requests.iloc[0]
        blocks = sum(-(-tokens // 16) for tokens in self.DONE)
        assert engine["num_offloaded_waits"] == 2
        assert engine["num_swapped_blocks"] == 2 * blocks
        assert request["num_reloaded_tokens"] == sum(self.DONE)
        assert engine["num_prompt_tokens"] == sum(self.READ) - sum(self.DONE)
        # llama 3 8B: 128 KiB of KV a token; PCIe 4 x16 as the library has it
        link = results.scenario.links["pcie4_x16"]
        way_s = blocks * 16 * 131072 / (link.bandwidth_bytes_per_s * link.efficiency_frac)
        longer_s = request["e2e_s"] - kept.requests["e2e_s"][0]
        assert longer_s == pytest.approx(2 * way_s, rel=0.02)

    def test_a_full_host_takes_no_more(self) -> None:
        results = lone("offload", kv_cache={"swap_space": "40 MiB"})  # 20 blocks
        assert results.engines["num_offloaded_waits"][0] == 0
        assert results.engines["num_dropped_waits"][0] == 2

    def test_a_user_who_thinks_is_waited_for(self) -> None:
        # the second turn's prompt is all of the first and what it adds
        traffic = {
            **s.traffic(num_requests=2),
            "lengths": {"kind": "fixed", "num_prompt_tokens": PROMPT, "num_output_tokens": ANSWER},
            "sessions": {"turns": "fixed", "mean_num_turns": 2, "think_time": "5 s"},
        }
        results = simulate(cluster("keep"), s.workload(traffic=traffic))
        assert results.engines["num_kept_waits"][0] == 1
        assert results.requests["num_cached_tokens"].tolist() == [0, PROMPT + ANSWER - 1]

    def test_a_note_lies_between_and_the_rest_still_waits(self) -> None:
        grade = [
            {**s.PREFILL, "name": "grade", "after": ["decode"], "num_instruction_tokens": 50},
            {**s.DECODE, "name": "mark", "after": ["grade"], "writes": "note", "num_output_tokens": 4},
        ]
        again = [{**s.PREFILL, "name": "again", "after": ["mark"]}, {**s.DECODE, "name": "say", "after": ["again"]}]
        first = {**s.DECODE, "num_output_tokens": CALL, "writes": "thought"}
        results = lone("keep", s.PREFILL, first, *grade, *again)
        assert results.engines["num_kept_waits"][0] == 1
        visits = results.visits.set_index("stage")
        assert visits["arrival_s"]["again"] == visits["finish_s"]["mark"]


@pytest.fixture(scope="module")
def outside_tools_s() -> dict[str, dict[str, float]]:
    """Tool's time -> way -> seconds that all requests together spend outside of tools."""
    found: dict[str, dict[str, float]] = {}
    for wait in ("20 ms", "20 s"):
        found[wait] = {}
        for way in WAYS:
            results = busy(way, wait, rate="4 /s", blocks=800)
            tools = results.visits[results.visits["kind"] == "timed"]
            in_tools_s = float((tools["finish_s"] - tools["arrival_s"]).sum())
            found[wait][way] = float(results.requests["e2e_s"].sum()) - in_tools_s
    return found


class TestTogether:
    @pytest.mark.parametrize("way", WAYS)
    def test_everybody_ends(self, way: str) -> None:
        results = busy(way, "2 s", blocks=300)
        assert (results.requests["status"] == "finished").all()
        waits = results.engines[["num_kept_waits", "num_dropped_waits", "num_offloaded_waits"]].sum().sum()
        assert waits == (0 if way == "lru" else 2 * 60)

    def test_kept_through_long_waits_kv_shuts_others_out(self, outside_tools_s: dict[str, dict[str, float]]) -> None:
        seconds = outside_tools_s["20 s"]
        assert seconds["keep"] > 4 * seconds["drop"]
        assert seconds["keep"] > 4 * seconds["lru"]

    def test_dropped_for_short_waits_it_is_computed_for_nothing(
        self, outside_tools_s: dict[str, dict[str, float]]
    ) -> None:
        seconds = outside_tools_s["20 ms"]
        assert seconds["drop"] > 1.5 * seconds["keep"]

    @pytest.mark.parametrize("wait", ["20 ms", "20 s"])
    def test_the_least_waste_is_about_the_best(self, wait: str, outside_tools_s: dict[str, dict[str, float]]) -> None:
        seconds = outside_tools_s[wait]
        assert seconds["auto"] < 1.05 * min(seconds.values())

    def test_the_least_waste_depends_on_the_wait(self) -> None:
        def ways(wait: str, swap_space: str) -> list[int]:
            engine = busy("auto", wait, kv_cache={"swap_space": swap_space}).engines.iloc[0]
            return [int(engine[f"num_{way}_waits"]) for way in ("kept", "dropped", "offloaded")]

        assert ways("1 ms", "4 GiB") == [120, 0, 0]
        assert ways("1 h", "0 B") == [0, 120, 0]
        # a copy over PCIe is shorter than computing a long context again
        kept, dropped, offloaded = ways("1 h", "64 GiB")
        assert kept == 0
        assert offloaded > dropped

    def test_a_request_comes_back_to_its_replica(self) -> None:
        results = busy("keep", "100 ms", replicas=3)
        of_llm = results.visits[results.visits["kind"].isin(["prefill", "decode"])]
        assert (of_llm.groupby("request")["engine"].nunique() == 1).all()
        assert of_llm["engine"].nunique() == 3

    def test_two_models_each_keep_their_own(self) -> None:
        cluster = s.cluster(
            s.llm(kv_cache={"while_waiting": "keep"}),
            s.llm("other", model="qwen-2-7b", kv_cache={"while_waiting": "keep"}),
        )
        small, large = {"model": "llama_3_8b"}, {"model": "qwen-2-7b"}
        turn = [
            {**s.PREFILL, **small}, {**s.DECODE, **small, "num_output_tokens": 10},
            {**s.PREFILL, **large, "name": "check", "after": ["decode"]},
            {**s.DECODE, **large, "name": "fix", "after": ["check"], "num_output_tokens": 2},
        ]  # fmt: skip
        stages = [{"name": "turn", "kind": "repeat", "rounds": 3, "stages": turn}]
        results = simulate(cluster, s.workload(*stages, traffic=s.traffic(num_requests=5)))
        assert results.engines["num_kept_waits"].tolist() == [10, 10]
        # each model computes what the other has written, and its own last token
        rounds = results.visits[results.visits["round"] > 0]
        assert len(rounds) == 5 * 8
        new = (
            results.engines["num_prompt_tokens"]
            - results.requests["num_prompt_tokens"].sum()
            + 5 * (10 + 2 + 10 + 2 + 10)
        )
        assert new.tolist() == [5 * 2 * 3, 5 * (10 + 2 * 11)]


class TestRows:
    def lowered(self, *stages: s.Document, **keys: Any) -> Lowered:
        scenario = load_scenario(cluster("keep", **keys), s.workload(*stages))
        return lower(scenario, request_table([0.0], [PROMPT], [ANSWER]))

    def test_who_goes_on_from_whom(self) -> None:
        state = self.lowered(*turns("3 s")).state
        # prefill, call, tool of two rounds, then the answer's prefill and decode
        assert state.row_returns_as.tolist() == [-1, 3, -1, -1, 6, -1, -1, -1]
        assert state.row_came_from.tolist() == [-1, -1, -1, 1, -1, -1, 4, -1]
        assert state.row_wait_s[[1, 4]] == pytest.approx([3.0, 3.0], rel=0.01)

    def test_nobody_where_a_pass_might_not_come(self) -> None:
        route = {"name": "way", "kind": "route", "by": "load", "after": ["decode"], "outcomes": {"a": 1, "b": 1}}
        again = {**s.PREFILL, "name": "again", "after": ["way"], "when": "way.a"}
        state = self.lowered(s.PREFILL, s.DECODE, route, again).state
        assert (state.row_returns_as == -1).all()

    def test_nobody_where_the_engine_could_not_hold_a_later_pass(self) -> None:
        run = self.lowered(*turns(), blocks=50)  # 800 tokens: the third pass has 880
        assert (run.state.row_returns_as == -1).all()
        coordinator = Coordinator(run)
        coordinator.run()
        assert coordinator.is_rejected.all()


@pytest.mark.parametrize(
    ("engine", "stages", "words"),
    [
        ({"serves": ["prefill"]}, [], "serve prefill and decode here"),
        (
            {"replicas": 2, "autoscaling": {"min_replicas": 1, "scale_up_above": 9, "scale_down_below": 1}},
            [],
            "needs lru",
        ),
    ],
)
def test_what_is_not_modelled(engine: s.Document, stages: list[s.Document], words: str) -> None:
    engines = [s.llm(kv_cache={"while_waiting": "keep"}, **engine)]
    if "serves" in engine:
        engines.append(s.llm("decoder", serves=["decode"]))
    with pytest.raises(ConfigError, match=words):
        load_scenario(s.cluster(*engines), s.workload(*stages))
