"""Prefill and decode on different engines: blocks reserved before the transfer, KV held until it has ended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.collect import collect
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import lower
from hermes_sim.workload.requests import request_table
from tests import scenarios as s

KV_BYTES_PER_TOKEN = 2 * 32 * 8 * 128 * 2
"""Llama 3 8B: key and value, layers, KV heads, head size, bytes."""

LINK_BYTES_PER_S = 240e9
"""What one A100 port reaches over NVLink 3 (the profile's efficiency counted in)."""


def cluster(*, prefiller: s.Document | None = None, decoder: s.Document | None = None) -> s.Document:
    return s.cluster(
        s.llm("prefiller", serves=["prefill"], **(prefiller or {})),
        s.llm("decoder", serves=["decode"], **(decoder or {})),
    )


def run(cluster: s.Document, arrivals: list[float], prompts: list[int], outputs: list[int]) -> RunTables:
    coordinator = Coordinator(lower(load_scenario(cluster, s.workload()), request_table(arrivals, prompts, outputs)))
    coordinator.run()
    return collect(coordinator)


def of(tables: RunTables, kind: str) -> dict[str, Any]:
    """The visits of this kind, one per request."""
    return {name: values[tables.visits["kind"] == kind] for name, values in tables.visits.items()}


class TestTransfer:
    def test_bytes_are_tokens_times_kv_bytes_on_every_link_of_the_route(self) -> None:
        # the prompts' KV, without the token that decode computes first: GPU 0 -> switch -> GPU 1
        tables = run(cluster(), [0.0, 1.0], [1000, 500], [10, 10])
        assert tables.links["bytes"].tolist() == [1500 * KV_BYTES_PER_TOKEN] * 2
        assert tables.links["num_transfers"].tolist() == [2, 2]

    def test_takes_bytes_over_bandwidth_and_the_latency_of_the_route(self) -> None:
        tables = run(cluster(), [0.0], [1000], [10])
        decode, prefill = of(tables, "decode"), of(tables, "prefill")
        # two hops of 5 microseconds
        assert decode["transfer_s"][0] == pytest.approx(1000 * KV_BYTES_PER_TOKEN / LINK_BYTES_PER_S + 10e-6)
        assert decode["arrival_s"][0] == prefill["finish_s"][0] + decode["transfer_s"][0]
        assert decode["start_s"][0] == decode["arrival_s"][0]
        assert prefill["transfer_s"][0] == 0.0

    def test_first_token_is_the_prefills_and_the_transfer_counts_in_the_gaps(self) -> None:
        tables = run(cluster(), [0.0], [1000], [3])
        requests, decode = tables.requests, of(tables, "decode")
        assert requests["first_token_s"][0] == of(tables, "prefill")["finish_s"][0]
        between_s = requests["finish_s"][0] - requests["first_token_s"][0]
        assert between_s == pytest.approx(decode["transfer_s"][0] + decode["service_s"][0], rel=1e-12)
        # two gaps: the transfer and a step, a step; the histogram's bins are 1/64 of an octave wide
        gaps_s = np.repeat(tables.itl_edges_s[:-1], tables.itl_counts)
        assert len(gaps_s) == 2
        assert gaps_s.max() == pytest.approx(decode["transfer_s"][0] + decode["service_s"][0] / 2, rel=1 / 64)
        assert gaps_s.sum() <= between_s <= gaps_s.sum() * (1 + 1 / 64)

    @pytest.mark.parametrize("num_output", [0, 1])
    def test_nothing_is_sent_where_no_token_is_left(self, num_output: int) -> None:
        tables = run(cluster(), [0.0], [1000], [num_output])
        assert len(tables.links["bytes"]) == 0
        assert tables.requests["status"].tolist() == ["finished"]
        assert tables.requests["num_output_tokens"].tolist() == [num_output]
        assert tables.requests["finish_s"][0] == of(tables, "prefill")["finish_s"][0]
        assert tables.engines["num_steps"].tolist() == [1, 0]

    def test_over_a_slower_link_only_the_gap_after_the_first_token_grows(self) -> None:
        slow = cluster()
        slow["nodes"][0]["links"][0]["profile"] = "pcie4_x16"
        near, far = (run(where, [0.0], [2000], [20]) for where in (cluster(), slow))
        assert far.requests["first_token_s"][0] == near.requests["first_token_s"][0]
        later_s = of(far, "decode")["transfer_s"][0] - of(near, "decode")["transfer_s"][0]
        assert later_s > 0.005
        assert far.requests["finish_s"][0] - near.requests["finish_s"][0] == pytest.approx(later_s, rel=1e-9)


class TestPrefillSide:
    def test_kv_is_held_until_the_transfer_has_ended(self) -> None:
        # 100 blocks of 16: one prompt of 1,000 tokens (63 blocks) fits, two do not. The second begins when the KV of
        # the first has left, not when its prefill ends.
        tables = run(cluster(prefiller={"kv_cache": {"num_gpu_blocks": 100}}), [0.0, 0.0], [1000, 1000], [5, 5])
        prefill, decode = of(tables, "prefill"), of(tables, "decode")
        assert prefill["start_s"][1] == decode["arrival_s"][0] > prefill["finish_s"][0]

    def test_kv_that_is_not_sent_is_free_at_once(self) -> None:
        tables = run(cluster(prefiller={"kv_cache": {"num_gpu_blocks": 100}}), [0.0, 0.0], [1000, 1000], [1, 5])
        prefill = of(tables, "prefill")
        assert prefill["start_s"][1] == prefill["finish_s"][0]

    def test_what_the_decode_side_can_never_hold_is_rejected_and_its_kv_released(self) -> None:
        # 50 blocks of 16 hold 800 tokens: the first is refused there, the second goes through both engines
        both = cluster(prefiller={"kv_cache": {"num_gpu_blocks": 100}}, decoder={"kv_cache": {"num_gpu_blocks": 50}})
        tables = run(both, [0.0, 0.0], [1000, 700], [5, 5])
        assert tables.requests["status"].tolist() == ["rejected", "finished"]
        prefill = of(tables, "prefill")
        assert prefill["start_s"][1] == prefill["finish_s"][0]


class TestDecodeSide:
    def test_a_reservation_waits_for_blocks_and_is_granted_when_they_come_free(self) -> None:
        # 80 blocks of 16 hold one sequence of 1,000 + 50 tokens (66 blocks), not two
        tables = run(cluster(decoder={"kv_cache": {"num_gpu_blocks": 80}}), [0.0, 0.0], [1000, 1000], [50, 50])
        decode, prefill = of(tables, "decode"), of(tables, "prefill")
        granted_s = decode["arrival_s"][1] - decode["transfer_s"][1]
        assert granted_s == pytest.approx(decode["finish_s"][0], rel=1e-12)
        assert granted_s > prefill["finish_s"][1]
        assert decode["transfer_s"][1] == pytest.approx(decode["transfer_s"][0])

    def test_the_reservation_is_for_the_whole_prompt_and_its_next_token(self) -> None:
        # 992 tokens are 62 blocks, one more token is the 63rd. With 125 blocks the second has to wait, with 126 not.
        for num_blocks, waits in [(125, True), (126, False)]:
            tables = run(
                cluster(decoder={"kv_cache": {"num_gpu_blocks": num_blocks}}), [0.0, 0.0], [992, 992], [10, 10]
            )
            decode, prefill = of(tables, "decode"), of(tables, "prefill")
            sent_s = decode["arrival_s"][1] - decode["transfer_s"][1]
            assert (sent_s > prefill["finish_s"][1] + 1e-6) == waits

    def test_reservations_are_granted_in_the_order_in_which_they_were_asked_for(self) -> None:
        # the third would fit beside the first at once, but stands behind the second
        tables = run(
            cluster(decoder={"kv_cache": {"num_gpu_blocks": 80}}), [0.0, 0.0, 0.0], [1000, 1000, 50], [50, 50, 5]
        )
        decode = of(tables, "decode")
        sent_s = decode["arrival_s"] - decode["transfer_s"]
        assert sent_s[2] >= sent_s[1] - 1e-9 > decode["finish_s"][0] - 1e-6

    def test_decode_joins_the_batch_that_runs_there(self) -> None:
        tables = run(cluster(), [0.0, 0.3], [1000, 1000], [200, 200])
        steps = int(tables.engines["num_steps"][1])
        assert 199 < steps < 2 * 199

    def test_engines_that_do_both_take_kv_from_elsewhere_as_well(self) -> None:
        """One seat, taken by a reservation while a prompt of its own heads the line: neither waits for ever."""
        mixed = s.cluster(
            s.llm("both", batching={"max_num_seqs": 1}), s.llm("prefiller", serves=["prefill"]),
            routing={"kind": "round_robin"},
        )  # fmt: skip
        number = 40
        tables = run(mixed, [0.02 * n for n in range(number)], [1000] * number, [10] * number)
        assert set(tables.requests["status"]) == {"finished"}
        prefill, decode = of(tables, "prefill"), of(tables, "decode")
        assert set(prefill["engine"]) == {"both[0]", "prefiller[0]"}
        assert set(decode["engine"]) == {"both[0]"}
        at_home = prefill["engine"] == "both[0]"
        assert (decode["transfer_s"][at_home] == 0.0).all()
        assert (decode["transfer_s"][~at_home] > 0.0).all()

    @pytest.mark.parametrize("kind", ["least_outstanding_tokens", "least_outstanding_requests", "least_tokens_left"])
    def test_routers_count_what_is_on_its_way(self, kind: str) -> None:
        """Eight prompts end in one instant, before anything has arrived at the four decoders: two for each."""
        many = s.cluster(
            s.llm("prefiller", serves=["prefill"], replicas=4, batching={"max_num_batched_tokens": 4096}),
            s.llm("decoder", serves=["decode"], replicas=4),
            routing={"kind": kind},
        )
        decode = of(run(many, [0.0] * 8, [2000] * 8, [50] * 8), "decode")
        assert sorted(decode["engine"]) == [f"decoder[{n}]" for n in range(4) for _ in range(2)]

    def test_who_waits_for_a_reservation_counts_too(self) -> None:
        """Of two decoders with room for one prompt each, four prompts wait for two each."""
        two = s.cluster(
            s.llm("prefiller", serves=["prefill"], batching={"max_num_batched_tokens": 4096}),
            s.llm("decoder", serves=["decode"], replicas=2, kv_cache={"num_gpu_blocks": 80}),
        )
        decode = of(run(two, [0.0] * 4, [1000] * 4, [50] * 4), "decode")
        assert sorted(decode["engine"]) == ["decoder[0]"] * 2 + ["decoder[1]"] * 2
