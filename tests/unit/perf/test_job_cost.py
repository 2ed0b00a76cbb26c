"""Curves of whole jobs: by hand, bounded by the roofline, monotone, on processors and accelerators."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hermes_sim.hardware.device import Device
from hermes_sim.models.operator import Operator
from hermes_sim.models.search import SearchWork
from hermes_sim.perf.coefficients import gemm_efficiency
from hermes_sim.perf.job_cost import JobCurve, batch_seconds, build_job_curve, moved
from hermes_sim.perf.worker import COMPUTE, HOST, MEMORY, Worker
from tests.stage_examples import EXAMPLES, MODELS, example

DEVICE_FOLDER = Path(__file__).resolve().parents[3] / "hardware_profiles" / "devices"
JOBS = [name for name in EXAMPLES if example(name).runs_on == "jobs" and name != "timed"]


def device(name: str) -> Device:
    return Device.model_validate(yaml.safe_load((DEVICE_FOLDER / f"{name}.yaml").read_text()))


def processor(**changes: Any) -> Device:
    """Ten cores of 100 GFLOP/s in all and 10 GB/s of scanning each, 50 GB/s of memory; no losses, no fixed times."""
    source = {"title": "made up", "where": "this test", "kind": "estimate"}
    data: dict[str, Any] = {
        "name": "toy",
        "title": "Toy processor",
        "kind": "cpu",
        "class": "cpu",
        "peak": {"fp32": "100 GFLOP/s"},
        "memory": {"kind": "ddr4", "capacity": "1 GiB", "bandwidth": "50 GB/s"},
        "num_cores": 10,
        "clock": "10 GHz",
        "scan_rate_per_core": "10 GB/s",
        "power": {"idle": "1 W", "tdp": "10 W"},
        "price": "1 USD/h",
        "cost_model": {
            "gemm": {"fp32": {"compute_frac": 1.0, "memory_frac": 1.0, "launch": "0 s"}},
            "attention_prefill_compute_frac": 1.0,
            "attention_decode_memory_frac": 1.0,
            "elementwise_memory_frac": 1.0,
            "elementwise_launch": "0 s",
            "kernel_launch": "0 s",
            "search": {
                **dict.fromkeys(("call", "list", "code_list", "table", "access"), "0 s"),
                "hop": "100 ns",
                **dict.fromkeys(("vector_cycles", "lookup_cycles", "fast_lookup_cycles"), 1.0),
                **dict.fromkeys(("block_flops_frac", "list_flops_frac", "table_flops_frac"), 1.0),
                "stream": "10 GB/s",
            },
            "source": source,
        },
        "sources": {},
    }
    return Device.model_validate({**data, **changes})


def curve_of(name: str, on: Device, cores: int, num_devices: int = 1, num_jobs: int = 16) -> JobCurve:
    stage = example(name)
    per_job = float(stage.units(np.array([100]))[0]) or 1000.0  # some stages count what a prompt alone does not have
    return build_job_curve(
        lambda units: stage.work(units, min(per_job, units), MODELS),
        Worker(on, cores, num_devices),
        max_units=per_job * num_jobs,
    )


def seconds_of(operator: Operator, cores: int, num_devices: int = 1) -> list[float]:
    return list(batch_seconds((operator,), Worker(processor(), cores, num_devices)))


def test_product_is_limited_by_its_cores() -> None:
    # 20 GFLOP on 4 of 10 cores with 40 GFLOP/s
    assert seconds_of(Operator("gemm", "gemm", flops=20e9, bytes=1e6, dtype="fp32"), 4) == [0.5, 0.0, 0.0, 0.0]


def test_stream_is_limited_by_what_its_cores_can_draw() -> None:
    stream = Operator("norm", "elementwise", bytes=20e9, dtype="fp32")
    assert seconds_of(stream, 1)[MEMORY] == 2.0  # 10 GB/s of one core
    assert seconds_of(stream, 10)[MEMORY] == 0.4  # 50 GB/s of the memory, not 100 of the cores
    assert seconds_of(stream, 20, num_devices=2)[MEMORY] == 0.2


def searching(num_queries: int, work: SearchWork, flops: float = 0.0, num_bytes: float = 1.0) -> Operator:
    return Operator("scan", "scan", flops=flops, bytes=num_bytes, dtype="fp32", num_groups=num_queries, search=work)


def test_scan_of_many_queries_takes_the_longer_of_cores_and_memory() -> None:
    """RAGO's retrieval model: max(bytes / (cores x rate), bytes / bandwidth)."""
    scan = searching(10, SearchWork(num_fast_lookups=2e9, read_bytes=2e9))
    assert sum(seconds_of(scan, 2)) == 20e9 / (2 * 10e9)  # a cycle of the toy's clock looks up a byte
    assert sum(seconds_of(scan, 10)) == 20e9 / 50e9


