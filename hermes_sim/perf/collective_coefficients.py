"""Numbers of a link's collectives in the order in which compiled cost functions read them."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary
from hermes_sim.hardware.network import GroupLink
from hermes_sim.perf.operators import collective

FloatArray = npt.NDArray[np.float64]

NOT_FITTED: FloatArray = np.zeros(collective.NUM_COLLECTIVE_COEFFICIENTS)
"""The model of latency and bandwidth stands in."""


NO_GROUP: FloatArray = np.zeros(collective.NUM_GROUP_NUMBERS)
"""One node, its devices' bandwidth and latency stated otherwise."""

Algorithm = Literal["auto", "ring", "tree", "direct", "in_switch", "hierarchical"]
"""Of an all-reduce, in the order of the numbers of perf/operators/collective.py."""


class Collectives(NamedTuple):
    """[NUM_COLLECTIVE_COEFFICIENTS] each but the last, in the order of the settings of perf/operator_rows.py."""

    tp_all_reduce: FloatArray = NOT_FITTED
    tp_all_gather: FloatArray = NOT_FITTED
    ep_all_to_all: FloatArray = NOT_FITTED
    tp_reduce_scatter: FloatArray = NOT_FITTED
    tp_group: FloatArray = NO_GROUP
    """[NUM_GROUP_NUMBERS]"""


FROM_BANDWIDTH = Collectives()
"""Nothing is fitted."""


def group_collectives(
    tensor: GroupLink, experts: GroupLink, library: KernelLibrary, algorithm: Algorithm = "auto"
) -> Collectives:
    """Those of an engine: its own all-reduce, NCCL for the rest; an algorithm that it asks for has its closed form."""
    is_auto = algorithm == "auto"
    return Collectives(
        tp_all_reduce=collective_coefficients(tensor, library, "all_reduce") if is_auto else NOT_FITTED,
        tp_all_gather=collective_coefficients(tensor, "nccl", "all_gather"),
        ep_all_to_all=collective_coefficients(experts, "nccl", "all_to_all"),
        tp_reduce_scatter=collective_coefficients(tensor, "nccl", "reduce_scatter"),
        tp_group=NO_GROUP if is_auto and not tensor.crosses_nodes else group_numbers(tensor, algorithm),
    )


def group_numbers(link: GroupLink, algorithm: Algorithm) -> FloatArray:
    """[NUM_GROUP_NUMBERS] of a tensor-parallel group."""
    numbers = np.zeros(collective.NUM_GROUP_NUMBERS)
    numbers[collective.GROUP_ALGORITHM] = get_args(Algorithm).index(algorithm)
    numbers[collective.GROUP_NODES] = link.num_nodes
    if link.crosses_nodes:
        numbers[collective.GROUP_INSIDE_BANDWIDTH] = link.inside_bytes_per_s
        numbers[collective.GROUP_INSIDE_LATENCY_S] = link.inside_latency_s
        numbers[collective.GROUP_ACROSS_BANDWIDTH] = link.across_bytes_per_s
        numbers[collective.GROUP_ACROSS_LATENCY_S] = link.latency_s
    else:
        numbers[collective.GROUP_INSIDE_BANDWIDTH] = link.bandwidth_bytes_per_s
        numbers[collective.GROUP_INSIDE_LATENCY_S] = link.latency_s
    return numbers


def collective_coefficients(link: GroupLink, library: KernelLibrary, kind: CollectiveKind) -> FloatArray:
    """[NUM_COLLECTIVE_COEFFICIENTS] of the library, else of NCCL, which every engine falls back to; else NOT_FITTED."""
    candidates: tuple[KernelLibrary, ...] = (library, "nccl")
    for candidate in candidates:
        efficiency = link.collectives.get(candidate, {}).get(kind)
        if efficiency is not None:
            return pack(efficiency, link.peak_bytes_per_s)
    return NOT_FITTED


def pack(efficiency: CollectiveEfficiency, peak_bytes_per_s: float) -> FloatArray:
    """[NUM_COLLECTIVE_COEFFICIENTS] from named coefficients and the peak of one device's port."""
    values = np.zeros(collective.NUM_COLLECTIVE_COEFFICIENTS)
    values[collective.BANDWIDTH] = peak_bytes_per_s
    values[collective.SMALL_LATENCY_S] = efficiency.small_latency_s
    values[collective.SMALL_PEER_S] = efficiency.small_peer_s
    values[collective.SMALL_FRAC] = efficiency.small_frac
    values[collective.LARGE_LATENCY_S] = efficiency.large_latency_s
    values[collective.LARGE_PEER_S] = efficiency.large_peer_s
    values[collective.LARGE_FRAC] = efficiency.large_frac
    values[collective.RING_LATENCY_S] = efficiency.ring_latency_s
    values[collective.RING_PEER_S] = efficiency.ring_peer_s
    values[collective.RING_FRAC] = efficiency.ring_frac
    values[collective.IN_SWITCH_FRAC] = efficiency.in_switch_frac
    values[collective.CONTENTION] = efficiency.contention
    values[collective.OWN_LIMIT] = efficiency.own_limit_bytes or 0.0
    return values
