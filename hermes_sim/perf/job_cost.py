"""Cost of whole jobs (embedding, search, reranking) on a share of a device, as a curve over the work of a batch.

Each operator takes the longer of its compute time and its memory time (Williams et al., "Roofline", CACM 2009) on
the cores of one worker. Compute scales with the cores; memory bandwidth belongs to the whole device, and one worker
draws no more of it than its cores can. Searches follow RAGO's retrieval model (arXiv 2503.14649, section 4): a scan
takes max(bytes / (cores x scan rate of a core), bytes / memory bandwidth).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.models.operator import Operator
from hermes_sim.perf.coefficients import gemm_coefficients, gemm_efficiency, supported_dtype
from hermes_sim.perf.operator_table import BOUNDS, OperatorCost, Provenance
from hermes_sim.perf.operators import gemm

FloatArray = npt.NDArray[np.float64]
Work = Callable[[float], tuple[Operator, ...]]
"""Units of a batch -> its operators."""

COMPUTE, MEMORY, NETWORK, HOST = 0, 1, 2, 3
NUM_RESOURCES = 4

NUM_EXACT_POINTS = 64
"""Batches of up to this many units are priced one by one; larger ones on a grid."""
GRID_RATIO = 1.1
MAX_POINTS = 256

CPU_ACCESS_S = 100e-9
"""Load from local DRAM on a server processor, translation included: a typical figure, no measurement of ours."""
DEVICE_ACCESS_S = 600e-9
"""Load from device memory on a GPU: a typical figure, no measurement of ours."""
SEARCHES_PER_CORE = {"cpu": 1, "gpu": 8, "tpu": 1, "cim": 1}
"""Graph searches that one core keeps in flight; the thread blocks of a GPU hide each other's latency."""


@dataclass(frozen=True, slots=True)
class JobCurve:
    """Time of a batch of jobs alone on one worker, over its units of work; linear between the points."""

    units: FloatArray
    """[num_points], ascending."""
    seconds: FloatArray
    """[num_points, NUM_RESOURCES] by limiting resource: compute, memory, network, host; the sum is the batch's time."""
    memory_demand: FloatArray
    """[num_points] share of the devices' memory bandwidth that the batch draws while alone, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Worker:
    """The share of a replica's devices that one batch runs on."""

    device: Device
    num_cores: int
    num_devices: int

    @property
    def total_bytes_per_s(self) -> float:
        """Memory bandwidth of all devices together."""
        return self.num_devices * self.device.memory.bandwidth_bytes_per_s

    @property
    def bytes_per_s(self) -> float:
        """Memory bandwidth that the worker's cores can draw while the others are idle.

        One core draws its scan rate where the device states one, else `core_streams` shares of the bandwidth.
        """
        device = self.device
        per_core = device.scan_rate_bytes_per_s_per_core
        if per_core is None:
            streams = next(iter(device.cost_model.gemm.values())).core_streams
            per_core = streams * device.memory.bandwidth_bytes_per_s / device.num_cores
        return min(self.total_bytes_per_s, self.num_cores * per_core)

    def flops_per_s(self, dtype: Dtype) -> float:
        """Dense peak of the worker's cores."""
        return self.device.peak_flops_per_s[self.multiplied_as(dtype)] * self.num_cores / self.device.num_cores

    def multiplied_as(self, dtype: Dtype) -> Dtype:
        """The dtype itself, a wider one, else the widest that the device has."""
        supported = supported_dtype(self.device, dtype)
        if supported is not None:
            return supported
        return max(self.device.peak_flops_per_s, key=lambda held: DTYPE_BYTES[held])


def build_job_curve(work: Work, device: Device, *, cores: int, num_devices: int, max_units: float) -> JobCurve:
    """Curve of one worker with `cores` of the cores of `num_devices` equal devices, up to batches of `max_units`.

    Work without operators (stages that state their time) costs nothing here.
    """
    worker = Worker(device, cores, num_devices)
    units = _grid(max_units)
    batches = [work(float(total)) for total in units]
    seconds = np.array([batch_seconds(operators, worker) for operators in batches])
    for point in range(len(units) - 2, -1, -1):
        # More tiles can use more cores: where a larger batch is faster, the smaller one is padded to it.
        if seconds[point].sum() > seconds[point + 1].sum():
            seconds[point] = seconds[point + 1]
    moved_bytes = np.array([sum(operator.total_bytes for operator in operators) for operators in batches])
    capacity_bytes = worker.total_bytes_per_s * seconds.sum(axis=1)
    demand = np.divide(moved_bytes, capacity_bytes, out=np.zeros(len(units)), where=capacity_bytes > 0.0)
    return JobCurve(units, seconds, np.minimum(demand, 1.0))


def batch_seconds(operators: tuple[Operator, ...], worker: Worker) -> FloatArray:
    """[NUM_RESOURCES] seconds of the operators one after another, by what limits each.

    On an accelerator kernels are launched eagerly: where launching them takes longer than running them, the rest is
    host time.
    """
    seconds = np.zeros(NUM_RESOURCES)
    for operator in operators:
        resource, taken_s = operator_seconds(operator, worker)
        seconds[resource] += taken_s
    if worker.device.kind != "cpu":
        num_kernels = sum(operator.count for operator in operators)
        launching_s = num_kernels * worker.device.cost_model.kernel_launch_s
        seconds[HOST] = max(0.0, launching_s - float(seconds.sum()))
    return seconds


