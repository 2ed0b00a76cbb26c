"""Vector searches: what grows linearly, what a batch shares, threads, shards, drives, units at memory banks."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import pytest

from hermes_sim.hardware.device import Device
from hermes_sim.models.operator import Operator
from hermes_sim.perf.job_cost import batch_seconds, operator_seconds
from hermes_sim.perf.search_cost import search_efficiency
from hermes_sim.perf.worker import HOST, MEMORY, NETWORK, Worker
from hermes_sim.stages.index import Index
from hermes_sim.stages.index_kinds import INDEX_KINDS
from tests.unit.hardware.shipped import devices

LISTS = {"num_vectors": 1e8, "dim": 768, "nlist": 65536, "nprobe": 32}
CODES = {**LISTS, "code_bytes": 64}


def index(kind: str, **fields: Any) -> Index:
    return INDEX_KINDS[kind].model_validate({"kind": kind, **fields})


def worker(name: str = "epyc_7742", cores: int = 64, num_devices: int = 1, **link: float) -> Worker:
    return Worker(devices()[name], cores, num_devices, **link)


def part(built: Index, name: str, num_queries: int = 1) -> Operator:
    return next(operator for operator in built.search_operators(num_queries, 10) if operator.name == name)


def part_s(built: Index, name: str, on: Worker, num_queries: int = 1) -> float:
    return operator_seconds(part(built, name, num_queries), on)[1]


def total_s(built: Index, on: Worker, num_queries: int = 1) -> float:
    return float(batch_seconds(built.search_operators(num_queries, 10), on).sum())


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq"])
def test_a_scan_is_linear_in_probed_lists_and_their_length(kind: str) -> None:
    given = CODES if kind == "ivf_pq" else LISTS
    one = part_s(index(kind, **given), "scan", worker())
    assert part_s(index(kind, **{**given, "nprobe": 64}), "scan", worker()) == pytest.approx(2 * one)
    opened = worker().device.cost_model.search or search_efficiency(worker().device)
    opening_s = 32 * (opened.code_list_s if kind == "ivf_pq" else opened.list_s)
    longer = part_s(index(kind, **{**given, "num_vectors": 2e8}), "scan", worker())
    assert longer - opening_s == pytest.approx(2 * (one - opening_s))


def test_a_batch_reads_the_centroids_once_as_a_product() -> None:
    """167 queries of 768 numbers are 128,000; one product costs far less than as many searches of all centroids."""
    built = index("ivf_pq", **CODES)
    single = part_s(built, "coarse_quantizer", worker(cores=1), 166)
    product = part_s(built, "coarse_quantizer", worker(cores=1), 167)
    assert product < 0.6 * single
    assert single == pytest.approx(166 * part_s(built, "coarse_quantizer", worker(cores=1), 1))


def test_lists_share_one_look_up_table_where_they_can() -> None:
    kept = {**CODES, "num_vectors": 1e6, "nlist": 1024}
    per_list = index("ivf_pq", **CODES)
    shared = index("ivf_pq", **{**kept, "metric": "inner_product"})
    again = index("ivf_pq", **{**CODES, "metric": "inner_product"})
    waits_s = search_efficiency(worker().device).table_s
    one = part_s(shared, "lookup_tables", worker()) - waits_s
    assert part_s(again, "lookup_tables", worker()) - waits_s == pytest.approx(one)
    assert part_s(per_list, "lookup_tables", worker()) - waits_s == pytest.approx(32 * one)


def test_four_bits_scan_faster_than_eight() -> None:
    fast, plain = (index("ivf_pq", **CODES, code_bits=bits) for bits in (4, 8))
    assert part_s(fast, "scan", worker()) < 0.5 * part_s(plain, "scan", worker())


def test_threads_scale_until_they_share_the_whole_bandwidth() -> None:
    """Sixty-four queries on 1, 2 ... cores: evenly while each draws its own stream, no further than the memory's."""
    built, on = index("ivf_flat", **LISTS), worker()
    times = {cores: part_s(built, "scan", worker(cores=cores), 64) for cores in (1, 2, 4, 8, 16, 32, 64)}
    for cores in (2, 4, 8):
        assert times[cores] == pytest.approx(times[1] / cores)
    floor = part(built, "scan", 64).total_bytes / on.total_bytes_per_s
    assert times[64] == pytest.approx(floor)
    assert all(time >= floor * (1 - 1e-12) for time in times.values())


def test_one_query_uses_one_core_unless_its_lists_are_shared() -> None:
    alone, shared = index("ivf_pq", **CODES), index("ivf_pq", **CODES, parallel_over="lists")
    assert part_s(alone, "scan", worker(cores=64)) == part_s(alone, "scan", worker(cores=1))
    assert part_s(shared, "scan", worker(cores=64)) == pytest.approx(part_s(alone, "scan", worker(cores=1)) / 32)


