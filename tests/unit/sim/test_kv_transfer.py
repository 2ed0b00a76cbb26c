"""How KV goes from prefill to decode: whole or by layers, in which precision, to how many devices, and who waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.kv_transfer import KvTransfer
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.kv_wire import shown_s, wire
from hermes_sim.sim.lower import lower
from hermes_sim.sim.replicas import Replica
from hermes_sim.workload.requests import request_table
from tests import scenarios as s
from tests.unit.sim.test_disaggregation import KV_BYTES_PER_TOKEN, LINK_BYTES_PER_S, of, run

NUM_LAYERS = 32
LAYERWISE = {"mode": "layerwise", "reserve": "before_prefill"}


def cluster(link: str = "nvlink3", decoder: s.Document | None = None, **transfer: str) -> s.Document:
    found = s.cluster(
        s.llm("prefiller", serves=["prefill"]),
        s.llm("decoder", serves=["decode"], **(decoder or {})),
        kv_transfer=transfer,
    )
    found["nodes"][0]["links"][0]["profile"] = link
    return found


def transfer_s(tables: RunTables) -> float:
    return float(of(tables, "decode")["transfer_s"][0])


@given(st.floats(1e-3, 10.0), st.floats(1e-3, 10.0), st.integers(1, 200))
def test_pieces_in_a_row_through_two_machines(computed_s: float, wire_s: float, num_pieces: int) -> None:
    """The recurrence of a flow shop: a piece leaves when it is computed and the wire is free."""
    free_s = 0.0
    for piece in range(1, num_pieces + 1):
        free_s = max(free_s, piece * computed_s / num_pieces) + wire_s / num_pieces
    assert shown_s(computed_s, wire_s, num_pieces) == pytest.approx(free_s - computed_s, rel=1e-6, abs=1e-9)


def test_of_a_transfer_by_layers_the_last_layer_shows_where_links_are_quick() -> None:
    tables = run(cluster(**LAYERWISE), [0.0], [1000], [10])
    assert transfer_s(tables) == pytest.approx(1000 * KV_BYTES_PER_TOKEN / NUM_LAYERS / LINK_BYTES_PER_S + 10e-6)
    assert tables.links["bytes"].tolist() == pytest.approx([1000 * KV_BYTES_PER_TOKEN] * 2)


def test_and_what_the_links_are_slower_than_the_engine_where_they_are_not() -> None:
    def slow(**transfer: str) -> RunTables:
        """Keys and values of all heads, 512 KiB a token, over eight lanes of PCI Express 3."""
        where = cluster("pcie3_x8", {"model": "llama_2_7b"}, **transfer)
        where["engines"][0]["model"] = "llama_2_7b"
        where["nodes"][0]["links"][1]["profile"] = "pcie3_x8"
        return run(where, [0.0], [2000], [10])

    tables = slow(**LAYERWISE)
    latency_s = load_scenario(cluster("pcie3_x8"), s.workload()).links["pcie3_x8"].latency_s
    wire_s, computed_s = transfer_s(slow()) - latency_s, of(tables, "prefill")["service_s"][0]
    assert wire_s > computed_s, "or the test tests nothing"
    expected_s = wire_s - computed_s * (NUM_LAYERS - 1) / NUM_LAYERS
    assert transfer_s(tables) == pytest.approx(expected_s + latency_s, rel=1e-9)


def test_chunks_of_a_prompt_make_smaller_pieces() -> None:
    chunked = cluster(**LAYERWISE)
    chunked["engines"][0]["batching"] = {"max_num_batched_tokens": 256}
    last_s = 1024 * KV_BYTES_PER_TOKEN / NUM_LAYERS / 4 / LINK_BYTES_PER_S
    assert transfer_s(run(chunked, [0.0], [1024], [10])) == pytest.approx(last_s + 10e-6)


def test_fewer_bits_on_the_wire_cost_two_conversions() -> None:
    tables = run(cluster(dtype="fp8"), [0.0], [1000], [10])
    assert tables.links["bytes"].tolist() == [1000 * KV_BYTES_PER_TOKEN / 2] * 2
    device = load_scenario(cluster(), s.workload()).devices["a100_sxm_80gb"]
    rate = device.memory.bandwidth_bytes_per_s * device.cost_model.elementwise_memory_frac
    convert_s = 2 * 1.5 * 1000 * KV_BYTES_PER_TOKEN / rate  # reads 16 bits and writes 8, then the other way round
    sent_s = 1000 * KV_BYTES_PER_TOKEN / 2 / LINK_BYTES_PER_S + 10e-6
    assert transfer_s(tables) == pytest.approx(sent_s + convert_s)


def test_a_decode_side_that_keeps_fewer_bits_converts_what_comes() -> None:
    tables = run(cluster(decoder={"kv_cache": {"dtype": "fp8"}}), [0.0], [1000], [10])
    assert tables.links["bytes"].tolist() == [1000 * KV_BYTES_PER_TOKEN] * 2
    plain = transfer_s(run(cluster(), [0.0], [1000], [10]))
    assert transfer_s(tables) > plain


def test_handshakes_and_messages_take_their_time() -> None:
    plain = transfer_s(run(cluster(), [0.0], [1000], [10]))
    told = transfer_s(run(cluster(handshake="3 ms", message_overhead="20 us"), [0.0], [1000], [10]))
    assert told - plain == pytest.approx(3e-3 + 20e-6)
    by_layers = transfer_s(run(cluster(**LAYERWISE), [0.0], [1000], [10]))
    told = transfer_s(run(cluster(**LAYERWISE, message_overhead="20 us"), [0.0], [1000], [10]))
    assert told - by_layers == pytest.approx(20e-6)  # of the last layer; the others were told beside the compute


def test_the_first_token_comes_with_the_kv() -> None:
    by_prefill, by_decode = (run(cluster(first_token=who), [0.0], [1000], [10]) for who in ("prefill", "decode"))
    assert by_prefill.requests["first_token_s"][0] == of(by_prefill, "prefill")["finish_s"][0]
    assert by_decode.requests["first_token_s"][0] == of(by_decode, "decode")["arrival_s"][0]
    assert by_decode.requests["finish_s"][0] == by_prefill.requests["finish_s"][0]


class TestReservedBefore:
    def test_a_prompt_waits_for_room_on_the_decode_side(self) -> None:
        # 80 blocks of 16 hold one sequence of 1,000 + 50 tokens there: the second prompt is computed when it has ended
        few = {"kv_cache": {"num_gpu_blocks": 80}}
        after = run(cluster(decoder=few), [0.0, 0.0], [1000, 1000], [50, 50])
        before = run(cluster(decoder=few, reserve="before_prefill"), [0.0, 0.0], [1000, 1000], [50, 50])
        assert of(after, "prefill")["start_s"][1] <= of(after, "prefill")["finish_s"][0]
        assert of(before, "prefill")["start_s"][1] == pytest.approx(of(before, "decode")["finish_s"][0], rel=1e-12)
        assert set(before.requests["status"]) == {"finished"}

    def test_nothing_else_changes_where_there_is_room(self) -> None:
        arguments = ([0.0, 0.01, 0.3], [1000, 300, 800], [20, 1, 30])
        after, before = run(cluster(), *arguments), run(cluster(reserve="before_prefill"), *arguments)
        for name in ("first_token_s", "finish_s"):
            assert before.requests[name].tolist() == after.requests[name].tolist()

    def test_what_can_never_fit_is_refused_before_it_is_computed(self) -> None:
        few = {"kv_cache": {"num_gpu_blocks": 50}}
        tables = run(cluster(decoder=few, reserve="before_prefill"), [0.0, 0.0], [1000, 700], [5, 5])
        assert tables.requests["status"].tolist() == ["rejected", "finished"]
        assert tables.engines["num_steps"].tolist()[0] == 1


def engines_of(model: str, tp: int) -> tuple[Replica, Replica]:
    both = s.cluster(
        s.llm("prefiller", serves=["prefill"], model=model),
        s.llm("decoder", serves=["decode"], model=model, placement={"gpu": tp}, parallel={"tp": tp}),
    )
    replicas = lower(load_scenario(both, s.workload()), request_table([0.0], [10], [10])).replicas
    return replicas[0], replicas[1]


@pytest.mark.parametrize(("tp", "copies"), [(1, 1), (2, 1), (4, 1)])
def test_kv_heads_are_cut_over_the_devices_of_the_target(tp: int, copies: int) -> None:
    source, target = engines_of("llama_3_8b", tp)
    assert wire(source, target, KvTransfer()).bytes_per_token == copies * KV_BYTES_PER_TOKEN


def test_and_copied_to_each_where_there_are_fewer() -> None:
    # Qwen2 7B has 4 KV heads of 128, 28 layers: no eighth device would have one of its own. Seven of 28 heads each.
    source, target = engines_of("qwen-2-7b", 1)
    narrow = wire(source, target, KvTransfer()).bytes_per_token
    assert narrow == 28 * 4 * 128 * 2 * 2
    wide = target.engine.parallel.model_copy(update={"tp": 8})
    eight = replace(target, engine=target.engine.model_copy(update={"parallel": wide}))
    assert wire(source, eight, KvTransfer()).bytes_per_token == 2 * narrow


def test_layers_cannot_be_sent_to_where_nothing_is_reserved() -> None:
    with pytest.raises(ConfigError, match="layerwise needs reserve: before_prefill"):
        load_scenario(cluster(mode="layerwise"), s.workload())
