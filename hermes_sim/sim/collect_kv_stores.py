"""What KV stores were asked, found, sent, got and gave up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.state.kv_chunks import NUM_EVICTED, NUM_EXPIRED, PEAK_BYTES, USED_BYTES


def kv_store_table(coordinator: Coordinator, duration_s: float) -> Table | None:
    """One row per instance; None where no stage of the workload asks one."""
    if coordinator.retrievals is None:
        return None
    instances = coordinator.retrievals.stores.instances
    asked, hit = (counts([getattr(one, name) for one in instances]) for name in ("num_asked_tokens", "num_hit_tokens"))
    moved = {name: np.array([getattr(one, name) for one in instances]) for name in ("read_bytes", "written_bytes")}
    reads_at, writes_at = (
        np.array([one.read_link.bandwidth_bytes_per_s for one in instances]) * duration_s,
        np.array([one.write_link.bandwidth_bytes_per_s for one in instances]) * duration_s,
    )
    zeros = np.zeros(len(instances))
    return {
        "store": np.array([one.name for one in instances], object),
        "medium": np.array([one.store.medium for one in instances], object),
        "num_asked_tokens": asked,
        "num_hit_tokens": hit,
        "hit_frac": np.divide(hit, asked, out=np.full(len(asked), np.nan), where=asked > 0),
        "num_read_tokens": counts([one.num_read_tokens for one in instances]),
        **moved,
        "num_written_chunks": counts([one.num_written_chunks for one in instances]),
        "num_evicted_chunks": counts([int(one.chunks.numbers[NUM_EVICTED]) for one in instances]),
        "num_expired_chunks": counts([int(one.chunks.numbers[NUM_EXPIRED]) for one in instances]),
        "read_utilization_frac": np.divide(moved["read_bytes"], reads_at, out=zeros.copy(), where=reads_at > 0),
        "write_utilization_frac": np.divide(moved["written_bytes"], writes_at, out=zeros.copy(), where=writes_at > 0),
        "capacity_bytes": np.array([one.store.capacity_bytes for one in instances]),
        "used_bytes": np.array([float(one.chunks.amounts[USED_BYTES]) for one in instances]),
        "peak_used_bytes": np.array([float(one.chunks.amounts[PEAK_BYTES]) for one in instances]),
    }


def counts(values: list[int]) -> npt.NDArray[np.int64]:
    """[num_instances]"""
    return np.array(values, np.int64)