def test_one_query_stays_on_its_core() -> None:
    scan = SearchWork(num_fast_lookups=2e9, read_bytes=2e9)
    assert sum(seconds_of(searching(1, scan), 10)) == 2e9 / 10e9
    assert sum(seconds_of(searching(1, replace(scan, splits=5.0)), 10)) == pytest.approx(
        2e9 / 50e9
    )  # lists on five cores
    assert sum(seconds_of(searching(11, replace(scan, read_bytes=0.0)), 10)) == 2 * 2e9 / 10e9  # two turns


def test_graph_searches_run_side_by_side_on_the_cores() -> None:
    """100 hops of 100 ns and 1 MFLOP at 10 GFLOP/s: 110 us a query; five queries on two cores take three turns."""
    walk = searching(5, SearchWork(num_hops=100.0), flops=5e6)
    assert seconds_of(walk, 2) == pytest.approx([3 * 110e-6, 0.0, 0.0, 0.0])


def test_graph_searches_are_bounded_by_bandwidth() -> None:
    walk = searching(10, SearchWork(num_hops=1.0, read_bytes=5e9))
    assert seconds_of(walk, 10)[MEMORY] == pytest.approx(1.0)


def test_ivf_pq_query_by_hand() -> None:
    """Codes of 8 bits: one look-up a cycle of 10 GHz, no fixed times; the centroids are read by one core."""
    stage, toy = example("ivf_pq"), processor()
    operators = stage.work(1.0, 1.0, {})
    vectors = 1e8 * 32 / 65536
    coarse_s = max(2 * 65536 * 768 / 10e9, 4 * 65536 * 768 / 10e9)
    tables_s = 2 * 32 * 256 * 768 / 10e9
    scan_s = vectors * (1 + 64) / 10e9
    top_k_s = 8 * (1 + log(vectors / 8)) * 3 * 2 / 10e9  # as cycles of the comparison, and as its one FLOP
    total = batch_seconds(operators, Worker(toy, 10, 1)).sum()
    assert total == pytest.approx(coarse_s + tables_s + scan_s + top_k_s)


def test_memory_demand_is_bytes_over_bandwidth_and_time() -> None:
    def work(units: float) -> tuple[Operator, ...]:
        return (Operator("norm", "elementwise", bytes=units * 1e9, dtype="fp32"),)

    curve = build_job_curve(work, Worker(processor(), 2, 1), max_units=3)
    assert curve.units.tolist() == [1, 2, 3]
    assert curve.seconds.sum(axis=1) == pytest.approx([0.05, 0.1, 0.15])
    assert curve.memory_demand == pytest.approx([0.4, 0.4, 0.4])


def test_eager_kernels_wait_for_the_host() -> None:
    """An accelerator's kernels take at least the time of launching them."""
    gpu = device("a100_sxm_80gb")
    tiny = Operator("norm", "elementwise", count=100, bytes=1e3, dtype="bf16")
    seconds = batch_seconds((tiny,), Worker(gpu, gpu.num_cores, 1))
    assert seconds.sum() == pytest.approx(100 * gpu.cost_model.kernel_launch_s)
    assert seconds[HOST] > 0
    large = Operator("norm", "elementwise", bytes=1e9, dtype="bf16")
    assert batch_seconds((large,), Worker(gpu, gpu.num_cores, 1))[HOST] == 0.0


