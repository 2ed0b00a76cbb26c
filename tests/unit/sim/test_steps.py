"""Steps of engines, driven by hand: whose time and energy a step is, gaps between tokens, pipelines, job batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.advance import act, next_action, push, run_until
from hermes_sim.sim.collect import itl_edges_s
from hermes_sim.sim.job_steps import read_curve
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.sim.pricing import SHORTEST_STEP_S
from hermes_sim.sim.ranks import ARRIVAL, SCHEDULING
from hermes_sim.state.arrays import ENERGY, ENGINE_TIME, EngineArrays
from hermes_sim.workload.requests import request_table
from tests import scenarios as s
from tests.one_engine import CompiledEngine, Options

COMPUTE, MEMORY, NETWORK, HOST = range(4)
POWER_W = (400.0, 300.0, 200.0, 100.0)


def build(num_rows: int = 8, **options: Any) -> CompiledEngine:
    """Steps of 1 s of compute and 0.25 s of memory per token; blocks of 4 tokens."""
    defaults: dict[str, Any] = {
        "num_blocks": 100, "block_tokens": 4, "max_num_seqs": 8, "max_num_batched_tokens": 16,
    }  # fmt: skip
    engine = CompiledEngine(Options(**{**defaults, **options}), num_rows)
    arrays = engine.arrays
    arrays.power_w[0] = POWER_W
    arrays.itl_window_s[1] = np.inf
    for table in (arrays.cost_linear, arrays.cost_decode_linear):
        table[0, :, COMPUTE] = 1.0
        table[0, :, MEMORY] = 0.25 * np.arange(table.shape[1])
    return engine


def run(engine: CompiledEngine, num_steps: int | None = None) -> None:
    """So many steps, or all there are."""
    taken = 0
    while np.isfinite(engine.next_start_s) and taken != num_steps:
        engine.step(engine.next_start_s)
        taken += 1


def gaps_s(arrays: EngineArrays) -> list[float]:
    """Lower edges of the bins that the gaps fell into, each as often as it was counted."""
    return np.repeat(itl_edges_s()[:-1], arrays.itl_counts).tolist()


def assert_shares_add_up(arrays: EngineArrays) -> None:
    """What the visits were given is what the engine spent: step time and joules."""
    spent_j = float((arrays.shares[0, :4] * arrays.power_w[0]).sum())
    assert arrays.row_shares[:, ENGINE_TIME].sum() == pytest.approx(arrays.busy_s[0], rel=1e-12)
    assert arrays.row_shares[:, ENERGY].sum() == pytest.approx(spent_j, rel=1e-12)


class TestShares:
    def test_by_tokens(self) -> None:
        # step 0: 6 + 2 tokens, 1 + 2 = 3 s; step 1: two decodes, 1.5 s; step 2: row 0 alone, 1.25 s.
        # Joules: 400 + 600 = 1000, 400 + 150 = 550, 400 + 75 = 475.
        engine = build()
        engine.push(0.0, 0, 6, 3)
        engine.push(0.0, 1, 2, 2)
        run(engine)
        shares = engine.arrays.row_shares
        assert shares[:2, ENGINE_TIME].tolist() == pytest.approx([3 * 6 / 8 + 0.75 + 1.25, 3 * 2 / 8 + 0.75])
        assert shares[:2, ENERGY].tolist() == pytest.approx([1000 * 6 / 8 + 275 + 475, 1000 * 2 / 8 + 275])
        assert_shares_add_up(engine.arrays)

    def test_service_is_every_step_that_scheduled_it(self) -> None:
        engine = build()
        engine.push(0.0, 0, 6, 3)
        engine.push(0.0, 1, 2, 2)
        run(engine)
        assert engine.arrays.row_shares[:2, :4].tolist() == [[3.0, 2.75, 0.0, 0.0], [2.0, 2.5, 0.0, 0.0]]

    def test_a_step_that_skips_a_sequence_is_not_its_own(self) -> None:
        # three decodes, then a budget of 2 for three steps: row 2 is passed over; then all three again
        engine = build(max_num_batched_tokens=3)
        for row in range(3):
            engine.push(0.0, row, 1, 6)
        run(engine, 2)
        engine.arrays.max_num_batched_tokens[0] = 2
        run(engine, 3)
        engine.arrays.max_num_batched_tokens[0] = 3
        run(engine)
        # steps of 3 tokens take 1.75 s: rows 0 and 1 are in three of them, and in three of 2 tokens (1.5 s). Row 2 is
        # in the same three, then goes on alone for three of 1.25 s.
        service = engine.arrays.row_shares[:3, :4].sum(axis=1)
        assert service.tolist() == pytest.approx([3 * 1.75 + 3 * 1.5] * 2 + [3 * 1.75 + 3 * 1.25])
        assert_shares_add_up(engine.arrays)
        # five gaps each; row 2's third is 3 x 1.5 + 1.75 = 6.25 s long
        assert gaps_s(engine.arrays) == pytest.approx(sorted([1.25] * 3 + [1.5] * 6 + [1.75] * 5 + [6.25]), rel=0.02)

    @pytest.mark.parametrize("prefix_caching", [True, False])
    def test_preempted_time_is_not_service(self, prefix_caching: bool) -> None:
        # 4 blocks. Steps 0, 1 hold both rows, then row 1 waits until row 0 has ended and recomputes 9 tokens.
        engine = build(num_blocks=4, prefix_caching=prefix_caching)
        engine.push(0.0, 0, 7, 10)
        engine.push(0.0, 1, 7, 10)
        run(engine)
        arrays = engine.arrays
        assert arrays.row_preemptions[:2].tolist() == [0, 1]
        span_s = arrays.row_finish_s[1] - arrays.row_start_s[1]
        assert arrays.row_shares[1, :4].sum() + arrays.row_preempted_s[1] == pytest.approx(span_s)
        assert_shares_add_up(arrays)

    def test_resumed_with_one_token_to_compute(self) -> None:
        # 5 blocks: row 1 is evicted with 9 known tokens and finds 8 of them again: its first step back is a decode
        engine = build(num_blocks=5)
        engine.push(0.0, 0, 7, 3)
        engine.push(0.0, 1, 7, 4)
        run(engine)
        arrays = engine.arrays
        assert arrays.row_preemptions[1] == 1
        # 14 tokens 4.5 s, 2 tokens 1.5 s, row 0 alone 1.25 s, row 1 alone 2 x 1.25 s
        assert arrays.row_shares[:2, :4].sum(axis=1).tolist() == pytest.approx([4.5 + 1.5 + 1.25, 4.5 + 1.5 + 2.5])
        assert arrays.row_preempted_s[1] == 1.25
        assert_shares_add_up(arrays)


class TestGaps:
    def test_one_gap_per_token_after_the_first(self) -> None:
        # 0, 1, 2 and 5 tokens: 0 + 0 + 1 + 4 gaps
        engine = build()
        for row, num_output in enumerate([0, 1, 2, 5]):
            engine.push(0.0, row, 4, num_output)
        run(engine)
        assert engine.arrays.itl_counts.sum() == 5

    def test_who_was_not_reached_when_the_phase_stopped_has_a_longer_gap(self) -> None:
        # 3 blocks, by priority: row 1 evicts itself in step 2 before row 2 is reached. Steps: 0: 2 + 3 tokens, 2.25 s;
        # 1: 1 + 1 + 2, 2 s; 2: row 0's last, 1.25 s; 3: row 2, and row 1 with 4 of its 5 tokens cached: 1.5 s; from
        # then on both decode (1.5 s) until row 2 has ended. Row 2 waited for its second token through steps 2 and 3,
        # row 1 for its third.
        engine = build(num_blocks=3, queue_order="priority")
        engine.push(0.0, 0, 2, 3, 0)
        engine.push(0.0, 1, 3, 4, 9)
        run(engine, 1)
        engine.push(engine.next_start_s, 2, 2, 3, 1)
        run(engine)
        arrays = engine.arrays
        assert arrays.row_preemptions[:3].tolist() == [0, 1, 0]
        # row 0: 2, 1.25. Row 1: 2, 1.25 + 1.5, 1.5. Row 2: 1.25 + 1.5, 1.5.
        assert gaps_s(arrays) == pytest.approx(sorted([2, 1.25, 2, 2.75, 1.5, 2.75, 1.5]), rel=0.02)
        assert_shares_add_up(arrays)

    def test_preempted_time_is_part_of_a_gap(self) -> None:
        # row 1 gets its second token at 6 s and the third after 8 steps of 1.25 s and its recomputation (9 tokens)
        engine = build(num_blocks=4, prefix_caching=False)
        engine.push(0.0, 0, 7, 10)
        engine.push(0.0, 1, 7, 10)
        run(engine)
        assert max(gaps_s(engine.arrays)) == pytest.approx(8 * 1.25 + 1 + 9 / 4, rel=0.02)
        assert engine.arrays.itl_counts.sum() == 18

    @pytest.mark.parametrize(("window_s", "num_gaps"), [((3.25, 5.0), 2), ((3.5, 5.75), 2), ((6.0, 9.0), 0)])
    def test_only_gaps_that_end_in_the_window_count(self, window_s: tuple[float, float], num_gaps: int) -> None:
        # tokens at 2, 3.25, 4.5, 5.75 s
        engine = build()
        engine.arrays.itl_window_s[:] = window_s
        engine.push(0.0, 0, 4, 4)
        run(engine)
        assert engine.arrays.itl_counts.sum() == num_gaps

    @pytest.mark.parametrize("gap_s", [1e-6, 0.0125, 0.3, 1.0, 1.9999, 7.0])
    def test_bin_of_a_gap(self, gap_s: float) -> None:
        engine = build()
        engine.arrays.cost_decode_linear[:] = 0.0
        engine.arrays.cost_decode_linear[0, :, COMPUTE] = gap_s
        engine.arrays.cost_linear[:] = 0.0
        engine.push(0.0, 0, 4, 2)
        engine.step(0.0)
        engine.arrays.now_s[0] = engine.arrays.next_start_s[0] = 0.0  # at 0 the step's length is exact
        engine.step(0.0)
        place = int(np.flatnonzero(engine.arrays.itl_counts)[0])
        edges = itl_edges_s()
        assert edges[place] <= gap_s < edges[place + 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=8),
    st.integers(8, 12),
    st.sampled_from([1, 4]),
    st.sampled_from(["fcfs", "priority"]),
    st.integers(2, 20),
)
def test_laws_under_pressure(
    requests: list[tuple[int, int, int]], num_blocks: int, block_tokens: int, queue_order: str, budget: int
) -> None:
    """Shares add up to what was spent, gaps to the time between first and last token, service and waits to the span."""
    engine = build(
        num_blocks=num_blocks * 4 // block_tokens, block_tokens=block_tokens, queue_order=queue_order,
        max_num_batched_tokens=budget, full_sequence_gate=False,
    )  # fmt: skip
    arrays = engine.arrays
    first_token_s = np.full(len(requests), np.nan)
    for row, (num_prompt, num_output, priority) in enumerate(requests):
        engine.push(0.0, row, num_prompt, num_output, priority)
    assert engine.rejected == []
    while np.isfinite(engine.next_start_s):
        engine.step(engine.next_start_s)
        is_first = np.isnan(first_token_s) & (arrays.row_generated[: len(requests)] > 0)
        first_token_s[is_first] = arrays.now_s[0]
    assert_shares_add_up(arrays)
    number = len(requests)
    outputs = np.array([num_output for _, num_output, _ in requests])
    assert arrays.itl_counts.sum() == np.maximum(outputs - 1, 0).sum()
    spans_s = (arrays.row_finish_s[:number] - first_token_s)[outputs > 0].sum()
    assert sum(gaps_s(arrays)) <= spans_s + 1e-9
    assert sum(gaps_s(arrays)) * (1 + 1 / 64) >= spans_s - 1e-9  # bins are at most 1/64 wide
    service_s = arrays.row_shares[:number, :4].sum(axis=1)
    assert (service_s + arrays.row_preempted_s[:number] <= arrays.row_finish_s[:number] + 1e-9).all()
    assert (service_s > 0).all()


def lowered(cluster: s.Document, workload: s.Document, *prompts: int, num_output: int = 1) -> Lowered:
    """Requests with these prompts, rows not pushed yet."""
    number = len(prompts)
    return lower(load_scenario(cluster, workload), request_table([0.0] * number, prompts, [num_output] * number))


class TestPipelineParallel:
    """Four stages of equal length; a step takes 1 s per token and may be followed after a quarter of that."""

    def engine(self, *prompts: int, num_output: int = 1, budget: int = 8) -> EngineArrays:
        cluster = s.cluster(
            s.llm(
                parallel={"pp": 4}, placement={"gpu": 4},
                batching={"max_num_batched_tokens": budget, "max_num_seqs": 8},
            )
        )  # fmt: skip
        state = lowered(cluster, s.workload(), *prompts, num_output=num_output).state
        state.stage_interval_frac[0] = 0.25
        for table in (state.cost_attention, state.cost_sampled, state.cost_linear, state.cost_decode_linear):
            table[:] = 0.0
        for table in (state.cost_linear, state.cost_decode_linear):
            table[0, :, COMPUTE] = np.arange(table.shape[1])
        for number in range(len(prompts)):
            push(state.handle, 0, 0, 2 * number, 0.0, ARRIVAL)
        return state

    def actions(self, state: EngineArrays) -> list[tuple[float, str]]:
        """Begins and ends in their order."""
        seen: list[tuple[float, str]] = []
        while True:
            time_s, begins = next_action(state.handle, 0)
            if np.isinf(time_s):
                return seen
            in_flight = int(state.num_in_flight[0])
            act(state.handle, 0)
            if int(state.num_in_flight[0]) != in_flight:
                seen.append((float(time_s), "begin" if begins else "end"))
            assert int(state.num_in_flight[0]) <= 4

    def test_the_first_stage_sets_the_pace(self) -> None:
        # prompts of 8 fill a step of 8 s each: begins every 2 s, at most four in flight, ends every 2 s from 8 s on
        state = self.engine(*[8] * 6)
        begins = [(2.0 * n, "begin") for n in range(4)]
        both = [(8.0, "end"), (8.0, "begin"), (10.0, "end"), (10.0, "begin")]
        assert self.actions(state) == [*begins, *both, *((t, "end") for t in (12.0, 14.0, 16.0, 18.0))]

    def test_no_more_than_pp_steps_in_flight(self) -> None:
        """Even where the first stage would be free sooner."""
        state = self.engine(*[8] * 6)
        state.stage_interval_frac[0] = 0.01
        times = [time_s for time_s, what in self.actions(state) if what == "begin"]
        assert times[:4] == pytest.approx([0.0, 0.08, 0.16, 0.24])
        assert times[4] == 8.0

    def test_chunks_of_a_prompt_follow_each_other_and_decodes_wait_for_their_token(self) -> None:
        # One prompt of 20 in chunks of 8, 8, 4, then 2 decodes. The chunks enter at 0, 2 and 4 s and leave at 8, 10 and
        # 11 s: the last, short one is a stage time of 1 s behind the one before. A decode needs the token before it.
        state = self.engine(20, num_output=3)
        assert self.actions(state) == [
            (0.0, "begin"), (2.0, "begin"), (4.0, "begin"), (8.0, "end"), (10.0, "end"), (11.0, "end"),
            (11.0, "begin"), (12.0, "end"), (12.0, "begin"), (13.0, "end"),
        ]  # fmt: skip
        assert state.itl_counts.sum() == 2
        assert state.row_finish_s[:2].tolist() == [11.0, 13.0]

    def test_steps_leave_the_pipeline_in_the_order_in_which_they_entered(self) -> None:
        # Stage times of 2 and 0.25 s. The short step enters at 2 s and meets the long one before every later stage: it
        # leaves 0.25 s after it. With n equal stages this is the proportionate flow shop (Pinedo, Scheduling, 6.1):
        # the k-th job ends at the sum of the first k stage times + (n - 1) x the longest of them.
        state = self.engine(8, 1)
        assert self.actions(state) == [(0.0, "begin"), (2.0, "begin"), (8.0, "end"), (8.25, "end")]
        assert state.row_finish_s[1::2].tolist() == [8.0, 8.25]
        # waiting between the stages is nobody's service
        assert state.busy_s[0] == 8.0 + 1.0

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    def test_proportionate_flow_shop(self, prompts: list[int]) -> None:
        # every prompt is a step of its own, since it is pushed when the step before it has begun
        state = self.engine(*[1] * 4)
        state.queue_head[0] = state.queue_tail[0] = -1
        state.queue_length[0] = 0
        state.next_start_s[0] = np.inf
        expected_s = []
        for number, num_prompt in enumerate(prompts):
            state.row_prompt[[2 * number, 2 * number + 1]] = num_prompt
            entered_s = sum(prompts[:number]) / 4
            push(state.handle, 0, 0, 2 * number, entered_s, ARRIVAL)
            assert state.next_start_s[0] == entered_s
            while next_action(state.handle, 0)[1] == 0:
                act(state.handle, 0)
            act(state.handle, 0)
            expected_s.append(sum(prompts[: number + 1]) / 4 + 3 * max(prompts[: number + 1]) / 4)
        self.actions(state)
        assert state.row_finish_s[1 : 2 * len(prompts) : 2].tolist() == pytest.approx(expected_s)

    def test_shares_add_up(self) -> None:
        state = self.engine(5, 20, 8, 3, num_output=4)
        self.actions(state)
        assert np.isfinite(state.row_finish_s).all()
        assert_shares_add_up(state)
        assert state.itl_counts.sum() == 4 * 3


class TestJobs:
    """Batches of whole jobs; 1 s + 0.5 s per unit of 64 tokens, all of it memory."""

    def engine(self, number: int = 6, **batching: Any) -> EngineArrays:
        cluster = s.cluster(s.workers(["embed"], **batching))
        state = lowered(cluster, s.workload({**s.EMBED}), *[10] * number).state
        state.curve_num_points[0] = 2
        state.row_units[:] = 1.0
        state.curve_units[0, :2] = 0.0, 1.0
        state.curve_seconds[0, :2] = 0.0
        state.curve_seconds[0, :2, MEMORY] = 1.0, 1.5
        state.curve_demand[0, :2] = 1.0
        return state

    def finish(self, state: EngineArrays, *arrivals: float) -> list[float]:
        for row, time_s in enumerate(arrivals):
            push(state.handle, 0, 0, row, time_s, ARRIVAL)
        run_until(state.handle, np.inf, SCHEDULING, True)
        return [float(time_s) for time_s in state.row_finish_s[: len(arrivals)]]

    def test_whoever_waits_goes_together_up_to_the_size(self) -> None:
        # alone 1.5 s; at 1.5 s three wait, two go: 2 s; then the last: 1.5 s
        state = self.engine(max_batch_size=2)
        assert self.finish(state, 0.0, 0.1, 0.2, 0.3) == [1.5, 3.5, 3.5, 5.0]
        assert state.row_start_s[:4].tolist() == [0.0, 1.5, 1.5, 3.5]
        assert (state.total_jobs[0], state.total_batches[0], state.total_units[0]) == (4, 3, 4.0)

    def test_a_batch_starts_when_it_is_full_or_has_waited_long_enough(self) -> None:
        # size 3, wait 1 s. Full at 0.3 s: 2.5 s. The fourth came at 0.5 s and has waited enough by 2.8 s.
        state = self.engine(max_batch_size=3, max_wait="1 s")
        assert self.finish(state, 0.0, 0.2, 0.3, 0.5) == pytest.approx([2.8, 2.8, 2.8, 4.3])
        # a lone one waits its second
        assert self.finish(self.engine(max_batch_size=3, max_wait="1 s"), 7.0) == [9.5]

    def test_each_job_has_its_part_of_the_batch(self) -> None:
        state = self.engine(max_batch_size=2)
        state.power_w[0] = POWER_W
        self.finish(state, 0.0, 0.1, 0.2)
        assert state.row_shares[:3, ENGINE_TIME].tolist() == pytest.approx([1.5, 1.0, 1.0])
        assert state.row_shares[:3, ENERGY].tolist() == pytest.approx([450.0, 300.0, 300.0])
        assert state.row_shares[:3, MEMORY].tolist() == pytest.approx([1.5, 2.0, 2.0])

    def test_workers_share_the_memory_bandwidth(self) -> None:
        # both want all of it: from 0.5 s on each at half speed. The first has 1 s left: 2.5 s; then the other, with
        # 0.5 s left, alone: 3 s. What sharing cost is memory time.
        state = self.engine(max_batch_size=1, num_workers=2)
        assert self.finish(state, 0.0, 0.5) == pytest.approx([2.5, 3.0])
        assert state.row_shares[:2, MEMORY].tolist() == pytest.approx([2.5, 2.5])
        assert state.busy_s[0] == pytest.approx(5.0)

    def test_workers_that_fit_do_not_disturb_each_other(self) -> None:
        state = self.engine(max_batch_size=1, num_workers=2)
        state.curve_demand[0, :2] = 0.5
        assert self.finish(state, 0.0, 0.5) == [1.5, 2.0]

    def test_the_longest_of_stated_times_counts(self) -> None:
        state = self.engine(max_batch_size=2)
        state.row_seconds[:3] = 0.25, 2.0, 0.5
        assert self.finish(state, 0.0, 0.1, 0.2) == pytest.approx([1.75, 1.75 + 4.0, 1.75 + 4.0])

    def test_curve_is_interpolated_and_goes_on_beyond_its_ends(self) -> None:
        state = self.engine()
        state.curve_num_points[0] = 3
        state.curve_units[0, :3] = 2.0, 4.0, 10.0
        state.curve_seconds[0, :3, COMPUTE] = 1.0, 2.0, 8.0
        state.curve_demand[0, :3] = 0.2, 0.4, 0.7
        seconds = np.zeros(4)
        read = {}
        for units in (1.0, 2.0, 3.0, 4.0, 7.0, 10.0, 12.0, 40.0):
            demand = read_curve(state.handle, 0, units, seconds)
            read[units] = (float(seconds[COMPUTE]), pytest.approx(demand))
        # below the first point its time; beyond the last the last slope (1 s and 0.05 a unit), demand at most 1
        assert read == {
            1.0: (1.0, 0.2), 2.0: (1.0, 0.2), 3.0: (1.5, 0.3), 4.0: (2.0, 0.4), 7.0: (5.0, 0.55), 10.0: (8.0, 0.7),
            12.0: (10.0, 0.8), 40.0: (38.0, 1.0),
        }  # fmt: skip


def test_a_step_that_takes_no_time_takes_a_nanosecond() -> None:
    engine = build()
    engine.arrays.cost_linear[:] = 0.0
    engine.push(0.0, 0, 4, 1)
    engine.act()
    assert engine.arrays.lane_end_s[0, 0] == SHORTEST_STEP_S
    engine.act()
    assert engine.arrays.row_shares[0, HOST] == SHORTEST_STEP_S