def job_operator_costs(operators: tuple[Operator, ...], worker: Worker) -> list[OperatorCost]:
    """The operators of one batch, one line each."""
    kind = worker.device.cost_model.source.kind
    provenance: Provenance = "estimate" if kind == "estimate" else "analytic"
    costs = []
    for operator in operators:
        resource, taken_s = operator_seconds(operator, worker)
        costs.append(
            OperatorCost(
                operator.name, operator.total_flops, operator.total_bytes, taken_s, BOUNDS[resource], provenance
            )
        )
    return costs


def operator_seconds(operator: Operator, worker: Worker) -> tuple[int, float]:
    """The resource that limits all calls of one operator, and their seconds."""
    if operator.random_accesses > 0.0:
        return _walk_seconds(operator, worker)
    if operator.kind == "gemm" and worker.device.kind != "cpu":
        return _tiled_gemm_seconds(operator, worker)
    compute_s, memory_s, launch_s = _roofline(operator, worker)
    resource = COMPUTE if compute_s > memory_s else MEMORY
    return resource, max(compute_s, memory_s) + operator.count * launch_s


def _roofline(operator: Operator, worker: Worker) -> tuple[float, float, float]:
    """Compute and memory time of all calls, and the fixed time of one."""
    cost = worker.device.cost_model
    gemm_cost = gemm_efficiency(worker.device, worker.multiplied_as(operator.dtype))
    compute_frac, memory_frac, launch_s = {
        "gemm": (gemm_cost.compute_frac, gemm_cost.memory_frac, gemm_cost.launch_s),
        "attention": (cost.attention_prefill_compute_frac, cost.elementwise_memory_frac, cost.elementwise_launch_s),
    }.get(operator.kind, (gemm_cost.compute_frac, cost.elementwise_memory_frac, cost.elementwise_launch_s))
    compute_s = operator.total_flops / (worker.flops_per_s(operator.dtype) * compute_frac)
    memory_s = operator.total_bytes / (worker.bytes_per_s * memory_frac)
    scan_rate = worker.device.scan_rate_bytes_per_s_per_core
    if operator.kind == "scan" and scan_rate is not None:
        # The rate of look-ups and additions over codes in cache: a limit of the cores, not of memory.
        compute_s = max(compute_s, operator.total_bytes / (worker.num_cores * scan_rate))
    return compute_s, memory_s, launch_s


def _tiled_gemm_seconds(operator: Operator, worker: Worker) -> tuple[int, float]:
    """Accelerators: tiles and waves on the worker's cores (perf/operators/gemm.py), the devices as one large one."""
    coefficients = gemm_coefficients(worker.device, worker.multiplied_as(operator.dtype))
    coefficients[gemm.PEAK] = worker.flops_per_s(operator.dtype)
    coefficients[gemm.BANDWIDTH] = worker.bytes_per_s
    coefficients[gemm.NUM_CORES] = worker.num_cores
    weight_bytes = float(operator.n) * operator.k * DTYPE_BYTES[operator.dtype]
    weight_bytes = min(weight_bytes, operator.bytes_per_call)
    taken_s, is_compute = gemm.gemm_seconds(
        float(operator.m),
        float(operator.n),
        float(operator.k),
        1.0,
        weight_bytes,
        operator.bytes_per_call - weight_bytes,
        coefficients,
    )
    return (COMPUTE if is_compute else MEMORY), operator.count * taken_s


def _walk_seconds(operator: Operator, worker: Worker) -> tuple[int, float]:
    """Graph search: the hops of one query follow each other, queries run side by side on the cores.

    One query takes hops x access latency plus its arithmetic on its core; all of them no less than their bytes over the
    bandwidth. Source: arXiv 1603.09320, section 4 (greedy search, one candidate after another).
    """
    device = worker.device
    access_s = CPU_ACCESS_S if device.kind == "cpu" else DEVICE_ACCESS_S
    lanes = worker.num_cores * SEARCHES_PER_CORE[device.kind]
    efficiency = gemm_efficiency(device, worker.multiplied_as(operator.dtype))
    lane_flops_per_s = worker.flops_per_s(operator.dtype) * efficiency.compute_frac / lanes
    query_s = operator.random_accesses * access_s + operator.flops_per_call / operator.num_groups / lane_flops_per_s
    walks_s = operator.count * ceil(operator.num_groups / lanes) * query_s
    memory_s = operator.total_bytes / (worker.bytes_per_s * device.cost_model.elementwise_memory_frac)
    return MEMORY, max(walks_s, memory_s) + operator.count * device.cost_model.elementwise_launch_s


def _grid(max_units: float) -> FloatArray:
    """One, two, three ... units, then growing by GRID_RATIO, up to `max_units` itself."""
    last = max(1, ceil(max_units))
    points = [float(unit) for unit in range(1, min(last, NUM_EXACT_POINTS) + 1)]
    while points[-1] < last and len(points) < MAX_POINTS - 1:
        points.append(min(float(last), float(ceil(points[-1] * GRID_RATIO))))
    if points[-1] < last:
        points.append(float(last))
    return np.array(points)
