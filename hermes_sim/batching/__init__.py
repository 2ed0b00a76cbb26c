"""Who runs in a step. One file a policy; this table is the list."""

from __future__ import annotations

from hermes_sim.batching.chunked_prefill import ChunkedPrefill
from hermes_sim.batching.continuous import Continuous
from hermes_sim.batching.decode_first import DecodeFirst
from hermes_sim.batching.layered_prefill import LayeredPrefill
from hermes_sim.batching.mixed_pool import MixedPool
from hermes_sim.batching.padded import Padded
from hermes_sim.batching.policy import PADDINGS, QUEUE_ORDERS, DynamicBatching, Switches, TokenBatching
from hermes_sim.batching.prefill_first import PrefillFirst
from hermes_sim.batching.prepacked import Prepacked
from hermes_sim.batching.static import Static

TOKEN_POLICIES: dict[str, type[TokenBatching]] = {
    "chunked_prefill": ChunkedPrefill,
    "continuous": Continuous,
    "prefill_first": PrefillFirst,
    "decode_first": DecodeFirst,
    "mixed_pool": MixedPool,
    "static": Static,
    "padded": Padded,
    "prepacked": Prepacked,
    "layered_prefill": LayeredPrefill,
}
JOB_POLICIES: dict[str, type[DynamicBatching]] = {"dynamic": DynamicBatching}

__all__ = [
    "JOB_POLICIES",
    "PADDINGS",
    "QUEUE_ORDERS",
    "TOKEN_POLICIES",
    "DynamicBatching",
    "Switches",
    "TokenBatching",
]
