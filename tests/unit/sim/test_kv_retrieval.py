"""KV from stores: bytes, shares of bandwidth, tiers, and what is left of a prompt to compute."""

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
GB_PER_S = 1e9
PCIE_LATENCY_S = 2e-6
HOST = {
    "name": "host", "medium": "host_dram", "capacity": "100 GB", "read_bandwidth": "1 GB/s",
    "write_bandwidth": "2 GB/s", "latency": "30 us", "shared_by": "node", "attached_to": "cpu",
}  # fmt: skip
IDEAL = {
    "name": "host", "medium": "hbm", "capacity": "1000 TB", "read_bandwidth": "1e18 TB/s", "chunk_tokens": 16,
    "write_bandwidth": "1e18 TB/s", "latency": "0 s", "shared_by": "engine",
}  # fmt: skip
NO_CACHE = {"kv_cache": {"prefix_caching": False}}


def run(
    arrivals: list[float],
    prompts: list[int],
    outputs: list[int],
    *stores: s.Document,
    stage: s.Document | None = None,
    engine: s.Document | None = None,
    retrieves: bool = True,
    **columns: Any,
) -> RunTables:
    """One pipeline with a retrieval (or without) on one engine without a prefix cache, unless it says else."""
    cluster = s.cluster(s.llm(**(NO_CACHE if engine is None else engine)), kv_stores=list(stores))
    recall = {"name": "recall", "kind": "kv_retrieval", "stores": [store["name"] for store in stores], **(stage or {})}
    stages = [recall, {**s.PREFILL, "after": ["recall"]}] if retrieves else [s.PREFILL]
    scenario = load_scenario(cluster, s.workload(*stages, s.DECODE))
    coordinator = Coordinator(lower(scenario, request_table(arrivals, prompts, outputs, **columns)))
    coordinator.run()
    return collect(coordinator)


def of(tables: RunTables, kind: str) -> dict[str, Any]:
    """The visits of this kind, one per request."""
    return {name: values[tables.visits["kind"] == kind] for name, values in tables.visits.items()}


def shared(number: int, tokens: int) -> dict[str, Any]:
    """Columns of requests that all begin with the same tokens."""
    return {"prefix_group": [0] * number, "prefix_tokens": [tokens] * number}


class TestBytes:
    @pytest.mark.parametrize(("dtype", "bits"), [(None, 16), ("fp8", 8), ("int4", 4), ("int2", 2)])
    def test_tokens_times_bytes_a_token_as_stored(self, dtype: str | None, bits: int) -> None:
        # 1,100 + 9 tokens are four whole chunks; 1,024 are shared, so the second request reads them and adds nothing
        tables = run([0.0, 60.0], [1100, 1100], [10, 10], {**HOST, "kv_dtype": dtype}, **shared(2, 1024))
        num_bytes = 1024 * KV_BYTES_PER_TOKEN * bits / 16
        assert tables.kv_stores is not None
        assert tables.kv_stores["read_bytes"].tolist() == [num_bytes]
        assert tables.kv_stores["written_bytes"].tolist() == [num_bytes]
        assert tables.kv_stores["used_bytes"].tolist() == [num_bytes]
        moved = dict(zip(tables.links["link"], tables.links["bytes"], strict=True))
        assert moved == dict.fromkeys(
            ["node[0].gpu[0]->cpu[0]", "node[0].cpu[0]->gpu[0]", "host[0] read", "host[0] write"], num_bytes
        )
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 1024]
        assert tables.requests["num_cached_tokens"].tolist() == [0, 0]
        assert tables.engines["num_prompt_tokens"].tolist() == [2200 - 1024]

    def test_scales_of_quantised_numbers_count(self) -> None:
        store = {**HOST, "kv_dtype": "int4", "kv_scale_bits": 0.5}
        tables = run([0.0, 60.0], [1100, 1100], [10, 10], store, **shared(2, 1024))
        assert tables.kv_stores is not None
        assert tables.kv_stores["read_bytes"].tolist() == [1024 * KV_BYTES_PER_TOKEN * 4.5 / 16]

    def test_takes_latency_and_bytes_over_the_smallest_bandwidth(self) -> None:
        tables = run([0.0, 60.0], [1100, 1100], [10, 10], HOST, **shared(2, 1024))
        recall, prefill = of(tables, "kv_retrieval"), of(tables, "prefill")
        alone_s = 30e-6 + 1024 * KV_BYTES_PER_TOKEN / GB_PER_S
        assert recall["service_s"][0] == 0.0
        assert recall["service_s"][1] == pytest.approx(alone_s, abs=1e-5)  # and the link's latency
        assert recall["engine"].tolist() == ["", "host[0]"]
        assert prefill["arrival_s"].tolist() == recall["finish_s"].tolist()
        assert prefill["start_s"][1] == prefill["arrival_s"][1]

    def test_what_the_engine_has_itself_is_not_sent(self) -> None:
        tables = run([0.0, 60.0], [1100, 1100], [10, 10], HOST, engine={}, **shared(2, 1024))
        assert tables.requests["num_cached_tokens"].tolist() == [0, 1024]
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 0]

    def test_a_part_that_the_engine_has_is_not_sent(self) -> None:
        # the engine holds the session's first 320 tokens (20 blocks), the store says that it has 768
        columns = {"session": [0, 0], "stage": {"hit_frac": [1.0], "num_cached_tokens": 768}}
        tables = run([0.0, 60.0], [320, 1000], [1, 10], HOST, engine={}, **columns)
        assert tables.requests["num_cached_tokens"].tolist() == [0, 320]
        assert tables.requests["num_reloaded_tokens"].tolist() == [319, 768 - 320]

    def test_at_least_one_token_is_computed(self) -> None:
        tables = run([0.0, 60.0], [1024, 1024], [10, 10], HOST, **shared(2, 1024))
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 1023]
        assert tables.engines["num_prompt_tokens"].tolist() == [1025]


