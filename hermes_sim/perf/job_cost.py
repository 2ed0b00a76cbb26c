"""Cost of whole jobs (embedding, search, reranking) on a share of a device, as a curve over the work of a batch.

Each operator takes the longer of its compute time and its memory time (Williams et al., "Roofline", CACM 2009) on
the cores of one worker. Compute scales with the cores; memory bandwidth belongs to the whole device, and one worker
draws no more of it than its cores can. Vector searches: perf/search_cost.py; products in compute-in-memory arrays:
perf/job_arrays.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import DTYPE_BYTES
from hermes_sim.models.operator import Operator
from hermes_sim.perf.coefficients import gemm_coefficients, gemm_efficiency
from hermes_sim.perf.job_arrays import multiplies_weights, product_on_array
from hermes_sim.perf.operator_table import BOUNDS, OperatorCost, Provenance
from hermes_sim.perf.operators import gemm
from hermes_sim.perf.search_cost import compare_seconds, missed_frac, search_efficiency, search_seconds
from hermes_sim.perf.unit import Unit
from hermes_sim.perf.worker import COMPUTE, HOST, MEMORY, NUM_RESOURCES, Worker

FloatArray = npt.NDArray[np.float64]
Work = Callable[[float], tuple[Operator, ...]]
"""Units of a batch -> its operators."""

NUM_EXACT_POINTS = 64
"""Batches of up to this many units are priced one by one; larger ones on a grid."""
GRID_RATIO = 1.1
MAX_POINTS = 256


@dataclass(frozen=True, slots=True)
class JobCurve:
    """Time of a batch of jobs alone on one worker, over its units of work; linear between the points."""

    units: FloatArray
    """[num_points], ascending."""
    seconds: FloatArray
    """[num_points, NUM_RESOURCES] by limiting resource: compute, memory, network, host; the sum is the batch's time."""
    memory_demand: FloatArray
    """[num_points] share of the devices' memory bandwidth that the batch draws while alone, 0 to 1."""
    active_j: FloatArray
    """[num_points] above idle, where the worker has an array that counts energy by operation; else 0: power and seconds
    say it all."""


def build_job_curve(work: Work, worker: Worker, *, max_units: float) -> JobCurve:
    """Curve of one worker, up to batches of `max_units`.

    Work without operators (stages that state their time) costs nothing here.
    """
    units = _grid(max_units)
    batches = [work(float(total)) for total in units]
    seconds = np.array([batch_seconds(operators, worker) for operators in batches])
    for point in range(len(units) - 2, -1, -1):
        # More tiles can use more cores: where a larger batch is faster, the smaller one is padded to it.
        if seconds[point].sum() > seconds[point + 1].sum():
            seconds[point] = seconds[point + 1]
    moved_bytes = np.array([sum(moved(operator, worker) for operator in operators) for operators in batches])
    capacity_bytes = worker.total_bytes_per_s * seconds.sum(axis=1)
    demand = np.divide(moved_bytes, capacity_bytes, out=np.zeros(len(units)), where=capacity_bytes > 0.0)
    active_j = np.array([active_joules(operators, worker) for operators in batches])
    return JobCurve(units, seconds, np.minimum(demand, 1.0), active_j)


def active_joules(operators: tuple[Operator, ...], worker: Worker) -> float:
    """Above idle, of a worker with an array: its products by their bits, all else by the power while that limits."""
    if worker.array is None:
        return 0.0
    active_w = Unit("", worker.device, 1).active_w * (worker.num_cores / worker.device.num_cores)
    total_j = 0.0
    for operator in operators:
        if multiplies_weights(operator):
            rows = np.array([float(operator.m)])
            total_j += float(product_on_array(operator, worker.array, worker).joules_of(rows)[0])
        else:
            resource, taken_s = operator_seconds(operator, worker)
            total_j += taken_s * active_w[resource]
    return float(total_j)


def moved(operator: Operator, worker: Worker) -> float:
    """Bytes over the memory's interface: not what a search finds in caches, nor what units at the banks read."""
    if worker.array is not None and multiplies_weights(operator):
        rows = np.array([float(operator.m)])
        return float(product_on_array(operator, worker.array, worker).bytes(np.ones(1), rows)[0])
    if operator.search is None:
        return operator.total_bytes
    if worker.at_the_banks:
        return 0.0
    return operator.total_bytes * missed_frac(operator.search, worker.device)


def activation_bytes(operators: tuple[Operator, ...]) -> float:
    """Read and written by the largest operator of a batch beside its weights; searches' vectors lie in their index."""
    return max((_activation_bytes(one) for one in operators if one.search is None), default=0.0)


def _activation_bytes(operator: Operator) -> float:
    if operator.kind != "gemm":
        return operator.bytes_per_call
    return (float(operator.m) * operator.k + float(operator.m) * operator.n) * DTYPE_BYTES[operator.dtype]


def batch_seconds(operators: tuple[Operator, ...], worker: Worker) -> FloatArray:
    """[NUM_RESOURCES] seconds of the operators one after another, by what limits each.

    On an accelerator kernels are launched eagerly: where launching them takes longer than running them, the rest is
    host time. Arrays run a program of their own.
    """
    seconds = np.zeros(NUM_RESOURCES)
    for operator in operators:
        resource, taken_s = operator_seconds(operator, worker)
        seconds[resource] += taken_s
    if any(operator.search is not None for operator in operators):
        seconds[HOST] += search_efficiency(worker.device).call_s
    if worker.device.kind != "cpu":
        launched = (one for one in operators if worker.array is None or not multiplies_weights(one))
        num_kernels = sum(operator.count for operator in launched)
        launching_s = num_kernels * worker.device.cost_model.kernel_launch_s
        seconds[HOST] += max(0.0, launching_s - float(seconds.sum()))
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
    if operator.search is not None:
        if (worker.device.kind == "cpu" and not operator.search.is_product) or operator.kind != "gemm":
            return search_seconds(operator, worker)
        resource, product_s = operator_seconds(replace(operator, search=None), replace(worker, array=None))
        return resource, product_s + compare_seconds(operator, worker)
    if worker.array is not None and multiplies_weights(operator):
        taken_s, resource = product_on_array(operator, worker.array, worker).seconds(0, operator.m)
        return resource, taken_s
    if operator.core_s > 0.0:
        return COMPUTE, operator.count * operator.core_s / min(worker.num_cores, operator.num_groups)
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


def _grid(max_units: float) -> FloatArray:
    """One, two, three ... units, then growing by GRID_RATIO, up to `max_units` itself."""
    last = max(1, ceil(max_units))
    points = [float(unit) for unit in range(1, min(last, NUM_EXACT_POINTS) + 1)]
    while points[-1] < last and len(points) < MAX_POINTS - 1:
        points.append(min(float(last), float(ceil(points[-1] * GRID_RATIO))))
    if points[-1] < last:
        points.append(float(last))
    return np.array(points)
