"""Time of one operator of a vector search on a worker.

A core (GPU: multiprocessor) works on one query at a time, as FAISS's threads do (arXiv 2401.08281):

    query = lists x list + hops x hop + accesses x missed x access + rounds x drive latency
            + max(cycles / clock + FLOPs / (core peak x frac), missed bytes / stream of a core)
    batch = max(ceil(queries / cores) x query, bytes of all / bandwidth of the device, reads / IOPS)

Where a core keeps several searches in flight (`searches_per_core`) they hide each other's waits. Threads scale until
they share the whole bandwidth, which is for many queries RAGO's max(bytes / (cores x rate), bytes / bandwidth) (arXiv
2503.14649, section 4). Where the index lets a query be split, and on accelerators, queries take parts of several cores.
Shards are searched at the same time, each by its part of the cores and of the memory.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.device_class import class_coefficients
from hermes_sim.hardware.search_efficiency import ACCELERATOR, CORE, SearchEfficiency
from hermes_sim.models.operator import Operator
from hermes_sim.models.search import SearchWork
from hermes_sim.perf.worker import COMPUTE, MEMORY, NETWORK, Worker

NOMINAL_CLOCK_HZ: Final = 2.5e9
"""Of a device that does not state its clock."""


def search_efficiency(device: Device) -> SearchEfficiency:
    """The device's own; else its class's, with the rate of 4-bit codes that its data sheet states; else judged."""
    own = device.cost_model.search
    of_class = class_coefficients(device.device_class).cost_model.search
    if own is not None and own != of_class:
        return own
    if of_class is None:
        of_class = CORE if device.kind == "cpu" else ACCELERATOR
    if device.scan_rate_bytes_per_s_per_core is None:
        return of_class
    cycles = clock_hz(device) / device.scan_rate_bytes_per_s_per_core
    return of_class.model_copy(update={"fast_lookup_cycles": cycles})


def clock_hz(device: Device) -> float:
    """Cycles per second of a core."""
    return device.clock_hz or NOMINAL_CLOCK_HZ


def search_seconds(operator: Operator, worker: Worker) -> tuple[int, float]:
    """What limits all calls of a search operator, and their seconds; products are priced as products elsewhere."""
    work = operator.search
    assert work is not None
    efficiency = search_efficiency(worker.device)
    num_queries = operator.num_groups
    num_cores = worker.num_cores / work.num_shards
    waits_s = _waits_s(work, efficiency, worker)
    compute_s = _compute_s(operator, work, efficiency, worker)
    missed_bytes = work.read_bytes * missed_frac(work, worker.device)
    is_block = operator.kind == "gemm"
    memory_s = 0.0 if worker.at_the_banks else missed_bytes / core_stream(efficiency, worker, is_block=is_block)
    hidden = min(efficiency.searches_per_core, max(num_queries / num_cores, 1.0))
    one_s = waits_s / hidden + max(compute_s, memory_s)
    turns = _turns(num_queries, num_cores, work, worker)
    shared_s = num_queries * missed_bytes * work.num_shards / worker.scanned_bytes_per_s
    drive_s = _drive_s(num_queries, work, worker)
    network_s = _network_s(num_queries, work, worker)
    taken_s = max(turns * one_s, shared_s, drive_s)
    resource = COMPUTE if taken_s > max(shared_s, drive_s) and compute_s > max(memory_s, waits_s) else MEMORY
    if network_s > taken_s:
        resource = NETWORK
    return resource, operator.count * (taken_s + network_s)


def compare_seconds(operator: Operator, worker: Worker) -> float:
    """Finding the nearest among distances that a matrix product has left in memory or cache."""
    assert operator.search is not None
    cycles = operator.search.num_vectors * search_efficiency(worker.device).vector_cycles
    return operator.count * operator.num_groups * cycles / clock_hz(worker.device) / worker.num_cores


def core_stream(efficiency: SearchEfficiency, worker: Worker, *, is_block: bool) -> float:
    """Bytes per second that one core draws from memory while the others are idle."""
    stream = efficiency.stream_bytes_per_s or worker.core_bytes_per_s
    if is_block and efficiency.block_stream_bytes_per_s is not None:
        stream = efficiency.block_stream_bytes_per_s
    return min(stream, worker.scanned_bytes_per_s)


def missed_frac(work: SearchWork, device: Device) -> float:
    """Share of the bytes that comes from memory: nothing of what fits a core's part of the last-level cache.

    Scans of more than twice the cache find nothing left of the last one; between the two it grows evenly. Reads at
    random places find what the cache holds of the whole. Cores have equal parts, for caches are cut into domains, and
    each core reads the same centroids for itself.
    """
    if device.cache is None or work.resident_bytes <= 0.0:
        return 1.0
    part_bytes = device.cache.capacity_bytes / (device.num_cores if device.kind == "cpu" else 1)
    parts = work.resident_bytes / work.num_shards / part_bytes
    if work.num_accesses > 0.0:
        return max(0.0, 1.0 - 1.0 / parts)
    return min(1.0, max(0.0, parts - 1.0))


def _waits_s(work: SearchWork, efficiency: SearchEfficiency, worker: Worker) -> float:
    """What one query waits for: lists, hops and reads that follow each other."""
    waits_s = work.num_lists * efficiency.list_s + work.num_code_lists * efficiency.code_list_s
    waits_s += work.num_tables * efficiency.table_s + work.num_hops * efficiency.hop_s
    waits_s += work.num_accesses * efficiency.access_s * missed_frac(work, worker.device)
    if work.drive is not None:
        waits_s += work.read_rounds * work.drive.latency_s
    return waits_s


def _compute_s(operator: Operator, work: SearchWork, efficiency: SearchEfficiency, worker: Worker) -> float:
    """One query on one core. Units at the banks of a memory keep up with what the banks read."""
    if worker.at_the_banks:
        return 0.0
    listed = 0.0 if operator.kind == "gemm" else work.num_vectors
    cycles = (listed + work.num_insertions) * efficiency.vector_cycles
    cycles += work.num_lookups * efficiency.lookup_cycles + work.num_fast_lookups * efficiency.fast_lookup_cycles
    frac = efficiency.block_flops_frac if operator.kind == "gemm" else efficiency.list_flops_frac
    frac = efficiency.table_flops_frac if work.builds_tables else frac
    flops = operator.flops_per_call / (operator.num_groups * work.num_shards)
    core_flops_per_s = worker.flops_per_s(operator.dtype) / worker.num_cores
    return cycles / clock_hz(worker.device) + flops / (core_flops_per_s * frac)


def _turns(num_queries: int, lanes: float, work: SearchWork, worker: Worker) -> float:
    """How many queries follow each other; with fewer cores than shards, shards do too.

    On an accelerator each list of a query is a block of threads of its own; a graph is walked by one.
    """
    if worker.device.kind == "cpu" and work.splits <= 1.0:
        return float(ceil(num_queries / max(lanes, 1.0))) / min(lanes, 1.0)
    return num_queries / min(lanes, num_queries * max(work.splits, work.num_lists, work.num_code_lists, 1.0))


def _drive_s(num_queries: int, work: SearchWork, worker: Worker) -> float:
    """The drives' own limits; a worker has its cores' part of them."""
    if work.drive is None:
        return 0.0
    part = worker.num_cores / (worker.device.num_cores * worker.num_devices)
    reads_s = num_queries * work.num_reads / (work.drive.reads_per_s * part)
    return max(reads_s, num_queries * work.drive_bytes / (work.drive.bytes_per_s * part))


def _network_s(num_queries: int, work: SearchWork, worker: Worker) -> float:
    """Queries to the shards, results back: a message each way between the devices of the replica."""
    if work.merged_bytes == 0.0 or worker.link_bytes_per_s == 0.0:
        return 0.0
    return 2.0 * worker.link_latency_s + num_queries * work.merged_bytes / worker.link_bytes_per_s
