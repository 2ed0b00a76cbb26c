"""Rules 14 to 17: the host's time, captured sizes, what attention depends on, how many blocks there are."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim.core.tables import RunTables
from hermes_sim.perf.step_kernel import LAUNCH_FLOOR_S, PROMPT_LAUNCH_FLOOR_S
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import lower
from hermes_sim.workload.requests import request_table
from tests import scenarios as s


def simulate(num_requests: int = 1, num_prompt: int = 64, num_output: int = 33, **engine: Any) -> RunTables:
    """Equal requests, all at once."""
    columns = [[0.0] * num_requests, [num_prompt] * num_requests, [num_output] * num_requests]
    return simulate_scenario(load_scenario(s.cluster(s.llm(**engine)), s.workload()), requests=request_table(*columns))


def step_s(tables: RunTables) -> float:
    """Mean time of a decode step of requests that run side by side."""
    requests = tables.requests
    span_s = float((requests["finish_s"] - requests["first_token_s"]).max())
    return span_s / float(requests["num_output_tokens"].max() - 1)


class TestHost:
    """Rule 14."""

    def test_every_step_and_every_sequence_costs_the_host(self) -> None:
        free = {"per_step": "0 s", "per_sequence": "0 s"}
        for number in (1, 4):
            bare = step_s(simulate(number, host=free))
            step = step_s(simulate(number, host={**free, "per_step": "1 ms"}))
            sequence = step_s(simulate(number, host={**free, "per_sequence": "1 ms"}))
            assert step - bare == pytest.approx(1e-3, rel=1e-6)
            assert sequence - bare == pytest.approx(number * 1e-3, rel=1e-6)

    def test_without_captured_graphs_launches_show(self) -> None:
        """With launches of 1 s in all a step that is not captured takes 1 s, and the host's 0.2 ms and 2 us."""
        for graph_capture, num_long in [(True, 1), (False, 3)]:
            scenario = load_scenario(s.cluster(s.llm(host={"graph_capture": graph_capture})), s.workload())
            lowered = lower(scenario, request_table([0.0], [64], [3]))
            lowered.state.cost_attention[0, [LAUNCH_FLOOR_S, PROMPT_LAUNCH_FLOOR_S]] = 1.0
            Coordinator(lowered).run()
            # the prompt's step is never captured, decodes are
            assert lowered.state.num_steps[0] == 3
            assert lowered.state.row_finish_s[1] == pytest.approx(num_long * 1.000202, abs=0.03)
            assert lowered.state.busy_s[0] >= num_long

    def test_async_scheduling_hides_it(self) -> None:
        # 64 prompt tokens and 33 outputs: 33 steps; all but the first host time disappear behind the device
        slow = {"per_step": "1 ms", "per_sequence": "0 s"}
        one_by_one = simulate(host=slow).duration_s
        hidden = simulate(host=slow, batching={"async_scheduling": True}).duration_s
        assert one_by_one - hidden == pytest.approx(32e-3, rel=1e-6)


class TestCapturedSizes:
    """Rule 15: 1, 2, 4, 8, 16, 24 ... sequences, up to the largest captured."""

    @pytest.mark.parametrize(("few", "many", "is_same"), [(3, 4, True), (9, 16, True), (17, 24, True), (4, 5, False)])
    def test_a_batch_runs_at_the_next_size(self, few: int, many: int, is_same: bool) -> None:
        # the tables by tokens; attention, logits and the host know how many there are
        state = lower(load_scenario(s.cluster(s.llm()), s.workload()), request_table([0.0], [1], [1])).state
        rows = state.cost_decode_linear[0]
        assert (rows[few] == rows[many]).all() == is_same

    def test_beyond_the_largest_nothing_is_padded(self) -> None:
        cluster = s.cluster(s.llm(host={"max_captured_seqs": 8}))
        state = lower(load_scenario(cluster, s.workload()), request_table([0.0], [1], [1])).state
        rows = state.cost_decode_linear[0].sum(axis=1)
        assert rows[7] == rows[8]
        assert rows[9] < rows[16]


class TestAttention:
    """Rule 16."""

    def test_the_sum_of_contexts_costs(self) -> None:
        short, long = step_s(simulate(8, num_prompt=64)), step_s(simulate(8, num_prompt=4000))
        assert long > short

    def test_one_long_context_among_short_ones_costs_more_than_its_share(self) -> None:
        # 8 sequences with 8 x 1,000 tokens of context: evenly, or nearly all in one
        def mixed(prompts: list[int]) -> float:
            requests = request_table([0.0] * 8, prompts, [33] * 8)
            return step_s(simulate_scenario(load_scenario(s.cluster(s.llm()), s.workload()), requests=requests))

        assert mixed([7300] + [100] * 7) > mixed([1000] * 8)


class TestBlocks:
    """Rule 17."""

    def test_memory_over_bytes_per_block(self) -> None:
        def num_blocks(**kv_cache: Any) -> int:
            cluster = s.cluster(s.llm(kv_cache=kv_cache))
            state = lower(load_scenario(cluster, s.workload()), request_table([0.0], [1], [1])).state
            return int(state.num_blocks[0])

        assert num_blocks(num_gpu_blocks=777) == 777
        # a tenth more of 80 GiB (or GB) is 8e9 bytes at least, over 131,072 bytes a token x 16
        more = num_blocks(memory_fraction=0.9) - num_blocks(memory_fraction=0.8)
        assert 8e9 / (131_072 * 16) - 1 <= more <= 8 * 2**30 / (131_072 * 16) + 1
        assert abs(num_blocks(block_tokens=32) - num_blocks(block_tokens=16) / 2) <= 1
        assert abs(num_blocks(dtype="fp8") - 2 * num_blocks()) <= 1


class TestFirstToken:
    """Rule 19: the end of the engine's step; the client's own times come on top."""

    def test_tokenising_before_and_detokenising_behind(self) -> None:
        bare = simulate().requests
        host = {"tokenize": {"per_request": "5 ms", "per_token": "0 s"}, "detokenize": {"per_message": "2 ms"}}
        seen = simulate(host=host).requests
        assert seen["first_token_s"][0] - bare["first_token_s"][0] == pytest.approx(5e-3 + 2e-3)
