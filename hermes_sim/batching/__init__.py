"""Who runs in a step. One file a policy; this table is the list."""

from __future__ import annotations

from hermes_sim.batching.chunked_prefill import ChunkedPrefill
from hermes_sim.batching.continuous import Continuous
from hermes_sim.batching.policy import DynamicBatching, Switches, TokenBatching

TOKEN_POLICIES: dict[str, type[TokenBatching]] = {
    "chunked_prefill": ChunkedPrefill,
    "continuous": Continuous,
}
JOB_POLICIES: dict[str, type[DynamicBatching]] = {"dynamic": DynamicBatching}

__all__ = ["JOB_POLICIES", "TOKEN_POLICIES", "DynamicBatching", "Switches", "TokenBatching"]