class TestSharing:
    def test_two_at_a_time_get_half_the_bandwidth_each(self) -> None:
        given = {"hit_frac": 1.0, "num_cached_tokens": 1024}
        engine = {"replicas": 2, **NO_CACHE}
        tables = run([0.0, 0.0, 60.0], [1100] * 3, [1] * 3, HOST, stage=given, engine=engine)
        once_s = 1024 * KV_BYTES_PER_TOKEN / GB_PER_S
        took_s = of(tables, "kv_retrieval")["service_s"]
        assert took_s == pytest.approx([2 * once_s, 2 * once_s, once_s], abs=5e-5)
        assert took_s[0] - took_s[2] == pytest.approx(once_s, rel=1e-9)

    def test_one_of_each_engine_is_not_shared(self) -> None:
        given = {"hit_frac": 1.0, "num_cached_tokens": 1024}
        engine = {"replicas": 2, **NO_CACHE}
        tables = run([0.0, 0.0], [1100] * 2, [1] * 2, {**HOST, "shared_by": "engine"}, stage=given, engine=engine)
        once_s = 1024 * KV_BYTES_PER_TOKEN / GB_PER_S
        assert of(tables, "kv_retrieval")["service_s"] == pytest.approx([once_s] * 2, abs=5e-5)
        assert of(tables, "kv_retrieval")["engine"].tolist() == ["host[0]", "host[1]"]


class TestLimits:
    def test_without_time_or_limit_a_store_is_a_prefix_cache(self) -> None:
        """The second request finds the same 1,024 tokens, in chunks as long as a block, and runs the same steps."""
        arguments: tuple[Any, ...] = ([0.0, 60.0], [1100, 1100], [10, 10])
        stored = run(*arguments, IDEAL, **shared(2, 1024))
        cached = run(*arguments, retrieves=False, engine={}, **shared(2, 1024))
        for name in ("first_token_s", "finish_s", "energy_j", "engine_s"):
            np.testing.assert_array_equal(stored.requests[name], cached.requests[name])
        assert stored.requests["num_reloaded_tokens"].tolist() == cached.requests["num_cached_tokens"].tolist()

    @pytest.mark.parametrize("stage", [{"write": "none"}, {"policy": "recompute"}, {}])
    def test_without_hits_the_stage_is_as_if_it_were_not_there(self, stage: s.Document) -> None:
        rng = np.random.default_rng(1)
        arrivals = np.sort(rng.uniform(0, 3, 40)).tolist()
        prompts, outputs = rng.integers(1, 2000, 40).tolist(), rng.integers(1, 60, 40).tolist()
        engine = {"kv_cache": {"num_gpu_blocks": 300}, "replicas": 2}
        with_stage = run(arrivals, prompts, outputs, HOST, stage=stage, engine=engine)
        without = run(arrivals, prompts, outputs, retrieves=False, engine=engine)
        for name, values in without.requests.items():
            if name in ("link_energy_j", "carbon_g"):  # of what is written
                continue
            np.testing.assert_array_equal(with_stage.requests[name], values, err_msg=name)
        assert not of(with_stage, "kv_retrieval")["service_s"].any()

    @pytest.mark.parametrize("bandwidth", ["0.1 GB/s", "1 GB/s", "3 GB/s", "10 GB/s"])
    @pytest.mark.parametrize("num_tokens", [64, 700, 4000])
    def test_the_fastest_way_of_a_lone_request_is_no_later_than_either(self, bandwidth: str, num_tokens: int) -> None:
        store = {**HOST, "read_bandwidth": bandwidth}
        ends = {}
        for policy in ("reload", "recompute", "fastest"):
            stage = {"policy": policy, "hit_frac": 1.0, "num_cached_tokens": num_tokens}
            ends[policy] = run([0.0], [4100], [5], store, stage=stage).requests["first_token_s"][0]
        assert ends["fastest"] == min(ends["reload"], ends["recompute"])

    def test_given_hits_come_as_often_as_stated_from_each_store(self) -> None:
        other = {**HOST, "name": "disk", "medium": "local_ssd"}
        stage = {"hit_frac": [0.5, 0.5], "num_cached_tokens": 64}
        number = 400
        tables = run([float(n) for n in range(number)], [100] * number, [1] * number, HOST, other, stage=stage)
        assert tables.kv_stores is not None
        hits = tables.kv_stores["num_hit_tokens"] / 64
        assert hits == pytest.approx([number / 2, number / 4], abs=4 * np.sqrt(number / 4))
        assert tables.kv_stores["written_bytes"].tolist() == [0.0, 0.0]


