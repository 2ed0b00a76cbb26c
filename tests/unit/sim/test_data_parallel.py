"""DP attention: ranks of one replica with their own queue and blocks, stepping together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.sim.status import FINISHED
from hermes_sim.workload.requests import RequestTable, request_table
from tests import scenarios as s


def lowered(requests: RequestTable, *engines: s.Document, exact: bool = False, **cluster: Any) -> Lowered:
    return lower(load_scenario(s.cluster(*engines, **cluster), s.workload(), exact_steps=exact), requests)


def run(requests: RequestTable, *engines: s.Document, exact: bool = False, **cluster: Any) -> Coordinator:
    coordinator = Coordinator(lowered(requests, *engines, exact=exact, **cluster))
    coordinator.run()
    return coordinator


def ranks(dp: int = 2, tp: int = 1, **keys: Any) -> s.Document:
    return s.llm(parallel={"dp": dp, "tp": tp}, **{"placement": {"gpu": dp * tp}, **keys})


def random_requests(number: int) -> RequestTable:
    rng = np.random.default_rng(6)
    return request_table(
        np.cumsum(rng.exponential(0.03, number)), rng.integers(1, 900, number), rng.integers(0, 60, number)
    )


class TestRanks:
    def test_every_rank_has_devices_of_its_own(self) -> None:
        run = lowered(request_table([0.0], [9], [9]), ranks(dp=2, tp=2, replicas=2), s.llm("other"), num_gpus=9)
        names = [replica.name for replica in run.replicas]
        assert names == ["llm[0].dp0", "llm[0].dp1", "llm[1].dp0", "llm[1].dp1", "other[0]"]
        places = [[endpoint.device_index for endpoint in replica.endpoints] for replica in run.replicas]
        assert places == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]

    def test_money_and_power_are_shared_out(self) -> None:
        whole, *parts = (lowered(request_table([0.0], [9], [9]), engine).replicas for engine in (s.llm(), ranks(dp=4)))
        assert [replica.price_usd_per_h for replica in parts[0]] == [whole[0].price_usd_per_h] * 4
        for replica in parts[0]:
            np.testing.assert_array_equal(replica.power_w, whole[0].power_w)
            assert replica.idle_w == whole[0].idle_w

    def test_ranks_of_a_replica_are_one_group_in_step(self) -> None:
        state = lowered(request_table([0.0], [9], [9]), ranks(replicas=2), s.llm("other")).state
        assert state.group_of.tolist() == [0, 0, 1, 1, 2]
        assert state.group_lockstep.tolist() == [1, 1, 0]
        assert state.group_contended.tolist() == [0, 0, 0]

    def test_ranks_of_a_dense_model_hold_all_of_it(self) -> None:
        one, two = (lowered(request_table([0.0], [9], [9]), engine).state for engine in (s.llm(), ranks()))
        assert two.num_blocks.tolist() == [one.num_blocks[0]] * 2


class TestSteps:
    def test_ranks_take_every_step_together(self) -> None:
        """One request: its rank works, the other runs dummy steps of the same length."""
        coordinator = run(request_table([0.0], [500], [20]), ranks())
        state = coordinator.state
        assert state.num_steps.tolist() == [20, 20]
        assert state.busy_s[0] == state.busy_s[1]
        assert state.total_tokens.tolist() == [519, 0]

    def test_routing_sees_the_ranks(self) -> None:
        coordinator = run(random_requests(40), ranks(), routing={"kind": "round_robin"})
        assert coordinator.state.row_engine[::2].tolist() == [0, 1] * 20
        np.testing.assert_array_equal(coordinator.state.row_engine[::2], coordinator.state.row_engine[1::2])

    def test_nothing_is_lost(self) -> None:
        coordinator = run(random_requests(80), ranks(dp=4, kv_cache={"num_gpu_blocks": 120}))
        state = coordinator.state
        assert (coordinator.status == FINISHED).all()
        np.testing.assert_array_equal(state.num_free_blocks, state.num_blocks)
        outputs = coordinator.lowered.requests.num_output_tokens
        np.testing.assert_array_equal(state.row_generated[1::2], outputs)
        assert len(set(state.num_steps.tolist())) == 1

    @pytest.mark.parametrize("engine", [ranks(), ranks(dp=3, kv_cache={"num_gpu_blocks": 90})])
    def test_one_event_a_step_gives_the_same_times(self, engine: s.Document) -> None:
        fast, exact = (run(random_requests(50), engine, exact=exact) for exact in (False, True))
        np.testing.assert_array_equal(fast.state.row_finish_s, exact.state.row_finish_s)
        np.testing.assert_array_equal(fast.state.row_shares, exact.state.row_shares)
        np.testing.assert_array_equal(fast.state.num_steps, exact.state.num_steps)

    def test_kv_goes_from_rank_to_rank(self) -> None:
        apart = [ranks(name="prefiller", serves=["prefill"]), ranks(name="decoder", serves=["decode"])]
        coordinator = run(random_requests(30), *apart)
        assert (coordinator.status == FINISHED).all()
        assert set(coordinator.state.row_engine[::2].tolist()) <= {0, 1}
        used = [use for use in coordinator.flows.uses if use.num_transfers]
        assert used