def test_work_without_operators_takes_no_time() -> None:
    curve = build_job_curve(lambda units: (), Worker(processor(), 1, 1), max_units=1)
    assert curve.seconds.tolist() == [[0.0] * 4]
    assert curve.memory_demand.tolist() == [0.0]


def test_dtype_that_a_device_lacks_runs_wider_or_in_its_widest() -> None:
    assert Worker(device("epyc_7742"), 64, 1).multiplied_as("bf16") == "fp32"
    assert Worker(device("dcim_3nm"), 1, 1).multiplied_as("fp32") == "bf16"


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize(
    ("device_name", "cores"), [("epyc_7742", 8), ("xeon_8480plus", 56), ("a100_sxm_80gb", 108), ("dcim_3nm", 4608)]
)
def test_curve_is_monotone_bounded_and_complete(name: str, device_name: str, cores: int) -> None:
    on, stage = device(device_name), example(name)
    per_job = float(stage.units(np.array([100]))[0]) or 1000.0
    curve = curve_of(name, on, cores)
    totals = curve.seconds.sum(axis=1)
    assert curve.units[0] == 1.0
    assert curve.units[-1] == np.ceil(per_job * 16)
    assert len(curve.units) <= 256
    assert (np.diff(curve.units) > 0).all()
    assert (np.diff(totals) >= -1e-15).all()
    assert (curve.seconds >= 0).all()
    assert ((curve.memory_demand >= 0) & (curve.memory_demand <= 1)).all()
    worker = Worker(on, cores, 1)
    rooflines = [
        sum(
            max(op.total_flops / worker.flops_per_s(op.dtype), moved(op, worker) / worker.total_bytes_per_s)
            for op in stage.work(float(units), min(per_job, float(units)), MODELS)
        )
        for units in curve.units
    ]
    for place, total in enumerate(totals):  # a batch may be padded to a larger one, which is one product
        assert total >= min(rooflines[place:]) * (1 - 1e-12)


@pytest.mark.parametrize("name", JOBS)
def test_more_cores_are_never_slower(name: str) -> None:
    on = device("epyc_7742")
    few, many = (curve_of(name, on, cores).seconds.sum(axis=1) for cores in (8, 64))
    assert (many <= few * (1 + 1e-12)).all()


def test_encoder_on_a_processor_is_compute_bound_at_its_efficiency() -> None:
    on = device("epyc_7742")
    curve = curve_of("embed", on, 64)
    stage = example("embed")
    flops = sum(op.total_flops for op in stage.work(1024.0, 64.0, MODELS) if op.kind == "gemm")
    limit_s = flops / (on.peak_flops_per_s["fp32"] * gemm_efficiency(on, "fp32").compute_frac)
    assert curve.seconds[-1, COMPUTE] == pytest.approx(limit_s, rel=0.1)


def _scaled(on: Device, factor: float) -> Device:
    peaks = {dtype: peak * factor for dtype, peak in on.peak_flops_per_s.items()}
    memory = on.memory.model_copy(update={"bandwidth_bytes_per_s": on.memory.bandwidth_bytes_per_s * factor})
    rate = on.scan_rate_bytes_per_s_per_core
    scaled = {"scan_rate_bytes_per_s_per_core": rate * factor} if rate else {}
    return on.model_copy(update={"peak_flops_per_s": peaks, "memory": memory, **scaled})


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("device_name", ["epyc_7742", "a100_sxm_80gb"])
def test_a_faster_device_is_never_slower(name: str, device_name: str) -> None:
    on = device(device_name)
    slow, quick = (curve_of(name, which, on.num_cores).seconds.sum(axis=1) for which in (on, _scaled(on, 2.0)))
    assert (quick <= slow * (1 + 1e-12)).all()