class TestContent:
    def test_of_a_store_for_two_texts_the_one_used_last_stays(self) -> None:
        # four chunks fit, a text has two: 0, 1, then 0 again, so 2 takes the place of 1
        size = {"capacity": f"{4 * 256 * KV_BYTES_PER_TOKEN} B"}
        groups = [0, 1, 0, 2, 0, 1]
        tables = run(
            [20.0 * n for n in range(6)], [600] * 6, [1] * 6, {**HOST, **size},
            prefix_group=groups, prefix_tokens=[512] * 6,
        )  # fmt: skip
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 0, 512, 0, 512, 0]
        assert tables.kv_stores is not None
        assert tables.kv_stores["num_evicted_chunks"].tolist() == [4]
        assert tables.kv_stores["num_written_chunks"].tolist() == [8]
        assert tables.kv_stores["hit_frac"][0] == pytest.approx(1024 / 3600)

    def test_what_gives_way_goes_a_store_down_and_comes_back_from_there(self) -> None:
        size = {"capacity": f"{2 * 256 * KV_BYTES_PER_TOKEN} B", "evict_to": "disk"}
        disk = {**HOST, "name": "disk", "medium": "local_ssd"}
        tables = run(
            [0.0, 20.0, 40.0], [600] * 3, [1] * 3, {**HOST, **size}, disk,
            prefix_group=[0, 1, 0], prefix_tokens=[512] * 3,
        )  # fmt: skip
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 0, 512]
        assert of(tables, "kv_retrieval")["engine"].tolist() == ["", "", "disk[0]"]
        assert tables.kv_stores is not None
        # text 0 went down when 1 came; when 0 came back up, 1 went down
        assert tables.kv_stores["num_evicted_chunks"].tolist() == [4, 0]
        assert tables.kv_stores["num_written_chunks"].tolist() == [6, 4]

    def test_each_chunk_comes_from_the_first_store_that_has_it(self) -> None:
        # the first store keeps the front of a long text, all four chunks are in the second
        size = {"capacity": f"{2 * 256 * KV_BYTES_PER_TOKEN} B"}
        disk = {**HOST, "name": "disk", "medium": "local_ssd"}
        stage = {"write": "all"}
        tables = run([0.0, 60.0], [1100] * 2, [1] * 2, {**HOST, **size}, disk, stage=stage, **shared(2, 1024))
        assert tables.kv_stores is not None
        assert tables.kv_stores["num_hit_tokens"].tolist() == [512, 512]
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 1024]

    def test_turns_of_a_session_find_what_was_written_between_them(self) -> None:
        columns = {"session": [0, 0], "previous": [-1, 0], "think_s": [0.0, 5.0]}
        tables = run([0.0, np.nan], [500, 1000], [100, 10], HOST, **columns)
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 599 // 256 * 256]

    def test_other_models_kv_is_of_no_use(self) -> None:
        recall = {"name": "recall", "kind": "kv_retrieval", "stores": ["host"]}
        stages = [
            recall, {**s.PREFILL, "model": "llama_3_8b", "after": ["recall"]}, {**s.DECODE, "model": "llama_3_8b"},
            {**recall, "name": "again", "after": ["decode"]},
            {"name": "read", "kind": "prefill", "model": "qwen-2-7b", "context": "prompt", "after": ["again"]},
            {"name": "answer", "kind": "decode", "model": "qwen-2-7b", "after": ["read"]},
        ]  # fmt: skip
        cluster = s.cluster(s.llm(), s.llm("other", model="qwen-2-7b"), kv_stores=[HOST])
        table = request_table([0.0], [1100], [10])
        coordinator = Coordinator(lower(load_scenario(cluster, s.workload(*stages)), table))
        coordinator.run()
        assert collect(coordinator).requests["num_reloaded_tokens"].tolist() == [0]


