"""From a scenario to arrays: rows, lengths, pipelines, groups of engines, and who feeds whom."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hermes_sim.core.errors import ConfigError, SimulationError
from hermes_sim.hardware.network import Endpoint
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.sim.replicas import Replica, engine_groups, kv_transfer_bytes
from hermes_sim.state.arrays import JOBS, TOKENS, WATCHED
from hermes_sim.workload.requests import ClosedLoop, RequestTable, request_table
from tests import scenarios as s

RAG_CLUSTER = s.cluster(s.llm(), s.workers(["embed"], "embedder"), s.workers(["retrieve"], "retriever"), num_cpus=2)
DOCUMENT_TOKENS = 4 * 128
"""What s.RETRIEVE adds to a prompt."""


def lowered(cluster: s.Document, workload: s.Document, requests: RequestTable | None = None) -> Lowered:
    return lower(load_scenario(cluster, workload), requests if requests is not None else same(1))


def same(number: int, num_prompt: int = 100, num_output: int = 10, **columns: Any) -> RequestTable:
    """Equal requests, one a second."""
    return request_table(np.arange(number, dtype=float), [num_prompt] * number, [num_output] * number, **columns)


def mix(*pipelines: tuple[str, float, list[s.Document]]) -> s.Document:
    """A workload of several pipelines (name, weight, stages)."""
    document = s.workload()
    document["pipelines"] = [{"name": name, "weight": weight, "stages": stages} for name, weight, stages in pipelines]
    return document


CHAT_AND_RAG = mix(("chat", 3.0, [s.PREFILL, s.DECODE]), ("rag", 1.0, s.RAG))


class TestRows:
    def test_one_row_per_request_and_stage(self) -> None:
        # pipelines of 2 and 4 stages, named by the trace: rag, chat, chat, rag
        requests = same(4, pipeline=[1, 0, 0, 1], pipeline_names=("chat", "rag"))
        run = lowered(RAG_CLUSTER, CHAT_AND_RAG, requests)
        assert run.request_pipeline.tolist() == [1, 0, 0, 1]
        assert run.first_row.tolist() == [0, 4, 6, 8, 12]
        assert run.row_stage.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 0, 1, 2, 3]
        assert run.state.row_request.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]

    def test_names_of_a_trace_need_not_be_in_the_files_order(self) -> None:
        requests = same(3, pipeline=[0, 1, -1], pipeline_names=("rag", "chat"))
        run = lowered(RAG_CLUSTER, mix(("chat", 1.0, [s.PREFILL, s.DECODE]), ("rag", 1e-9, s.RAG)), requests)
        assert run.request_pipeline.tolist() == [1, 0, 0]  # the last is drawn, and rag weighs nothing

    def test_a_name_the_workload_lacks_is_refused(self) -> None:
        requests = same(1, pipeline=[0], pipeline_names=("agent",))
        with pytest.raises(SimulationError, match=r"'agent'.*chat, rag"):
            lowered(RAG_CLUSTER, CHAT_AND_RAG, requests)

    def test_pipelines_are_drawn_by_weight(self) -> None:
        # 3 to 1: 1,000 of 4,000 are rag, with a deviation of sqrt(4000 x 3/16) = 27; five of them allowed
        drawn = lowered(RAG_CLUSTER, CHAT_AND_RAG, same(4000)).request_pipeline
        assert abs(int(drawn.sum()) - 1000) < 5 * 27.4

    def test_a_draw_does_not_depend_on_how_many_there_are(self) -> None:
        few, many = (lowered(RAG_CLUSTER, CHAT_AND_RAG, same(number)) for number in (50, 200))
        np.testing.assert_array_equal(few.request_pipeline, many.request_pipeline[:50])

    def test_decode_goes_on_in_the_engine_of_its_prefill(self) -> None:
        run = lowered(s.cluster(s.llm()), s.workload(), same(2))
        assert run.state.row_continues_as.tolist() == [1, -1, 3, -1]
        apart = s.cluster(s.llm("prefiller", serves=["prefill"]), s.llm("decoder", serves=["decode"]))
        assert lowered(apart, s.workload(), same(2)).state.row_continues_as.tolist() == [-1] * 4

    def test_prefill_without_decode_ends_with_one_token(self) -> None:
        run = lowered(s.cluster(s.llm()), s.workload(s.PREFILL), same(1, num_output=10))
        assert run.state.row_output.tolist() == [1]

    def test_who_is_watched(self) -> None:
        # a stage with another behind it, except a prefill whose decode follows; the end of a request only if a turn of
        # its session or a closed loop waits for it
        run = lowered(RAG_CLUSTER, s.workload(*s.RAG), same(1))
        assert (run.state.row_flags & WATCHED).tolist() == [WATCHED, WATCHED, 0, 0]
        turns = same(2, session=[0, 0], previous=[-1, 0])
        assert (lowered(s.cluster(s.llm()), s.workload(), turns).state.row_flags & WATCHED).tolist() == [
            0,
            WATCHED,
            0,
            0,
        ]
        loop = same(2, closed_loop=ClosedLoop(concurrency=1, think_time_s=np.zeros(2)))
        assert (lowered(s.cluster(s.llm()), s.workload(), loop).state.row_flags & WATCHED).tolist() == [
            0, WATCHED, 0, WATCHED,
        ]  # fmt: skip

    def test_content_of_prompts(self) -> None:
        requests = same(2, prefix_group=[3, -1], prefix_tokens=[64, 0], session=[0, 1], previous=[-1, -1])
        state = lowered(s.cluster(s.llm()), s.workload(), requests).state
        assert state.content_group_tokens.tolist() == [64, 0]
        assert state.content_session.tolist() == [0, 1]
        # with documents in it a prompt is no continuation of the last turn
        assert lowered(RAG_CLUSTER, s.workload(*s.RAG), requests).state.content_session.tolist() == [-1, -1]


class TestLengths:
    """Llama 3 8B holds 8,192 tokens."""

    def test_documents_are_added(self) -> None:
        state = lowered(RAG_CLUSTER, s.workload(*s.RAG), same(1, num_prompt=100)).state
        assert state.row_prompt[2:].tolist() == [100 + DOCUMENT_TOKENS] * 2

    def test_documents_of_a_skipped_stage_are_not_added(self) -> None:
        stages = [s.EMBED, {**s.RETRIEVE, "probability": 0.4}, {**s.PREFILL, "after": ["retrieve"]}, s.DECODE]
        run = lowered(RAG_CLUSTER, s.workload(*stages), same(400))
        skipped = run.skipped.reshape(-1, 4)
        assert not skipped[:, [0, 2, 3]].any()
        assert abs(int(skipped[:, 1].sum()) - 240) < 5 * 9.8  # sqrt(400 x 0.24) = 9.8
        prompts = run.state.row_prompt.reshape(-1, 4)[:, 2]
        np.testing.assert_array_equal(prompts, np.where(skipped[:, 1], 100, 100 + DOCUMENT_TOKENS))

    def test_decode_is_skipped_with_its_prefill(self) -> None:
        run = lowered(s.cluster(s.llm()), s.workload({**s.PREFILL, "probability": 0.5}, s.DECODE), same(100))
        prefill, decode = run.skipped.reshape(-1, 2).T
        np.testing.assert_array_equal(prefill, decode)
        assert 0 < prefill.sum() < 100

    def test_outputs_come_first_and_prompts_are_cut(self) -> None:
        requests = request_table([0.0] * 5, [8000, 8192, 9000, 10, 8191 - DOCUMENT_TOKENS], [192, 1, 100, 9000, 1])
        run = lowered(s.cluster(s.llm()), s.workload(), requests)
        assert run.state.row_prompt[::2].tolist() == [8000, 8191, 8092, 1, 8191 - DOCUMENT_TOKENS]
        assert run.state.row_output[::2].tolist() == [1] * 5
        assert run.state.row_output[1::2].tolist() == [192, 1, 100, 8191, 1]
        assert run.num_clipped.tolist() == [0, 1, 9000 - 8092, 9 + 9000 - 8191, 0]

    def test_documents_are_cut_too(self) -> None:
        run = lowered(RAG_CLUSTER, s.workload(*s.RAG), same(1, num_prompt=8000, num_output=100))
        assert run.state.row_prompt[2] == 8192 - 100
        assert run.num_clipped.tolist() == [8000 + DOCUMENT_TOKENS - (8192 - 100)]

    def test_each_pipeline_has_the_limit_of_its_own_model(self) -> None:
        def chat(model: str) -> list[s.Document]:
            return [{**s.PREFILL, "model": model}, {**s.DECODE, "model": model}]

        both = s.cluster(s.llm(), s.llm("longer", model="llama_3_1_8b"))
        workload = mix(("short", 1.0, chat("llama_3_8b")), ("long", 1.0, chat("llama_3_1_8b")))
        requests = same(2, num_prompt=20_000, pipeline=[0, 1], pipeline_names=("short", "long"))
        assert lowered(both, workload, requests).state.row_prompt[::2].tolist() == [8182, 20_000]


def standing_in(*places: list[int]) -> list[Replica]:
    """Replicas that are nothing but their devices."""
    return [
        cast(
            Replica,
            SimpleNamespace(
                endpoints=tuple(Endpoint("node", 0, "gpu", place) for place in own),
                engine=SimpleNamespace(name=f"engine{number}"),
                number=0,
            ),
        )
        for number, own in enumerate(places)
    ]


class TestGroups:
    @pytest.mark.parametrize(
        ("places", "groups"),
        [
            (([0], [1], [2]), [[0], [1], [2]]),
            (([0, 1], [1, 2]), [[0, 1]]),
            (([0], [1], [0, 1]), [[0, 1, 2]]),  # two that had nothing in common, until a third came
            (([0], [1], [2, 3], [3, 0], [1]), [[0, 2, 3], [1, 4]]),
            (([0], [1], [0, 1], [2], [2, 0]), [[0, 1, 2, 3, 4]]),
        ],
    )
    def test_engines_that_share_a_device_in_a_chain_are_one_group(
        self, places: tuple[list[int], ...], groups: list[list[int]]
    ) -> None:
        assert engine_groups(standing_in(*places)) == groups

    def test_cores_of_one_cpu_are_shared_and_gpus_are_not(self) -> None:
        one_cpu = s.cluster(
            s.llm(replicas=2), s.workers(["embed"], "embedder"), s.workers(["retrieve"], "retriever"), num_cpus=1
        )
        state = lowered(one_cpu, s.workload(*s.RAG)).state
        assert state.group_of.tolist() == [0, 1, 2, 2]
        assert state.group_size.tolist() == [1, 1, 2]
        assert state.group_members.tolist() == [0, 1, 2, 3]
        assert state.group_contended.tolist() == [0, 0, 1]

    @pytest.mark.parametrize(("num_workers", "contended"), [(1, 0), (2, 1)])
    def test_workers_of_one_engine_compete(self, num_workers: int, contended: int) -> None:
        cluster = s.cluster(s.workers(["embed"], num_workers=num_workers))
        state = lowered(cluster, s.workload({**s.EMBED})).state
        assert state.num_lanes.tolist() == [num_workers]
        assert state.group_contended.tolist() == [contended]

    def test_pipeline_stages_do_not_compete(self) -> None:
        state = lowered(s.cluster(s.llm(parallel={"pp": 4}, placement={"gpu": 4})), s.workload()).state
        assert (state.num_lanes.tolist(), state.group_contended.tolist()) == ([4], [0])
        assert 0.25 <= state.stage_interval_frac[0] < 0.5


class TestFeeds:
    def test_closure_of_hand_offs(self) -> None:
        # engines 0 llm, 1 embedder, 2 retriever, each alone: embed feeds both others, retrieve the llm, the llm nobody
        state = lowered(
            s.cluster(s.llm(), s.workers(["embed"], "embedder", 64), s.workers(["retrieve"], "retriever", 64)),
            s.workload(*s.RAG),
        ).state
        assert state.group_of.tolist() == [0, 1, 2]
        # prefill and decode are both the llm's, so it feeds itself
        assert state.feeds.tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 0]]

    def test_apart_prefill_feeds_decode_and_blocks_granted_there_reach_back(self) -> None:
        """A grant lets KV leave a prefill engine, whose blocks come free: so all of them reach each other."""
        apart = s.cluster(s.llm("prefiller", serves=["prefill"], replicas=2), s.llm("decoder", serves=["decode"]))
        assert lowered(apart, s.workload()).state.feeds.all()
        # where every prefill engine decodes itself, nothing reaches back
        joined = s.cluster(s.llm(replicas=2), s.workers(["embed"]))
        state = lowered(joined, s.workload(s.EMBED, {**s.PREFILL, "after": ["embed"]}, s.DECODE)).state
        assert state.feeds.tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 0]]

    @pytest.mark.parametrize("kind", ["closed loop", "session"])
    def test_the_end_of_a_request_may_start_another(self, kind: str) -> None:
        """Then the last stages feed the first ones of every pipeline, and so on through all."""
        if kind == "session":
            requests = same(2, session=[0, 0], previous=[-1, 0])
        else:
            requests = same(2, closed_loop=ClosedLoop(concurrency=1, think_time_s=np.zeros(2)))
        cluster = s.cluster(s.llm(), s.workers(["embed"], "embedder", 64), s.workers(["retrieve"], "retriever", 64))
        assert lowered(cluster, s.workload(*s.RAG), requests).state.feeds.all()

    def test_pipelines_apart_do_not_feed_each_other(self) -> None:
        workload = mix(("chat", 1.0, [s.PREFILL, s.DECODE]), ("index", 1.0, [s.EMBED]))
        state = lowered(s.cluster(s.llm(), s.workers(["embed"])), workload).state
        assert state.feeds.tolist() == [[1, 0], [0, 0]]


class TestEngines:
    def test_what_an_engine_is_told(self) -> None:
        cluster = s.cluster(
            s.llm(
                kv_cache={"num_gpu_blocks": 250, "block_tokens": 32, "prefix_caching": False},
                batching={
                    "max_num_seqs": 7, "max_num_batched_tokens": 600, "long_prefill_token_threshold": 90,
                    "watermark_frac": 0.019, "queue_order": "priority", "full_sequence_gate": False,
                },
            ),
            s.workers(["embed"], max_batch_size=9, max_wait="20 ms", num_workers=3),
        )  # fmt: skip
        state = lowered(cluster, s.workload({**s.EMBED}, {**s.PREFILL, "after": ["embed"]})).state
        assert state.engine_kind.tolist() == [TOKENS, JOBS]
        assert (state.num_blocks[0], state.num_free_blocks[0], state.block_tokens[0]) == (250, 250, 32)
        assert state.watermark_blocks[0] == 4  # 4.75 rounded down
        assert (state.max_num_seqs[0], state.max_num_batched_tokens[0], state.prefill_threshold[0]) == (7, 600, 90)
        assert (state.prefix_caching[0], state.queue_order[0], state.full_sequence_gate[0]) == (0, 1, 0)
        assert (state.max_batch_size[1], state.max_wait_s[1], state.num_lanes[1]) == (9, 0.02, 3)
        assert state.chunk_prefill[0] == 1

    def test_seats_for_sequences_whose_kv_is_on_its_way(self) -> None:
        apart = s.cluster(
            s.llm("prefiller", serves=["prefill"], batching={"max_num_seqs": 5}),
            s.llm("decoder", serves=["decode"], batching={"max_num_seqs": 8}),
            s.llm("both", batching={"max_num_seqs": 11}),
        )
        assert lowered(apart, s.workload()).state.num_free_slots.tolist() == [10, 16, 11]

    def test_a_queue_for_every_stage_of_a_job_engine(self) -> None:
        cluster = s.cluster(s.llm(), s.workers(["embed", "retrieve"]), s.workers(["rerank"], "idle"))
        run = lowered(cluster, s.workload(*s.RAG))
        assert run.queue_stage == ((0, ""), (1, "main.embed"), (1, "main.retrieve"), (2, ""))
        assert run.state.first_queue.tolist() == [0, 1, 3]
        assert run.state.num_queues.tolist() == [1, 2, 1]
        stages = run.pipelines[0].stages
        assert [dict(stage.queues) for stage in stages] == [{1: 1}, {1: 2}, {0: 0}, {0: 0}]

    def test_equal_replicas_share_a_cost_table(self) -> None:
        state = lowered(
            s.cluster(s.llm(replicas=3), s.llm("other", parallel={"tp": 2}, placement={"gpu": 2})), s.workload()
        ).state
        assert state.cost_kind.tolist() == [0, 0, 0, 1]
        assert len(state.cost_linear) == 2
        assert not np.array_equal(state.cost_linear[0], state.cost_linear[1])

    @pytest.mark.parametrize(
        ("kind", "switches"),
        [
            ("chunked_prefill", {"chunk_prefill", "mix_steps"}),
            ("continuous", {"mix_steps"}),
            ("prefill_first", {"waiting_first"}),
            ("decode_first", {"chunk_prefill", "mix_steps", "decodes_first"}),
            ("mixed_pool", {"mix_steps", "waiting_first"}),
            ("static", {"waiting_first", "static_batch"}),
            ("padded", {"waiting_first"}),
            ("prepacked", {"waiting_first"}),
            ("layered_prefill", {"mix_steps", "decodes_first", "by_layers"}),
        ],
    )
    def test_switches_of_a_policy(self, kind: str, switches: set[str]) -> None:
        state = lowered(s.cluster(s.llm(batching={"kind": kind})), s.workload()).state
        names = (
            "chunk_prefill", "mix_steps", "waiting_first", "decodes_first", "static_batch", "by_layers",
        )  # fmt: skip
        assert {name for name in names if getattr(state, name)[0]} == switches
        assert state.prompt_padding[0] == {"static": 1, "padded": 1, "prepacked": 2}.get(kind, 0)

    def test_options_of_a_policy_and_its_cache(self) -> None:
        batching = {
            "kind": "layered_prefill", "layer_group_tokens": 100, "output_reserve_frac": 0.7,
            "victim": "fewest_generated", "queue_order": "longest_prefix",
        }  # fmt: skip
        engine = s.llm(batching=batching, kv_cache={"prefix_cache": "radix", "insert_at": "step_end"})
        state = lowered(s.cluster(engine, s.llm("other", batching={"async_scheduling": True})), s.workload()).state
        assert (state.layer_group_tokens[0], state.num_layers[0]) == (100, 32)
        assert (state.output_reserve_frac[0], state.fewest_generated.tolist()) == (0.7, [1, 0])
        assert state.queue_order.tolist() == [5, 0]
        assert (state.radix.tolist(), state.seal_at_schedule.tolist()) == ([1, 0], [0, 1])
        assert state.block_parent.shape == (2, state.num_blocks.max())
        assert (state.async_scheduling.tolist(), state.num_lanes.tolist()) == ([0, 1], [1, 2])
        assert state.share_by_sums.tolist() == [0, 0]
        # two steps in flight are one device's
        np.testing.assert_array_equal(state.power_w[0], state.power_w[1])

    def test_whole_prompts_have_a_place_in_the_cost_table(self) -> None:
        requests = same(1, num_prompt=3000, num_output=40)
        for kind, most in [("chunked_prefill", 512), ("continuous", 512 + 3040), ("layered_prefill", 512 + 3040 + 8)]:
            engine = s.llm(batching={"kind": kind, "max_num_seqs": 8, "max_num_batched_tokens": 512})
            assert lowered(s.cluster(engine), s.workload(), requests).state.cost_linear.shape[1] == most + 1

    def test_swapping_goes_over_the_link_to_the_host(self) -> None:
        # a block of 16 tokens x 131,072 bytes over PCIe 4.0 x16 (its profile reaches 25 GB/s or so), 4 GiB of them
        state = lowered(s.cluster(s.llm(batching={"preemption": "swap"}), s.llm("other")), s.workload()).state
        block_bytes = 16 * 131_072
        assert state.swap_blocks.tolist() == [4 * 2**30 // block_bytes, 0]
        assert 20e9 < block_bytes / state.swap_block_s[0] < 32e9
        # copied on the device: read and written once at less than 2,039 GB/s
        assert state.copy_block_s[0] > 2 * block_bytes / 2.039e12

    def test_nothing_is_swapped_where_no_host_is_linked(self) -> None:
        cluster = s.cluster(s.llm(batching={"preemption": "swap"}))
        cluster["nodes"][0]["links"] = cluster["nodes"][0]["links"][:1]
        with pytest.raises(
            ConfigError, match=r"\[0\].batching.preemption.*no CPU of node 'node' is linked with its 'gpu'"
        ):
            lowered(cluster, s.workload())

    def test_drafts(self) -> None:
        speculative = {
            "num_draft_tokens": 3, "tree_width": 2, "adaptive": True, "max_batch_size": 16,
            "acceptance": {"kind": "constant", "rate": 0.6}, "draft": {"kind": "heads", "layers_frac": 0.1},
        }  # fmt: skip
        traced = {
            "num_draft_tokens": 2, "acceptance": {"kind": "trace", "accepted": [0, 2, 1, 2, 0]},
            "draft": {"kind": "ngram"},
        }  # fmt: skip
        run = lowered(
            s.cluster(s.llm(speculative=speculative), s.llm("traced", speculative=traced), s.llm("plain")), s.workload()
        )
        state = run.state
        assert state.draft_tokens.tolist() == [3, 2, 0]
        assert (state.tree_width.tolist(), state.adaptive_drafts.tolist()) == ([2, 1, 1], [1, 0, 0])
        assert state.draft_max_seqs.tolist() == [16, 256, 0]
        assert (state.accept_kind.tolist(), state.accept_size.tolist()) == ([0, 1, 0], [3, 5, 0])
        np.testing.assert_allclose(state.accept[0, :3], 1 - 0.4**2)
        assert state.accept[1].tolist() == [0, 2, 1, 2, 0]
        # the model's table, the heads', the other two models'
        assert state.draft_cost_kind.tolist() == [1, -1, -1]
        assert state.cost_kind.tolist() == [0, 2, 3]
        assert state.speculative_seed[0] == state.speculative_seed[1] != 0
        # six drafts and the decode of each of 256 sequences
        assert state.cost_sampled.shape[1] == 256 * 7 + 1
        # heads take memory from the blocks
        assert state.num_blocks[0] < state.num_blocks[2]

    def test_clients(self) -> None:
        fair = s.cluster(s.llm(batching={"queue_order": "fair_share"}))
        requests = same(6, client=[7, 3, -1, -1, 7, -1], session=[0, 1, 4, 4, 2, -1])
        state = lowered(fair, s.workload(), requests).state
        clients = state.row_client[::2].tolist()
        # two clients; a session without one is its own; the last has neither
        assert clients[0] == clients[4]
        assert clients[2] == clients[3]
        assert len({clients[0], clients[1], clients[2], clients[5]}) == 4
        assert sorted(set(clients)) == [0, 1, 2, 3]
        assert state.client_counter.shape == (1, 4)
        np.testing.assert_array_equal(state.row_client[::2], state.row_client[1::2])
        # nobody asks: one counter
        assert lowered(s.cluster(s.llm()), s.workload(), requests).state.client_counter.shape == (1, 1)


def test_kv_bytes_of_a_prompt() -> None:
    # Llama 3 8B: 32 layers x 8 KV heads x 128 x (key and value) x 2 bytes = 131,072 bytes a token
    run = lowered(s.cluster(s.llm(), s.llm("fp8", kv_cache={"dtype": "fp8"})), s.workload())
    assert kv_transfer_bytes(run.replicas[0], 1000) == 1000 * 131_072
    assert kv_transfer_bytes(run.replicas[1], 1000) == 1000 * 65_536
