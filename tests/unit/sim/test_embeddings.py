"""Encoders beside a language model: tokens of the prompt, vectors over links, jobs by their cost curve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.tables import RunTables
from hermes_sim.perf.job_cost import batch_seconds
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.collect import collect
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.fill_engines import job_worker
from hermes_sim.sim.lower import lower
from hermes_sim.workload.media import Pictures
from hermes_sim.workload.requests import request_table
from tests import scenarios as s

ENCODE = {"name": "encode", "kind": "encode", "model": "clip_vit_l14_336"}
STAGES = [ENCODE, {**s.PREFILL, "after": ["encode"]}, s.DECODE]


def encoder(placement: dict[str, Any] | None = None, **batching: Any) -> s.Document:
    return {
        "name": "encoder", "serves": ["encode"], "placement": placement or {"gpu": 1},
        "batching": {"kind": "dynamic", "max_wait": "0 s", **batching},
    }  # fmt: skip


def run(cluster: s.Document, per_request: list[int], *stages: s.Document) -> tuple[Coordinator, RunTables]:
    scenario = load_scenario(cluster, s.workload(*(stages or STAGES)))
    number, total = len(per_request), sum(per_request)
    offsets = np.concatenate([[0], np.cumsum(per_request)]).astype(np.int64)
    pictures = Pictures(offsets, np.full(total, 640), np.full(total, 480), np.arange(total))
    table = request_table(10.0 * np.arange(number), [100] * number, [4] * number)
    coordinator = Coordinator(lower(scenario, replace(table, pictures=pictures)))
    coordinator.run()
    return coordinator, collect(coordinator)


def visits(tables: RunTables, kind: str, column: str) -> np.ndarray[Any, Any]:
    return np.asarray(tables.visits[column][tables.visits["kind"] == kind])


def test_tokens_join_the_prompt_and_vectors_cross_the_link() -> None:
    coordinator, tables = run(s.cluster(encoder(), s.llm()), [0, 1, 2])
    assert tables.requests["num_prompt_tokens"].tolist() == [100, 676, 1252]
    assert tables.requests["num_image_tokens"].tolist() == [0, 576, 1152]
    assert tables.requests["num_images"].tolist() == [0, 1, 2]
    num_bytes = np.array([0.0, 1.0, 2.0]) * 576 * 4096 * 2
    source, target = (replica.endpoints for replica in coordinator.lowered.replicas)
    route = coordinator.lowered.network.group_route(source, target)
    expected_s = np.where(num_bytes > 0, route.latency_s + num_bytes / route.bandwidth_bytes_per_s, 0.0)
    np.testing.assert_allclose(visits(tables, "prefill", "transfer_s"), expected_s, rtol=1e-9)
    # the vectors set out when the encoder has ended, and the prompt comes to the line when they have come
    ended_s, came_s = visits(tables, "encode", "finish_s"), visits(tables, "prefill", "arrival_s")
    np.testing.assert_allclose((came_s - ended_s)[1:], expected_s[1:], rtol=1e-9)
    assert set(tables.links["bytes"]) == {num_bytes.sum()}  # out of one device, into the other
    assert visits(tables, "encode", "engine")[0] == ""  # without a picture it is passed over


def test_nothing_is_sent_where_the_encoder_shares_the_device() -> None:
    half = {"placement": {"gpu": {"devices": 1, "cores": 54}}}
    _, tables = run(s.cluster({**encoder(), **half}, s.llm(**half), num_gpus=1), [1])
    assert tables.links["bytes"].sum() == 0.0
    assert visits(tables, "prefill", "transfer_s").tolist() == [0.0]
    assert tables.requests["num_image_tokens"].tolist() == [576]


def test_a_lone_job_takes_what_its_operators_take() -> None:
    coordinator, tables = run(s.cluster(encoder(), s.llm()), [1, 3])
    stage = coordinator.lowered.pipelines[0].stages[0].stage
    worker = job_worker(coordinator.lowered.replicas[0], coordinator.lowered.scenario)
    for visit, pictures in enumerate((1, 3)):
        alone_s = batch_seconds(stage.work(577.0 * pictures, 577.0, {}), worker).sum()
        # the curve is linear between points a tenth apart, the tiles of a product are not
        assert visits(tables, "encode", "service_s")[visit] == pytest.approx(alone_s, rel=0.06)


def test_a_stated_number_of_tokens_stays() -> None:
    scenario = load_scenario(s.cluster(encoder(), s.llm()), s.workload(*STAGES))
    pictures = Pictures(np.array([0, 1]), np.array([640]), np.array([480]), np.array([0]))
    table = request_table([0.0], [200], [4], num_image_tokens=[100])
    coordinator = Coordinator(lower(scenario, replace(table, pictures=pictures)))
    coordinator.run()
    requests = collect(coordinator).requests
    assert requests["num_prompt_tokens"].tolist() == [200]
    assert requests["num_image_tokens"].tolist() == [100]
    assert requests["num_images"].tolist() == [1]


def test_no_encoder_before_a_kv_retrieval() -> None:
    store = {"name": "host", "medium": "host_dram", "capacity": "1 GB", "read_bandwidth": "1 GB/s",
             "write_bandwidth": "1 GB/s", "latency": "1 us", "shared_by": "node", "attached_to": "cpu"}  # fmt: skip
    recall = {"name": "recall", "kind": "kv_retrieval", "stores": ["host"], "after": ["encode"]}
    stages = [ENCODE, recall, {**s.PREFILL, "after": ["recall"]}, s.DECODE]
    with pytest.raises(ConfigError, match=r"'recall' reads prompts of text: no encoder \(encode\) can be before it"):
        load_scenario(s.cluster(encoder(), s.llm(), kv_stores=[store]), s.workload(*stages))


def test_names_of_networks_are_looked_up() -> None:
    with pytest.raises(ConfigError, match=r"no encoder 'clip_vit_l14' here or in the library\. Did you mean"):
        load_scenario(s.cluster(encoder(), s.llm()), s.workload({**ENCODE, "model": "clip_vit_l14"}, *STAGES[1:]))