def test_queries_take_turns_on_the_cores() -> None:
    built = index("hnsw", num_vectors=1e6, dim=128)
    one = part_s(built, "graph_walk", worker(cores=8))
    for number in (3, 8, 9, 33):
        assert part_s(built, "graph_walk", worker(cores=8), number) == pytest.approx(ceil(number / 8) * one)


def test_shards_halve_the_scan_and_add_a_merge() -> None:
    whole, halves = index("ivf_flat", **LISTS), index("ivf_flat", **LISTS, shards=2)
    linked = worker(cores=128, num_devices=2, link_bytes_per_s=10e9, link_latency_s=5e-6)
    opening_s = 32 * search_efficiency(linked.device).list_s
    half_s = part_s(halves, "scan", linked) - opening_s
    assert half_s == pytest.approx((part_s(whole, "scan", linked) - opening_s) / 2)
    resource, merge_s = operator_seconds(part(halves, "merge"), linked)
    handed_bytes = 2 * 10 * 12 + 2 * 768 * 4
    assert resource == NETWORK
    assert merge_s == pytest.approx(2 * 5e-6 + handed_bytes / 10e9, rel=0.1)
    with pytest.raises(StopIteration):
        part(whole, "merge")


def test_more_shards_than_cores_take_turns() -> None:
    built = index("flat", num_vectors=1e6, dim=96, shards=4)
    assert part_s(built, "distances", worker(cores=1)) == pytest.approx(
        part_s(index("flat", num_vectors=1e6, dim=96), "distances", worker(cores=1))
    )


def test_a_graph_on_drives_waits_for_them_and_many_searches_share_their_reads() -> None:
    """25 rounds of 90 us for one query; 4,096 queries of 100 reads are bound by a million reads a second."""
    built = index("diskann", num_vectors=1e9, dim=768)
    walk = part(built, "graph_walk")
    assert walk.search is not None
    memory_only = replace(walk, search=replace(walk.search, drive=None))
    waits_s = operator_seconds(walk, worker())[1] - operator_seconds(memory_only, worker())[1]
    assert waits_s == pytest.approx(25 * 90e-6)
    assert part_s(built, "graph_walk", worker(), 4096) == pytest.approx(4096 * 100 / 1e6)
    four = index("diskann", num_vectors=1e9, dim=768, drives={"count": 4})
    assert part_s(four, "graph_walk", worker(), 4096) < 0.5 * 4096 * 100 / 1e6


def test_units_at_the_banks_scan_at_the_inner_bandwidth() -> None:
    on = worker("a100_sxm_80gb", 108)
    memory = on.device.memory.model_copy(update={"internal_bandwidth_bytes_per_s": 20e12})
    inside = replace(on, device=on.device.model_copy(update={"memory": memory}))
    built = index("ivf_flat", **{**LISTS, "nprobe": 4096})
    scan = part(built, "scan", 256)
    assert operator_seconds(scan, inside)[1] == pytest.approx(scan.total_bytes / 20e12, rel=0.02)
    assert operator_seconds(scan, on)[1] >= scan.total_bytes / on.total_bytes_per_s


def test_an_accelerator_spreads_one_query_over_its_cores() -> None:
    on = worker("h100_sxm", 132)
    built = index("ivf_pq", **{**CODES, "nprobe": 1024})
    assert part_s(built, "scan", on) < part_s(built, "scan", worker("h100_sxm", 13)) / 5


def test_the_fixed_time_of_a_call_is_the_hosts() -> None:
    seconds = batch_seconds(index("flat", num_vectors=1000, dim=32).search_operators(1, 1), worker())
    assert seconds[HOST] == search_efficiency(worker().device).call_s


def test_what_fits_the_cache_of_a_core_is_not_read_from_memory() -> None:
    on = worker(cores=1)
    small, large = (index("flat", num_vectors=number, dim=768) for number in (500, 500_000))
    rates = [part(built, "distances").total_bytes / part_s(built, "distances", on) for built in (small, large)]
    assert rates[0] >= rates[1]
    assert operator_seconds(part(large, "distances"), on)[0] == MEMORY


@pytest.mark.parametrize("name", ["epyc_7742", "epyc_9654", "grace", "xeon_8480plus"])
def test_a_processor_scans_codes_at_the_rate_its_data_sheet_states(name: str) -> None:
    on: Device = devices()[name]
    cycles = search_efficiency(on).fast_lookup_cycles
    assert on.scan_rate_bytes_per_s_per_core is not None
    assert on.clock_hz is not None
    assert cycles == pytest.approx(on.clock_hz / on.scan_rate_bytes_per_s_per_core)


def test_a_larger_batch_never_ends_sooner_than_a_smaller_one_of_the_same_form() -> None:
    built = index("hnsw", num_vectors=1e6, dim=128)
    times = [total_s(built, worker(), number) for number in (1, 2, 8, 64, 65, 512)]
    assert times == sorted(times)