class TestPlaces:
    """Two nodes with an engine each and a node of storage, over InfiniBand of 36.5 GB/s a port."""

    @staticmethod
    def run(store: s.Document) -> RunTables:
        cluster = s.cluster(s.llm(node="node", replicas=2, **NO_CACHE), num_gpus=1, routing={"kind": "round_robin"})
        storage = {"name": "storage", "count": 2, "devices": {"cpu": {"profile": "epyc_7742"}}}
        cluster |= {"nodes": [{**cluster["nodes"][0], "count": 2}, storage], "network": "ib_ndr", "kv_stores": [store]}
        recall = {"name": "recall", "kind": "kv_retrieval", "stores": ["host"]}
        scenario = load_scenario(cluster, s.workload(recall, {**s.PREFILL, "after": ["recall"]}, s.DECODE))
        # the same text at both engines in turn: first 0, then 1, then 0 again
        table = request_table([0.0, 20.0, 40.0], [1100] * 3, [1] * 3, **shared(3, 1024))
        coordinator = Coordinator(lower(scenario, table))
        coordinator.run()
        return collect(coordinator)

    def test_a_nodes_store_is_of_no_use_to_another_node(self) -> None:
        tables = self.run(HOST)
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 0, 1024]
        assert of(tables, "kv_retrieval")["engine"].tolist() == ["", "", "host[0]"]
        assert tables.kv_stores is not None
        assert tables.kv_stores["store"].tolist() == ["host[0]", "host[1]"]

    def test_a_store_of_the_cluster_is_spread_over_its_nodes_and_reached_over_the_network(self) -> None:
        tables = self.run({**HOST, "shared_by": "cluster", "node": "storage"})
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 1024, 1024]
        moved = dict(zip(tables.links["link"], tables.links["bytes"], strict=True))
        num_bytes = 1024 * KV_BYTES_PER_TOKEN
        assert moved["storage[0].nic[0]->network"] == moved["storage[1].nic[0]->network"] == num_bytes
        assert moved["network->node[0].nic[0]"] == moved["network->node[1].nic[0]"] == num_bytes
        assert moved["host[0] read"] == 2 * num_bytes

    def test_racks_have_one_each(self) -> None:
        tables = self.run(
            {**HOST, "shared_by": "rack", "nodes_per_rack": 2, "node": "storage"}
        )  # both engines in rack 0
        assert tables.requests["num_reloaded_tokens"].tolist() == [0, 1024, 1024]
        assert tables.kv_stores is not None
        assert tables.kv_stores["store"].tolist() == ["host[0]"]
        moved = dict(zip(tables.links["link"], tables.links["bytes"], strict=True))
        assert moved["storage[0].nic[0]->network"] == 2 * 1024 * KV_BYTES_PER_TOKEN
        assert "storage[1].nic[0]->network" not in moved


class TestFullEngines:
    def test_blocks_are_waited_for_before_anything_is_sent(self) -> None:
        """100 blocks: the first request fills 80 until it ends, the second's 1,024 tokens want 64."""
        given = {"hit_frac": 1.0, "num_cached_tokens": 1024}
        engine = {"kv_cache": {"num_gpu_blocks": 100, "prefix_caching": False}}
        tables = run([0.0, 1.0], [1100, 1100], [100, 5], HOST, stage=given, engine=engine)
        recall = of(tables, "kv_retrieval")
        ended_s = tables.requests["finish_s"][0]
        assert recall["arrival_s"][1] == 1.0 < ended_s
        assert recall["start_s"][1] == ended_s
        assert recall["queue_s"][1] == pytest.approx(ended_s - 1.0)

    def test_many_at_once_all_come_through(self) -> None:
        rng = np.random.default_rng(2)
        number = 60
        engine = {"kv_cache": {"num_gpu_blocks": 200}, "batching": {"max_num_seqs": 8, "max_num_batched_tokens": 512}}
        tables = run(
            np.sort(rng.uniform(0, 5, number)).tolist(), rng.integers(600, 2000, number).tolist(),
            rng.integers(1, 80, number).tolist(), HOST, engine=engine,
            prefix_group=rng.integers(0, 6, number), prefix_tokens=[512] * number,
        )  # fmt: skip
        assert (tables.requests["status"] == "finished").all()
        assert tables.requests["num_reloaded_tokens"].sum() > 0
