"""Whole jobs on compute-in-memory devices: products with weights in the arrays' cells, all else on the companion.

Equations are those of language models (perf/array_operators.py, docs/compute-in-memory.md). As everywhere in jobs, the
devices of a replica are one large one, and a worker has its share of it: macros, write ports and power.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hermes_sim.core.schema import DTYPE_BYTES
from hermes_sim.hardware.cim_array import AnalogArray
from hermes_sim.hardware.device import Device, beside_the_array
from hermes_sim.models.operator import Operator
from hermes_sim.perf.array_operators import Array, ArrayOperators, array_products, total_tiles
from hermes_sim.perf.worker import Worker

Pass = tuple[Operator, ...]
"""Operators of one pass through a network."""


def multiplies_weights(operator: Operator) -> bool:
    """A product whose second matrix stays from batch to batch: not a search, which brings its own."""
    return operator.kind == "gemm" and operator.search is None


def on_arrays(worker: Worker, passes: Sequence[Pass]) -> Worker:
    """The worker with its cells as one array, and what stands beside them as its device; others as they are.

    passes: one through each network that the engine keeps. KeyError for a dtype that the array does not multiply.
    """
    array = array_share(worker.device, worker.num_cores)
    if array is None:
        return worker
    tiles = needed_tiles(passes, array)
    stays_frac = min(num_tiles(array) / tiles, 1.0) if tiles > 0.0 else 1.0
    return replace(worker, device=beside_the_array(worker.device), array=array, weights_stay_frac=stays_frac)


def array_share(device: Device, num_cores: int) -> Array | None:
    """The macros of so many cores of one or more such devices as one array; None: the device has none."""
    array = device.array
    if array is None or num_cores == device.num_cores:
        return array
    share = num_cores / device.num_cores
    number = max(array.num_macros * num_cores // device.num_cores, 1)
    power_w = None if array.power_limit_w is None else share * array.power_limit_w
    if isinstance(array, AnalogArray):
        return array.model_copy(update={"num_tiles": number, "power_limit_w": power_w})
    ports = share * array.write_bytes_per_s
    return array.model_copy(update={"num_macros": number, "write_bytes_per_s": ports, "power_limit_w": power_w})


def num_tiles(array: Array) -> float:
    """Macros, tiers of tiles counted each."""
    return float(array.num_macros * array.num_tiers)


def needed_tiles(passes: Iterable[Pass], array: Array) -> float:
    """Macros (tiers of tiles) that the weights of these networks take; KeyError for a dtype that is not multiplied."""
    products = [[one for one in operators if multiplies_weights(one)] for operators in passes]
    return sum(total_tiles(array_products(some, array, 1), array) for some in products)


def product_weight_bytes(passes: Iterable[Pass]) -> float:
    """Of the weights of all products: what a device whose array holds them does not keep in its memory."""
    return sum(
        float(one.count) * one.num_groups * one.n * one.k * DTYPE_BYTES[one.weight_dtype or one.dtype]
        for operators in passes
        for one in operators
        if multiplies_weights(one)
    )


def product_on_array(operator: Operator, array: Array, worker: Worker) -> ArrayOperators:
    """One product of a batch, priced at a count of one. Rows of experts are taken to choose them one by one."""
    num_experts = float(operator.num_groups) if operator.num_groups > 1 else 0.0
    return ArrayOperators(
        array=array,
        num_devices=1,
        products=array_products([operator], array, operator.m, num_experts=num_experts, experts_per_token=1.0),
        names=(operator.name,),
        activation_bytes=DTYPE_BYTES[operator.dtype],
        stays_frac=worker.weights_stay_frac,
        read_bytes_per_s=worker.bytes_per_s,
    )
